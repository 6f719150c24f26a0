"""`limner keys`: who may use the HTTP interface."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from api.console import err, out
from api.runtime import database, now
from api.settings import read_settings
from store import keys

app = typer.Typer(help="Make, list and revoke keys of the HTTP interface.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who is to use it.")],
    scope: Annotated[
        list[str], typer.Option(help="read, write, admin, or self:USER_ID for one user's own; may be repeated.")
    ],
    requests_per_minute: Annotated[
        int | None, typer.Option(min=0, help="The most that it may send; 0 is no limit.")
    ] = None,
) -> None:
    """Make a key and print it; it is shown this once."""
    with database(read_settings()) as opened, opened.session() as session:
        try:
            token = keys.create(session, name, scope, now(), requests_per_minute)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--scope") from error
    typer.echo(token)
    err.print("Keep it: it is stored nowhere. Send it as `Authorization: Bearer lim_…`.")


@app.command("list")
def list_() -> None:
    """List all keys, without their secrets."""
    with database(read_settings()) as opened, opened.session() as session:
        rows = keys.list_keys(session)
    table = Table("key", "name", "scopes", "a minute", "made", "revoked")
    for row in rows:
        limit = {None: "default", 0: "no limit"}.get(row.requests_per_minute, f"{row.requests_per_minute}")
        revoked = f"{row.revoked_at:%Y-%m-%d %H:%M}" if row.revoked_at else ""
        scopes = escape(", ".join(row.scopes))
        table.add_row(row.key_id, escape(row.name), scopes, limit, f"{row.created_at:%Y-%m-%d %H:%M}", revoked)
    out.print(table)
    if not rows:
        err.print("There is no key: the server takes requests from this machine only. `limner keys create` makes one.")


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="As `limner keys list` shows it.")]) -> None:
    """Revoke a key: its very next request is refused."""
    with database(read_settings()) as opened, opened.session() as session:
        row = keys.revoke(session, key_id, now())
    out.print(f"Key {row.key_id} ({escape(row.name)}) is revoked.")
