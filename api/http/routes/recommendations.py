"""Recommendations, and why."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from api import runtime
from api.http.auth import UserReader
from api.http.ids import ItemId, UserId
from api.http.problems import Problem, responses
from api.http.state import StateDep
from api.narration import narrated
from recommend.contract import Explanation, Recommendations, WhatIf
from recommend.service import Request

router = APIRouter(prefix="/v1", tags=["recommendations"])

MOST = 1_000
"""Items of one answer."""
_MOST_EXCLUDED = 100
_LONG_URL: dict[int | str, dict[str, Any]] = {
    400: {
        "description": "A URL of more than 64 KiB: name fewer items.",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": "Invalid HTTP request received."}},
    }
}
"""The answer of the HTTP parser, before any route: many long ids may not fit."""
_Text = Annotated[str, Field(max_length=512)]
Without = Annotated[list[_Text], Query(max_length=_MOST_EXCLUDED, description="Ids; may be given again.")]

K = Annotated[int, Query(ge=1, le=MOST, description="How many items.")]
Seen = Annotated[bool, Query(description="Also items that the user has had to do with.")]
Categories = Annotated[
    list[_Text], Query(alias="category", max_length=20, description="Only of any of these.", examples=[["Drama"]])
]
Attributes = Annotated[
    list[_Text],
    Query(
        alias="attribute", max_length=20, description="Only with all of these, each `name=value`.",
        examples=[["year=1994"]],
    ),
]  # fmt: skip
Exclude = Annotated[
    list[_Text], Query(max_length=_MOST_EXCLUDED, description="Ids of items that are left out.", examples=[["50"]])
]

Diversity = Annotated[float, Query(ge=0, le=1, description="Weight of diversity (MMR); 0 is off.")]
Near = Annotated[float | None, Query(ge=0, le=1, description="Put near-duplicates of at least this cosine back.")]


def _pairs(attributes: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in attributes:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise Problem(422, "invalid", f"The attribute filter {pair!r} is not of the form name=value.")
        if found.get(name, value) != value:
            raise Problem(422, "invalid", f"The attribute {name} is given twice, with different values.")
        found[name] = value
    return found


def _request(
    k: K = 10,
    seen: Seen = False,
    categories: Categories = [],  # noqa: B006 - FastAPI copies it
    attributes: Attributes = [],  # noqa: B006
    exclude: Exclude = [],  # noqa: B006
    claim: Annotated[
        _Text | None, Query(description="Only the items nearest to this claim of the profile.", examples=["i1"])
    ] = None,
    diversity: Diversity = 0.0,
    near: Near = None,
) -> Request:
    """Say what list is meant: of an explanation, the one that the rank refers to."""
    return Request(k, seen, tuple(categories), _pairs(attributes), tuple(exclude), claim, diversity, near)


RequestDep = Annotated[Request, Depends(_request)]


@router.get("/users/{user_id}/recommendations", summary="Recommend items", responses=_LONG_URL | responses(404))
def recommendations(user_id: UserId, state: StateDep, _caller: UserReader, request: RequestDep) -> Recommendations:
    """The best items for a user by present events, claims and corrections.

    `basis` says what is known of the user; of one of whom nothing is known, it is popularity.
    """
    return state.recommender().recommend(user_id, request)


@router.get(
    "/users/{user_id}/explanations/{item_id}",
    summary="Say why an item is recommended",
    responses=_LONG_URL | responses(404),
)
def explanation(
    user_id: UserId,
    item_id: ItemId,
    state: StateDep,
    _caller: UserReader,
    request: RequestDep,
    shown: Annotated[int, Query(ge=1, le=100, description="Parts that are listed one by one.")] = 8,
    counterfactual: Annotated[
        bool, Query(description="Also what it would take for the item to drop out of the top k.")
    ] = False,
    narrate: Annotated[
        bool, Query(description="Let the language model word `text`; checked against the parts.")
    ] = False,
) -> Explanation:
    """The parts that an item's score is the sum of, its rank, and on request what would have to be otherwise."""
    found = state.recommender().why(user_id, item_id, request, shown, counterfactuals=counterfactual)
    if not narrate:
        return found
    with state.narrator.chat() as chat:
        examples = runtime.asked(state.settings.acting("narrator")).examples
        return narrated(chat, found, state.settings.language, examples=examples)


@router.get(
    "/users/{user_id}/explanations/{item_id}/what-if",
    summary="Say where an item would stand",
    responses=_LONG_URL | responses(404),
)
def what_if(
    user_id: UserId,
    item_id: ItemId,
    state: StateDep,
    _caller: UserReader,
    request: RequestDep,
    without_event: Without = [],  # noqa: B006 - FastAPI copies it
    without_claim: Without = [],  # noqa: B006
) -> WhatIf:
    """The rank and the score of an item if events had never happened, and without claims; nothing is changed by it."""
    return state.recommender().what_if(user_id, item_id, without_event, without_claim, request)
