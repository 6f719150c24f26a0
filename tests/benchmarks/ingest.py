"""How fast events get into the embedded database, beside a bare COPY of the same file.

Run as `python tests/benchmarks/ingest.py --rows 5000000`. Each way has a fresh database; the ingest runs in
a process of its own, so that its peak memory is its own. Prints a table, and a JSON line for machines.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from store.database import Database, open_database
from store.ingest import ingest
from store.privacy import Hasher

USERS, ITEMS = 100_000, 50_000
TYPES = ("view", "click", "like", "purchase", "rating")
CHUNK = 500_000
READ_BYTES = 4 << 20
COLUMNS = 'user_id text collate "C", item_id text collate "C", type text, ts timestamptz, value double precision'


def write_log(path: Path, rows: int, rng: np.random.Generator) -> None:
    """A log in the order of time, items and users with a long tail."""
    start = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
    with path.open("wb") as file:
        for first in range(0, rows, CHUNK):
            size = min(CHUNK, rows - first)
            seconds = start + (np.arange(first, first + size) * (31_536_000 / rows)).astype(np.int64)
            frame = pl.DataFrame(
                {
                    "user_id": (rng.beta(0.5, 2.0, size) * USERS).astype(np.int64),
                    "item_id": (rng.beta(0.5, 3.0, size) * ITEMS).astype(np.int64),
                    "type": pl.Series(TYPES).gather(rng.integers(0, len(TYPES), size)),
                    "ts": pl.Series(seconds * 1_000_000).cast(pl.Datetime("us")),
                    "value": rng.integers(1, 11, size) / 2,
                }
            ).with_columns(
                pl.format("user-{}", "user_id").alias("user_id"), pl.format("item-{}", "item_id").alias("item_id")
            )
            frame.write_csv(file, include_header=first == 0, datetime_format="%Y-%m-%dT%H:%M:%SZ")


def bare_copy(database: Database, path: Path, *, indexes: bool) -> float:
    """Seconds that COPY takes for the file as it is."""
    with database.raw() as connection:
        connection.execute("drop table if exists bare")
        key = ", id bigint generated always as identity primary key" if indexes else ""
        connection.execute(f"create table bare ({COLUMNS}{key})")
        if indexes:
            connection.execute("create index on bare (user_id, ts)")
    started = time.perf_counter()
    with database.raw() as connection, connection.cursor() as cursor, path.open("rb") as file:
        statement = "copy bare (user_id, item_id, type, ts, value) from stdin (format csv, header)"
        with cursor.copy(statement) as copy:
            while data := file.read(READ_BYTES):
                copy.write(data)
    seconds = time.perf_counter() - started
    with database.raw() as connection:
        connection.execute("drop table bare")
    return seconds


def peak_mb() -> float:
    """This process's peak resident memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def run_ingest(url: str, path: Path) -> None:
    """The child process: ingests and prints what it took."""
    database = Database(url)
    report = ingest(
        database,
        "events",
        path,
        source="benchmark",
        known_types=TYPES,
        now=datetime.now(UTC),
        hasher=Hasher(b"key of the benchmark"),
        rejects_path=path.with_suffix(".rejects.csv"),
    )
    print(json.dumps({"seconds": report.seconds, "stored": report.rows_stored, "peak_mb": peak_mb()}))
    database.close()


def measure(rows: int, home: Path, work: Path) -> dict[str, float]:
    """All the ways on one file."""
    path = work / "events.csv"
    write_log(path, rows, np.random.default_rng(0))
    with open_database(None, home) as database:
        database.upgrade()
        with database.raw() as connection:
            if connection.execute("select exists (select from events)").fetchone() != (False,):
                sys.exit(f"the database in {home} is not empty: give another --home")
        plain = bare_copy(database, path, indexes=False)
        indexed = bare_copy(database, path, indexes=True)
        command = [sys.executable, __file__, "--child", str(path)]
        environment = os.environ | {"LIMNER_BENCHMARK_URL": database.url}
        child = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    result = json.loads(child.stdout)
    if result["stored"] != rows:
        sys.exit(f"stored {result['stored']} of {rows} rows")
    return {
        "rows": rows,
        "file_mb": path.stat().st_size / 2**20,
        "copy_s": plain,
        "copy_indexed_s": indexed,
        "ingest_s": result["seconds"],
        "ingest_rows_per_s": rows / result["seconds"],
        "ratio_to_copy": result["seconds"] / plain,
        "ratio_to_copy_indexed": result["seconds"] / indexed,
        "ingest_peak_mb": result["peak_mb"],
    }


def main() -> None:
    """Parses the arguments, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--home", type=Path, help="data directory of the embedded database (default: temporary)")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_ingest(os.environ["LIMNER_BENCHMARK_URL"], arguments.child)
        return
    with tempfile.TemporaryDirectory(prefix="limner-bench-") as work:
        result = measure(arguments.rows, arguments.home or Path(work) / "home", Path(work))
    print(f"{'way':<34}{'seconds':>9}{'events/s':>12}{'ratio':>8}")
    for name, seconds in (
        ("COPY, no index", result["copy_s"]),
        ("COPY, key and (user_id, ts) index", result["copy_indexed_s"]),
        ("limner ingest", result["ingest_s"]),
    ):
        rate = result["rows"] / seconds
        print(f"{name:<34}{seconds:>9.1f}{rate:>12,.0f}{seconds / result['copy_s']:>8.1f}")
    print(f"peak memory of ingest: {result['ingest_peak_mb']:,.0f} MB")
    print(json.dumps({name: round(number, 3) for name, number in result.items()}))


if __name__ == "__main__":
    main()
