"""`limner simulate`: an invented catalogue, users and their logs, for tests of load and of pages."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from agent.contract import Language
from api.commands.ingest import ingest_file
from api.console import out, progress_bar
from api.runtime import database
from api.settings import read_settings
from eval.simulation.domains import DomainName
from eval.simulation.files import Written, simulate
from eval.simulation.plan import Simulation

_MOST_USERS, _MOST_ITEMS, _MOST_EVENTS = 1_000_000, 1_000_000, 1_000
_MOST_NOISE = 0.9


def command(
    users: Annotated[int, typer.Option(min=1, max=_MOST_USERS, help="How many users.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    items: Annotated[
        int | None, typer.Option(min=10, max=_MOST_ITEMS, help="How many items; by the number of users unless given.")
    ] = None,
    domain: Annotated[DomainName, typer.Option(help="What the items are.")] = "shop",
    events_per_user: Annotated[
        float, typer.Option("--events", min=5, max=_MOST_EVENTS, help="Events of a user, in the mean.")
    ] = 50.0,
    language: Annotated[Language, typer.Option(help="Of titles, categories, texts and searches.")] = "en",
    noise: Annotated[
        float,
        typer.Option(min=0, max=_MOST_NOISE, help="Share of a person's events that are about none of their interests."),
    ] = 0.12,
    bots: Annotated[float, typer.Option(min=0, max=_MOST_NOISE, help="Share of the users that are machines.")] = 0.02,
    bare: Annotated[
        bool, typer.Option("--bare", help="Items have titles, categories and prices, and nothing else.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--output", "-o", file_okay=False, help="Where the files go, the truth beside them.")
    ] = None,
    to_store: Annotated[bool, typer.Option("--ingest", help="Take them into the store.")] = False,
) -> None:
    """Invent a catalogue, users with known tastes, and their logs."""
    if folder is None and not to_store:
        raise typer.BadParameter("say where to: -o DIR, --ingest, or both")
    wanted = Simulation(users, seed, items, domain, events_per_user, language, noise, bots, bare=bare)
    with ExitStack() as stack:
        target = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="limner-")))
        with progress_bar("simulating users") as advance:
            written = simulate(wanted, target, advance)
        out.print(f"{users:,} users, {wanted.catalogue_size:,} items, {written.total:,} events.")
        if folder is not None:
            out.print(f"They are in {folder}; what each user really likes is in {written.truth.name}.")
            out.print(f"Which interest each item belongs to is in {written.interests.name}.")
        if to_store:
            _ingest(written, f"simulated-{domain}-{seed}")


def _ingest(written: Written, source: str) -> None:
    settings = read_settings()
    with database(settings) as opened:
        for kind in ("items", "users", "events"):
            ingest_file(opened, settings, kind, getattr(written, kind), [], source=source)
