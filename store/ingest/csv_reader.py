"""Reads CSV and TSV in batches, one bad row at a time being bad.

A block of lines without quotes, with the same number of columns in each and in valid UTF-8 goes through
Arrow's parser (fast); every other block goes through Python's (exact about what is wrong, and where). Both
give the same rows and physical line numbers; a test holds that.
"""

import csv
import io
import re
from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv

from store.errors import IngestError
from store.ingest.columns import Plan
from store.ingest.raw import RawBatch
from store.ingest.rejects import VALUE_SHOWN, Reject
from store.ingest.streams import MAX_RECORD_BYTES, Block, ByteStream, line_blocks

_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # how Python decodes bytes that are no UTF-8


class CsvReader:
    """A CSV or TSV file with a header line."""

    def __init__(self, stream: ByteStream, delimiter: str) -> None:
        self._stream = stream
        self._delimiter = delimiter
        self._blocks = line_blocks(stream)
        self._first = next(self._blocks)
        self.header, self._first = self._take_header(self._first)
        self.extra_columns: tuple[str, ...] = ()

    def batches(self, plan: Plan) -> Iterator[RawBatch]:
        """The wanted columns as text, block by block."""
        wanted = {name: self.header.index(name) for name in plan.wanted}
        rows = _Rows(len(self.header), wanted, self._delimiter)
        carried: Block | None = None
        for block in self._all_blocks():
            whole = block if carried is None else _join(carried, block)
            carried = None
            frame = None if b'"' in whole.data else _read_plain(whole.data, rows)
            if frame is not None:
                lines = np.arange(whole.first_line, whole.first_line + len(frame), dtype=np.int64)
                yield RawBatch(frame, lines, whole.rejects, self._stream.done)
            else:
                carried = rows.read(whole)
                yield rows.batch(whole.rejects, self._stream.done)

    def _all_blocks(self) -> Iterator[Block]:
        yield self._first
        if not self._first.last:
            yield from self._blocks

    def _take_header(self, block: Block) -> tuple[tuple[str, ...], Block]:
        data, line = block.data, block.first_line
        while data:
            head, _, data = data.partition(b"\n")
            line += 1
            if head.strip():
                break
        else:
            raise IngestError("the file is empty: it has no header line")
        try:
            names = next(csv.reader([head.decode().rstrip("\r")], delimiter=self._delimiter, strict=True))
        except UnicodeDecodeError as error:
            raise IngestError(f"the header line is not UTF-8 ({error}); convert the file to UTF-8") from error
        except csv.Error as error:
            raise IngestError(f"the header line cannot be read: {error}") from error
        return tuple(name.strip() for name in names), block._replace(data=data, first_line=line)


def _join(carried: Block, block: Block) -> Block:
    return Block(carried.first_line, carried.data + block.data, block.rejects, block.last)


def _read_plain(data: bytes, rows: "_Rows") -> pl.DataFrame | None:
    """Reads a block without quotes; None if anything in it is out of the ordinary."""
    if data.startswith((b"\n", b"\r")) or b"\n\n" in data or b"\n\r" in data:
        return None  # empty lines would upset the line numbers
    if data.count(b"\r") != data.count(b"\r\n"):
        return None
    names = [str(index) for index in range(rows.width)]
    if not data:
        return pl.DataFrame(schema=dict.fromkeys(rows.wanted, pl.String))
    indexes = [str(index) for index in rows.wanted.values()]
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data),
            pyarrow.csv.ReadOptions(column_names=names, block_size=len(data) + 1, use_threads=False),
            pyarrow.csv.ParseOptions(delimiter=rows.delimiter, quote_char=False, ignore_empty_lines=False),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=indexes,
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None  # a wrong number of columns, or not UTF-8
    frame = pl.DataFrame(pl.from_arrow(table))
    return frame.rename(dict(zip(indexes, rows.wanted, strict=True)))


def _reason(error: str) -> str:
    if error == "unexpected end of data":
        return "a quote opened here is not closed"
    if "expected after" in error:
        return "a quote opened here is closed in the middle of a text"
    return error


class _Rows:
    """Python's CSV parser over blocks, gathering good rows and rejects."""

    def __init__(self, width: int, wanted: dict[str, int], delimiter: str) -> None:
        self.width = width
        self.wanted = wanted
        self.delimiter = delimiter
        self._records: list[list[str]] = []
        self._lines: list[int] = []
        self._rejects: list[Reject] = []
        csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_BYTES))

    def batch(self, rejects: tuple[Reject, ...], done: int) -> RawBatch:
        """What has been gathered since the last call."""
        columns = {
            name: pl.Series(name, [record[index] for record in self._records], dtype=pl.String)
            for name, index in self.wanted.items()
        }
        batch = RawBatch(pl.DataFrame(columns), np.array(self._lines, dtype=np.int64), (*rejects, *self._rejects), done)
        self._records, self._lines, self._rejects = [], [], []
        return batch

    def read(self, block: Block) -> Block | None:
        """Parses a block; returns the lines of a record whose end lies in the next block.

        A quote that is never closed, or closed in the wrong place, must not swallow the rows after it: the
        line that opens it is rejected and reading goes on with the next line.
        """
        text = block.data.decode("utf-8", "surrogateescape")
        lines = list(io.StringIO(text, newline="\n"))
        start = 0
        while start < len(lines):
            done, error = self._read_from(lines, start, block.first_line)
            start += done
            if error is None:
                continue
            if error == "unexpected end of data" and not block.last:
                rest = "".join(lines[start:]).encode("utf-8", "surrogateescape")
                if len(rest) < MAX_RECORD_BYTES:
                    return Block(block.first_line + start, rest, (), last=False)
            self._reject(block.first_line + start, "", lines[start].rstrip("\r\n"), _reason(error))
            start += 1
        return None

    def _read_from(self, lines: list[str], start: int, first_line: int) -> tuple[int, str | None]:
        """Reads records up to the end or the first malformed one: lines done, and what is wrong."""
        reader = csv.reader(map(lines.__getitem__, range(start, len(lines))), delimiter=self.delimiter, strict=True)
        done = 0
        try:
            for record in reader:
                line = start + done
                if len(record) == self.width:
                    self._take(record, first_line + line)
                elif record:
                    wrong = f"expected {self.width} columns, found {len(record)}"
                    if reader.line_num > done + 1:
                        return done, wrong
                    self._reject(first_line + line, "", lines[line].rstrip("\r\n"), wrong)
                done = reader.line_num
        except csv.Error as error:
            return done, str(error)
        return done, None

    def _take(self, record: list[str], line: int) -> None:
        for name, index in self.wanted.items():
            if not record[index].isascii() and _NOT_UTF8.search(record[index]):
                self._reject(line, name, record[index], "not UTF-8")
                return
        self._records.append(record)
        self._lines.append(line)

    def _reject(self, line: int, column: str, value: str, reason: str) -> None:
        raw = value[:VALUE_SHOWN].encode("utf-8", "surrogateescape")
        self._rejects.append(Reject(line, column, raw.decode("utf-8", "backslashreplace"), reason))
