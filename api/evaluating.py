"""What an evaluation reads: the store, or a public log in a database of its own, which nobody else sees."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from agent.embedder import Embedder
from agent.loading import prepare_catalogue
from agent.unit import ModelInfo
from agent.verify import Repetition
from agent.writer import LlmWriter
from api import runtime
from api.commands.ingest import ingest_file
from api.console import progress_bar
from api.settings import Settings
from eval.errors import EmptyWorldError
from eval.running import Models
from eval.world import World, read_world
from store import logs
from store.database import Database, open_database
from store.datasets import clean_ml_1m, fetch_ml_100k
from store.packages import sha256_of

Dataset = Literal["own", "ml-100k", "ml-1m"]

_SCRATCH = "evaluation"
"""Under the data directory: a folder with a database for each public log."""


@contextmanager
def opened(settings: Settings, dataset: Dataset, path: Path | None) -> Iterator[Database]:
    """Open the store, or the database of a public log, which is fetched and ingested if it is not there yet.

    Raises:
        DownloadError: The log cannot be fetched, or is not in the folder given.
    """
    if dataset == "own":
        with runtime.database(settings) as store:
            yield store
        return
    with ExitStack() as stack:
        folder, home = _files(settings, dataset, path)
        scratch = settings.model_copy(update={"home": home, "database_url": None})
        store = stack.enter_context(open_database(None, home))
        store.upgrade()
        _fill(store, scratch, folder, dataset)
        yield store


def _files(settings: Settings, dataset: Dataset, path: Path | None) -> tuple[Path, Path]:
    """Return the folder of the files to ingest, and the data directory for them."""
    if dataset == "ml-100k":
        with progress_bar("fetching MovieLens-100K") as advance:
            folder = fetch_ml_100k(settings.home, advance)
        return folder, settings.home / _SCRATCH / dataset
    assert path is not None  # noqa: S101 - the command has checked it
    staged = settings.home / _SCRATCH / "staged"
    clean_ml_1m(path, staged)
    home = settings.home / _SCRATCH / f"{dataset}-{sha256_of(staged / 'events.csv')[:12]}"
    return staged, home


def _fill(store: Database, scratch: Settings, folder: Path, dataset: Dataset) -> None:
    """Ingest the files, unless the same were before."""
    done, files = scratch.home / "ingested", [(kind, folder / f"{kind}.csv") for kind in ("items", "users", "events")]
    there = [(kind, file) for kind, file in files if file.is_file()]
    sums = "".join(f"{sha256_of(file)}  {file.name}\n" for _, file in there)
    if done.exists() and done.read_text(encoding="utf-8") == sums:
        return
    for kind, file in there:
        ingest_file(store, scratch, kind, file, [], source=dataset)
    done.write_text(sums, encoding="utf-8")


def world_of(store: Database, settings: Settings, embedder: Embedder) -> World:
    """Read a store into memory.

    Raises:
        EmptyWorldError: There are no events in it.
    """
    with progress_bar("embedding items") as advance:
        catalogue = prepare_catalogue(store, embedder, advance)
    with store.session() as session:
        anyone = bool(logs.user_ids(session, limit=1))
    if not (anyone and catalogue.base_rates.items):
        raise EmptyWorldError(
            "The store holds no events about items. Ingest your log with `limner ingest`, or measure on a public one: "
            "`limner eval run --dataset ml-100k`."
        )
    return read_world(store, catalogue, embedder, settings.evidence_settings)


@contextmanager
def models(settings: Settings, embedder: Embedder, *, writes: bool, judges: bool) -> Iterator[tuple[Models, ModelInfo]]:
    """Give the language model for what it is to do, and its name."""
    with runtime.batch_model(settings) as (chat, info):
        llm = LlmWriter(chat, Repetition(embedder.embed), settings.language, runtime.asked(settings)), info
        yield Models(llm if writes else None, chat if judges else None), info
