"""Rows that cannot be taken: what is kept of each, the file they go to, and how many are too many."""

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TextIO

from store.errors import IngestError

VALUE_SHOWN = 200
EARLY_ROWS = 10_000
COMMON_REASONS = 3


class Reject(NamedTuple):
    """One bad row: where it is, what is wrong with it, and the reason without the row's own details.

    `label` groups like reasons in counts; it is the reason itself unless that quotes the row.
    """

    line: int
    column: str
    value: str
    reason: str
    label: str = ""


class RejectLog:
    """Writes bad rows to a CSV file (made at the first one) and counts them by reason.

    A file left by an earlier run under the same name is removed at the start.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.total = 0
        self.reasons: Counter[str] = Counter()
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        self.path.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def extend(self, rejects: Iterable[Reject]) -> None:
        """Writes and counts these rows."""
        for reject in rejects:
            if self._file is None:
                self._file = self.path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
                csv.writer(self._file).writerow(["line", "column", "value", "reason"])
            csv.writer(self._file).writerow([reject.line, reject.column, reject.value[:VALUE_SHOWN], reject.reason])
            self.total += 1
            self.reasons[reject.label or reject.reason] += 1

    def check_limit(self, rows_read: int, limit: float, *, at_end: bool) -> None:
        """Refuses the file if too many of its rows are bad.

        At the end a file may have `limit` of its rows bad, and one bad row in any case (unless the limit
        is 0 or no good row is left), so that a short file is not lost for its cut last line.
        From `EARLY_ROWS` rows on the file is refused as soon as the share so far is above the limit.

        Raises:
            IngestError: too many rows are bad.
        """
        if not self.total or (not at_end and rows_read < EARLY_ROWS):
            return
        allowed = max(1, int(limit * rows_read)) if limit > 0 else 0
        if self.total <= allowed and self.total < rows_read:
            return
        common = "; ".join(f"{reason} ({count:,})" for reason, count in self.reasons.most_common(COMMON_REASONS))
        raise IngestError(
            f"{self.total:,} of {rows_read:,} rows {'' if at_end else 'read so far '}are bad, "
            f"more than the limit of {limit:.2%}; nothing was stored. Most common: {common}. "
            f"The bad rows are in {self.path}; mend them, or raise the limit."
        )
