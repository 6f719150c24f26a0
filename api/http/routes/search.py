"""Search of users by what is claimed of them, for operators."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AfterValidator

from api.contract import ClaimFound, UserFound, UsersFound
from api.http.auth import Admin, note
from api.http.ids import storable
from api.http.problems import responses
from api.http.state import StateDep
from store import search

router = APIRouter(prefix="/v1", tags=["users"])

MOST = 200
_CLAIMS = 3


@router.get("/users/search", summary="Search users by claim text", responses=responses())
def search_users(
    state: StateDep,
    caller: Admin,
    q: Annotated[
        str,
        Query(min_length=1, max_length=1_000, description="What to look for.", examples=["war dramas"]),
        AfterValidator(storable),
    ],
    limit: Annotated[int, Query(ge=1, le=MOST, description="How many users.")] = 20,
) -> UsersFound:
    """The users with the claims nearest in meaning, in active profiles of users who consent."""
    embedder = state.embedder
    (vector,) = embedder.embed([q])
    found = search.nearest_users(state.database, embedder.name, vector, limit, _CLAIMS)
    note(state, caller, "search_users", [user.user_id for user in found], durable=False)
    return UsersFound(
        items=[
            UserFound(
                user_id=user.user_id,
                similarity=user.claims[0].similarity,
                claims=[ClaimFound(**claim._asdict()) for claim in user.claims],
            )
            for user in found
        ]
    )
