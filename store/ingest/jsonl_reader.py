"""Reads JSON Lines: one object a line."""

from collections.abc import Callable, Collection, Iterator, KeysView
from typing import NamedTuple

import numpy as np
import orjson
import polars as pl

from store.errors import IngestError
from store.ingest.columns import Plan
from store.ingest.raw import RawBatch
from store.ingest.rejects import VALUE_SHOWN, Reject
from store.ingest.streams import Block, ByteStream, line_blocks

EXTRA_NAMED = 100

_CellReader = Callable[[object], str | None]
_CellReaders = dict[str, _CellReader]


class JsonLinesReader:
    """A file of JSON objects; each row names its own fields."""

    header = None

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._extra: dict[str, None] = {}

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Names met that were not wanted (the first `EXTRA_NAMED`)."""
        return tuple(self._extra)

    def batches(self, plan: Plan) -> Iterator[RawBatch]:
        """The wanted columns as text, block by block."""
        readers = {name: _cell_reader(name, plan) for name in plan.wanted}
        for block in line_blocks(self._stream):
            if block.first_line == 1 and block.data.lstrip()[:1] == b"[":
                raise IngestError("this is a JSON array, not JSON Lines: write one object a line")
            yield self._read(block, readers)

    def _read(self, block: Block, readers: _CellReaders) -> RawBatch:
        cells: dict[str, list[str | None]] = {name: [] for name in readers}
        lines: list[int] = []
        rejects = list(block.rejects)
        for line, data in enumerate(block.data.split(b"\n"), start=block.first_line):
            if not data or data.isspace():
                continue
            row = _read_line(data, line, readers)
            if isinstance(row, Reject):
                rejects.append(row)
                continue
            lines.append(line)
            for column, cell in zip(cells.values(), row.cells, strict=True):
                column.append(cell)
            if row.names - readers.keys():
                self._note(row.names - readers.keys())
        frame = pl.DataFrame(cells, schema=dict.fromkeys(readers, pl.String))
        return RawBatch(frame, np.array(lines, dtype=np.int64), tuple(rejects), self._stream.done)

    def _note(self, names: Collection[str]) -> None:
        if len(self._extra) < EXTRA_NAMED:
            self._extra.update(dict.fromkeys(sorted(names)))


class _Row(NamedTuple):
    cells: list[str | None]
    names: KeysView[str]


def _read_line(data: bytes, line: int, readers: _CellReaders) -> _Row | Reject:
    try:
        record = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return _reject(line, "", data, f"not JSON: {error.msg}", "not JSON")
    if not isinstance(record, dict):
        return _reject(line, "", data, "not a JSON object")
    cells = []
    for name, read in readers.items():
        try:
            cells.append(read(record.get(name)))
        except TypeError as error:
            return _reject(line, name, orjson.dumps(record[name]), str(error))
    return _Row(cells, record.keys())


def _cell_reader(name: str, plan: Plan) -> _CellReader:
    nested, flag = name in plan.nested, name in plan.flags

    def read(cell: object) -> str | None:
        if cell is None or type(cell) is str:
            return cell
        if type(cell) is int or type(cell) is float:
            return repr(cell)
        if type(cell) is bool:
            if flag:
                return "true" if cell else "false"
            raise TypeError("wrong type: true or false")
        if nested:
            return orjson.dumps(cell).decode()
        raise TypeError(f"wrong type: {'a list' if type(cell) is list else 'an object'}")

    return read


def _reject(line: int, column: str, data: bytes, reason: str, label: str = "") -> Reject:
    return Reject(line, column, data[:VALUE_SHOWN].decode("utf-8", "backslashreplace"), reason, label)
