"""`limner claim`: what a user says about the claims of their profile, and what that changes in the top 10."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Annotated, Any, NamedTuple

import typer
from pydantic import TypeAdapter
from rich.markup import escape
from rich.table import Table
from sqlmodel import Session

from api import runtime
from api.console import out
from api.correcting import correct, own_words
from api.settings import read_settings
from recommend.comparing import NO_EFFECT, TOP, Change, Ranker, compare
from recommend.corrections import KAPPA, LESS_RHO
from recommend.errors import NoModelError
from store import corrections, factors, logs, models
from store.database import Database
from store.tables import CorrectionRow

app = typer.Typer(help="Correct the claims of a profile, or add to them.", no_args_is_help=True)

_SAID = {"reject": "Rejected", "less": "Less of this", "add": "Added", "pin": "Pinned", "rewrite": "Rewritten"}

ClaimName = Annotated[str, typer.Argument(metavar="CLAIM", help="Its id (i1, d2) or its name, as the profile shows.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Shown(NamedTuple):
    """A correction, and the changes that it makes in the top list; or None and why they cannot be shown."""

    correction: CorrectionRow
    changes: list[Change] | None
    reason: str | None = None


@app.command()
def reject(user: str, claim: ClaimName, as_json: AsJson = False) -> None:
    """Say that a claim is wrong: neither it nor its events count any more."""
    _say(user, _correct(user, lambda session: correct(session, user, claim, "reject")), as_json=as_json)


@app.command()
def less(
    user: str,
    claim: ClaimName,
    rho: Annotated[float, typer.Option(min=0, max=1, help="What is left of it: 0 nothing, 1 all.")] = LESS_RHO,
    as_json: AsJson = False,
) -> None:
    """Ask for less of what a claim is about."""
    _say(user, _correct(user, lambda session: correct(session, user, claim, "less", rho=rho)), as_json=as_json)


@app.command()
def add(
    user: str,
    text: Annotated[str, typer.Argument(help="What the user likes, in a few words.")],
    dislike: Annotated[bool, typer.Option("--dislike", help="It is what the user does not like.")] = False,
    weight: Annotated[float, typer.Option(min=0.01, help="As much as so many strong events.")] = KAPPA,
    as_json: AsJson = False,
) -> None:
    """Add a claim in words of the user's own."""
    name = _own_words("TEXT", " ".join(text.split()))

    def store(session: Session) -> int:
        kind: corrections.Kind = "dislike" if dislike else "interest"
        return corrections.add(session, user, "add", kind, name, runtime.now(), weight=weight)

    _say(user, _correct(user, store), as_json=as_json)


@app.command()
def pin(user: str, claim: ClaimName, as_json: AsJson = False) -> None:
    """Keep the wording of a claim in every later summary; recommendations stay as they are."""
    _say(user, _correct(user, lambda session: correct(session, user, claim, "pin"), ranks=False), as_json=as_json)


@app.command()
def rewrite(
    user: str,
    claim: ClaimName,
    name: Annotated[str | None, typer.Option(help="What it is called.")] = None,
    statement: Annotated[str | None, typer.Option(help="What it says.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put a claim into words of the user's own, which every later summary keeps; recommendations stay as they are."""
    if name is None and statement is None:
        raise typer.BadParameter("say what to change: --name, --statement or both")
    said = {
        "new_name": None if name is None else _own_words("--name", name),
        "new_statement": None if statement is None else _own_words("--statement", statement),
    }
    _say(
        user,
        _correct(user, lambda session: correct(session, user, claim, "rewrite", **said), ranks=False),
        as_json=as_json,
    )


def _own_words(what: str, text: str) -> str:
    try:
        return own_words(text)
    except ValueError as error:
        raise typer.BadParameter(f"{what} {error}") from error


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


def _correct(user: str, change: Callable[[Session], int], *, ranks: bool = True) -> Shown:
    """Make a change, and compare the top list before and after; without a model the change is made all the same."""
    settings = read_settings()
    with runtime.database(settings) as opened, ExitStack() as stack:

        def make() -> CorrectionRow:
            with opened.session() as session:
                return session.get_one(CorrectionRow, change(session))

        if not ranks:
            return Shown(make(), None, NO_EFFECT)
        ranker: Ranker | str
        try:
            ranker = stack.enter_context(runtime.recommender(settings, opened))
        except NoModelError as error:
            ranker = str(error)
        return Shown(*compare(ranker, user, make))


def _say(user: str, shown: Shown, *, as_json: bool) -> None:
    """Say what was corrected, and what that changes."""
    row, moved = shown.correction, shown.changes
    if as_json:
        listed = None if moved is None else [change._asdict() for change in moved]
        _print_json({"user_id": user, "correction": _document(row), "changes": listed, "note": shown.reason})
        return
    name = escape(row.name)
    if row.undone_at is None:
        back = f"(correction {row.correction_id}; `limner claim undo {escape(user)}` takes it back)"
        out.print(f"{_SAID[row.action]}: [bold]{name}[/bold] {back}")
    else:
        out.print(f"Taken back: {row.action} [bold]{name}[/bold] (correction {row.correction_id})")
    if moved is None:
        out.print(escape(shown.reason or ""))
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
