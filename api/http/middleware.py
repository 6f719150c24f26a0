"""What happens to every request, from the outside in: log, metrics, problems, key and rate, body, repetition.

Plain ASGI: nothing is buffered that need not be, and streams stay streams.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import Any
from urllib.parse import quote

import orjson
import structlog
from anyio.to_thread import run_sync
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import tracing
from api.http import problems
from api.http.auth import Caller, authenticate
from api.http.problems import Problem
from api.http.sessions import is_page

UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
NDJSON = "application/x-ndjson"
BULK = frozenset({"/v1/events", "/v1/items"})
"""Paths that take NDJSON as well; their rows are checked one by one."""
OPEN = frozenset({"/v1/health", "/v1/ready", "/sign-in", "/sign-out"})
FORM = "application/x-www-form-urlencoded"
MAX_DEPTH = 100
_IN_MEMORY = 1 << 20
_CHUNK = 1 << 16
_FORM_MIB = 1
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")


class RequestLog:
    """Gives the request an id, and logs a line: what was asked for by its template, never whose data it was."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = structlog.get_logger("limner.http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        scope["request_id"] = request_id
        # Ids may hold slashes: the routes see the path as it was sent, and decode each id (`api.http.ids`).
        raw = scope.get("raw_path") or quote(scope["path"]).encode()
        scope["path"] = raw.decode("latin-1")
        began, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            caller: Caller | None = scope.get("caller")
            self._log.info(
                "request",
                method=scope["method"],
                route=getattr(scope.get("route"), "path", None),
                status=status,
                milliseconds=round((time.perf_counter() - began) * 1_000, 1),
                key_id=caller.key_id if caller else None,
                request_id=request_id,
                **tracing.trace_id(),
            )


class Problems:
    """Answers with problem details whatever goes wrong further in."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception as error:  # noqa: BLE001 - the edge of the request
            response = problems.answer(error, scope)
            if not started:  # else the server closes the connection, and the client sees that the rest is missing
                await response(scope, receive, send)


class Gate:
    """Asks for a key, and counts its requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        page = scope["type"] == "http" and is_page(scope["path"])
        if page:
            scope["browser"] = scope["app"].state.limner.sessions.of(scope)
        if (page or (scope["type"] == "http" and scope["path"].startswith("/v1/"))) and scope["path"] not in OPEN:
            state = scope["app"].state.limner
            caller = await run_sync(authenticate, state, scope, scope["request_id"])
            scope["caller"] = caller
            self._count(caller)
        await self._app(scope, receive, send)

    def _count(self, caller: Caller) -> None:
        if not (most := caller.requests_per_minute) or caller.key_id is None:
            return
        limit = RateLimitItemPerMinute(most)
        if self._limiter.hit(limit, caller.key_id):
            return
        wait = max(1, round(self._limiter.get_window_stats(limit, caller.key_id).reset_time - time.time()))
        raise Problem(
            429,
            "rate-limit",
            f"This key may send {most} requests a minute. Try again in {wait} s.",
            {"Retry-After": str(wait)},
        )


class Bodies:
    """Reads the body of an unsafe request before the route runs, up to a limit, and checks that it is JSON.

    The route finds it as a file at `scope["body"]`, its SHA-256 at `scope["body_hash"]`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["method"] not in UNSAFE:
            await self._app(scope, receive, send)
            return
        with SpooledTemporaryFile(_IN_MEMORY) as file:
            mib = _FORM_MIB if is_page(scope["path"]) else scope["app"].state.limner.settings.api.max_body_mib
            size = await _read(scope, receive, file, mib)
            if size is None:
                return  # the client is gone
            if size:
                _check_type(scope)
                if scope["path"] not in BULK and not is_page(scope["path"]):
                    file.seek(0)
                    await run_sync(check_json, file.read())
            file.seek(0)
            scope["body"] = file
            await self._app(scope, _again(file, receive), send)


async def _read(scope: Scope, receive: Receive, file: SpooledTemporaryFile[bytes], mib: int) -> int | None:
    """Read the body into the file; returns its size, None if the client went away."""
    told = Headers(scope=scope).get("content-length", "")
    too_large = Problem(
        413, "too-large", f"The body is larger than {mib} MiB. Send it in parts, or raise LIMNER_API__MAX_BODY_MIB."
    )
    if told.isdigit() and int(told) > mib << 20:
        raise too_large
    digest, size, more = hashlib.sha256(), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        data = message.get("body", b"")
        size += len(data)
        if size > mib << 20:
            raise too_large
        digest.update(data)
        file.write(data)
        more = message.get("more_body", False)
    scope["body_hash"] = digest.hexdigest()
    return size


def _again(file: SpooledTemporaryFile[bytes], receive: Receive) -> Receive:
    ended = False

    async def read() -> Message:
        nonlocal ended
        if ended:
            return await receive()
        data = file.read(_CHUNK)
        ended = not data
        return {"type": "http.request", "body": data, "more_body": not ended}

    return read


def _check_type(scope: Scope) -> None:
    headers = Headers(scope=scope)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    taken = ["application/json", *([NDJSON] if scope["path"] in BULK else [])]
    if is_page(scope["path"]):
        taken = [FORM]
    if kind not in taken:
        raise Problem(415, "media-type", f"Send the body as {' or '.join(taken)}.", {"Accept": ", ".join(taken)})
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "media-type", "Send the body as it is, without Content-Encoding.")


def check_json(data: bytes) -> Any:
    """Return what a body of JSON says.

    Raises:
        Problem: It is no JSON, too deeply nested, or holds text that the database cannot (422).
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Problem(422, "json", f"The body is not JSON: {error.msg}, at character {error.pos}.") from error
    suspicious = data.count(b"{") + data.count(b"[") > MAX_DEPTH or b"\\u0000" in data
    for part, depth in _parts(value) if suspicious else ():
        if depth > MAX_DEPTH:
            raise Problem(422, "json", f"The body is nested more than {MAX_DEPTH} levels deep.")
        if isinstance(part, str) and "\0" in part:
            raise Problem(422, "json", "A text in the body holds a NUL character.")
    return value


def _parts(value: Any) -> Iterator[tuple[Any, int]]:
    """Yield everything in a JSON value, names too, with its depth."""
    todo = [(value, 1)]
    while todo:
        part, depth = todo.pop()
        yield part, depth
        if isinstance(part, dict):
            todo += [(inner, depth + 1) for pair in part.items() for inner in pair]
        elif isinstance(part, list):
            todo += [(inner, depth + 1) for inner in part]
