"""The map, which is drawn when it is first asked for."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.http.auth import Reader, note
from api.http.state import StateDep
from api.pages.mapping import FEWEST
from api.pages.rendering import is_swap, render

router = APIRouter()


@router.get("/map")
def map_page(caller: Reader, request: Request) -> Response:
    """The page; the map itself is loaded after it."""
    del caller
    return render(request.scope, "map.html", drawn=None, is_drawn=False, fewest=FEWEST)


@router.get("/map/drawn")
def drawn_map(state: StateDep, caller: Reader, request: Request) -> Response:
    """The map."""
    drawn = state.maps.get(state.embedder.name)
    note(state, caller, "draw_map", [point.user_id for point in drawn.users] if drawn else [], durable=False)
    name = "_map.html" if is_swap(request) else "map.html"
    return render(request.scope, name, drawn=drawn, is_drawn=True, fewest=FEWEST)
