"""A user's likeness: what is said of them, what it rests on, and what they say to it."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import Form, Path, Query, Request
from pydantic import AfterValidator, Field
from sqlmodel import Session
from starlette.responses import Response

from agent.errors import ModelError
from api import runtime
from api.contract import Corrected, ProfileVersion
from api.correcting import LONGEST, correct, own_words
from api.http.auth import UserEditor, UserReader, UserWriter
from api.http.ids import ClaimId, UserId
from api.http.routes.claims import CorrectionId, make_change
from api.http.routes.profiles import consenting, diff_profile, list_profile_versions
from api.http.state import State, StateDep
from api.pages import likeness_view
from api.pages.rendering import is_swap, page_router, render, see, segment
from api.queue import enqueue_profiles
from recommend.comparing import TOP
from recommend.contract import Recommendations
from recommend.errors import NoModelError
from store import corrections, declared, timeline

router = page_router()
_VERSIONS = 50

Words = Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(own_words), Form()]
MaybeWords = Annotated[
    str | None, AfterValidator(lambda text: own_words(text) if text and text.strip() else None), Form()
]
OfVersion = Annotated[int | None, Query(ge=1, lt=1 << 31)]
Asked = Literal["reject", "less", "pin"]


@router.get("/users/{user_id}")
def likeness_page(
    user_id: UserId,
    state: StateDep,
    caller: UserReader,
    request: Request,
    from_version: OfVersion = None,
    to_version: OfVersion = None,
) -> Response:
    """The whole page; recommendations beside it are loaded after it."""
    with state.database.session() as session:
        user = declared.read(session, user_id)
    if not user.consent:
        return render(request.scope, "no_consent.html", user_id=user_id)
    versions = list_profile_versions(user_id, state, caller, _VERSIONS).items
    with state.database.session() as session:
        week = timeline.week(session, user_id)
    context = _claims(state, user_id) | {
        "user": user,
        "week": week if any(map(any, week)) else None,
        "versions": versions,
        "may_write": caller.may("write", user_id),
        "may_edit": caller.may("write"),
    }
    return render(
        request.scope,
        "likeness.html",
        **context,
        **_changes(state, caller, user_id, versions, from_version, to_version),
    )


@router.get("/users/{user_id}/changes")
def changes_page(
    user_id: UserId,
    state: StateDep,
    caller: UserReader,
    request: Request,
    from_version: OfVersion = None,
    to_version: OfVersion = None,
) -> Response:
    """What changed between two versions."""
    if not is_swap(request):
        query = "&".join(f"{k}={v}" for k, v in (("from_version", from_version), ("to_version", to_version)) if v)
        return see(f"/users/{segment(user_id)}?{query}#versions")
    versions = list_profile_versions(user_id, state, caller, _VERSIONS).items
    found = _changes(state, caller, user_id, versions, from_version, to_version)
    return render(request.scope, "_changes.html", user_id=user_id, versions=versions, **found)


@router.get("/users/{user_id}/claims/{claim_id}/evidence")
def evidence_page(
    user_id: UserId,
    claim_id: ClaimId,
    state: StateDep,
    _caller: UserReader,
    request: Request,
    begin: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    against: Annotated[bool, Query()] = False,
) -> Response:
    """The events behind a claim, a page at a time."""
    consenting(state, user_id)
    with state.database.session() as session:
        page = likeness_view.evidence(session, user_id, claim_id, begin, against=against)
    name = "_evidence.html" if is_swap(request) else "evidence.html"
    return render(request.scope, name, user_id=user_id, claim_id=claim_id, page=page, begin=begin, against=against)


@router.get("/users/{user_id}/top")
def top_page(user_id: UserId, state: StateDep, _caller: UserReader, request: Request) -> Response:
    """The short list beside the likeness."""
    consenting(state, user_id)
    return render(request.scope, "_top.html", user_id=user_id, swapped=False, **_top(state, user_id))


@router.post("/users/{user_id}/claims")
def add_claim_by_form(
    user_id: UserId,
    state: StateDep,
    _caller: UserWriter,
    request: Request,
    name: Words,
    statement: MaybeWords = None,
    kind: Annotated[Literal["interest", "dislike"], Form()] = "interest",
) -> Response:
    """Add a claim."""
    return _change(
        state,
        request,
        user_id,
        lambda session: corrections.add(session, user_id, "add", kind, name, runtime.now(), statement=statement),
    )


@router.post("/users/{user_id}/claims/{claim_id}/rewrite")
def rewrite_claim_by_form(
    user_id: UserId,
    claim_id: ClaimId,
    state: StateDep,
    _caller: UserWriter,
    request: Request,
    name: Words,
    statement: Words,
) -> Response:
    """Put a claim into other words."""

    def change(session: Session) -> int:
        return correct(session, user_id, claim_id, "rewrite", new_name=name, new_statement=statement)

    return _change(state, request, user_id, change, ranks=False)


@router.post("/users/{user_id}/claims/{claim_id}/{action}")
def correct_claim_by_form(
    user_id: UserId,
    claim_id: ClaimId,
    action: Annotated[Asked, Path()],
    state: StateDep,
    _caller: UserWriter,
    request: Request,
) -> Response:
    """Reject a claim, ask for less of it, or pin it."""
    return _change(
        state,
        request,
        user_id,
        lambda session: correct(session, user_id, claim_id, action),
        ranks=action != "pin",
    )


@router.post("/users/{user_id}/corrections/{correction_id}/undo")
def undo_by_form(
    user_id: UserId, correction_id: CorrectionId, state: StateDep, _caller: UserWriter, request: Request
) -> Response:
    """Take a correction back."""

    def change(session: Session) -> int:
        corrections.undo(session, user_id, correction_id, runtime.now())
        return correction_id

    return _change(state, request, user_id, change)


@router.post("/users/{user_id}/refresh")
def refresh_by_form(
    user_id: UserId,
    state: StateDep,
    caller: UserEditor,
    writer: Annotated[Literal["llm", "template"], Form()] = "template",
) -> Response:
    """Have the profile written anew."""
    consenting(state, user_id)
    with state.database.session() as session:
        job_id = enqueue_profiles(session, [user_id], writer, created_by=caller.key_id)
    return see(f"/jobs/{job_id}")


def _change(
    state: State, request: Request, user_id: str, change: Callable[[Session], int], *, ranks: bool = True
) -> Response:
    corrected, _ = make_change(state, user_id, change, ranks=ranks)
    if not is_swap(request):
        return see(f"/users/{segment(user_id)}#claims")
    context = _claims(state, user_id) | _top(state, user_id, corrected)
    return render(request.scope, "_corrected.html", may_write=True, swapped=True, corrected=corrected, **context)


def _claims(state: State, user_id: str) -> dict[str, Any]:
    consenting(state, user_id)
    with state.database.session() as session:
        return {"user_id": user_id, "likeness": likeness_view.read(session, user_id)}


def _top(state: State, user_id: str, corrected: Corrected | None = None) -> dict[str, Any]:
    """Return the short list; where a correction was made, what it has moved."""
    found: Recommendations | None = None
    note = None
    try:
        found = state.recommender().top(user_id, TOP)
    except (NoModelError, ModelError) as error:
        note = str(error)
    moved = {change.item_id: change for change in (corrected.changes or [] if corrected else [])}
    return {"top": found, "note": note or (corrected and corrected.note), "moved": moved}


def _changes(
    state: State,
    caller: Any,
    user_id: str,
    versions: list[ProfileVersion],
    from_version: int | None,
    to_version: int | None,
) -> dict[str, Any]:
    """Return what changed between two versions: the last two, unless others are named."""
    known = [version.version for version in versions]
    if len(known) < 2:  # noqa: PLR2004 - there is nothing to compare
        return {"from_version": None, "to_version": None, "changes": None}
    to = to_version or known[0]
    before = from_version or next((version for version in known if version < to), known[-1])
    found = diff_profile(user_id, before, to, state, caller)
    return {"from_version": before, "to_version": to, "changes": found.changes}
