"""`limner profile`: write, show, compare and check profiles."""

import asyncio
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from agent import archive
from agent.check import Checked, check_profiles
from agent.contract import Profile, Writer
from agent.diff import diff as differences
from agent.profiling import Profiler, Report
from agent.words import clean, title_of
from api.commands import profile_files
from api.console import err, out, print_profile, progress_bar
from api.runtime import database, profiler
from api.settings import read_settings
from store import logs, profiles
from store.database import Database
from store.records import Event

app = typer.Typer(help="Write, show, compare and check profiles.", no_args_is_help=True)
app.command("export")(profile_files.export)
app.command("import")(profile_files.import_)

_SHOWN_FAILURES = 5


@app.command()
def write(
    user: Annotated[list[str] | None, typer.Option(help="A user's id; may be given again.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many users.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every user with consent.")] = False,
    writer: Annotated[Writer, typer.Option(help="Who puts it into words.")] = "llm",
    force: Annotated[bool, typer.Option(help="Also where nothing has changed.")] = False,
) -> None:
    """Write profiles. Users for whom nothing has changed are left as they are."""
    if not (user or limit or all_):
        raise typer.BadParameter("say whose: --user ID, --limit N or --all")
    settings = read_settings()
    with database(settings) as opened:
        with opened.session() as session:
            ids = logs.user_ids(session, wanted=user or (), limit=limit)
        if not ids:
            out.print("There are no users with consent. Ingest a log first: limner ingest events FILE")
            raise typer.Exit(1)
        with profiler(settings, opened, with_llm=writer == "llm", force=force) as made:
            report = run(made, ids)
    say(report, writer)
    if report.failed or report.stopped_by:
        raise typer.Exit(1)


def run(made: Profiler, ids: list[str]) -> Report:
    """Write profiles with a progress bar."""
    with progress_bar("writing profiles") as advance:
        done = 0

        def step(more: int) -> None:
            nonlocal done
            done += more
            advance(done, len(ids))

        async def write_and_close() -> Report:
            try:
                return await made.write(ids, step)
            finally:
                if made.llm is not None:
                    await made.llm[0].aclose()

        return asyncio.run(write_and_close())


def say(report: Report, writer: str) -> None:
    """Say what a run did."""
    out.print(
        f"{len(report.written):,} profiles written ({report.claims:,} claims), {len(report.unchanged):,} unchanged, "
        f"{len(report.failed):,} failed, in {report.seconds:.1f} s."
    )
    if writer == "llm" and report.written:
        texts = max(report.first_try + report.repaired + report.fallback, 1)
        out.print(
            f"Texts: {report.first_try / texts:.0%} passed at once, {report.repaired / texts:.0%} after repair, "
            f"{report.fallback / texts:.0%} fell back to the template. "
            f"Tokens: {report.tokens_in:,} read, {report.tokens_out:,} written."
        )
    for user_id, reason in list(report.failed.items())[:_SHOWN_FAILURES]:
        err.print(f"[red]user {escape(user_id)}[/red]: {escape(reason)}")
    if len(report.failed) > _SHOWN_FAILURES:
        err.print(f"… and {len(report.failed) - _SHOWN_FAILURES} more; all reasons are in the table `attempts`.")
    if report.failed:
        err.print("The old profiles of these users stay as they were.")
    if report.stopped_by:
        err.print(f"[red]Stopped:[/red] {escape(report.stopped_by)}. `limner doctor` says what is reachable.")


@app.command()
def show(user: str, as_json: Annotated[bool, typer.Option("--json")] = False, version: int | None = None) -> None:
    """Show a user's profile."""
    with database(read_settings()) as opened:
        profile = load(opened, user, version)
        if as_json:
            typer.echo(profile.model_dump_json(indent=2))
            return
        print_profile(profile, cited(opened, profile))


def load(opened: Database, user: str, version: int | None = None) -> Profile:
    """Read a profile."""
    with opened.session() as session:
        return archive.from_rows(profiles.load(session, user, version))


def cited(opened: Database, profile: Profile) -> dict[str, tuple[Event, str]]:
    """Return the user's events by id, with the titles of their items."""
    with opened.session() as session:
        found = logs.read_logs(session, [profile.user_id])
        events = found[0].events if found else ()
        items = logs.read_items(session, sorted({e.item_id for e in events if e.item_id is not None}))

    def title(event: Event) -> str:
        item = items.get(event.item_id or "")
        return title_of(item) if item else clean(event.text or "") or event.type

    return {event.event_id: (event, title(event)) for event in events}


@app.command()
def history(user: str) -> None:
    """List the versions of a user's profile, and the attempts that failed."""
    with database(read_settings()) as opened, opened.session() as session:
        rows = profiles.versions(session, user)
        failed = profiles.failures(session, user)
    table = Table(box=None)
    for column in ("version", "written", "by", "events", "active"):
        table.add_column(column)
    for row in rows:
        by = row.provenance.get("model") or row.provenance.get("writer", "")
        active = "yes" if row.active else ""
        table.add_row(str(row.version), f"{row.created_at:%Y-%m-%d %H:%M}", by, str(row.log.get("events_read")), active)
    out.print(table if rows else f"User {user} has no profile.")
    for attempt in failed:
        out.print(
            f"[red]failed[/red] {attempt.started_at:%Y-%m-%d %H:%M} ({attempt.writer}): {escape(attempt.reason or '')}"
        )


@app.command()
def diff(user: str, v1: int, v2: int) -> None:
    """Show what changed between two versions."""
    with database(read_settings()) as opened:
        changes = differences(load(opened, user, v1), load(opened, user, v2))
    if not changes:
        out.print("Nothing changed.")
    for change in changes:
        if change.after is None and change.before is not None:
            out.print(f"[red]- {escape(change.before.name)}[/red]: {escape(change.before.statement)}")
        elif change.after is not None and change.before is None:
            out.print(f"[green]+ {escape(change.after.name)}[/green]: {escape(change.after.statement)}")
        elif change.after is not None and change.before is not None:
            out.print(f"[yellow]~ {escape(change.after.name)}[/yellow]: {'; '.join(change.what)}")
            if "wording" in change.what:
                out.print(f"    was: {escape(change.before.statement)}\n    is:  {escape(change.after.statement)}")
        if change.why is not None:
            out.print(f"    because {escape(change.why)}")


@app.command()
def check(
    user: Annotated[list[str] | None, typer.Option(help="A user's id; may be given again.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every active profile.")] = False,
) -> None:
    """Compute every number of every claim again from the events that it cites; fail on the first that differs."""
    if not (user or all_):
        raise typer.BadParameter("say whose: --user ID or --all")
    with database(read_settings()) as opened:
        with opened.session() as session:
            ids = user or profiles.active_users(session)
        done = Checked(0, 0, 0)
        with progress_bar("checking profiles") as advance:
            for done in check_profiles(opened, ids):
                advance(done.profiles, len(ids))
    out.print(f"{done.profiles:,} profiles, {done.claims:,} claims: all follow from the events that they cite.")
    if done.stale:
        out.print(f"{done.stale:,} of them are of an older log; of these only the cited events were checked.")
