"""Finds the bad rows of a batch: whole columns at once, reasons only for the rows that fail."""

from collections.abc import Callable

import numpy as np
import orjson
import polars as pl

from store.ingest.columns import Plan
from store.ingest.raw import RawBatch
from store.ingest.rejects import Reject
from store.records import MAX_ID, MAX_TEXT, NO_ID, NO_IDS

Reason = str | Callable[[str], str]


class Screen:
    """A batch by field, and the rows of it that were found bad; the first finding about a row counts.

    Attributes:
        frame: the fields, as text, all rows.
        rejects: what was found.
    """

    def __init__(self, raw: RawBatch, plan: Plan) -> None:
        self.frame = plan.fields(raw.frame) if len(raw.frame) else plan.fields(_empty(plan))
        self.rejects: list[Reject] = []
        self._plan = plan
        self._lines = raw.lines
        self._bad = np.zeros(len(raw.lines), dtype=np.bool_)

    @property
    def lines(self) -> pl.Series:
        """The physical line of every row."""
        return pl.Series("line", self._lines, dtype=pl.Int64)

    def reject(self, field: str, bad: pl.Series, reason: Reason, label: str = "") -> None:
        """Marks the rows where `bad` is true (null is false). A callable reason is given the value."""
        if not bad.any():
            return
        found = np.flatnonzero(bad.fill_null(value=False).to_numpy() & ~self._bad)
        for row in found:
            value = self.frame[field][int(row)] or ""
            text = reason if isinstance(reason, str) else reason(value)
            self.rejects.append(Reject(int(self._lines[row]), self._plan.column(field), value, text, label))
        self._bad[found] = True

    def require(self, field: str) -> None:
        """Rejects rows without this field."""
        self.reject(field, self.frame[field].is_null(), f"{field} is missing", f"{field} is missing")

    def check_text(self, field: str, limit: int = MAX_TEXT) -> None:
        """Rejects text that is too long or that PostgreSQL cannot hold."""
        column = self.frame[field]
        if column.null_count() == len(column):
            return
        if int(column.str.len_bytes().max() or 0) > limit:  # type: ignore[arg-type]  # a number, here
            self.reject(field, column.str.len_chars() > limit, f"longer than {limit:,} characters")
        self.reject(field, column.str.contains("\0", literal=True), "holds a NUL character")

    def check_identifier(self, field: str) -> None:
        """Rejects identifiers that are too long, or that PostgreSQL or an address cannot hold."""
        self.check_text(field, MAX_ID)
        self.reject(field, self.frame[field].is_in(sorted(NO_IDS)), NO_ID)

    def numbers(self, field: str) -> pl.Series:
        """The field as floats; rejects what is no finite number."""
        column = self.frame[field]
        values = column.cast(pl.Float64, strict=False)
        self.reject(field, values.is_null() & column.is_not_null(), "not a number")
        self.reject(field, values.is_nan(), "NaN is not a value: leave the field empty")
        self.reject(field, values.is_infinite(), "not a finite number")
        return pl.select(pl.when(values == 0).then(0.0).otherwise(values)).to_series()  # -0.0 becomes 0.0

    def json(self, field: str, read: Callable[[str], str]) -> pl.Series:
        """The field as canonical JSON by `read`, which raises ValueError with the reason."""
        column = self.frame[field]
        if column.null_count() == len(column):
            return column
        results: list[str | None] = []
        reasons: dict[int, str] = {}
        for row, text in enumerate(column.to_list()):
            try:
                results.append(None if text is None else read(text))
            except ValueError as error:
                results.append(None)
                reasons[row] = str(error)
        self.reject_rows(field, reasons)
        return pl.Series(field, results, dtype=pl.String)

    def reject_rows(self, field: str, reasons: dict[int, str]) -> None:
        """Rejects single rows (numbered from 0 in the batch), each with its own reason."""
        for row, reason in reasons.items():
            if not self._bad[row]:
                value = self.frame[field][row] or ""
                self.rejects.append(Reject(int(self._lines[row]), self._plan.column(field), value, reason))
                self._bad[row] = True

    def keep(self, **columns: pl.Series) -> pl.DataFrame:
        """The good rows: their lines and these columns."""
        frame = pl.DataFrame({"line": self.lines, **columns})
        return frame.filter(pl.Series(~self._bad)) if self._bad.any() else frame


def json_object(text: str) -> str:
    """A JSON object, checked and written in one form.

    Raises:
        ValueError: it is not one, or PostgreSQL could not hold it.
    """
    if not isinstance(value := loads(text), dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - callers take ValueError as the reason
    return dumps(value)


def loads(text: str) -> object:
    """Reads JSON.

    Raises:
        ValueError: this is not JSON.
    """
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg}") from None
    return value


def dumps(value: object) -> str:
    """Writes JSON that PostgreSQL can hold.

    Raises:
        ValueError: it cannot.
    """
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:  # nested too deeply
        raise ValueError(f"cannot be stored: {error}") from None
    if len(text) > MAX_TEXT:
        raise ValueError(f"longer than {MAX_TEXT:,} characters")
    if "\\u0000" in text and "\0" in _strings_in(value):
        raise ValueError("holds a NUL character")
    return text


def _strings_in(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "".join(key + _strings_in(inner) for key, inner in value.items())
    if isinstance(value, list):
        return "".join(map(_strings_in, value))
    return ""


def _empty(plan: Plan) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(plan.wanted, pl.String))
