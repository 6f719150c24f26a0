"""Checks rows of items and of users."""

import re
import zoneinfo

import polars as pl

from store.ingest.columns import ATTRIBUTE, Plan
from store.ingest.events import checked_times
from store.ingest.raw import RawBatch
from store.ingest.rejects import Reject
from store.ingest.screen import Screen, dumps, json_object, loads
from store.ingest.times import EARLIEST, LATEST

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")
_YES = ("true", "t", "yes", "y", "1")
_NO = ("false", "f", "no", "n", "0")


class ItemParser:
    """Turns raw batches into items that can be stored."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def parse(self, raw: RawBatch) -> tuple[pl.DataFrame, list[Reject]]:
        """The good items (lists and objects as JSON, the time in microseconds) and the bad rows."""
        screen = Screen(raw, self._plan)
        screen.require("item_id")
        screen.require("title")
        screen.check_identifier("item_id")
        for field in ("title", "description", "image_caption"):
            screen.check_text(field)
        frame = screen.frame
        price = screen.numbers("price")
        created_at = checked_times(screen, "created_at")["ts"]
        beyond = (created_at < EARLIEST) | (created_at >= LATEST)
        screen.reject("created_at", beyond, "the time is outside of the years 1 to 9999")
        categories = screen.json("categories", _category_list)
        attributes = _attributes(screen)
        good = screen.keep(
            item_id=frame["item_id"],
            title=frame["title"],
            categories=categories,
            attributes=attributes,
            description=frame["description"],
            price=price,
            image_caption=frame["image_caption"],
            created_at=created_at,
        )
        return good, screen.rejects


class UserParser:
    """Turns raw batches into users that can be stored."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._zones = zoneinfo.available_timezones()

    def parse(self, raw: RawBatch) -> tuple[pl.DataFrame, list[Reject]]:
        """The good users (attributes as JSON) and the bad rows."""
        screen = Screen(raw, self._plan)
        screen.require("user_id")
        screen.check_identifier("user_id")
        frame = screen.frame
        said = frame["consent"].str.to_lowercase()
        screen.reject("consent", ~said.is_in([*_YES, *_NO]), "consent is neither true nor false")
        screen.reject("tz", ~frame["tz"].is_in(sorted(self._zones)), "not a time zone such as Europe/Paris")
        language = screen.json("language", _language)
        attributes = _attributes(screen)
        good = screen.keep(
            user_id=frame["user_id"],
            attributes=attributes,
            consent=said.is_in(_YES),
            language=language,
            tz=frame["tz"],
        )
        return good, screen.rejects


def _attributes(screen: Screen) -> pl.Series:
    """The attributes as one JSON object: those of the column of that name, then those mapped one by one."""
    given = screen.json("attributes", json_object)
    named = [column for column in screen.frame.columns if column.startswith(ATTRIBUTE)]
    if not named:
        return given
    merged: list[str | None] = []
    reasons: dict[int, str] = {}
    cells = zip(*(screen.frame[column].to_list() for column in named), strict=True)
    for row, (base, values) in enumerate(zip(given.to_list(), cells, strict=True)):
        pairs = zip(named, values, strict=True)
        extra = {name[len(ATTRIBUTE) :]: _cell(text) for name, text in pairs if text is not None}
        try:
            merged.append(_merged(base, extra))
        except ValueError as error:
            merged.append(None)
            reasons[row] = str(error)
    screen.reject_rows(named[0], reasons)
    return pl.Series("attributes", merged, dtype=pl.String)


def _merged(base: str | None, extra: dict[str, object]) -> str | None:
    if not extra:
        return base
    known = loads(base) if base is not None else {}
    return dumps({**known, **extra} if isinstance(known, dict) else extra)


def _cell(text: str) -> object:
    """A mapped attribute: a JSON list or object is one, everything else is text."""
    if text[0] in "[{":
        try:
            return loads(text)
        except ValueError:
            return text
    return text


def _category_list(text: str) -> str:
    """A JSON list of strings, or names with `|` between them, as a JSON list."""
    value = _cell(text)
    if isinstance(value, list):
        if not all(isinstance(name, str) for name in value):
            raise ValueError("the categories are not a list of text")
        return dumps([name for name in value if name])
    if not isinstance(value, str):
        raise ValueError("the categories are an object, not a list")  # noqa: TRY004 - the reason of a reject
    return dumps([name.strip() for name in text.split("|") if name.strip()])


def _language(text: str) -> str:
    if not _LANGUAGE.fullmatch(text):
        raise ValueError("not a language tag such as en or pt-BR")
    return text
