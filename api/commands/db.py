"""`limner db`: the database's schema."""

import typer

from api.console import out
from api.settings import read_settings
from store.database import open_database

app = typer.Typer(help="Look after the database.", no_args_is_help=True)


@app.command()
def upgrade() -> None:
    """Bring the database to the newest revision."""
    settings = read_settings()
    url = settings.database_url.get_secret_value() if settings.database_url else None
    with open_database(url, settings.home) as database:
        before = database.status().current
        database.upgrade()
        after = database.status()
    out.print(f"The database is at revision {after.current}" + (" already." if before == after.current else "."))


@app.command()
def status() -> None:
    """Say at which revision the database is."""
    settings = read_settings()
    url = settings.database_url.get_secret_value() if settings.database_url else None
    with open_database(url, settings.home) as database:
        found = database.status()
    out.print(f"PostgreSQL {found.server_version}, pgvector {found.pgvector_version or 'not created yet'}")
    out.print(f"revision {found.current or 'none'}, newest {found.head}")
    if found.current != found.head:
        out.print("Run `limner db upgrade`.")
        raise typer.Exit(1)
