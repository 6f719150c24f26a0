"""Users: who they are as declared, and what they did."""

import zoneinfo
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, ConfigDict, Field, JsonValue
from sqlmodel import Session

from api.contract import DeclaredUser, ListedUser, LoggedEvent, Page, Wire
from api.http import etags, paging
from api.http.auth import Reader, UserEditor, UserReader, note
from api.http.ids import UserId
from api.http.paging import After, Limit
from api.http.problems import Problem, responses
from api.http.state import StateDep
from store import declared, pages
from store.errors import NotFoundError
from store.records import MAX_TEXT, User
from store.tables import EventRow

router = APIRouter(prefix="/v1", tags=["users"])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LANGUAGE = r"^[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*$"
_MICROSECOND = timedelta(microseconds=1)


@cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _zone(name: str | None) -> str | None:
    if name is not None and name not in _zones():
        raise ValueError("is no time zone such as Europe/Paris")
    return name


def _small(attributes: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        size = len(orjson.dumps(attributes))
    except TypeError as error:  # of an integer beyond 64 bits
        raise ValueError("hold a number that is too large") from error
    if size > MAX_TEXT:
        raise ValueError(f"are longer than {MAX_TEXT:,} characters")
    return attributes


class Declaration(Wire):
    """All that a user declares; what is left out is not declared any more."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "consent": True,
                "attributes": {"occupation": "librarian", "newsletter": False},
                "language": "en",
                "tz": "Europe/Paris",
            }
        }
    )
    consent: bool = Field(
        strict=True, description="To being profiled. Without it: no profile, no training, no language model."
    )
    attributes: Annotated[dict[str, JsonValue], AfterValidator(_small)] = Field(default_factory=dict)
    language: Annotated[str, Field(pattern=_LANGUAGE, max_length=64)] | None = None
    tz: Annotated[str | None, AfterValidator(_zone)] = Field(default=None, description="An IANA time zone.")


@router.get("/users", summary="List users", responses=responses())
def list_users(state: StateDep, caller: Reader, limit: Limit = 50, after: After = None) -> Page[ListedUser]:
    """All users in order of id, each with the version of the active profile."""
    key = paging.decode(after)
    with state.database.session() as session:
        rows = pages.users(session, limit, None if key is None else str(key[0]))
    shown = [ListedUser(**row._asdict()) for row in rows[:limit]]
    note(state, caller, "list_users", [user.user_id for user in shown], durable=False)
    more = len(rows) > limit
    return Page(items=shown, next=paging.encode((shown[-1].user_id,)) if more else None)


@router.get(
    "/users/{user_id}", summary="Read a user", response_model=DeclaredUser, responses=responses(404) | etags.UNCHANGED
)
def read_user(
    user_id: UserId, state: StateDep, _caller: UserReader, request: Request, response: Response
) -> DeclaredUser | Response:
    """What the user declares, with an ETag; with consent or without."""
    with state.database.session() as session:
        user = declared.read(session, user_id)
    etag = _etag(user)
    if answer := etags.unchanged(request, etag):
        return answer
    response.headers["ETag"] = etag
    return _shown(user)


@router.put(
    "/users/{user_id}",
    summary="Declare a user",
    responses=responses(409, 412) | {201: {"model": DeclaredUser, "description": "The user is made"}},
)
def declare_user(
    user_id: UserId,
    declaration: Declaration,
    state: StateDep,
    _caller: UserEditor,
    request: Request,
    response: Response,
) -> DeclaredUser:
    """Make a user, or replace all that they declare. `consent` must be said: silence neither gives nor takes it."""
    user = User(user_id=user_id, **declaration.model_dump())
    with state.database.session() as session:
        if "if-match" in request.headers:
            etags.require_match(request, _present(session, user_id))
        made = declared.declare(session, user, state.hasher)
    response.headers["ETag"] = _etag(user)
    if made.created:
        response.status_code = 201
        response.headers["Location"] = f"/v1/users/{quote(user_id, safe='')}"
    return _shown(user)


@router.get("/users/{user_id}/events", summary="List a user's events", responses=responses(404))
def list_user_events(
    user_id: UserId, state: StateDep, caller: UserReader, limit: Limit = 50, after: After = None
) -> Page[LoggedEvent]:
    """What the user did, the newest first. Without the user's consent it needs the scope admin."""
    key = paging.decode(after, int, str)
    with state.database.session() as session:
        if not declared.read(session, user_id).consent and not caller.may("admin"):
            raise Problem(403, "no-consent", "The user does not consent: the scope admin is needed for the log.")
        rows = pages.events(session, user_id, limit, None if key is None else (_time(key[0]), str(key[1])))
    shown = [_event(row) for row in rows[:limit]]
    if len(rows) <= limit:
        return Page(items=shown)
    last = shown[-1]
    return Page(items=shown, next=paging.encode(((last.ts - _EPOCH) // _MICROSECOND, last.event_id)))


def _shown(user: User) -> DeclaredUser:
    return DeclaredUser(**user.model_dump())


def _etag(user: User) -> str:
    return etags.etag_of("user", user.model_dump_json())


def _present(session: Session, user_id: str) -> str | None:
    try:
        return _etag(declared.read(session, user_id, locked=True))
    except NotFoundError:
        return None


def _event(row: EventRow) -> LoggedEvent:
    fields = {name: getattr(row, name) for name in LoggedEvent.model_fields}
    return LoggedEvent(**fields | {"ts": row.ts.astimezone(UTC), "context": row.context or {}})


def _time(microseconds: str | int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=int(microseconds))
    except OverflowError as error:
        raise paging.wrong() from error
