"""A database of its own for a benchmark, so that nobody's profiles change: MovieLens-100K's items, and a log."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from api.runtime import database, embedder, now
from api.settings import Settings
from store import logs
from store.database import Database, open_database
from store.datasets import fetch_ml_100k
from store.ingest import ingest
from store.privacy import hasher


class Scratch(NamedTuple):
    """A temporary data directory and its database; both go at the end."""

    database: Database
    home: Path


@contextmanager
def scratch(settings: Settings) -> Iterator[Scratch]:
    """Give a database that holds the catalogue and, where the demo has made them, its vectors."""
    folder = fetch_ml_100k(settings.home)
    with tempfile.TemporaryDirectory(prefix="limner-bench-") as work:
        home = Path(work) / "home"
        with open_database(None, home) as opened:
            opened.upgrade()
            made = Scratch(opened, home)
            load(made, settings, "items", folder / "items.csv")
            borrow_vectors(settings, opened)
            yield made


def load(made: Scratch, settings: Settings, kind: str, path: Path) -> None:
    """Ingest a file, all of whose rows must be good."""
    report = ingest(
        made.database,
        kind,  # type: ignore[arg-type]
        path,
        source="benchmark",
        known_types=set(settings.evidence_settings.types),
        now=now(),
        hasher=hasher(made.home, None),
        rejects_path=made.home / "rejects.csv",
        reject_limit=0.0,
    )
    if not report.rows_stored:
        raise RuntimeError(f"no rows of {path} were stored")


def borrow_vectors(settings: Settings, opened: Database) -> None:
    """Copy the items' vectors from the demo's database; what is missing is embedded when it is needed."""
    name = embedder(settings).name
    with database(settings) as demo:
        with demo.session() as session:
            owners = list(logs.text_hashes(session, "item", name))
        vectors = logs.read_vectors(demo, "item", name, owners)
    with opened.session() as session:
        logs.write_vectors(session, "item", name, vectors)
