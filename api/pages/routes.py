"""All pages, and the files that they load."""

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from api.http.routing import add_routes
from api.pages import evaluation, jobs, likeness, map_page, overview, problems, recommendations, signing_in
from api.pages.rendering import STATIC

_A_YEAR = "public, max-age=31536000, immutable"


class _Files(StaticFiles):
    """Files that never change under one address: it has their hash for its query."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = _A_YEAR if scope["query_string"] else "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def install(app: FastAPI) -> None:
    """Add the pages to an app."""
    for module in (signing_in, overview, likeness, recommendations, jobs, evaluation, map_page):
        add_routes(app, module.router)
    app.mount("/static", _Files(directory=STATIC), name="static")
    app.state.problem_page = problems.answer
