"""Signing in with a key, and out."""

from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Form, Request
from starlette.responses import Response

from api import runtime
from api.http.auth import caller_of
from api.http.sessions import COOKIE, SECONDS, is_page
from api.http.state import StateDep
from api.pages.rendering import home_of, keep, page_router, render, see
from store import keys

router = page_router()


@router.get("/sign-in")
def sign_in_page(request: Request, next: str = "/") -> Response:  # noqa: A002 - as it is called in the address
    """Ask for a key."""
    return render(request.scope, "sign_in.html", next=_here(next), wrong=False)


@router.post("/sign-in")
def sign_in(
    request: Request,
    state: StateDep,
    key: Annotated[str, Form(max_length=512)] = "",
    next: Annotated[str, Form()] = "/",  # noqa: A002
) -> Response:
    """Begin a session for a key."""
    found = keys.find(state.database, key.strip())
    if found.key is None:
        return render(request.scope, "sign_in.html", status=401, next=_here(next), wrong=True)
    home = home_of(caller_of(state, found.key, request.scope["request_id"]))
    response = see(home if _here(next) == "/" else _here(next))
    keep(request.scope, response, state.sessions.begin(found.key.key_id))
    return response


@router.post("/sign-out")
def sign_out(request: Request, state: StateDep) -> Response:
    """End the session, in the browser and for whoever has a copy of its cookie."""
    browser = request.scope["browser"]
    if browser.key_id is not None:
        with state.database.session() as session:
            keys.end_session(session, browser.nonce, runtime.now(), timedelta(seconds=SECONDS))
    response = see("/sign-in")
    response.delete_cookie(COOKIE, path="/")
    return response


def _here(path: str) -> str:
    """Return a path of one of our pages: the one that is given, if it is one.

    >>> _here("/users/405"), _here("//elsewhere.example/users"), _here("https://elsewhere.example")
    ('/users/405', '/', '/')
    """
    try:
        parts = urlsplit(path.replace("\\", "/"))
    except ValueError:  # such as an address that is not closed
        return "/"
    ours = path.startswith("/") and not path.startswith("//") and not parts.scheme and not parts.netloc
    return path if ours and "\\" not in path and is_page(parts.path) else "/"
