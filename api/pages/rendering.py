"""How a page is made: templates that escape all text, and headers that let a browser load nothing from elsewhere."""

import hashlib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Scope

from api.http.auth import Caller
from api.http.middleware import UNSAFE
from api.http.problems import Problem
from api.http.sessions import TOKEN_FIELD, TOKEN_HEADER, Session
from api.http.state import State
from api.run_report import duration
from store.keys import SELF

STATIC = Path(__file__).parents[1] / "static"
_TEMPLATES = Path(__file__).parents[1] / "templates" / "pages"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}


def segment(text: object) -> str:
    """Percent-encode an id for a path, slashes too."""
    return quote(str(text), safe="")


def day(time: datetime) -> str:
    """Say a day: 3 Jan 2024."""
    return time.astimezone(UTC).strftime("%-d %b %Y")


def moment(time: datetime) -> str:
    """Say a time: 3 Jan 2024, 14:05 UTC."""
    return time.astimezone(UTC).strftime("%-d %b %Y, %H:%M UTC")


def compact(number: float) -> str:
    """Say a large number shortly.

    >>> compact(45_008), compact(3_210_000), compact(999_700_000)
    ('45,008', '3.21M', '1G')
    """
    rounded = float(f"{number:.3g}")
    for size, sign in ((1_000_000_000, "G"), (1_000_000, "M")):
        if rounded >= size:
            return f"{rounded / size:g}{sign}"
    return f"{number:,.0f}"


@cache
def version(name: str) -> str:
    """Return the address of a file that is served as it is; it changes with the file."""
    return f"/static/{name}?{hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:10]}"


@cache
def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "compact": compact,
        "day": day,
        "duration": duration,
        "moment": moment,
        "score": lambda number: f"{number:.3f}".replace("-", "\N{MINUS SIGN}"),
        "segment": segment,
        "signed": lambda number: f"{number:+.2f}".replace("-", "\N{MINUS SIGN}"),
        "signed3": lambda number: f"{number:+.3f}".replace("-", "\N{MINUS SIGN}"),
    }
    made.globals["static"] = version
    return made


def home_of(caller: Caller) -> str:
    """Return where a caller's way begins: with their own likeness, if they may see no other."""
    own = sorted(scope.removeprefix(SELF) for scope in caller.scopes if scope.startswith(SELF))
    return f"/users/{segment(own[0])}" if own and not caller.may("read") else "/"


def render(scope: Scope, name: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """Render a template.

    Args:
        scope: The ASGI scope of the request.
        name: Of the template; a fragment's begins with an underscore.
        status: Of the response.
        context: What the template is about.
    """
    state: State = scope["app"].state.limner
    session: Session = scope["browser"]
    caller: Caller | None = scope.get("caller")
    common = {
        "caller": caller,
        "home": home_of(caller) if caller else "/",
        "token": state.sessions.token(session),
        "path": scope["path"],
    }
    response = HTMLResponse(_templates().get_template(name).render(common | context), status, HEADERS)
    if not session.known:
        keep(scope, response, session)
    return response


def keep(scope: Scope, response: Response, session: Session) -> None:
    """Let the browser keep a session."""
    state: State = scope["app"].state.limner
    state.sessions.keep(session, response, secure=scope["scheme"] == "https")


def is_swap(request: Request) -> bool:
    """Tell whether a part of a page is asked for, and not the whole."""
    return request.headers.get("hx-request") == "true" and "hx-history-restore-request" not in request.headers


def see(path: str) -> RedirectResponse:
    """Lead to another page after a form was sent."""
    return RedirectResponse(path, 303, HEADERS)


async def own_form(request: Request) -> None:
    """Refuse a form that is not of one of our pages (403)."""
    if request.method not in UNSAFE:
        return
    state: State = request.app.state.limner
    form = await request.form()
    token = request.headers.get(TOKEN_HEADER) or str(form.get(TOKEN_FIELD, ""))
    if not state.sessions.holds(request.scope["browser"], token):
        raise Problem(403, "token", "This form is too old, or none of ours. Load the page anew, and try again.")


def page_router() -> APIRouter:
    """Return a router for pages: they are not in the description, and take forms of ours only."""
    return APIRouter(include_in_schema=False, dependencies=[Depends(own_form)])
