"""Claims: what a user says about those of their profile, and what that changes in their top 10."""

from collections.abc import Callable
from datetime import UTC
from typing import Annotated, Literal, NamedTuple, Self

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator, ConfigDict, Field, model_validator
from sqlmodel import Session

from agent.errors import ModelError
from api import runtime
from api.contract import Corrected, Correction, Page, RankChange, Wire
from api.correcting import LONGEST, correct, own_words
from api.http import etags, paging
from api.http.auth import UserReader, UserWriter
from api.http.ids import ClaimId, UserId
from api.http.paging import After, Limit
from api.http.problems import responses
from api.http.routes.profiles import consenting, etag_of
from api.http.state import State, StateDep
from recommend.comparing import NO_EFFECT, Ranker, compare
from recommend.corrections import LESS_RHO
from recommend.errors import NoModelError
from store import corrections
from store.standing import standing
from store.tables import CorrectionRow

router = APIRouter(prefix="/v1", tags=["claims"])

OwnWords = Annotated[
    str, Field(min_length=1, max_length=LONGEST, examples=["Slow crime films"]), AfterValidator(own_words)
]
CorrectionId = Annotated[int, Path(ge=1, lt=1 << 31, description="Of a correction.", examples=[7])]


class NewClaim(Wire):
    """A claim in the user's words."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"name": "Space opera", "statement": "As long as can be.", "kind": "interest"}}
    )
    name: OwnWords
    statement: OwnWords | None = None
    kind: Literal["interest", "dislike"] = "interest"


class NewWords(Wire):
    """Other words for a claim; what is left out stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"name": "Slow crime films", "statement": "I like to watch detectives think."}}
    )
    name: OwnWords | None = None
    statement: OwnWords | None = None

    @model_validator(mode="after")
    def _something_changes(self) -> Self:
        if self.name is None and self.statement is None:
            raise ValueError("give a name, a statement or both")
        return self


class _Made(NamedTuple):
    row: CorrectionRow
    etag: str | None


@router.post("/users/{user_id}/claims", status_code=201, summary="Add a claim", responses=responses(404, 409, 412))
def add_claim(
    user_id: UserId, claim: NewClaim, state: StateDep, _caller: UserWriter, request: Request, response: Response
) -> Corrected:
    """Add a claim in words of the user's own: it counts at once, and every later summary has it."""

    def change(session: Session) -> int:
        return corrections.add(
            session, user_id, "add", claim.kind, claim.name, runtime.now(), statement=claim.statement
        )

    return _change(state, request, response, user_id, change)


@router.post(
    "/users/{user_id}/claims/{claim_id}/reject",
    status_code=201,
    summary="Reject a claim",
    responses=responses(404, 409, 412),
)
def reject_claim(
    user_id: UserId, claim_id: ClaimId, state: StateDep, _caller: UserWriter, request: Request, response: Response
) -> Corrected:
    """Say that a claim is wrong: neither it nor its events count any more, and no later summary says it again."""
    return _change(state, request, response, user_id, lambda session: correct(session, user_id, claim_id, "reject"))


@router.post(
    "/users/{user_id}/claims/{claim_id}/less",
    status_code=201,
    summary="Ask for less of a claim",
    responses=responses(404, 409, 412),
)
def lessen_claim(
    user_id: UserId,
    claim_id: ClaimId,
    state: StateDep,
    _caller: UserWriter,
    request: Request,
    response: Response,
    rho: Annotated[
        float, Query(ge=0, le=1, description="What is left of it: 0 nothing, 1 all.", examples=[LESS_RHO])
    ] = LESS_RHO,
) -> Corrected:
    """Ask for less of what a claim is about."""
    return _change(
        state, request, response, user_id, lambda session: correct(session, user_id, claim_id, "less", rho=rho)
    )


@router.post(
    "/users/{user_id}/claims/{claim_id}/pin", status_code=201, summary="Pin a claim", responses=responses(404, 409, 412)
)
def pin_claim(
    user_id: UserId, claim_id: ClaimId, state: StateDep, _caller: UserWriter, request: Request, response: Response
) -> Corrected:
    """Keep a claim and its words in every later summary; recommendations stay as they are."""
    return _change(
        state, request, response, user_id, lambda session: correct(session, user_id, claim_id, "pin"), ranks=False
    )


@router.patch(
    "/users/{user_id}/claims/{claim_id}",
    status_code=201,
    summary="Rewrite a claim",
    responses=responses(404, 409, 412),
)
def rewrite_claim(
    user_id: UserId,
    claim_id: ClaimId,
    words: NewWords,
    state: StateDep,
    _caller: UserWriter,
    request: Request,
    response: Response,
) -> Corrected:
    """Put a claim into words of the user's own, which every later summary keeps; recommendations stay as they are."""

    def change(session: Session) -> int:
        return correct(session, user_id, claim_id, "rewrite", new_name=words.name, new_statement=words.statement)

    return _change(state, request, response, user_id, change, ranks=False)


@router.get("/users/{user_id}/corrections", summary="List corrections", responses=responses(404))
def list_corrections(
    user_id: UserId, state: StateDep, _caller: UserReader, limit: Limit = 50, after: After = None
) -> Page[Correction]:
    """The corrections that are in force, oldest first."""
    consenting(state, user_id)
    key = paging.decode(after, int)
    with state.database.session() as session:
        rows = corrections.page(session, user_id, limit, 0 if key is None else int(key[0]))
    shown = [_shown(row) for row in rows[:limit]]
    return Page(items=shown, next=paging.encode((shown[-1].correction_id,)) if len(rows) > limit else None)


@router.delete(
    "/users/{user_id}/corrections/{correction_id}", summary="Take a correction back", responses=responses(404, 409, 412)
)
def undo_correction(
    user_id: UserId,
    correction_id: CorrectionId,
    state: StateDep,
    _caller: UserWriter,
    request: Request,
    response: Response,
) -> Corrected:
    """Take a correction back: everything is as if it had never been made, and the next summary has the claim again."""

    def change(session: Session) -> int:
        corrections.undo(session, user_id, correction_id, runtime.now())
        return correction_id

    return _change(state, request, response, user_id, change)


def _change(
    state: State,
    request: Request,
    response: Response,
    user_id: str,
    change: Callable[[Session], int],
    *,
    ranks: bool = True,
) -> Corrected:
    """Make a change that rests on the profile which the client has read, if it says so, and compare the top lists."""
    corrected, etag = make_change(
        state, user_id, change, ranks=ranks, check=lambda present: etags.require_match(request, present)
    )
    if etag is not None:
        response.headers["ETag"] = etag
    return corrected


def make_change(
    state: State,
    user_id: str,
    change: Callable[[Session], int],
    *,
    ranks: bool = True,
    check: Callable[[str | None], None] = lambda _: None,
) -> tuple[Corrected, str | None]:
    """Make or take back a correction, and compare the top lists.

    Args:
        state: Of the app.
        user_id: Whose profile it is about.
        change: Makes it in a unit of work, and returns its id.
        ranks: Whether it has an effect on recommendations.
        check: Is given the ETag of the profile before the change is made, and may refuse.

    Returns:
        The correction, and the ETag of the profile after it.
    """

    def make() -> _Made:
        with state.database.session() as session:
            corrections.lock(session, user_id)
            before = standing(session, user_id)
            check(None if before is None else etag_of(before))
            row = session.get_one(CorrectionRow, change(session))
            after = standing(session, user_id)
        return _Made(row, None if after is None else etag_of(after))

    consenting(state, user_id)
    if ranks:
        made, changes, note = compare(_ranker(state), user_id, make)
    else:
        made, changes, note = make(), None, NO_EFFECT
    shown = None if changes is None else [RankChange(**moved._asdict()) for moved in changes]
    return Corrected(correction=_shown(made.row), changes=shown, note=note), made.etag


def _ranker(state: State) -> Ranker | str:
    try:
        return state.recommender()
    except (NoModelError, ModelError) as error:
        return str(error)


def _shown(row: CorrectionRow) -> Correction:
    fields = {name: getattr(row, name) for name in Correction.model_fields}
    undone = row.undone_at.astimezone(UTC) if row.undone_at else None
    return Correction(**fields | {"created_at": row.created_at.astimezone(UTC), "undone_at": undone})
