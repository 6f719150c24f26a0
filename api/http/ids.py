"""Ids in paths: free text, percent-encoded; an encoded slash belongs to the id.

The app routes on the path as it was sent (see `api.http.middleware.Edge`), so each id is decoded here.
"""

from typing import Annotated
from urllib.parse import unquote

from fastapi import Path
from pydantic import AfterValidator, BeforeValidator

from store.records import MAX_ID, NO_ID, NO_IDS


def decoded(segment: str) -> str:
    """Decode a segment of a path.

    Raises:
        ValueError: It is no UTF-8.
    """
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError as error:
        raise ValueError("is not percent-encoded UTF-8") from error


def storable(text: str) -> str:
    """Return the text.

    Raises:
        ValueError: The database cannot hold it.
    """
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


def addressable(text: str) -> str:
    """Return the id.

    Raises:
        ValueError: No address can hold it.
    """
    if text in NO_IDS:
        raise ValueError(NO_ID)
    return storable(text)


def _id(what: str, example: str) -> object:
    return Path(min_length=1, max_length=MAX_ID, description=f"The id of {what}, percent-encoded.", examples=[example])


UserId = Annotated[str, BeforeValidator(decoded), AfterValidator(addressable), _id("a user", "405")]
ItemId = Annotated[str, BeforeValidator(decoded), AfterValidator(addressable), _id("an item", "50")]
ClaimId = Annotated[str, BeforeValidator(decoded), AfterValidator(storable), _id("a claim", "c1")]
