"""`limner user`: a person's data as a whole."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from agent import archive
from api.console import err, out
from api.runtime import database, now
from api.settings import read_settings
from store import audit, erasure
from store.errors import StoreError
from store.export import export
from store.privacy import hasher
from store.user_import import import_user, read_export

app = typer.Typer(help="Export, import and erase everything that is held on a user.", no_args_is_help=True)


@app.command("export")
def export_(
    user: str,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="A file, for your eyes only; else the terminal."),
    ] = None,
) -> None:
    """Write everything that is held on a user as one JSON document."""
    settings = read_settings()
    hashes = hasher(settings.home, settings.privacy_key)
    with database(settings) as opened:
        with opened.session() as session:
            audit.note(session, now(), None, "export_user", hashes.subject(user))
        with export(opened, hashes, user, now()) as document:
            if output is None:
                shutil.copyfileobj(document, sys.stdout.buffer)
                return
            try:
                with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    shutil.copyfileobj(document, file)
            except OSError as error:
                raise StoreError(f"{output} cannot be written: {error.strerror}.") from error
    err.print(f"The export is in {escape(str(output))}.")


@app.command("import")
def import_(file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)]) -> None:
    """Take in an exported user who is not there yet: all of it or nothing."""
    settings = read_settings()
    hashes = hasher(settings.home, settings.privacy_key)
    document = read_export(file.read_bytes())
    with database(settings) as opened:
        made = import_user(
            opened,
            hashes,
            document,
            now(),
            known_types=settings.evidence_settings.types.keys(),
            check=archive.from_rows,
        )
        with opened.session() as session:
            audit.note(session, now(), None, "import_user", hashes.subject(made.user_id))
    out.print(
        f"User {escape(made.user_id)} is taken in: {made.events:,} events, {made.items:,} new items, "
        f"{made.profiles:,} versions of the profile, {made.corrections:,} corrections."
    )


@app.command()
def erase(
    user: str, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether it is meant.")] = False
) -> None:
    """Erase everything that is held on a user, and drop what comes in about them later."""
    if not yes:
        typer.confirm(f"Erase all that is held on user {user}? It cannot be undone", abort=True)
    settings = read_settings()
    hashes = hasher(settings.home, settings.privacy_key)
    with database(settings) as opened:
        erasure.erase(opened, hashes, settings.home, user, now())
    out.print("The user is erased. `limner user allow` lets data about them in again.")


@app.command()
def allow(user: str) -> None:
    """Let data about an erased user in again; what was erased stays erased."""
    settings = read_settings()
    hashes = hasher(settings.home, settings.privacy_key)
    with database(settings) as opened:
        erasure.allow(opened, hashes, settings.home, user, now())
    out.print("Data about the user is taken in again.")


@app.command("list-erasures")
def list_erasures() -> None:
    """List who was erased, as keyed hashes: no one can tell from them who it was."""
    settings = read_settings()
    with database(settings) as opened:
        rows = erasure.erasures(opened, hasher(settings.home, settings.privacy_key))
    table = Table("keyed hash of the user", "erased")
    for row in rows:
        table.add_row(row.subject, f"{row.erased_at:%Y-%m-%d %H:%M}")
    out.print(table if rows else "Nobody was erased.")


@app.command("replay-erasures")
def replay_erasures() -> None:
    """Erase again who was erased and has come back with a restored backup; servers and workers do so at their start."""
    settings = read_settings()
    with database(settings) as opened:
        erased = erasure.replay(opened, hasher(settings.home, settings.privacy_key), settings.home, now())
    out.print(f"{erased:,} users were erased again." if erased else "Nobody has come back.")
