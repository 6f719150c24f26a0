"""Errors as pages."""

from http import HTTPStatus

from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from api.http.problems import Problem
from api.pages.rendering import HEADERS, render, segment

_TITLES = {
    HTTPStatus.FORBIDDEN: "Not with this key",
    HTTPStatus.NOT_FOUND: "Nothing here",
    HTTPStatus.CONFLICT: "That does not fit any more",
    HTTPStatus.SERVICE_UNAVAILABLE: "Not just now",
}


def answer(problem: Problem, scope: Scope) -> Response:
    """Return the page of a problem; whoever has not signed in is asked to."""
    swap = any(name == b"hx-request" for name, _ in scope["headers"])
    if problem.status == HTTPStatus.UNAUTHORIZED and scope["path"] != "/sign-in":
        return _to_sign_in(scope, swap=swap)
    response = render(
        scope,
        "_problem.html" if swap else "problem.html",
        status=problem.status,
        title=_TITLES.get(HTTPStatus(problem.status), "This did not work"),
        problem=problem,
        request_id=scope["request_id"],
    )
    response.headers.update(problem.headers)
    return response


def _to_sign_in(scope: Scope, *, swap: bool) -> Response:
    asked = scope["path"]
    if query := scope["query_string"].decode("latin-1"):
        asked += f"?{query}"
    there = f"/sign-in?next={segment(asked)}" if scope["method"] == "GET" and not swap else "/sign-in"
    if swap:
        return Response(status_code=204, headers=HEADERS | {"HX-Redirect": there})
    return RedirectResponse(there, 303, HEADERS)
