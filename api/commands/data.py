"""`limner data`: public logs to try Limner on."""

from enum import StrEnum

import typer

from api.console import out, progress_bar
from api.settings import read_settings
from store.datasets import fetch_ml_100k

app = typer.Typer(help="Fetch public logs.", no_args_is_help=True)


class Dataset(StrEnum):
    """What can be fetched."""

    ML_100K = "ml-100k"


@app.command()
def fetch(name: Dataset) -> None:
    """Fetch a public log into the data directory."""
    settings = read_settings()
    with progress_bar(f"fetching {name.value}") as advance:
        folder = fetch_ml_100k(settings.home, advance)
    out.print(f"{name.value} is in {folder}. GroupLens permits research use, not redistribution.")
    out.print(f"Next: limner ingest items {folder}/items.csv; limner ingest events {folder}/events.csv")
