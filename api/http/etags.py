"""ETags: what a version of a resource is called, and what to do with the headers that name one."""

import hashlib
from typing import Any

import orjson
from fastapi import Request, Response

from api.http.problems import Problem

UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "The client has this version"}}
"""For `responses=` of a route that knows `If-None-Match`."""


def etag_of(*parts: str | int | None) -> str:
    """Return the strong ETag of a resource from what changes whenever it does, such as an id and a version."""
    return f'"{hashlib.sha256(orjson.dumps(parts)).hexdigest()[:32]}"'


def unchanged(request: Request, etag: str) -> Response | None:
    """Return the 304 that a read is answered with if the client has this version (`If-None-Match`), else None."""
    given = request.headers.get("if-none-match")
    if given is None or not _names(given, etag, weak=True):
        return None
    return Response(status_code=304, headers={"ETag": etag})


def require_match(request: Request, etag: str | None) -> None:
    """Refuse a change that rests on another version (`If-Match`).

    Args:
        request: The request; without the header, everything matches.
        etag: Of the present version; None: there is none, which nothing matches.

    Raises:
        Problem: It is another version (412).
    """
    given = request.headers.get("if-match")
    if given is None or (etag is not None and _names(given, etag, weak=False)):
        return
    raise Problem(412, "stale", "The resource has changed since it was read. Read it anew, then change it.")


def _names(header: str, etag: str, *, weak: bool) -> bool:
    if header.strip() == "*":
        return True
    given = [part.strip() for part in header.split(",")]
    return etag in ([part.removeprefix("W/") for part in given] if weak else given)
