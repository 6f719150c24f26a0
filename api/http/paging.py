"""Keyset pagination: a cursor is the key of the last row of a page, opaque to clients."""

import base64
import binascii
from typing import Annotated

import orjson
from fastapi import Query

from api.http.problems import Problem

Key = tuple[str | int, ...]

Limit = Annotated[int, Query(ge=1, le=200, description="The most rows of a page.", examples=[50])]
After = Annotated[
    str | None, Query(max_length=8_192, pattern="^[A-Za-z0-9_-]*$", description="The `next` of the page before.")
]


def encode(key: Key) -> str:
    """Turn the key of a row into a cursor."""
    return base64.urlsafe_b64encode(orjson.dumps(key)).decode().rstrip("=")


def decode(cursor: str | None, *kinds: type[str] | type[int]) -> Key | None:
    """Turn a cursor into the key of a row; None stays None.

    Args:
        cursor: As the client gives it back.
        kinds: The types of the key's parts; `str` unless given.

    Raises:
        Problem: It is none of ours (422).
    """
    if cursor is None:
        return None
    try:
        key = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError) as error:
        raise wrong() from error
    wanted = kinds or (str,)
    if not isinstance(key, list) or [type(part) for part in key] != list(wanted):
        raise wrong()
    if any("\0" in part if isinstance(part, str) else abs(part) >= 1 << 63 for part in key):
        raise wrong()
    return tuple(key)


def wrong() -> Problem:
    """Return the problem of a cursor that is none of ours."""
    return Problem(422, "bad-cursor", "`after` is no cursor of ours. Give back the `next` of the page before.")
