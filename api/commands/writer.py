"""`limner writer`: how well a model writes, and how to teach a small one what a large one writes."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from scipy.stats import binomtest

from agent.errors import LessonError
from agent.lessons import Rehearsal, digest, read, reopen, split, thin
from agent.models import CATALOGUE
from agent.teaching import ADAPTER, MODEL, Course, train
from api import runtime
from api.commands import selecting
from api.console import Told, err, out, progress_bar
from api.settings import Settings, read_settings
from api.teaching import Rehearsals, rehearse
from recommend.errors import NoModelError
from store import selection as selections
from store.database import Database
from store.privacy import hasher

app = typer.Typer(help="Teach a small language model to write like a large one.", no_args_is_help=True)

LimitOption = Annotated[int | None, typer.Option(min=1, help="At most so many users.")]
DomainOption = Annotated[str, typer.Option(help="What the items are, in a word; domains can be held out later.")]
_DEFAULT_BASE = "smollm2-135m"
_OUT_OF_REACH = 5
_SHOWN_CHECKS = 10


@app.command()
def distill(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Lessons are added to it; who is in it is left out.")],
    user: selecting.UserOption = None,
    users_file: selecting.UsersFileOption = None,
    all_: selecting.AllOption = False,
    limit: LimitOption = None,
    domain: DomainOption = "own",
) -> None:
    """Let the model write about users, and keep as lessons what passes every check; no profile is stored."""
    settings = read_settings()
    with runtime.database(settings) as opened:
        ids = _others(settings, _users(opened, user, users_file, limit, all_=all_), reopen(file), domain)
        if not ids:
            out.print(f"Everyone is in {escape(str(file))} already.")
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:

            def keep(one: Rehearsal) -> None:
                lines.write(one.model_dump_json() + "\n")
                lines.flush()

            found, stopped = _rehearsed(settings, opened, ids, domain, keep)
    _say(found)
    out.print(
        f"{sum(len(one.lessons) for one in found):,} lessons of {len(found):,} users were added to {escape(str(file))}."
    )
    _end(stopped)


@app.command("try")
def try_out(
    user: selecting.UserOption = None,
    users_file: selecting.UsersFileOption = None,
    all_: selecting.AllOption = False,
    limit: LimitOption = None,
    domain: DomainOption = "own",
    lessons: Annotated[
        list[Path] | None,
        typer.Option("--except", dir_okay=False, help="Lessons whose users are left out; may be given again."),
    ] = None,
) -> None:
    """Let the model write about users, store nothing, and say how much of it passes every check at the first try."""
    settings = read_settings()
    with runtime.database(settings) as opened:
        ids = _others(settings, _users(opened, user, users_file, limit, all_=all_), read(lessons or ()), domain)
        if not ids:
            out.print("These users were all taught.")
            raise typer.Exit(1)
        found, stopped = _rehearsed(settings, opened, ids, domain)
    _say(found)
    _say_refused(found)
    _end(stopped)


@app.command("train")
def train_one(
    files: Annotated[list[Path], typer.Argument(dir_okay=False, help="Lessons, from `limner writer distill`.")],
    folder: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="Gets adapter/ and model/.")],
    base: Annotated[
        str, typer.Option(help="The small model: a name of the catalogue, a Hub id or a path.")
    ] = _DEFAULT_BASE,
    unseen: Annotated[
        list[str] | None, typer.Option("--hold-out", help="A domain that is not taught; may be given again.")
    ] = None,
    epochs: Annotated[float, typer.Option(min=0.01, help="Passes over the lessons.")] = Course().epochs,
    learning_rate: Annotated[float, typer.Option(min=1e-6, max=0.1)] = Course().learning_rate,
    rank: Annotated[int, typer.Option(min=1, max=256, help="Of the adapter.")] = Course().rank,
    batch: Annotated[int, typer.Option(min=1, help="Lessons in a step.")] = Course().batch,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Teach a small model by lessons (LoRA); a run that was stopped goes on where it was."""
    settings = read_settings()
    rehearsals = list(read(files))
    parts = split(rehearsals, unseen or ())
    if not parts.taught:
        raise LessonError("There is nothing to teach by. `limner writer distill` makes lessons.")
    taught = thin(parts.taught, runtime.embedder(settings).embed, seed)
    course = Course(rank=rank, epochs=epochs, learning_rate=learning_rate, batch=batch, seed=seed)
    small = runtime.fetched(settings, base)
    card = {
        "name": folder.resolve().name,
        "licence": small.entry.licence if small.entry else "see the base",
        "teachers": sorted({(one.model, one.weights_hash or "unknown") for one in rehearsals}),
        "teachers_licences": sorted({e.licence for e in CATALOGUE if e.name in {one.model for one in rehearsals}}),
        "lessons_sha256": digest(taught),
        "domains": sorted({one.domain for one in rehearsals} - set(unseen or ())),
        "never_taught": sorted(unseen or ()),
    }
    out.print(
        f"{len(taught):,} lessons of {len(parts.taught):,} are not near-copies; {len(parts.held_out):,} of other users "
        f"and {len(parts.unseen):,} of other domains are held out."
    )
    with progress_bar(f"teaching {small.name}") as advance:
        metrics = train(small, taught, parts.held_out, folder, course, card, advance)
    judges = "held-out users" if parts.held_out else "the lessons themselves, since nobody is held out"
    out.print(
        f"Loss on {judges}: {metrics['loss_before']:.3f} before, {metrics['loss_after']:.3f} after "
        f"{metrics['steps']:.0f} steps, in {metrics['seconds']:.0f} s."
    )
    out.print(f"The adapter is in {escape(str(folder / ADAPTER))}, the model in {escape(str(folder / MODEL))}.")
    out.print(
        f"Try it before you trust it: LIMNER_LLM__MODEL={escape(str(folder / MODEL))} limner writer try --limit 50"
    )


def _users(
    opened: Database,
    user: list[str] | None,
    users_file: Path | None,
    limit: int | None,
    *,
    all_: bool,
) -> list[str]:
    chosen = selecting.selection(runtime.now(), user=user, users_file=users_file, all_=all_ or bool(limit))
    ids = [user_id for page in selections.pages(opened, chosen) for user_id in page]
    if not ids:
        out.print("There are no such users with consent and a log.")
        raise typer.Exit(1)
    return ids[:limit]


def _others(settings: Settings, users: list[str], known: Iterable[Rehearsal], domain: str) -> list[str]:
    """Leave out who is in rehearsals of a domain."""
    hashes, there = hasher(settings.home, settings.privacy_key), {one.user for one in known if one.domain == domain}
    return [user for user in users if hashes.subject(user) not in there]


def _rehearsed(
    settings: Settings,
    opened: Database,
    users: list[str],
    domain: str,
    keep: Callable[[Rehearsal], None] = lambda _: None,
) -> tuple[list[Rehearsal], str | None]:
    """Let the model write; returns what came of it, and why it ended early, if it did."""
    found: list[Rehearsal] = []
    with ExitStack() as stack:
        made = stack.enter_context(runtime.profiler(settings, opened, with_llm=True))
        try:
            recommender = stack.enter_context(runtime.recommender(settings, opened))
        except NoModelError:
            recommender = None
            err.print("No recommender was trained: no sentences on why something is recommended.")
        advance = stack.enter_context(progress_bar("users"))

        def done(one: Rehearsal) -> None:
            keep(one)
            found.append(one)
            advance(len(found), len(users))

        rehearsals = Rehearsals(opened, made, domain, hasher(settings.home, settings.privacy_key), recommender)
        started = time.perf_counter()
        stopped = rehearse(rehearsals, users, done)
        seconds = time.perf_counter() - started
    if found:
        out.print(f"{len(found):,} users in {seconds:,.1f} s, {len(found) / seconds:.2f}/s.")
    return found, stopped


def _say(found: list[Rehearsal]) -> None:
    table = Table(box=None)
    for column in ("domain", "users", "texts", "passed at the first try", "95 % interval", "after repair"):
        table.add_column(column)
    for domain in sorted({one.domain for one in found}):
        own = [one for one in found if one.domain == domain]
        asked, first, repaired = (sum(getattr(one, name) for one in own) for name in ("asked", "first_try", "repaired"))
        if not asked:
            continue
        low, high = binomtest(first, asked).proportion_ci(method="wilson")
        table.add_row(
            domain, f"{len(own):,}", f"{asked:,}", f"{first / asked:.1%}", f"{low:.1%} to {high:.1%}",
            f"{(first + repaired) / asked:.1%}",
        )  # fmt: skip
    out.print(table)


def _say_refused(found: list[Rehearsal]) -> None:
    """Say by which checks answers were refused, the most common first, with one of each."""
    refused = [reason for one in found for reason in one.refused]
    by_check = Counter(_check(reason) for reason in refused)
    if not refused:
        return
    table = Table("answers", "refused by", "one of them", box=None)
    for check, count in by_check.most_common(_SHOWN_CHECKS):
        one = next(reason for reason in refused if _check(reason) == check)
        table.add_row(f"{count:,}", check, escape(one.removeprefix(check + ": ")))
    out.print(table)


def _check(reason: str) -> str:
    """Return the prompt and the first check that an answer failed, of `theme: attribute: …`."""
    return ": ".join(reason.split(": ", 2)[:2])


def _end(stopped: str | None) -> None:
    if stopped:
        err.print(f"[red]{escape(stopped)}[/] Run the same command again to go on.")
        raise Told(_OUT_OF_REACH)
