"""`limner profile export` and `limner profile import`: profiles as files for warehouses."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer
from rich.markup import escape

from agent.profile_files import Format, format_of
from agent.profile_transfer import export_profiles, import_profiles
from api.console import err, out, progress_bar
from api.runtime import database, embedder, now
from api.settings import read_settings
from store.ingest.rejects import RejectLog
from store.privacy import hasher

_SHOWN_REASONS = 5

Form = Annotated[Format | None, typer.Option("--format", help="Unless the name of the file tells.")]


def export(
    file: Annotated[str, typer.Argument(help=".parquet, .jsonl, .jsonl.gz or .jsonl.zst; - is standard output.")],
    form: Form = None,
    user: Annotated[list[str] | None, typer.Option(help="A user's id; may be given again. Else all.")] = None,
    all_versions: Annotated[bool, typer.Option("--all-versions", help="Also those not active any more.")] = False,
) -> None:
    """Write active profiles to a file for a warehouse: one row each. See docs/batch.md."""
    if file == "-" and form == "parquet":
        raise typer.BadParameter("standard output takes JSON Lines; give Parquet a file")
    target = cast("BinaryIO", sys.stdout.buffer) if file == "-" else Path(file)
    chosen = form or ("jsonl" if file == "-" else format_of(Path(file)))
    settings, started = read_settings(), time.perf_counter()
    with database(settings) as opened, progress_bar("exporting profiles") as advance:
        try:
            count = export_profiles(
                opened,
                target,
                chosen,
                hasher=hasher(settings.home, settings.privacy_key),
                clock=now,
                users=user,
                all_versions=all_versions,
                progress=advance,
            )
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read it has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
    err.print(f"{count:,} profiles exported in {time.perf_counter() - started:.1f} s.")


def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    form: Form = None,
    rejects: Annotated[Path | None, typer.Option(help="Where rows go that cannot be taken.")] = None,
) -> None:
    """Take in profiles from a file, for users whose logs are here; those that are here already are left as they are."""
    settings, started = read_settings(), time.perf_counter()
    chosen = form or format_of(file)
    rejects = rejects or settings.home / "rejects" / f"{file.name}.rejects.csv"
    if rejects.resolve() == file.resolve():
        raise typer.BadParameter("the rejects file must not be the file itself")
    rejects.parent.mkdir(parents=True, exist_ok=True)
    title = f"importing profiles from {file.name}" + (" (bytes)" if chosen == "jsonl" else "")
    with database(settings) as opened, RejectLog(rejects) as log, progress_bar(title) as advance:
        told = import_profiles(
            opened,
            file,
            chosen,
            hasher=hasher(settings.home, settings.privacy_key),
            embedder=embedder(settings),
            rejects=log,
            clock=now,
            progress=advance,
        )
    out.print(
        f"{told.read:,} profiles read: {told.stored:,} stored, {told.unchanged:,} unchanged, {told.older:,} older than "
        f"what is here, {told.rejected:,} rejected, in {time.perf_counter() - started:.1f} s."
    )
    if told.dropped:
        out.print(f"{told.dropped:,} of them were dropped: their users were erased.")
    if told.rejected:
        for reason, count in log.reasons.most_common(_SHOWN_REASONS):
            err.print(f"[yellow]{count:,} rejected:[/yellow] {escape(reason)}")
        err.print(f"[yellow]The rejected rows are in {escape(str(rejects))}.[/yellow]")
        raise typer.Exit(1)
