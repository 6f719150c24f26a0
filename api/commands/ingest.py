"""`limner ingest`: files into the store."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from api.console import err, out, progress_bar
from api.runtime import database, now
from api.settings import Settings, read_settings
from store.database import Database
from store.ingest import IngestReport, ingest
from store.privacy import hasher


class Kind(StrEnum):
    """What the rows of a file are."""

    ITEMS = "items"
    EVENTS = "events"
    USERS = "users"


def command(
    kind: Kind,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", help="column=field, attributes.NAME for an attribute, or field==constant."),
    ] = None,
    source: Annotated[str, typer.Option(help="A stable name of where the log comes from.")] = "default",
    rejects: Annotated[Path | None, typer.Option(help="Where bad rows go.")] = None,
    limit: Annotated[
        float, typer.Option(min=0, max=1, help="Share of bad rows above which the file is refused.")
    ] = 0.01,
) -> None:
    """Ingest a CSV, TSV, JSON Lines or Parquet file, plain or gzipped."""
    settings = read_settings()
    with database(settings) as opened:
        ingest_file(opened, settings, kind.value, file, mapping or [], source, rejects, limit)


def ingest_file(
    opened: Database,
    settings: Settings,
    kind: str,
    file: Path,
    mapping: list[str],
    source: str = "default",
    rejects: Path | None = None,
    limit: float = 0.01,
) -> IngestReport:
    """Ingest a file with a progress bar and say what became of it."""
    rejects = rejects or settings.home / "rejects" / f"{file.name}.rejects.csv"
    rejects.parent.mkdir(parents=True, exist_ok=True)
    size = file.stat().st_size
    with progress_bar(f"ingesting {kind} from {file.name} (bytes)") as advance:
        report = ingest(
            opened,
            kind,  # type: ignore[arg-type]
            file,
            source=source,
            mapping=mapping,
            known_types=set(settings.evidence_settings.types),
            now=now(),
            hasher=hasher(settings.home, settings.privacy_key),
            reject_limit=limit,
            rejects_path=rejects,
            progress=lambda done, _: advance(done, size),
        )
    out.print(
        f"{kind}: {report.rows_read:,} rows read, {report.rows_stored:,} stored, {report.rows_known:,} known already, "
        f"{report.rows_rejected:,} rejected, in {report.seconds:.1f} s."
    )
    if report.rows_dropped:
        out.print(f"{report.rows_dropped:,} more rows were dropped: their users were erased.")
    if report.stubs_made:
        out.print(f"{report.stubs_made:,} items were known from events only; stubs were made for them.")
    if report.left_out:
        out.print(f"Columns left out: {', '.join(report.left_out)}. `--map column=field` takes one in.")
    if report.rows_rejected:
        err.print(f"[yellow]The rejected rows are in {rejects}.[/yellow]")
    return report
