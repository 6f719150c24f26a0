"""`limner claim`: what a user says about the claims of their profile, and what that changes in the top 10."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import typer
from pydantic import TypeAdapter
from rich.markup import escape
from rich.table import Table
from sqlmodel import Session

from agent import archive
from agent.contract import Claim
from api import runtime
from api.console import out
from api.settings import read_settings
from recommend.contract import RecommendedItem
from recommend.corrections import KAPPA, LESS_RHO
from recommend.errors import NoModelError
from store import corrections, factors, logs, models, profiles
from store.database import Database
from store.errors import NotFoundError
from store.tables import CorrectionRow

app = typer.Typer(help="Correct the claims of a profile, or add to them.", no_args_is_help=True)

TOP = 10
_LONGEST = 600
_NOT_SHOWN = f"The change in the top {TOP} cannot be shown"
_SAID = {"reject": "Rejected", "less": "Less of this", "add": "Added", "pin": "Pinned"}

ClaimName = Annotated[str, typer.Argument(metavar="CLAIM", help="Its id (i1, d2) or its name, as the profile shows.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Change(NamedTuple):
    """An item whose rank changes; None where it is not in the list."""

    item_id: str
    title: str
    before: int | None
    after: int | None


class Shown(NamedTuple):
    """A correction, and the changes that it makes in the top list; or None and why they cannot be shown."""

    correction: CorrectionRow
    changes: list[Change] | None
    reason: str = ""


def changes(before: Sequence[RecommendedItem], after: Sequence[RecommendedItem]) -> list[Change]:
    """List the items whose rank differs: those of the new list by rank, then those that have left it."""
    old, new = ({item.item_id: item.rank for item in items} for items in (before, after))
    titles = {item.item_id: item.title for item in (*after, *before)}
    found = [Change(item_id, title, old.get(item_id), new.get(item_id)) for item_id, title in titles.items()]
    return [change for change in found if change.before != change.after]


@app.command()
def reject(user: str, claim: ClaimName, as_json: AsJson = False) -> None:
    """Say that a claim is wrong: neither it nor its events count any more."""
    _say(user, _correct(user, lambda session: _about(session, user, claim, "reject")), as_json=as_json)


@app.command()
def less(
    user: str,
    claim: ClaimName,
    rho: Annotated[float, typer.Option(min=0, max=1, help="What is left of it: 0 nothing, 1 all.")] = LESS_RHO,
    as_json: AsJson = False,
) -> None:
    """Ask for less of what a claim is about."""
    _say(user, _correct(user, lambda session: _about(session, user, claim, "less", rho)), as_json=as_json)


@app.command()
def add(
    user: str,
    text: Annotated[str, typer.Argument(help="What the user likes, in a few words.")],
    dislike: Annotated[bool, typer.Option("--dislike", help="It is what the user does not like.")] = False,
    weight: Annotated[float, typer.Option(min=0.01, help="As much as so many strong events.")] = KAPPA,
    as_json: AsJson = False,
) -> None:
    """Add a claim in words of the user's own."""
    name = " ".join(text.split())
    if not 0 < len(name) <= _LONGEST:
        raise typer.BadParameter(f"TEXT must have 1 to {_LONGEST} characters, it has {len(name)}")

    def store(session: Session) -> int:
        kind: corrections.Kind = "dislike" if dislike else "interest"
        return corrections.add(session, user, "add", kind, name, runtime.now(), weight=weight)

    _say(user, _correct(user, store), as_json=as_json)


@app.command()
def pin(user: str, claim: ClaimName, as_json: AsJson = False) -> None:
    """Keep the wording of a claim; recommendations stay as they are."""
    _say(user, _correct(user, lambda session: _about(session, user, claim, "pin"), ranks=False), as_json=as_json)


@app.command()
def undo(
    user: str,
    correction: Annotated[int | None, typer.Option("--id", help="As `list` shows it; the latest unless given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take a correction back."""

    def take_back(session: Session) -> int:
        if correction is None:
            row = corrections.undo_last(session, user, runtime.now())
        else:
            row = corrections.undo(session, user, correction, runtime.now())
        assert row.correction_id is not None  # noqa: S101 - it comes from the store
        return row.correction_id

    _say(user, _correct(user, take_back), as_json=as_json)


@app.command("list")
def list_corrections(user: str, as_json: AsJson = False) -> None:
    """List the corrections that are in force, oldest first."""
    with runtime.database(read_settings()) as opened, opened.session() as session:
        rows = corrections.live(session, user)
    if as_json:
        _print_json({"user_id": user, "corrections": [_document(row) for row in rows]})
        return
    table = Table(box=None)
    for column in ("id", "made", "what", "kind", "claim", "rho"):
        table.add_column(column)
    for row in rows:
        rho = "" if row.rho is None else f"{row.rho:g}"
        made = f"{row.created_at:%Y-%m-%d %H:%M}"
        table.add_row(str(row.correction_id), made, row.action, row.kind, escape(row.name), rho)
    out.print(table if rows else f"User {escape(user)} has no correction in force.")


@app.command()
def items(
    user: str,
    claim: Annotated[str, typer.Argument(help="Its id, such as i1.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many.")] = TOP,
) -> None:
    """List the items nearest to a claim, as the crowd's taste puts them (factors, not words)."""
    with runtime.database(read_settings()) as opened:
        found = factors.items_for_claim(opened, _active(opened), user, claim, k)
        with opened.session() as session:
            titles = {item_id: item.title for item_id, item in logs.read_items(session, found).items()}
    for item_id in found:
        out.print(f"{escape(titles.get(item_id, item_id))}  [dim]{escape(item_id)}[/dim]")
    if not found:
        out.print(
            f"Claim {escape(claim)} of user {escape(user)} has no factor. `limner train` gives one to each claim."
        )


@app.command()
def near(
    item: str,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many.")] = TOP,
) -> None:
    """List the claims nearest to an item, whosever they are."""
    with runtime.database(read_settings()) as opened:
        found = factors.claims_near_item(opened, _active(opened), item, k)
    for claim in found:
        out.print(
            f"{claim.product:.3f}  {escape(claim.name)}  [dim]user {escape(claim.user_id)}, {claim.claim_id}[/dim]"
        )
    if not found:
        out.print(f"Item {escape(item)} has no factor, or there are no claims. See `limner train`.")


def _active(opened: Database) -> int:
    with opened.session() as session:
        row = models.active_model(session)
    if row is None or row.model_id is None:
        raise NoModelError("No model has been trained yet. Train one with `limner train`.")
    return row.model_id


def find(claims: Sequence[Claim], wanted: str) -> Claim:
    """Return the claim with this id, or else with this name, whatever the case.

    Raises:
        NotFoundError: There is none, or several have the name.
    """
    name = " ".join(wanted.split()).casefold()
    found = [c for c in claims if c.claim_id == wanted] or [c for c in claims if c.name.casefold() == name]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(f"{c.claim_id} ({c.name})" for c in found or claims) or "none"
    if found:
        raise NotFoundError(f"Several claims are named '{wanted}'. Give the id of one: {listed}.")
    raise NotFoundError(
        f"The profile has no claim '{wanted}'. It has: {listed}. One that was added goes with `limner claim undo`."
    )


def _about(session: Session, user: str, wanted: str, action: corrections.Action, rho: float | None = None) -> int:
    """Store a correction of a claim of the user's profile."""
    claim = find(archive.from_rows(profiles.load(session, user)).claims, wanted)
    return corrections.add(
        session,
        user,
        action,
        claim.kind,
        claim.name,
        runtime.now(),
        statement=claim.statement,
        claim_id=claim.claim_id,
        evidence=[e.event_id for e in claim.evidence],
        rho=rho,
    )


def _correct(user: str, change: Callable[[Session], int], *, ranks: bool = True) -> Shown:
    """Make a change, and compare the top list before and after; without a model the change is made all the same."""
    settings = read_settings()
    with runtime.database(settings) as opened:

        def make() -> CorrectionRow:
            with opened.session() as session:
                return session.get_one(CorrectionRow, change(session))

        if not ranks:
            return Shown(make(), None, "A pin has no effect on recommendations.")
        made = None
        try:
            with runtime.recommender(settings, opened) as recommender:
                before = recommender.top(user, TOP)
                made = make()
                if before.model_id is None:
                    return Shown(made, None, f"{_NOT_SHOWN}: there is no model yet. Train one with `limner train`.")
                return Shown(made, changes(before.items, recommender.top(user, TOP).items))
        except NoModelError as error:
            return Shown(made or make(), None, f"{_NOT_SHOWN}: {error}")


def _say(user: str, shown: Shown, *, as_json: bool) -> None:
    """Say what was corrected, and what that changes."""
    row, moved = shown.correction, shown.changes
    if as_json:
        listed = None if moved is None else [change._asdict() for change in moved]
        _print_json({"user_id": user, "correction": _document(row), "changes": listed, "note": shown.reason or None})
        return
    name = escape(row.name)
    if row.undone_at is None:
        back = f"(correction {row.correction_id}; `limner claim undo {escape(user)}` takes it back)"
        out.print(f"{_SAID[row.action]}: [bold]{name}[/bold] {back}")
    else:
        out.print(f"Taken back: {row.action} [bold]{name}[/bold] (correction {row.correction_id})")
    if moved is None:
        out.print(escape(shown.reason))
    elif not moved:
        out.print(f"The top {TOP} stays as it was.")
    else:
        _print_changes(moved)


def _print_changes(moved: Sequence[Change]) -> None:
    table = Table(box=None)
    table.add_column("now", justify="right")
    table.add_column("was", justify="right")
    table.add_column(f"top {TOP}")
    for change in moved:
        style = "green" if change.before is None else "red" if change.after is None else None
        ranks = ("-" if rank is None else str(rank) for rank in (change.after, change.before))
        table.add_row(*ranks, escape(change.title), style=style)
    out.print(table)


def _document(row: CorrectionRow) -> dict[str, Any]:
    return row.model_dump(mode="json", exclude={"user_id"})


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(TypeAdapter(dict[str, Any]).dump_json(document, indent=2).decode())
