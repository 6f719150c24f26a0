"""The terminal: progress bars, tables and profiles the way a person likes to read them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from agent.contract import Claim, Evidence, Profile
from store.records import Event

out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False)

_SHOWN_EVENTS = 4


class Told(SystemExit):
    """A command ends with this exit code, and has said why itself."""


class Advance(Protocol):
    """Moves a progress bar: `done` of `total` (a total of 0 is not known), under another title if one is given."""

    def __call__(self, done: int, total: int = 0, title: str | None = None) -> None: ...  # noqa: D102


@contextmanager
def progress_bar(title: str) -> Iterator[Advance]:
    """Show a progress bar for a long step, on standard error; it goes when there was nothing to do."""
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(title, total=None)

        def advance(done: int, total: int = 0, title: str | None = None) -> None:
            bar.update(task, completed=done, total=total or None, description=title)

        yield advance
        if bar.tasks[0].total is None:  # there was nothing to do
            bar.update(task, visible=False)


def print_profile(profile: Profile, events: Mapping[str, tuple[Event, str]]) -> None:
    """Print a profile.

    Args:
        profile: The profile.
        events: The cited events by id, each with the title of its item.
    """
    log, made = profile.log, profile.provenance
    by = made.model if made.writer == "llm" else "the template writer"
    out.print()
    out.print(
        Text.assemble(
            ("Portrait of user ", "bold"), (profile.user_id, "bold cyan"),
            f", version {profile.version}, {log.events_read} events "
            f"from {log.first:%-d %b %Y} to {log.last:%-d %b %Y}, written by {by}",
        )
    )  # fmt: skip
    if profile.summary:
        out.print(Padding(Text(" ".join(s.text for s in profile.summary), style="italic"), (1, 2, 0, 2)))
    for title, claims in (
        ("Interests", profile.interests), ("After just now", profile.intents), ("Dislikes", profile.dislikes),
    ):  # fmt: skip
        if claims:
            out.print(f"\n  [bold]{title}[/bold]")
        for claim in claims:
            _print_claim(claim, events)
    if profile.habits:
        out.print("\n  [bold]Habits[/bold]  " + escape(" ".join(h.statement for h in profile.habits)))
    if profile.tags:
        out.print("  [bold]Tags[/bold]    " + escape(", ".join(t.name for t in profile.tags)))
    if not profile.claims:
        out.print("\n  The log supports no claim yet.")


def _print_claim(claim: Claim, events: Mapping[str, tuple[Event, str]]) -> None:
    head = Text.assemble(
        ("    ", ""), (f"{claim.name:<34}", "green" if claim.strength >= 0 else "red"),
        (f"  strength {claim.strength:+.2f}  sure {claim.confidence:.2f}", "dim"),
        (f"  {claim.trend}" if claim.trend else "", "dim"),
        (f"  {len(claim.evidence)} events", "dim"), (_by(claim), "dim"),
    )  # fmt: skip
    out.print(head)
    out.print(Padding(Text(claim.statement), (0, 2, 0, 6)))
    because = _list(claim.evidence, events) if claim.evidence else f"correction {claim.correction_id}"
    out.print(Padding(Text("because   " + because, style="dim"), (0, 2, 0, 6)))
    if claim.counter_evidence:
        out.print(Padding(Text("against   " + _list(claim.counter_evidence, events), style="dim"), (0, 2, 0, 6)))


def _by(claim: Claim) -> str:
    """Say whose the words are, if they are not the model's."""
    if claim.locked:
        return "  (the user's words)" if claim.wording == "user" else "  (pinned)"
    return "  (template)" if claim.wording == "template" else ""


def _list(evidence: tuple[Evidence, ...], events: Mapping[str, tuple[Event, str]]) -> str:
    shown = [_event(*events[e.event_id]) for e in evidence[:_SHOWN_EVENTS] if e.event_id in events]
    more = len(evidence) - len(shown)
    return " · ".join([*shown, f"… {more} more"] if more else shown)


def _event(event: Event, title: str) -> str:
    value = f" ★{event.value:g}" if event.type in {"rating", "review"} and event.value is not None else f" {event.type}"
    return f"{title}{value} ({event.ts:%-d %b %Y})"
