"""The map, which is drawn when it is first asked for."""

from fastapi import Request
from starlette.responses import Response

from api import runtime
from api.http.auth import Reader
from api.http.state import StateDep
from api.pages.mapping import FEWEST
from api.pages.rendering import is_swap, page_router, render
from store import audit

router = page_router()


@router.get("/map")
def map_page(caller: Reader, request: Request) -> Response:
    """The page; the map itself is loaded after it."""
    del caller
    return render(request.scope, "map.html", drawn=None, is_drawn=False, fewest=FEWEST)


@router.get("/map/drawn")
def drawn_map(state: StateDep, caller: Reader, request: Request) -> Response:
    """The map."""
    drawn = state.maps.get(state.embedder.name)
    if drawn is not None:  # one row for all of them, or a look would leave as many as the map has dots
        audit.note_many(state.database, runtime.now(), caller.key_id, "draw_map", len(drawn.users), caller.request_id)
    name = "_map.html" if is_swap(request) else "map.html"
    return render(request.scope, name, drawn=drawn, is_drawn=True, fewest=FEWEST)
