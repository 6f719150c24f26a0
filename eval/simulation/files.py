"""A simulation as Parquet files for ingest, and the truth beside them.

Users are made in batches, each from a generator of its own: memory is bounded, and the same seed gives the same bytes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eval.simulation.catalogue import Catalogue
from eval.simulation.logs import Batch
from eval.simulation.plan import BATCH, DAY, DAYS, UNTIL, Bools, Floats, Ints, Simulation

Progress = Callable[[int, int], None]
_TEXTS = pa.dictionary(pa.int32(), pa.string())
_TIME = pa.timestamp("s", tz="UTC")


class Written(NamedTuple):
    """The files of a simulation, and how many events they hold.

    Attributes:
        truth: Each user's real tastes; not for `limner ingest`.
        interests: Each item's theme, and whether the catalogue names it; likewise.
    """

    items: Path
    users: Path
    events: Path
    truth: Path
    interests: Path
    total: int


def simulate(wanted: Simulation, folder: Path, progress: Progress | None = None) -> Written:
    """Write items, users, events and the truth as Parquet files into a folder, which is made.

    Args:
        wanted: What to simulate.
        folder: Files of an earlier simulation there are overwritten.
        progress: Called with the users done and their number.

    Raises:
        ValueError: A number is too small or too large, or there is no such domain or language.
    """
    wanted.check()
    folder.mkdir(parents=True, exist_ok=True)
    names = ("items", "users", "events", "truth", "interests")
    items, users, events, truth, interests = (folder / f"{name}.parquet" for name in names)
    catalogue = Catalogue(wanted)
    pq.write_table(pa.Table.from_pylist([_item(row) for row in catalogue.rows], schema=_ITEMS), items)
    pq.write_table(_interests(catalogue), interests)
    total = 0
    with (
        pq.ParquetWriter(users, _USERS) as to_users,
        pq.ParquetWriter(events, _EVENTS) as to_events,
        pq.ParquetWriter(truth, _TRUTH) as to_truth,
    ):
        for start in range(0, wanted.users, BATCH):
            n = min(BATCH, wanted.users - start)
            batch = Batch(wanted, catalogue, start, n)
            to_users.write_table(pa.table([batch.ids, batch.languages, batch.zones], schema=_USERS))
            to_truth.write_table(_truth(batch))
            to_events.write_table(_events(batch))
            total += len(batch.log.user)
            if progress:
                progress(start + n, wanted.users)
    return Written(items, users, events, truth, interests, total)


_ITEMS = pa.schema(
    {
        "item_id": pa.string(),
        "title": pa.string(),
        "categories": pa.list_(pa.string()),
        "attributes": pa.map_(pa.string(), pa.string()),
        "description": pa.string(),
        "price": pa.float64(),
        "image_caption": pa.string(),
        "created_at": _TIME,
    }
)
_INTERESTS = pa.schema({"item_id": pa.string(), "interest": pa.string(), "named": pa.bool_()})
_USERS = pa.schema({"user_id": pa.string(), "language": pa.string(), "tz": pa.string()})
_EVENTS = pa.schema(
    {"user_id": _TEXTS, "item_id": _TEXTS, "type": _TEXTS, "ts": _TIME, "value": pa.float64(), "text": _TEXTS}
)
_TRUTH = pa.schema(
    {
        "user_id": pa.string(),
        "main": pa.string(),
        "early": pa.map_(pa.string(), pa.float64()),
        "late": pa.map_(pa.string(), pa.float64()),
        "drifted_at": _TIME,
        "disliked": pa.string(),
        "peak_hour": pa.float64(),
        "weekend": pa.bool_(),
        "season_from": _TIME,
        "bot": pa.bool_(),
    }
)


def _item(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"attributes": list(row["attributes"].items())}


def _interests(catalogue: Catalogue) -> pa.Table:
    names = [catalogue.words.themes[k].name for k in catalogue.theme]
    return pa.table([catalogue.ids, names, catalogue.named[catalogue.theme]], schema=_INTERESTS)


def _truth(batch: Batch) -> pa.Table:
    tastes, names = batch.tastes, [theme.name for theme in batch.words.themes]

    def shares(matrix: Floats) -> list[list[tuple[str, float]]]:
        return [[(names[k], round(float(row[k]), 4)) for k in np.flatnonzero(row)] for row in matrix]

    def day(days: Ints, known: Bools) -> Any:
        return pa.array(int(UNTIL.timestamp()) + (days - DAYS) * DAY, type=_TIME, mask=~known)

    main = np.argmax(tastes.early + tastes.late, axis=1)  # of the whole log
    return pa.table(
        [
            batch.ids, [None if bot else names[k] for k, bot in zip(main, tastes.bot, strict=True)],
            shares(tastes.early), shares(tastes.late), day(tastes.drift_day, tastes.drift_day < DAYS),
            [names[k] if k >= 0 else None for k in tastes.disliked], tastes.peak, tastes.weekend,
            day(tastes.season, tastes.season >= 0), tastes.bot,
        ],
        schema=_TRUTH,
    )  # fmt: skip


def _events(batch: Batch) -> pa.Table:
    log = batch.log
    searched = log.phrase >= 0
    columns = [
        _coded(log.user, batch.ids),
        _coded(log.item, batch.catalogue.ids, searched),
        _coded(log.kind, log.kinds),
        pa.array(log.ts, type=_TIME),
        pa.array(log.value, mask=np.isnan(log.value)),
        _coded(np.maximum(log.phrase, 0), batch.phrases, ~searched),
    ]
    return pa.table(columns, schema=_EVENTS)


def _coded(codes: Ints, texts: Sequence[str], missing: Bools | None = None) -> Any:
    """Return texts by their numbers; none where `missing`."""
    numbers = pa.array(codes.astype(np.int32), mask=missing)
    return pa.DictionaryArray.from_arrays(numbers, pa.array(list(texts), type=pa.string()))
