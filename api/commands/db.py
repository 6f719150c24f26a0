"""`limner db`: the database's schema, its backup and the way back."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from api.console import err, out
from api.runtime import now
from api.settings import Settings, read_settings
from store import backup as backups
from store.database import Database, open_database
from store.privacy import KEY_FILE, hasher
from store.tombstones import JOURNAL

app = typer.Typer(help="Look after the database.", no_args_is_help=True)


@app.command()
def upgrade() -> None:
    """Bring the database to the newest revision."""
    with _opened(read_settings()) as database:
        before = database.status().current
        database.upgrade()
        after = database.status()
    out.print(f"The database is at revision {after.current}" + (" already." if before == after.current else "."))


@app.command()
def status() -> None:
    """Say at which revision the database is."""
    with _opened(read_settings()) as database:
        found = database.status()
    out.print(f"PostgreSQL {found.server_version}, pgvector {found.pgvector_version or 'not created yet'}")
    out.print(f"revision {found.current or 'none'}, newest {found.head}")
    if found.current != found.head:
        out.print("Run `limner db upgrade`.")
        raise typer.Exit(1)


@app.command()
def backup(file: Annotated[Path, typer.Argument(dir_okay=False, help="That does not exist yet.")]) -> None:
    """Write the database and the trained models into one file; others may go on working meanwhile."""
    with _opened(read_settings()) as database, err.status("backing up"):
        made = backups.backup(database, file, now(), _version())
    out.print(
        f"The backup is in {escape(str(file))}: the database at revision {made.revision}, {len(made.models)} trained "
        "models. It holds people's data."
    )
    for model_id in made.lost:
        err.print(f"The file of model {model_id} is gone or damaged, and not in it.")
    err.print(f"Keep {KEY_FILE} (or LIMNER_PRIVACY_KEY) and the newest {JOURNAL} too, apart from it.")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="A backup that you trust.")],
    replace: Annotated[bool, typer.Option("--replace", help="Remove first what is in the database.")] = False,
) -> None:
    """Bring a backup back into an empty database, and erase again who was erased since; stop servers and workers."""
    settings = read_settings()
    with _opened(settings) as database, err.status("restoring"):
        hashes = hasher(settings.home, settings.privacy_key)
        done = backups.restore(database, hashes, settings.home, file, now(), replace=replace)
    out.print(
        f"Restored what was there on {done.manifest.made_at:%-d %b %Y at %H:%M} UTC, with {len(done.manifest.models)} "
        f"trained models. {done.erased:,} users who were erased since were erased again."
    )
    if not done.journal:
        err.print(
            f"[yellow]There is no {JOURNAL} in {escape(str(settings.home))}[/]: who was erased after the backup is "
            "back. If anyone was, bring the newest one there and run `limner user replay-erasures`."
        )


@contextmanager
def _opened(settings: Settings) -> Iterator[Database]:
    """Open the database as it is, at whatever revision."""
    url = settings.database_url.get_secret_value() if settings.database_url else None
    with open_database(url, settings.home) as database:
        yield database


def _version() -> str:
    try:
        return metadata.version("limner")
    except metadata.PackageNotFoundError:
        return "from a checkout"
