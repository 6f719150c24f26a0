"""`limner batch plan`: how many profiles a run would write, why, and what it would cost."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from agent.contract import Writer
from agent.costs import Estimate, Prices
from agent.planning import Left, Plan, Reason, plan
from api.commands.selecting import (
    AllOption,
    ChangedOption,
    ChangedSinceOption,
    DriftedOption,
    OlderThanOption,
    UserOption,
    UsersFileOption,
    WhereOption,
    selection,
)
from api.console import err, out
from api.runtime import database, now, recipe
from api.settings import read_settings

_REASONS: dict[Reason, str] = {
    "new": "there is none yet",
    "recipe": "prompt, model or settings are others",
    "corrected": "the user has corrected it",
    "declared": "the user has declared something else",
    "evidence": "there is much new evidence",
    "drift": "the user has drifted away from it",
    "age": "it is old, and something has changed",
    "items": "an item of the log has changed",
}
_LEFT: dict[Left, str] = {
    "unchanged": "nothing has changed",
    "little new": "too little is new",
    "recipe": "prompt, model or settings are others, and the policy waits",
    "items": "only items have changed, and the policy waits",
}
_MINUTE, _HOUR = 60, 3_600


def command(
    user: UserOption = None,
    users_file: UsersFileOption = None,
    all_: AllOption = False,
    where: WhereOption = None,
    changed: ChangedOption = False,
    changed_since: ChangedSinceOption = None,
    older_than: OlderThanOption = None,
    drifted: DriftedOption = False,
    writer: Annotated[Writer, typer.Option(help="Who would put them into words.")] = "llm",
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say how many profiles a run would write, why, and what it would cost; nothing is written."""
    at = now()
    wanted = selection(
        at, user=user, users_file=users_file, all_=all_, where=where, changed=changed, changed_since=changed_since,
        older_than=older_than, drifted=drifted,
    )  # fmt: skip
    settings = read_settings()
    prices = Prices(settings.batch.price_in, settings.batch.price_out)
    with database(settings) as opened, err.status("looking at users"):
        made = plan(opened, wanted, settings.batch.policy, recipe(settings, writer, opened), at, prices)
    if as_json:
        typer.echo(made.model_dump_json(indent=2))
    else:
        say(made)


def say(made: Plan) -> None:
    """Print a plan."""
    table = Table("users", "profile", "because", box=None)
    table.columns[0].justify = "right"
    for reason, count in made.write.items():
        table.add_row(f"{count:,}", "written", _REASONS[reason])
    for left, count in made.leave.items():
        table.add_row(f"{count:,}", "left as it is", _LEFT[left])
    out.print(table if made.selected else "No user with consent and a log is selected.")
    if made.missing:
        out.print(f"{made.missing:,} of the listed users are not in the store, have no log or do not consent.")
    if made.estimate.profiles:
        say_estimate(made.estimate)


def say_estimate(estimate: Estimate) -> None:
    """Print what a run will cost."""
    out.print(
        f"\n{estimate.profiles:,} profiles: about {estimate.calls:,} calls of the model, {estimate.tokens_in:,} tokens "
        f"read and {estimate.tokens_out:,} written, {_time(estimate.seconds)}."
    )
    if estimate.cost is not None:
        out.print(f"Cost: {estimate.cost:,.2f}, by LIMNER_BATCH__PRICE_IN and LIMNER_BATCH__PRICE_OUT.")
    for basis in estimate.rests_on:
        out.print(f"Estimated from {escape(basis)}.", style="dim")


def _time(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < _HOUR else f"{seconds / _HOUR:.1f} h"
