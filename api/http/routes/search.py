"""Search of users by what is claimed of them, for operators."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.http.auth import Admin, note
from api.http.ids import storable
from api.http.problems import responses
from api.http.state import StateDep
from store import search

router = APIRouter(prefix="/v1", tags=["users"])

MOST = 200
_CLAIMS = 3


class ClaimFound(BaseModel):
    """A claim, and the cosine of its text and the text sought."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    claim_id: str = Field(examples=["i1"])
    kind: str = Field(examples=["interest"])
    name: str = Field(examples=["1940s and 1950s war dramas"])
    statement: str = Field(examples=["Enjoys war dramas of the 1940s and 1950s, such as Casablanca."])
    similarity: float = Field(examples=[0.71])


class UserFound(BaseModel):
    """A user, and the nearest claims of the active profile, the nearest first."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    user_id: str = Field(examples=["405"])
    similarity: float = Field(description="Of the nearest claim.", examples=[0.71])
    claims: list[ClaimFound]


class UsersFound(BaseModel):
    """Users, the nearest first."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    items: list[UserFound]


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
