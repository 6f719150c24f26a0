"""`limner demo`: from nothing to printed profiles on MovieLens-100K, with the times that it took."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from agent.models import pull, resolve
from agent.profiling import Report
from api.commands.ingest import ingest_file
from api.commands.profile import cited, load, run, say
from api.commands.recommend import print_explanation, print_recommendations, train_model
from api.console import err, out, print_profile, progress_bar
from api.runtime import database, profiler, recommender
from api.settings import Settings, read_settings
from recommend.parameters import Parameters
from store import logs, profiles
from store.database import Database
from store.datasets import fetch_ml_100k

_CHOSEN = ("54", "117", "152", "275", "307", "394", "577", "624")
DEMO_USERS = (*_CHOSEN, *(str(n) for n in range(1, 51 - len(_CHOSEN))))
SHOWN = ("152", "394")


class Stopwatch:
    """Adds up seconds by step, and apart those that were spent downloading."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}
        self.downloading = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; what is spent downloading inside it is taken out."""
        started, before = time.perf_counter(), self.downloading
        yield
        spent = time.perf_counter() - started - (self.downloading - before)
        self.steps[name] = self.steps.get(name, 0.0) + spent

    @contextmanager
    def download(self) -> Iterator[None]:
        """Time a download."""
        started = time.perf_counter()
        yield
        self.downloading += time.perf_counter() - started


def command(
    setup_report: Annotated[
        Path | None, typer.Option(help="JSON with the seconds that set-up spent downloading and installing.")
    ] = None,
) -> None:
    """Fetch MovieLens-100K, write profiles of all its users, fifty of them with the LLM, and show two."""
    settings = read_settings()
    watch = Stopwatch()
    if setup_report is not None and setup_report.is_file():
        seconds = json.loads(setup_report.read_text(encoding="utf-8"))
        watch.downloading += seconds["downloading"]
        watch.steps["environment"] = seconds["installing"]
    with watch.step("data"), watch.download(), progress_bar("fetching MovieLens-100K") as advance:
        folder = fetch_ml_100k(settings.home, advance)
    for name in (settings.embedder.model, settings.llm.model):
        fetch_weights(settings, name, watch)
    with database(settings) as opened:
        ingest_log(opened, settings, folder, watch)
        write_templates(opened, settings, watch)
        with watch.step("LLM profiles, engine start included"):
            with profiler(settings, opened, with_llm=True) as made:
                report = run(made, list(DEMO_USERS))
            say(report, "llm")
        if report.failed or report.stopped_by:
            raise typer.Exit(1)
        for user_id in SHOWN:
            profile = load(opened, user_id)
            print_profile(profile, cited(opened, profile))
        with watch.step("factors and recommendations"):
            _recommend(opened, settings)
    _times(watch)
    _next_steps()


def fetch_weights(settings: Settings, name: str, watch: Stopwatch) -> None:
    """Fetch the weights of a model, if they are not there yet."""
    if resolve(name, settings.home).pulled:
        return
    with watch.step("weights"), progress_bar(name) as advance:
        last = [time.perf_counter(), False]

        def progress(what: str, done: int, total: int) -> None:
            advance(done, total, f"{name}: {what}")
            now = time.perf_counter()
            if last[1]:
                watch.downloading += now - last[0]
            last[:] = [now, what == "downloading"]

        pull(name, settings.home, progress)


def ingest_log(opened: Database, settings: Settings, folder: Path, watch: Stopwatch) -> None:
    """Take the files of a folder into the store, if there is no log yet."""
    with opened.session() as session:
        if logs.user_ids(session, limit=1):
            err.print("The log is ingested already.")
            return
    with watch.step("ingest"):
        for kind in ("items", "users", "events"):
            ingest_file(opened, settings, kind, folder / f"{kind}.csv", [], source="ml-100k")


def write_templates(opened: Database, settings: Settings, watch: Stopwatch) -> Report:
    """Write template profiles for everyone who has no profile by the LLM."""
    with watch.step("template profiles"):
        with opened.session() as session:
            ids = sorted(set(logs.user_ids(session)) - set(profiles.written_by(session, "llm")))
        with profiler(settings, opened, with_llm=False) as made:
            report = run(made, ids)
        say(report, "template")
    return report


def _recommend(opened: Database, settings: Settings) -> None:
    """Train the factors, recommend three items to a user, and say why the second is among them."""
    train_model(opened, settings, Parameters())
    with recommender(settings, opened) as made:
        found = made.top(SHOWN[0], 3)
        out.print()
        print_recommendations(found)
        out.print()
        print_explanation(made.why(SHOWN[0], found.items[1].item_id))


def _times(watch: Stopwatch) -> None:
    table = Table(box=None, title="Where the time went", title_justify="left")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for name, seconds in watch.steps.items():
        table.add_row(name, f"{seconds:.1f}")
    table.add_row("[bold]not downloading, in all[/bold]", f"[bold]{sum(watch.steps.values()):.1f}[/bold]")
    table.add_row("downloading", f"{watch.downloading:.1f}")
    out.print()
    out.print(table)


def _next_steps() -> None:
    out.print(
        "\nTry next (the command is in .venv/bin):\n"
        f"  limner profile show {DEMO_USERS[0]}              another profile; --json for the contract\n"
        f"  limner why {SHOWN[1]} 181                 why an item has its place; `limner recommend` lists them\n"
        f"  limner claim reject {SHOWN[0]} i1         correct a profile, and see the top 10 move\n"
        "  limner profile check --all         compute every number of every claim again\n"
        "  limner profile write --user 7      let the LLM write another one\n"
        "  limner ingest events YOUR_LOG.csv --map user=user_id   your own log (see README)\n"
        "  limner doctor                      what is here, what is missing\n"
        "  limner demo-server                 all of this as pages in a browser"
    )
