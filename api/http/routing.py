"""How routes come into the app, in the same way whatever release of FastAPI it is."""

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute


def add_routes(app: FastAPI, router: APIRouter) -> None:
    """Add the routes of a router as they are, each under its own name.

    From release 0.137 on, `include_router` keeps a router as a whole: then neither the app's list of routes nor the
    route of a request tells a full path.
    """
    for route in router.routes:
        if isinstance(route, APIRoute):
            route.unique_id = route.name
        app.router.routes.append(route)
