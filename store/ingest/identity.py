"""What makes two events the same: the id of an event that comes without one.

The base of an id is the SHA-256 (hexadecimal) of a canonical JSON object of the source and of what the
event says: keys sorted, absent fields left out, the time in UTC microseconds, the value as the shortest
float, the text in NFC. `context` and the offset of the time are no part of it, nor are the file's name and
format: CSV, Parquet and gzip of one log give the same ids. The k-th repeat (k >= 1) of a row in one file
has the SHA-256 of `base:k`, so that real repeats are kept and a file ingested twice changes nothing.

Whether a row repeats an earlier one is told by the first 8 bytes of its base. Two different rows that
share them (one chance in 10^6 for 5 million rows) only give the later one a repeat's id: still the same
id each time the file is read.
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

Prefixes = npt.NDArray[np.uint64]
Ordinals = npt.NDArray[np.int64]


class EventContent(NamedTuple):
    """What an event says, in canonical form: `ts` in microseconds since 1970, `text` in NFC."""

    user_id: str
    item_id: str | None
    type: str
    ts: int
    value: float | None = None
    text: str | None = None


def canonical_event(source: str, event: EventContent) -> bytes:
    """The canonical JSON of an event.

    Example:
        >>> canonical_event("default", EventContent("u1", "i1", "view", 0))
        b'{"item_id":"i1","source":"default","ts":0,"type":"view","user_id":"u1"}'
    """
    content: dict[str, str | int | float] = {}  # filled in the order of the keys: sorting them costs more
    if event.item_id is not None:
        content["item_id"] = event.item_id
    content["source"] = source
    if event.text is not None:
        content["text"] = event.text
    content["ts"] = event.ts
    content["type"] = event.type
    content["user_id"] = event.user_id
    if event.value is not None:
        content["value"] = event.value + 0.0  # -0.0 becomes 0.0, an integer a float
    return orjson.dumps(content)


def base_id(source: str, event: EventContent) -> str:
    """The id of an event that no earlier row of its file repeats: 64 hexadecimal digits."""
    return hashlib.sha256(canonical_event(source, event)).hexdigest()


def repeat_id(base: str, k: int) -> str:
    """The id of the k-th repeat (0: the first of its kind) of the event with this base."""
    return base if k == 0 else hashlib.sha256(f"{base}:{k}".encode()).hexdigest()


class RepeatCounter:
    """Counts how often each prefix came before, over a whole file, in 8 bytes a row.

    Prefixes are kept in sorted runs; a run is merged into the one before it when that is not at least
    twice as long, so that there are only about log2(rows) runs and each row is moved that often at most.
    """

    def __init__(self) -> None:
        self._runs: list[Prefixes] = []

    def ordinals(self, prefixes: Prefixes) -> Ordinals:
        """The ordinal of each row among the rows with its prefix, of this batch and all before.

        Args:
            prefixes: shape (rows,), in the order of the file.

        Returns:
            Shape (rows,); 0 where the prefix is new.
        """
        order = np.argsort(prefixes, kind="stable")
        ranked = prefixes[order]
        starts = np.searchsorted(ranked, ranked, side="left")
        counts = np.arange(len(ranked), dtype=np.int64) - starts
        for run in self._runs:
            counts += np.searchsorted(run, ranked, side="right") - np.searchsorted(run, ranked, side="left")
        result = np.empty(len(ranked), dtype=np.int64)
        result[order] = counts
        self._add(ranked)
        return result

    def _add(self, ranked: Prefixes) -> None:
        self._runs.append(ranked)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            last = self._runs.pop()
            merged = np.concatenate([self._runs.pop(), last])
            merged.sort(kind="stable")
            self._runs.append(merged)


def event_ids(source: str, events: Iterable[EventContent], repeats: RepeatCounter) -> list[str]:
    """The ids of a batch of events without ids, in the order of the file."""
    bases = [base_id(source, event) for event in events]
    prefixes = np.fromiter((int(base[:16], 16) for base in bases), dtype=np.uint64, count=len(bases))
    ordinals = repeats.ordinals(prefixes)
    for row in np.flatnonzero(ordinals):
        bases[row] = repeat_id(bases[row], int(ordinals[row]))
    return bases
