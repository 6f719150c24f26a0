"""What every reader of a file gives: batches of text, and a name for each column."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from store.ingest.columns import Plan
from store.ingest.rejects import Reject


@dataclass(frozen=True)
class RawBatch:
    """Some rows of a file, not yet checked.

    Attributes:
        frame: the wanted columns, all text.
        lines: shape (rows,), the physical line of each row, from 1 (the row's number in Parquet).
        rejects: rows that could not even be read.
        bytes_done: how much of the file has been read.
    """

    frame: pl.DataFrame
    lines: npt.NDArray[np.int64]
    rejects: tuple[Reject, ...]
    bytes_done: int

    @property
    def rows_read(self) -> int:
        """Rows, good or bad."""
        return len(self.lines) + len(self.rejects)


class Reader(Protocol):
    """A file opened for reading.

    `header` holds its columns, or None where each row names its own (JSON Lines); then `extra_columns` says
    after reading which were not wanted.
    """

    @property
    def header(self) -> tuple[str, ...] | None:
        """The columns."""

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Columns met while reading that were not wanted."""

    def batches(self, plan: Plan) -> Iterator[RawBatch]:
        """The wanted columns, batch by batch."""
