"""Reads Parquet in batches, every wanted column as the text that the other formats would have."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet

from store.errors import IngestError
from store.ingest.columns import Plan
from store.ingest.raw import RawBatch
from store.ingest.rejects import VALUE_SHOWN, Reject
from store.ingest.streams import BLOCK_BYTES, ByteStream

BATCH_ROWS = 100_000
BATCH_BYTES = 8 * BLOCK_BYTES


class ParquetReader:
    """A Parquet file; a gzipped one is unpacked to a temporary file, since its footer is at the end."""

    def __init__(self, stream: ByteStream, path: Path) -> None:
        self._size = path.stat().st_size
        self.extra_columns: tuple[str, ...] = ()
        self._unpacked = _unpacked(stream) if stream.gzipped else None
        if self._size == 0:
            raise IngestError("the file is empty")
        try:
            self._file = pyarrow.parquet.ParquetFile(self._unpacked or str(path))
        except (pa.ArrowInvalid, OSError) as error:
            self._close_unpacked()
            raise IngestError(
                f"not a whole Parquet file: its footer cannot be read ({_first_line(error)}). It was cut "
                "off, or has another format; nothing was stored."
            ) from error
        self.header: tuple[str, ...] = tuple(self._file.schema_arrow.names)

    def batches(self, plan: Plan) -> Iterator[RawBatch]:
        """The wanted columns as text."""
        self._check_types(plan)
        done = 0
        metadata = self._file.metadata
        total = max(1, metadata.num_rows)
        size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES * total // max(1, size)))
        try:
            for batch in self._file.iter_batches(batch_size=rows, columns=list(plan.wanted), use_threads=False):
                lines = np.arange(done + 1, done + 1 + batch.num_rows, dtype=np.int64)
                done += batch.num_rows
                yield _read(batch, plan, lines, self._size * done // total)
        except (pa.ArrowInvalid, OSError) as error:
            raise IngestError(f"the Parquet file is damaged ({_first_line(error)}); nothing was stored") from error

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        self._close_unpacked()

    def _close_unpacked(self) -> None:
        if self._unpacked is not None:
            self._unpacked.close()

    def _check_types(self, plan: Plan) -> None:
        for name in plan.wanted:
            kind = _value_type(self._file.schema_arrow.field(name).type)
            if pa.types.is_nested(kind) and name not in plan.nested:
                raise IngestError(f"column {name!r} has the wrong type: {kind}; expected text or numbers")
            if pa.types.is_boolean(kind) and name not in plan.flags:
                raise IngestError(f"column {name!r} has the wrong type: true or false")


def _read(batch: pa.RecordBatch, plan: Plan, lines: np.ndarray, done: int) -> RawBatch:
    columns: dict[str, pl.Series] = {}
    bad: dict[int, Reject] = {}
    for name in plan.wanted:
        array = batch.column(name)
        kind = _value_type(array.type)
        if pa.types.is_dictionary(array.type):
            array = array.cast(kind)
        if _is_text(kind):
            columns[name] = _text(array, name, lines, bad)
        elif pa.types.is_nested(kind):
            of_pairs = pa.types.is_map(kind)
            cells = [None if cell is None else _json(dict(cell) if of_pairs else cell) for cell in array.to_pylist()]
            columns[name] = pl.Series(name, cells, dtype=pl.String)
        else:
            columns[name] = _plain(array, kind).alias(name)
    frame = pl.DataFrame(columns)
    if bad:
        keep = np.setdiff1d(np.arange(len(lines)), list(bad))
        frame, lines = frame[keep], lines[keep]
    return RawBatch(frame, lines, tuple(bad.values()), done)


def _text(array: Any, name: str, lines: np.ndarray, bad: dict[int, Reject]) -> pl.Series:
    try:
        text = array if not pa.types.is_binary(array.type) else array.cast(pa.string())
        text.validate(full=True)  # Arrow does not check on reading, and Polars relies on it
        return pl.Series(name, pl.from_arrow(text), dtype=pl.String)
    except pa.ArrowInvalid:
        cells: list[str | None] = []
        for row, cell in enumerate(array.cast(pa.large_binary()).to_pylist()):
            try:
                cells.append(None if cell is None else cell.decode())
            except UnicodeDecodeError:
                shown = cell[:VALUE_SHOWN].decode("utf-8", "backslashreplace")
                bad[row] = Reject(int(lines[row]), name, shown, "not UTF-8")
                cells.append(None)
        return pl.Series(name, cells, dtype=pl.String)


def _plain(array: Any, kind: Any) -> pl.Series:
    """Numbers in their shortest form, times in ISO 8601 with the offset of their zone."""
    series = pl.Series(values=pl.from_arrow(array))
    if not pa.types.is_timestamp(kind):
        return series.cast(pl.String)
    if kind.tz is None:
        return series.dt.strftime("%Y-%m-%dT%H:%M:%S%.6f")
    if kind.tz in ("UTC", "+00:00", "Z", "Etc/UTC"):
        return series.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    return series.dt.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z")


def _value_type(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: Any) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
        )
    )


def _json(cell: Any) -> str:
    """A list, struct or map as JSON; a struct's null fields are left out, as the type cannot say absent."""
    if isinstance(cell, dict):
        cell = {key: value for key, value in cell.items() if value is not None}
    return orjson.dumps(cell, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _unpacked(stream: ByteStream) -> BinaryIO:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the reader
    try:
        while data := stream.read(BLOCK_BYTES):
            file.write(data)
    except IngestError:
        file.close()
        raise
    file.seek(0)
    return file


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
