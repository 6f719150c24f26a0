"""What a user is recommended, why, and what if."""

from typing import Annotated, Any

from fastapi import Query, Request
from starlette.responses import Response

from api.http.auth import UserReader
from api.http.ids import ItemId, UserId
from api.http.routes.recommendations import Without
from api.http.state import StateDep
from api.pages.rendering import is_swap, page_router, render
from recommend.contract import Explanation
from recommend.service import Request as Asked

router = page_router()
_LISTED, _PARTS = 20, 10


@router.get("/users/{user_id}/recommendations")
def recommendations_page(
    user_id: UserId,
    state: StateDep,
    _caller: UserReader,
    request: Request,
    k: Annotated[int, Query(ge=1, le=100)] = _LISTED,
) -> Response:
    """The list."""
    found = state.recommender().recommend(user_id, Asked(k=k))
    highest = max((abs(item.score) for item in found.items), default=0.0)
    return render(request.scope, "recommendations.html", user_id=user_id, found=found, k=k, highest=highest or 1.0)


@router.get("/users/{user_id}/recommendations/{item_id}")
def why_page(
    user_id: UserId,
    item_id: ItemId,
    state: StateDep,
    _caller: UserReader,
    request: Request,
    without_event: Without = [],  # noqa: B006 - FastAPI copies it
    without_claim: Without = [],  # noqa: B006
) -> Response:
    """Why an item has its place, and where it would stand without some of the reasons."""
    recommender = state.recommender()
    supposed = recommender.what_if(user_id, item_id, without_event, without_claim)
    if is_swap(request):
        return render(request.scope, "_supposed.html", user_id=user_id, item_id=item_id, supposed=supposed)
    found = recommender.why(user_id, item_id, shown=_PARTS)
    return render(
        request.scope,
        "why.html",
        user_id=user_id,
        item_id=item_id,
        found=found,
        supposed=supposed,
        steps=steps(found),
        without_event=frozenset(without_event),
        without_claim=frozenset(without_claim),
    )


def steps(found: Explanation) -> list[dict[str, Any]]:
    """Return the parts of a score with where each begins and ends, drawn one after another from 0 to the score.

    Each has `left` and `width` in percent of the drawing, which reaches from the least to the most that the sum comes
    to on its way.
    """
    reached = [0.0]
    for part in found.parts:
        reached.append(reached[-1] + part.contribution)
    least, most = min(0.0, *reached), max(0.0, *reached)
    scale = 100.0 / ((most - least) or 1.0)
    drawn = [
        {
            "part": part,
            "left": round((min(begin, end) - least) * scale, 3),
            "width": round(abs(end - begin) * scale, 3),
            "end": round((end - least) * scale, 3),
        }
        for part, begin, end in zip(found.parts, reached, reached[1:], strict=False)
    ]
    zero = round(-least * scale, 3)
    total = {"left": round((min(0.0, found.total) - least) * scale, 3), "width": round(abs(found.total) * scale, 3)}
    return [*drawn, {"part": None, "end": zero, **total}]
