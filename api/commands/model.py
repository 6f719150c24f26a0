"""`limner model`: weights, and the server that runs them."""

import signal
from typing import Annotated

import typer
from rich.table import Table

from agent.models import CATALOGUE, resolve
from agent.serving import ServeSettings
from agent.serving import serve as start
from api.console import err, out
from api.runtime import fetched
from api.settings import read_settings

app = typer.Typer(help="Fetch and serve models.", no_args_is_help=True)


@app.command("list")
def list_models() -> None:
    """List the catalogue."""
    settings = read_settings()
    table = Table(box=None)
    for column in ("name", "what", "for", "licence", "languages", "here"):
        table.add_column(column)
    for entry in CATALOGUE:
        here = "yes" if resolve(entry.name, settings.home).pulled else "no"
        purpose = "vectors" if entry.kind == "embedder" else " ".join(entry.roles) or "tests"
        table.add_row(entry.name, entry.title, purpose, entry.licence, " ".join(entry.languages), here)
    out.print(table)
    out.print("Any Hub id (owner/name) or local folder works, too.")


@app.command("pull")
def pull_model(name: Annotated[str, typer.Argument(help="A name of the catalogue, or a Hub id.")]) -> None:
    """Fetch weights into the data directory and convert them once."""
    settings = read_settings()
    found = fetched(settings, name)
    out.print(f"{found.name} is in {found.path}")


@app.command()
def serve(
    name: Annotated[str | None, typer.Argument(help="The writer's model unless given.")] = None,
) -> None:
    """Serve a model with vLLM until Ctrl-C; other commands use it while it runs."""
    settings = read_settings()
    found = fetched(settings, name or settings.llm.model)
    with err.status(f"starting vLLM with {found.name}"):
        serving = start(found, settings.home, ServeSettings())
    with serving:
        out.print(f"{serving.model} answers at {serving.base_url} (Ctrl-C stops it)")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    out.print("stopped")
