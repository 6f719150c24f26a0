"""`limner demo-server`: the demo's data as pages in a browser; what is not there yet is made first."""

from typing import Annotated

import typer

from api.commands import serve
from api.commands.demo import Stopwatch, fetch_weights, ingest_log, write_templates
from api.commands.recommend import train_model
from api.console import progress_bar
from api.runtime import database
from api.settings import Settings, read_settings
from recommend.parameters import Parameters
from store import logs, models, profiles
from store.datasets import fetch_ml_100k


def command(
    host: Annotated[str | None, typer.Option(help="Address to listen at.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="0 is a free one.")] = None,
) -> None:
    """Serve MovieLens-100K as pages, with a worker; profiles are the template's where `limner demo` wrote no others."""
    prepare(read_settings())
    serve.command(host, port, with_worker=True)


def prepare(settings: Settings) -> None:
    """See to it that there are a log, profiles and a model: MovieLens-100K, unless there is a log already."""
    watch = Stopwatch()
    fetch_weights(settings, settings.embedder.model, watch)
    with database(settings) as opened:
        with opened.session() as session:
            is_empty = not logs.user_ids(session, limit=1)
        if is_empty:
            with progress_bar("fetching MovieLens-100K") as advance:
                folder = fetch_ml_100k(settings.home, advance)
            ingest_log(opened, settings, folder, watch)
        with opened.session() as session:
            is_written = set(logs.user_ids(session)) <= set(profiles.active_users(session))
            is_trained = models.active_model(session) is not None
        if not is_written:
            write_templates(opened, settings, watch)
        if not is_trained:
            train_model(opened, settings, Parameters())
