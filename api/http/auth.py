"""Who asks, and what they may: keys, scopes, and the audit of what is done with a person's data.

`authenticate` runs before anything else of a request (see `api.http.middleware`). Routes say what they need with one
of the dependencies: `Reader`, `Writer`, `Admin`; those with `user_id` in the path `UserReader`, `UserWriter`,
`UserEditor` or `UserAdmin`, which leave an audit row as well.
"""

import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.types import Scope as Connection

from api import runtime
from api.http.ids import UserId
from api.http.problems import Problem
from api.http.sessions import is_page
from api.http.state import State, StateDep
from store import audit, keys

Scope = Literal["read", "write", "admin"]
_GIVES: dict[str, frozenset[str]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"read", "write"}),
    "admin": frozenset({"read", "write", "admin"}),
}
_bearer = HTTPBearer(auto_error=False, description="A key: `limner keys create NAME --scope read` makes one.")


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        key_id: None where no key exists: someone at this machine.
        scopes: `read`, `write` (with it `read`), `admin` (with it both), `self:<user_id>`.
        request_id: As in the log and in the response.
        requests_per_minute: The most that the key may send; 0 is no limit.
    """

    key_id: str | None
    scopes: frozenset[str]
    request_id: str
    requests_per_minute: int = 0

    def may(self, scope: Scope, user_id: str | None = None) -> bool:
        """Tell whether they have a scope, or that for their own data, if a user is given."""
        return scope in self.scopes or (user_id is not None and keys.SELF + user_id in self.scopes)

    def require(self, scope: Scope, user_id: str | None = None) -> None:
        """Refuse who has not a scope.

        Raises:
            Problem: They have not (403).
        """
        if not self.may(scope, user_id):
            raise Problem(
                403, "forbidden", f"This key has not the scope {scope}. `limner keys create` makes one that has."
            )


def authenticate(state: State, connection: Connection, request_id: str) -> Caller:
    """Say who sends a request. It asks the database each time, so that a revoked key is refused at once.

    The interface for programs takes keys alone, pages take sessions alone: so no page of someone else's can make a
    browser send a request to that interface in its user's name.

    Args:
        state: Of the app.
        connection: The ASGI scope of the request.
        request_id: Of the request.

    Raises:
        Problem: The key is missing, unknown or revoked (401).
    """
    headers = Headers(scope=connection)
    token = None
    if is_page(connection["path"]):
        browser = connection["browser"]
        if browser.key_id is None:
            found = keys.find(state.database, None)
        else:
            found = keys.in_force(state.database, browser.key_id, browser.nonce)
    else:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        found = keys.find(state.database, token.strip() if scheme.lower() == "bearer" else None)
    if found.key is not None:
        return caller_of(state, found.key, request_id)
    if not found.any_key and _is_local(connection, headers):
        return Caller(None, _GIVES["admin"], request_id)
    said = "This key is unknown or revoked." if token else "A key is needed: `Authorization: Bearer lim_…`."
    raise Problem(
        401,
        "unauthorized",
        f"{said} `limner keys create NAME --scope read` makes one.",
        {"WWW-Authenticate": 'Bearer realm="limner"'},
    )


def caller_of(state: State, key: keys.Key, request_id: str) -> Caller:
    """Return who has this key."""
    limit = key.requests_per_minute
    scopes = frozenset[str]().union(*(_GIVES.get(scope, {scope}) for scope in key.scopes))
    return Caller(key.key_id, scopes, request_id, state.settings.api.requests_per_minute if limit is None else limit)


def _is_local(connection: Connection, headers: Headers) -> bool:
    """Tell whether a request without a key comes from this machine, and not from a web page of someone else's.

    A browser on this machine sends what any page tells it to: such a request names a host (after a DNS rebinding)
    or an origin that is not this machine.
    """
    client = connection.get("client")
    try:
        hosts = [urlsplit(f"//{headers.get('host', '')}").hostname]
        if origin := headers.get("origin"):
            hosts.append(urlsplit(origin).hostname)
    except ValueError:  # such as an address that is not closed
        return False
    return client is not None and is_loopback(client[0]) and all(map(is_loopback, hosts))


def is_loopback(host: str | None) -> bool:
    """Tell whether a host, name or address, is this machine."""
    if host is None or host == "localhost":
        return host is not None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _caller(request: Request, _token: Annotated[object, Security(_bearer)]) -> Caller:
    found: Caller = request.scope["caller"]
    return found


CallerDep = Annotated[Caller, Depends(_caller)]
"""Who asks, whatever they may."""


def _with_scope(scope: Scope) -> Callable[[Caller], Awaitable[Caller]]:
    async def check(caller: CallerDep) -> Caller:
        caller.require(scope)
        return caller

    return check


def _of_user(scope: Scope, *, own: bool) -> Callable[[Request, UserId, Caller, State], Caller]:
    def check(request: Request, user_id: UserId, caller: CallerDep, state: StateDep) -> Caller:
        caller.require(scope, user_id if own else None)
        note(state, caller, request.scope["route"].name, [user_id], durable=request.method not in {"GET", "HEAD"})
        return caller

    return check


def note(state: State, caller: Caller, action: str, user_ids: Iterable[str], *, durable: bool = True) -> None:
    """Leave an audit row for each of these users.

    The dependencies that end in `user_id` do this before the route runs; others call it themselves.

    Args:
        state: Of the app.
        caller: Who does it.
        action: What they do, such as `search_users`.
        user_ids: Whose data it is.
        durable: Whether to wait until the row is on the disk; reads need not.
    """
    hashes = [state.hasher.subject(user_id) for user_id in user_ids]
    if not durable and len(hashes) == 1:
        audit.note_read(state.database, runtime.now(), caller.key_id, action, hashes[0], caller.request_id)
        return
    with state.database.raw() as database:
        if not durable:
            database.execute("set local synchronous_commit = off")
        audit.note_all(database, runtime.now(), caller.key_id, action, hashes, caller.request_id)


Reader = Annotated[Caller, Security(_with_scope("read"), scopes=["read"])]
Writer = Annotated[Caller, Security(_with_scope("write"), scopes=["write"])]
Admin = Annotated[Caller, Security(_with_scope("admin"), scopes=["admin"])]
UserReader = Annotated[Caller, Security(_of_user("read", own=True), scopes=["read"])]
"""Scope read, or the user's own key; audited."""
UserWriter = Annotated[Caller, Security(_of_user("write", own=True), scopes=["write"])]
"""Scope write, or the user's own key: corrections; audited."""
UserEditor = Annotated[Caller, Security(_of_user("write", own=False), scopes=["write"])]
"""Scope write, and not the user's own key; audited."""
UserAdmin = Annotated[Caller, Security(_of_user("admin", own=False), scopes=["admin"])]
"""Scope admin; audited."""
