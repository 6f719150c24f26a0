"""Errors as problem details (RFC 9457): every answer that is not a success has the same form.

`told` is the one place where errors of the domain get their HTTP statuses.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from agent.errors import AgentError, ChatError, ProfileError
from api.contract import ProblemDocument
from api.http.sessions import is_page
from api.logs import without_content
from recommend.errors import NoModelError, RecommendError, UnknownItemError
from store.errors import ConflictError, IngestError, NotFoundError, StoreError
from store.tombstones import ErasedError, PrivacyKeyError

MEDIA_TYPE = "application/problem+json"
URN = "urn:limner:problem:"
INTERNAL = "internal"
_MOST_ERRORS = 100


class Problem(Exception):  # noqa: N818 - it is what the standard calls it
    """What went wrong with a request.

    Attributes:
        status: The HTTP status.
        slug: Names the kind of problem, such as `no-model`.
        detail: What is wrong and what to do next, in a sentence.
        headers: Of the response.
        extra: More members of the document.
    """

    def __init__(
        self, status: int, slug: str, detail: str, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the problems that a route can answer with, for `responses=` of a route.

    Those that every route can answer with (401, 403, 422, 429, 503) are always among them.
    """
    return {status: documented(status) for status in sorted({401, 403, 422, 429, 503, *statuses})}


def documented(status: int) -> dict[str, Any]:
    """Document one problem."""
    title = HTTPStatus(status).phrase
    slug, detail = EXAMPLES.get(status, (title.lower().replace(" ", "-"), title))
    example = document(Problem(status, slug, detail), "4f1d0c6a9b3e4f5a8a6f0d2c1b7e9f30")
    schema = {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}  # `app.openapi` puts it there
    return {"description": title, "content": {MEDIA_TYPE: {"schema": schema, "example": example}}}


EXAMPLES: dict[int, tuple[str, str]] = {
    401: ("unauthorized", "Send a key: Authorization: Bearer lim_…"),
    403: ("forbidden", "This key has not the scope write."),
    404: ("not-found", "There is no user 42."),
    409: ("conflict", "The store has moved on since this was prepared. Read it anew."),
    412: ("stale", "The resource has changed since it was read. Read it anew."),
    413: ("too-large", "The body is larger than 16 MiB. Send it in parts."),
    415: ("media-type", "Send the body as application/json."),
    422: ("invalid", "The request is not valid: query.limit: Input should be less than or equal to 200."),
    429: ("rate-limit", "This key may send 6000 requests a minute. Try again in 3 s."),
    503: ("no-model", "No model has been trained yet. Train one with `limner train`."),
}


_RETRY = {"Retry-After": "5"}
_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (NotFoundError, 404, "not-found"),
    (UnknownItemError, 404, "unknown-item"),
    (ErasedError, 409, "erased"),
    (ConflictError, 409, "conflict"),
    (IngestError, 422, "ingest"),
    (NoModelError, 503, "no-model"),
    (ProfileError, 409, "profile"),
    (PrivacyKeyError, 503, "privacy-key"),
)
"""Errors that say for themselves what is wrong and what to do."""
_HIDDEN: tuple[tuple[type[Exception], Problem], ...] = (
    (ChatError, Problem(503, "llm", "The language model gives no answer just now. Try again later.", _RETRY)),
    (PoolTimeoutError, Problem(503, "busy", "Too much is under way just now. Try again later.", _RETRY)),
    (StoreError, Problem(503, "unavailable", "The database cannot be used just now. Try again later.", _RETRY)),
    (AgentError, Problem(503, "unavailable", "A model that this needs cannot be used just now.", _RETRY)),
    (RecommendError, Problem(503, "unavailable", "The recommender cannot be used just now.", _RETRY)),
    (DataError, Problem(422, "invalid", "A value is one that the database cannot hold.")),
)
"""Errors whose words are for the operator, with what a client is told."""


def told(error: Exception) -> Problem:
    """Say as a problem what went wrong; what we do not know of is a 500 that tells nothing of the inside."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return _from_framework(error)
    for kind, status, slug in _STATUS:
        if isinstance(error, kind):
            return Problem(status, slug, str(error))
    hidden = next((problem for kind, problem in _HIDDEN if isinstance(error, kind)), None)
    return hidden or Problem(500, INTERNAL, "Something went wrong here. The log tells more under this request's id.")


def _invalid(error: RequestValidationError) -> Problem:
    # A dependency and the route may both find fault with the same part.
    found = {".".join(map(str, one["loc"])): one["msg"].removeprefix("Value error, ") for one in error.errors()}
    errors = [{"where": where, "message": message} for where, message in found.items()]
    first = errors[0]
    return Problem(
        422, "invalid", f"The request is not valid: {first['where']}: {first['message']}.", errors=errors[:_MOST_ERRORS]
    )


def _from_framework(error: HTTPException) -> Problem:
    details = {
        400: ("json", "The body cannot be read."),
        404: ("unknown-route", "There is nothing here. /docs lists all routes."),
        405: ("method", "This method is not offered here."),
    }
    slug, detail = details.get(error.status_code, ("http", str(error.detail)))
    status = 422 if error.status_code == HTTPStatus.BAD_REQUEST else error.status_code
    return Problem(status, slug, detail, error.headers)


def document(problem: Problem, request_id: str) -> dict[str, Any]:
    """Return the problem as JSON; `instance` is the id of the request, as in the log."""
    return {
        "type": URN + problem.slug,
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": f"urn:limner:request:{request_id}",
        **problem.extra,
    }


def answer(error: Exception, scope: Scope) -> Response:
    """Return the response to an error, for pages as a page; what is our own fault is logged."""
    problem, request_id = told(error), scope["request_id"]
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        structlog.get_logger("limner.http").error(
            "failed", problem=problem.slug, request_id=request_id, **without_content(error)
        )
    if is_page(scope["path"]):
        page: Response = scope["app"].state.problem_page(problem, scope)
        return page
    return JSONResponse(document(problem, request_id), problem.status, problem.headers, MEDIA_TYPE)


def _methods(request: Request) -> str:
    """Return the methods of all routes of a path; the framework tells those of the first."""
    found = [
        route.methods or ()
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE
    ]
    return ", ".join(sorted(set().union(*found)))


def install(app: FastAPI) -> None:
    """Let an app answer with problem details."""

    def handle(request: Request, error: Exception) -> Response:
        response = answer(error, request.scope)
        if response.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = _methods(request)
        return response

    known = [kind for kind, _, _ in _STATUS] + [kind for kind, _ in _HIDDEN]
    for kind in (Problem, RequestValidationError, HTTPException, *known):
        app.add_exception_handler(kind, handle)
