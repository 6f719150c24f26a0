"""Profiles: the active one, its versions, what changed between two, and having one written anew."""

from datetime import UTC
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import ConfigDict, Field, ValidationError

from agent import archive
from agent.contract import Profile
from agent.contract import Writer as ProfileWriter
from agent.diff import diff
from api.contract import ClaimChange, JobProgress, Page, ProfileDiff, ProfileVersion, Wire
from api.http import etags, paging
from api.http.auth import UserEditor, UserReader
from api.http.ids import UserId
from api.http.paging import After, Limit
from api.http.problems import Problem, responses
from api.http.routes.jobs import read_progress
from api.http.state import State, StateDep
from api.queue import enqueue_profiles
from store import profiles
from store.errors import NotFoundError
from store.profiles import StoredProfile
from store.standing import Standing, standing
from store.tables import ProfileRow

router = APIRouter(prefix="/v1", tags=["profiles"])

Version = Annotated[int, Path(ge=1, lt=1 << 31, description="Of the profile.", examples=[3])]
_Of = Annotated[int, Query(ge=1, lt=1 << 31, examples=[1])]

EXAMPLE = {
    "user_id": "405",
    "version": 3,
    "language": "en",
    "summary": [
        {"text": "Enjoys war dramas of the 1940s and 1950s.", "claim_ids": ["i1"], "wording": "llm"},
        {"text": "Does not care for westerns.", "claim_ids": ["d1"], "wording": "llm"},
    ],
    "interests": [
        {
            "claim_id": "i1",
            "kind": "interest",
            "name": "War dramas of the 1940s and 1950s",
            "statement": "Enjoys war dramas of the 1940s and 1950s, such as Casablanca.",
            "strength": 0.41,
            "confidence": 0.93,
            "trend": "steady",
            "evidence": [{"event_id": "4f1d0c6a", "weight": 0.98}, {"event_id": "b7e9f30c", "weight": 0.49}],
            "counter_evidence": [{"event_id": "8a6f0d2c", "weight": -0.5}],
            "attributes": {"category:War": {"share": 0.82, "lift": 9.1}},
            "interpretive": [],
            "origin": "model",
            "wording": "llm",
            "locked": False,
            "correction_id": None,
        }
    ],
    "intents": [],
    "dislikes": [
        {
            "claim_id": "d1",
            "kind": "dislike",
            "name": "Westerns I was made to watch",
            "statement": "Westerns, whatever they say of me.",
            "strength": -0.3,
            "confidence": 0.71,
            "trend": None,
            "evidence": [{"event_id": "6f20c1b7", "weight": -1.0}, {"event_id": "2b6a4d7f", "weight": -0.5}],
            "counter_evidence": [],
            "attributes": {},
            "interpretive": [],
            "origin": "model",
            "wording": "user",
            "locked": True,
            "correction_id": 7,
        }
    ],
    "habits": [],
    "tags": [{"name": "War", "field": "category", "events": 31, "share": 0.08, "lift": 3.2}],
    "log": {
        "first": "1998-01-12T18:00:00Z",
        "last": "1998-04-09T21:30:00Z",
        "as_of": "1998-04-09T21:30:00Z",
        "events_read": 412,
        "revision": 4,
    },
    "provenance": {
        "key": "3f0c6a9b3e4f5a8a6f0d2c1b7e9f304f1d0c6a9b3e4f5a8a6f0d2c1b7e9f3012",
        "writer": "llm",
        "model": "qwen2.5-coder-1.5b",
        "weights_hash": None,
        "prompts": {"theme": "theme@1"},
        "sampling": {"temperature": 0.0},
        "embedder": "all-minilm-l6-v2",
        "evidence_settings": {},
        "corrections_revision": 7,
        "clustering": {"events": 198, "shares": {"i1": 0.41}},
        "put_back": False,
        "continues": {"version": 2, "clustered": None, "reworded": {"i1": "attributes"}},
        "tokens_in": 3211,
        "tokens_out": 164,
        "seconds": 4.2,
        "created_at": "2026-11-21T10:00:00Z",
    },
    "quality": {"first_try": 2, "repaired": 0, "fallback": 0, "interpretive": 0.0},
}
_DOCUMENT = {200: {"model": Profile, "content": {"application/json": {"example": EXAMPLE}}}}


class Refresh(Wire):
    """How a profile is to be written."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"example": {"writer": "llm"}})
    writer: ProfileWriter = "llm"
    force: bool = Field(default=False, strict=True, description="Also if nothing has changed.")


@router.get(
    "/users/{user_id}/profile",
    summary="Read a profile",
    response_model=Profile,
    responses=responses(404, 409) | _DOCUMENT | {304: {}},
)
def read_profile(user_id: UserId, state: StateDep, _caller: UserReader, request: Request) -> Response:
    """The active profile, with an ETag that changes with the profile and with the user's corrections.

    A correction shows in the profile when it is written anew.
    """
    present = consenting(state, user_id)
    if present.profile_id is None:
        raise NotFoundError(f"User {user_id} has no profile yet. `POST …/profile/refresh` has one written.")
    etag = etags.etag_of(*_tag(present))
    if answer := etags.unchanged(request, etag):
        return answer
    document = state.documents.get(user_id, present.profile_id)
    if document is None:
        stored = _load(state, user_id)
        document = read_stored(stored).model_dump_json().encode()
        found = present._replace(profile_id=stored.row.profile_id)  # it may have been written anew meanwhile
        state.documents.put(user_id, found.profile_id or 0, document)
        etag = etags.etag_of(*_tag(found))
    return _sent(document, etag)


@router.get("/users/{user_id}/profile/versions", summary="List a profile's versions", responses=responses(404))
def list_profile_versions(
    user_id: UserId, state: StateDep, _caller: UserReader, limit: Limit = 50, after: After = None
) -> Page[ProfileVersion]:
    """All versions, the newest first."""
    consenting(state, user_id)
    key = paging.decode(after, int)
    with state.database.session() as session:
        rows = profiles.recent_versions(session, user_id, limit, None if key is None else int(key[0]))
    more = len(rows) > limit
    shown = [_version(row) for row in rows[:limit]]
    return Page(items=shown, next=paging.encode((shown[-1].version,)) if more else None)


@router.get(
    "/users/{user_id}/profile/versions/{version}",
    summary="Read a version of a profile",
    response_model=Profile,
    responses=responses(404, 409) | _DOCUMENT | {304: {}},
)
def read_profile_version(
    user_id: UserId, version: Version, state: StateDep, _caller: UserReader, request: Request
) -> Response:
    """A version, active or not; a version never changes."""
    consenting(state, user_id)
    stored = _load(state, user_id, version)
    etag = etags.etag_of("profile version", stored.row.profile_id)
    return etags.unchanged(request, etag) or _sent(read_stored(stored).model_dump_json().encode(), etag)


@router.get("/users/{user_id}/profile/diff", summary="Compare two versions of a profile", responses=responses(404, 409))
def diff_profile(
    user_id: UserId, from_version: _Of, to_version: _Of, state: StateDep, _caller: UserReader
) -> ProfileDiff:
    """The claims that differ; claims are matched by what they cite, and the best matches come first."""
    consenting(state, user_id)
    before, after = (read_stored(_load(state, user_id, version)) for version in (from_version, to_version))
    changes = [ClaimChange(before=c.before, after=c.after, what=list(c.what), why=c.why) for c in diff(before, after)]
    return ProfileDiff(user_id=user_id, from_version=from_version, to_version=to_version, changes=changes)


@router.post(
    "/users/{user_id}/profile/refresh", status_code=202, summary="Have a profile written anew", responses=responses(404)
)
def refresh_profile(
    user_id: UserId, refresh: Refresh, state: StateDep, caller: UserEditor, response: Response
) -> JobProgress:
    """Put the profile into the queue of the workers; the answer is the job, which says how far it is."""
    consenting(state, user_id)
    with state.database.session() as session:
        job_id = enqueue_profiles(session, [user_id], refresh.writer, force=refresh.force, created_by=caller.key_id)
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    return read_progress(state, job_id)


def consenting(state: State, user_id: str) -> Standing:
    """Return what a user's data stands at.

    Raises:
        NotFoundError: There is no such user.
        Problem: They do not consent to a profile (403).
    """
    found = standing(state.database, user_id)
    if found is None or not found.consent:
        state.documents.forget(user_id)
    if found is None:
        raise NotFoundError(f"There is no user {user_id}. `GET /v1/users` lists them.")
    if not found.consent:
        raise Problem(403, "no-consent", f"User {user_id} does not consent to a profile: there is none to read.")
    return found


def etag_of(found: Standing) -> str | None:
    """Return the ETag of a user's profile, which claims' changes can be made to rest on; None if there is none."""
    return None if found.profile_id is None else etags.etag_of(*_tag(found))


def _tag(found: Standing) -> tuple[str | int | None, ...]:
    return "profile", found.profile_id, found.corrections_revision


def _load(state: State, user_id: str, version: int | None = None) -> StoredProfile:
    with state.database.session() as session:
        return profiles.load(session, user_id, version)


def read_stored(stored: StoredProfile) -> Profile:
    """Return a stored profile.

    Raises:
        Problem: It cites events that are gone (409).
    """
    try:
        return archive.from_rows(stored)
    except ValidationError as error:
        raise Problem(
            409, "outdated", "The profile cites events that are gone. `POST …/profile/refresh` has it written anew."
        ) from error


def _sent(document: bytes, etag: str) -> Response:
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    return Response(document, media_type="application/json", headers=headers)


def _version(row: ProfileRow) -> ProfileVersion:
    return ProfileVersion(
        version=row.version,
        active=row.active,
        created_at=row.created_at.astimezone(UTC),
        language=row.language,
        writer=row.provenance["writer"],
        model=row.provenance.get("model"),
        events_read=row.log["events_read"],
    )
