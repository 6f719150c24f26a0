"""The overview: what there is, how the last run was, and a way to a user, by id or by what is said of them."""

from typing import Annotated, NamedTuple

from fastapi import Query, Request
from pydantic import AfterValidator
from starlette.responses import Response

from agent.errors import ModelError
from api import runtime
from api.http.auth import Reader, note
from api.http.ids import ItemId, storable
from api.http.paging import After
from api.http.problems import Problem
from api.http.routes.items import read_item
from api.http.routes.search import search_users
from api.http.routes.users import list_users
from api.http.state import StateDep
from api.pages.rendering import is_swap, page_router, render
from store import figures, jobs, models, overview
from store.jobs import Tally
from store.tables import JobRow

router = page_router()
_USERS, _FOUND, _RECENT = 50, 20, 50

Sought = Annotated[str, Query(max_length=1_000), AfterValidator(storable)]


class LastRun(NamedTuple):
    """How the last run of profiles was."""

    job: JobRow
    counts: dict[str, int]
    tokens: int
    tally: Tally


@router.get("/")
def overview_page(state: StateDep, _caller: Reader, request: Request) -> Response:
    """The overview."""
    with state.database.session() as session:
        users, events, items = (overview.count(session, table) for table in ("users", "events", "items"))
        written = overview.profiles(session, runtime.now())
        spent = overview.spend(session)
        recent = jobs.page(session, _RECENT)
        model = models.active_model(session)
    last = next((job for job in recent if job.kind == "profiles" and job.finished_at is not None), None)
    looked = figures.look(state.database)
    return render(
        request.scope,
        "overview.html",
        users=users,
        events=events,
        items=items,
        written=written,
        spent=spent,
        last=_last(last) if last else None,
        queue=looked.queue,
        open_jobs=[job for job in recent if job.finished_at is None],
        model=model,
    )


@router.get("/users")
def users_page(state: StateDep, caller: Reader, request: Request, after: After = None) -> Response:
    """All users, a page at a time."""
    page = list_users(state, caller, _USERS, after)
    return render(request.scope, "users.html", page=page, after=after)


@router.get("/search")
def search_page(state: StateDep, caller: Reader, request: Request, q: Sought = "") -> Response:
    """Users by id; those by meaning are loaded after the page."""
    sought = q.strip()
    by_id: list[str] = []
    if sought:
        with state.database.session() as session:
            by_id = overview.users_starting_with(session, sought, _FOUND)
        note(state, caller, "search_users_by_id", by_id, durable=False)
    return render(request.scope, "search.html", sought=sought, by_id=by_id, may_search=caller.may("admin"))


@router.get("/search/meaning")
def meaning_page(state: StateDep, caller: Reader, request: Request, q: Sought = "") -> Response:
    """Users by what is said of them."""
    caller.require("admin")
    try:
        found = search_users(state, caller, q.strip(), _FOUND).items if q.strip() else []
    except ModelError as error:
        raise Problem(503, "embedder", str(error)) from error
    name = "_meaning.html" if is_swap(request) else "meaning.html"
    return render(request.scope, name, sought=q.strip(), found=found)


@router.get("/items/{item_id}")
def item_page(item_id: ItemId, state: StateDep, caller: Reader, request: Request) -> Response:
    """An item."""
    return render(request.scope, "item.html", item=read_item(item_id, state, caller))


def _last(job: JobRow) -> LastRun:
    result = job.result
    return LastRun(job, result.get("counts", {}), int(result.get("tokens", 0)), Tally(**result.get("tally", {})))
