"""`limner batch`: runs over many users, which can be stopped at any time and go on later."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from agent.contract import Writer
from api import batch, spread
from api.batch import Ended, Gauge, OutOfReachError, whose
from api.commands import batch_plan, selecting
from api.console import err, out
from api.logs import errors_only
from api.queue import enqueue_profiles
from api.run_report import FOLDER, RunReport, duration, make_report, write_report
from api.runtime import database, now
from api.settings import Settings, read_settings
from store import jobs, runs
from store import selection as selections
from store.database import Database
from store.errors import NotFoundError
from store.selection import Selection
from store.tables import JobRow

EXIT_CODES = (
    "Exit codes: 0 all are written or unchanged; 3 some users failed, and their old profiles stay; 4 the quality fell "
    "below the bounds, and the old profiles are active again; 5 the model or the database is out of reach (resume); "
    "130 interrupted (resume) or cancelled; 1 anything else."
)

app = typer.Typer(
    help="Write the profiles of many users, in runs that can be stopped and resumed.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
)

app.command("plan")(batch_plan.command)

JobArgument = Annotated[str | None, typer.Argument(help="Id of a run; the latest, if none is given.")]
ConcurrencyOption = Annotated[
    int | None,
    typer.Option(min=1, max=4_096, help="Calls of the model at once; LIMNER_BATCH__CONCURRENCY if not given."),
]
EngineOption = Annotated[
    batch.Engine | None,
    typer.Option(
        help="The model behind a server, vLLM in this process (offline), or workers on a Ray cluster (ray); "
        "LIMNER_LLM__ENGINE if not given."
    ),
]
AddressOption = Annotated[
    str | None, typer.Option(help="Of the Ray cluster; without it, Ray is started on this machine.")
]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="On the Ray cluster; one for each node if not given.")]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        "--report",
        "--out",
        file_okay=False,
        help="Folder for the report. It names users, and erasure cleans no folder but the default, reports/ in the "
        "data directory.",
    ),
]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Work here, or leave it to the workers.")]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]

_SHOWN_FAILURES = 5
_LISTED = 20


@app.command(epilog=EXIT_CODES)
def run(
    user: selecting.UserOption = None,
    users_file: selecting.UsersFileOption = None,
    all_: selecting.AllOption = False,
    where: selecting.WhereOption = None,
    changed: selecting.ChangedOption = False,
    changed_since: selecting.ChangedSinceOption = None,
    older_than: selecting.OlderThanOption = None,
    drifted: selecting.DriftedOption = False,
    writer: Annotated[Writer, typer.Option(help="Who puts it into words.")] = "llm",
    policy: Annotated[
        bool,
        typer.Option("--policy/--no-policy", help="Leave those as they are of whom too little is new; see `plan`."),
    ] = True,
    force: Annotated[bool, typer.Option(help="Also where nothing has changed.")] = False,
    engine: EngineOption = None,
    address: AddressOption = None,
    workers: WorkersOption = None,
    concurrency: ConcurrencyOption = None,
    report: ReportOption = None,
    wait: WaitOption = True,
) -> None:
    """Write the profiles of a selection of users; those in whom nothing has changed cost nothing.

    No worker need run. Ctrl-C lets users under way end; `limner batch resume` goes on, after a crash as well.
    """
    _require_ray(engine, address, workers, wait=wait)
    chosen = selecting.selection(
        now(), user=user, users_file=users_file, all_=all_, where=where, changed=changed, changed_since=changed_since,
        older_than=older_than, drifted=drifted,
    )  # fmt: skip
    settings = batch.adapted(read_settings(), concurrency, engine)
    with _ends_as_said(), database(settings) as opened:
        _say_missing(opened, chosen)
        users, asked = whose(settings, opened, chosen, writer, policy=policy and not force)
        if not wait:
            with opened.session() as session:
                _say_queued(enqueue_profiles(session, users, writer, force=force, asked=asked))
            return
        job = batch.create(opened, users, writer, force=force, asked=asked)
        _work(settings, opened, job.job_id, report, engine, address, workers)


@app.command(epilog=EXIT_CODES)
def resume(
    job: JobArgument = None,
    engine: EngineOption = None,
    address: AddressOption = None,
    workers: WorkersOption = None,
    concurrency: ConcurrencyOption = None,
    report: ReportOption = None,
    wait: WaitOption = True,
) -> None:
    """Go on with a run that is not over; what is written already is not written again."""
    _require_ray(engine, address, workers, wait=wait)
    settings = batch.adapted(read_settings(), concurrency, engine)
    with _ends_as_said(), database(settings) as opened:
        with opened.session() as session:
            try:
                job_id = job or runs.latest(session, unfinished=True)
            except NotFoundError:
                out.print("Every run is over: there is nothing to resume.")
                return
        if wait:
            _work(settings, opened, job_id, report, engine, address, workers)
            return
        batch.hand_over(opened, job_id)
        _say_queued(job_id)


@app.command()
def status(job: JobArgument = None, as_json: JsonOption = False) -> None:
    """Say how far a run is."""
    settings = read_settings()
    with database(settings) as opened:
        made = make_report(opened, _given_or_latest(opened, job), settings.batch, now())
    if as_json:
        typer.echo(made.model_dump_json(indent=2, exclude={"slowest", "failed"}))
        return
    out.print(f"Run {made.job_id}: [bold]{made.state}[/bold]" + (f". {escape(made.reason)}" if made.reason else ""))
    _say(made)


@app.command()
def cancel(job: Annotated[str, typer.Argument(help="Id of a run.")]) -> None:
    """Cancel a run: what is written stays, users under way are finished first."""
    with database(read_settings()) as opened:
        over = batch.cancel(opened, job)
    out.print("Cancelled." if over else "Cancelled; the users under way are finished first.")


@app.command("list")
def list_(limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = _LISTED) -> None:
    """List the latest runs."""
    with database(read_settings()) as opened, opened.session() as session:
        rows = [row for row in jobs.page(session, limit) if row.kind == "profiles"]
    table = Table(box=None)
    for column in ("run", "begun", "state", "by", "users", "written", "unchanged", "failed", "took"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*_line(row))
    out.print(table if rows else "There is no run yet. `limner batch run --all` starts one.")


def _line(row: JobRow) -> tuple[str, ...]:
    counts = row.result.get("counts") or {}
    said = (f"{counts[state]:,}" if state in counts else "" for state in ("written", "unchanged", "failed"))
    by = "command" if row.request.get("runner") == runs.COMMAND else "workers"
    took = duration(runs.seconds(row, now())) if row.finished_at else ""
    return (row.job_id, f"{row.created_at:%Y-%m-%d %H:%M}", row.state, by, f"{row.total:,}", *said, took)


@app.command("report")
def report_(job: JobArgument = None, report: ReportOption = None, as_json: JsonOption = False) -> None:
    """Write the report of a run, as JSON and as a page; while it goes on, that is how far it is."""
    settings = read_settings()
    with database(settings) as opened:
        made = make_report(opened, _given_or_latest(opened, job), settings.batch, now())
    if as_json:
        typer.echo(made.model_dump_json(indent=2))
        return
    _write_report(made, report or settings.home / FOLDER)


def _given_or_latest(opened: Database, job: str | None) -> str:
    if job is not None:
        return job
    with opened.session() as session:
        return runs.latest(session)


def _require_ray(engine: batch.Engine | None, address: str | None, workers: int | None, *, wait: bool) -> None:
    if engine is not None and not wait:
        raise typer.BadParameter("--no-wait leaves a run to the workers, which have an engine of their own")
    if engine != "ray" and (address is not None or workers is not None):
        raise typer.BadParameter("--address and --workers belong to --engine ray")


def _work(
    settings: Settings,
    opened: Database,
    job_id: str,
    folder: Path | None,
    engine: batch.Engine | None,
    address: str | None,
    workers: int | None,
) -> None:
    """Work through a run, report on it, and end with the exit code that says how it went."""
    with opened.session() as session:
        total = jobs.get(session, job_id).total
    err.print(f"Run {job_id}: {total:,} users.")
    with errors_only(), _bar(total) as changed:
        if engine == "ray":
            ended = spread.resume(settings, opened, job_id, changed, address=address, workers=workers)
        else:
            ended = batch.resume(settings, opened, job_id, changed)
    made = make_report(opened, job_id, settings.batch, now())
    _say(made)
    _write_report(made, folder or settings.home / FOLDER)
    if ended is Ended.POOR:
        err.print(f"[red]Stopped:[/red] {escape(made.reason or '')}")
    if ended is Ended.INTERRUPTED and made.finished_at is None:
        err.print(f"Interrupted. `limner batch resume {job_id}` goes on.")
    raise typer.Exit(ended)


@contextmanager
def _ends_as_said() -> Iterator[None]:
    """Turn what is out of reach into the exit code that says so."""
    try:
        yield
    except (*batch.OUT_OF_REACH, OutOfReachError) as error:
        _out_of_reach(error)


def _out_of_reach(error: Exception) -> NoReturn:
    err.print(f"[red]Out of reach:[/red] {escape(str(error))}")
    err.print(
        "Nothing that was written is lost. `limner batch resume` goes on; `limner doctor` says what is reachable."
    )
    raise typer.Exit(Ended.OUT_OF_REACH) from error


@contextmanager
def _bar(total: int) -> Iterator[Callable[[Gauge], None]]:
    columns = (
        SpinnerColumn(), TextColumn("writing profiles"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[users]:,.1f} users/s"), TextColumn("{task.fields[tokens]:,.0f} tokens/s"),
        TextColumn("{task.fields[failed]:,} failed"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("", total=total, users=0.0, tokens=0.0, failed=0)

        def changed(gauge: Gauge) -> None:
            bar.update(
                task, completed=gauge.over, users=gauge.users_per_s, tokens=gauge.tokens_per_s, failed=gauge.failed
            )

        yield changed


def _say(made: RunReport) -> None:
    if not made.counts:
        out.print("Nobody is due: of those selected, too little is new. `limner batch plan` shows it.")
        return
    counts = ", ".join(f"{count:,} {state}" for state, count in made.counts.items())
    out.print(f"{counts}; {made.users_per_s:,.1f} users/s over {duration(made.seconds)}.")
    if made.calls:
        cost = "" if made.cost_per_1000 is None else f", {made.cost_per_1000:.4g} for 1,000 users"
        out.print(f"{made.tokens_in:,} tokens read, {made.tokens_out:,} written, {made.calls:,} calls{cost}.")
    if (quality := made.quality) is not None and quality.first_try is not None:
        out.print(
            f"Texts: {quality.first_try:.1%} passed at once, {quality.repaired:.1%} after repair, "
            f"{quality.fallback:.1%} fell back to the template."
        )
    for failed in made.failed[:_SHOWN_FAILURES]:
        err.print(f"[red]user {escape(failed.user_id)}[/red]: {escape(failed.reason or '')}")
    if made.failed:
        err.print("The old profiles of users who failed stay as they were; the report names all of them.")


def _write_report(made: RunReport, folder: Path) -> None:
    json, page = write_report(made, folder)
    out.print(f"Report: {json}\n        {page}", soft_wrap=True)


def _say_queued(job_id: str) -> None:
    out.print(
        f"The run {job_id} is in the queue of the workers. `limner worker` starts one, `limner batch status` says"
    )
    out.print("how far it is.")


def _say_missing(opened: Database, chosen: Selection) -> None:
    if chosen.users is None:
        return
    with opened.session() as session:
        count, shown = selections.missing(session, chosen.users)
    if count:
        err.print(
            f"{count:,} of {len(chosen.users):,} listed users are not in the store, have no log or do not consent: "
            f"{escape(', '.join(shown))}{' …' if count > len(shown) else ''}"
        )
    if count == len(chosen.users):
        raise typer.Exit(1)
