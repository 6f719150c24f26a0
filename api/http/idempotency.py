"""The header `Idempotency-Key`: an unsafe request that is sent again gets its response again, and changes nothing.

Names of requests and the requests themselves are kept as keyed hashes: a client may put a user's id into them.
A request that is under way gives signs of life, so that one whose server was killed can soon be sent again.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import runtime
from api.http.auth import Caller
from api.http.middleware import UNSAFE
from api.http.problems import Problem
from api.http.sessions import is_page
from api.http.state import State
from store import audit, idempotency
from store.errors import StoreError
from store.idempotency import Stored

HEADER = "Idempotency-Key"
REPLAY = "Idempotent-Replay"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_NOT_KEPT = frozenset({401, 403, 404, 429})  # a 404 did nothing, and may name someone who was erased
_KEPT_HEADERS = frozenset({"content-type", "etag", "location", "retry-after", "cache-control"})
_MOST_KEPT = 4 << 20
_FAILED = 500


@dataclass
class _Request:
    """A request under a name.

    Attributes:
        now: When it has begun, or last given a sign of life.
    """

    state: State
    caller: Caller
    key_id: str
    key: str
    request_hash: str
    subject: str | None
    now: datetime


class Idempotency:
    """Gives stored responses again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        key = Headers(scope=scope).get(HEADER) if scope["type"] == "http" and scope["method"] in UNSAFE else None
        if key is None or "caller" not in scope or is_page(scope["path"]):
            await self._app(scope, receive, send)
            return
        request = _request(scope, key)
        known = await run_sync(_begin, request)
        if known is None:
            await self._run(request, scope, receive, send)
            return
        headers = [(name.encode(), value.encode()) for name, value in known.headers.items()]
        headers += [(REPLAY.lower().encode(), b"true"), (b"content-length", str(len(known.body)).encode())]
        await send({"type": "http.response.start", "status": known.status, "headers": headers})
        await send({"type": "http.response.body", "body": known.body})

    async def _run(self, request: _Request, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request; the response is kept before the client sees that it is complete."""
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        kept = False
        try:
            async with _alive(request):
                await self._app(scope, receive, collect)
            kept = await run_sync(_finish, request, messages)
        finally:
            if not kept:
                await run_sync(_forget, request)
        for message in messages:
            await send(message)


@asynccontextmanager
async def _alive(request: _Request) -> AsyncIterator[None]:
    """Give signs of life meanwhile, in a thread of its own: the others may all be busy."""
    ended, own = asyncio.Event(), CapacityLimiter(1)

    async def beat() -> None:
        while not ended.is_set():
            try:
                await asyncio.wait_for(ended.wait(), idempotency.BEAT_S)
            except TimeoutError:
                with suppress(StoreError):  # the next one may get through
                    request.now = await run_sync(_beat, request, limiter=own)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        ended.set()
        await beating  # one that is under way changes what `request.now` must be


def _request(scope: Scope, key: str) -> _Request:
    if not _KEY.fullmatch(key):
        raise Problem(422, "idempotency-key", f"{HEADER} is 1 to 255 printable characters, without spaces.")
    state: State = scope["app"].state.limner
    parts = (scope["method"], scope["path"], scope["query_string"].decode("latin-1"), scope["body_hash"])
    subject = subject_of(scope["path"])
    return _Request(
        state=state,
        caller=scope["caller"],
        key_id=scope["caller"].key_id or "",
        key=state.hasher.subject(key),
        request_hash=state.hasher.subject("\n".join(parts)),
        subject=None if subject is None else state.hasher.subject(subject),
        now=runtime.now(),
    )


def subject_of(path: str) -> str | None:
    """Return the user id in a path as it was sent.

    >>> subject_of("/v1/users/a%2Fb/profile")
    'a/b'
    """
    found = re.match(r"/v1/users/([^/]+)", path)
    return unquote(found[1]) if found else None


def _begin(request: _Request) -> Stored | None:
    """Begin the request (None), or return the response that is known.

    Raises:
        Problem: It is under way, or another request came under this key (409).
    """
    with request.state.database.session() as session:
        known = idempotency.begin(
            session, request.key_id, request.key, request.request_hash, request.subject, request.now
        )
        if isinstance(known, Stored) and request.subject is not None:
            audit.note(
                session, request.now, request.caller.key_id, "repeat", request.subject, request.caller.request_id
            )
    if known == "under way":
        raise Problem(
            409, "under-way", "This request is under way already. Send it again a little later.", {"Retry-After": "1"}
        )
    if known == "other request":
        raise Problem(409, "idempotency-key", f"Another request was sent under this {HEADER}. Take a new one for it.")
    return known if isinstance(known, Stored) else None


def _beat(request: _Request) -> datetime:
    return idempotency.beat(request.state.database, request.key_id, request.key, request.now, runtime.now())


def _finish(request: _Request, messages: list[Message]) -> bool:
    """Keep the response, if it is one to keep."""
    start = messages[0]
    body = b"".join(message.get("body", b"") for message in messages[1:])
    if start["status"] >= _FAILED or start["status"] in _NOT_KEPT or len(body) > _MOST_KEPT:
        return False
    headers = {name.decode(): value.decode() for name, value in start["headers"] if name.decode() in _KEPT_HEADERS}
    with request.state.database.session() as session:
        idempotency.finish(session, request.key_id, request.key, request.now, Stored(start["status"], headers, body))
    return True


def _forget(request: _Request) -> None:
    with request.state.database.session() as session:
        idempotency.forget(session, request.key_id, request.key, request.now)
