"""The options that say whose profiles: the same for `batch run`, `batch plan` and whatever else takes a selection."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from store.selection import Selection

UserOption = Annotated[list[str] | None, typer.Option("--user", help="A user's id; may be given again.")]
UsersFileOption = Annotated[
    Path | None, typer.Option("--users-file", help="A file of ids, one a line.", exists=True, dir_okay=False)
]
AllOption = Annotated[bool, typer.Option("--all", help="Every user with consent and a log.")]
WhereOption = Annotated[
    list[str] | None,
    typer.Option("--where", help="A declared attribute and its value: country=se. May be given again: all must hold."),
]
ChangedOption = Annotated[
    bool, typer.Option("--changed", help="Those without a profile, or with a change of what it rests on since.")
]
ChangedSinceOption = Annotated[
    str | None,
    typer.Option("--changed-since", help="Whose log has changed since 2025-08-31T22:00, or in the last 24h."),
]
OlderThanOption = Annotated[
    str | None, typer.Option("--older-than", help="Whose profile is older than 30d, or from before 2025-08-01.")
]
DriftedOption = Annotated[bool, typer.Option("--drifted", help="Whose log has drifted away from their profile.")]

_AGE = re.compile(r"(\d+)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def selection(
    now: datetime,
    *,
    user: Sequence[str] | None = None,
    users_file: Path | None = None,
    all_: bool = False,
    where: Sequence[str] | None = None,
    changed: bool = False,
    changed_since: str | None = None,
    older_than: str | None = None,
    drifted: bool = False,
) -> Selection:
    """Turn the options into a selection.

    Args:
        now: The time, from which ages count.
        user: Ids.
        users_file: A file with an id on each line; empty lines are left out.
        all_: Whether everyone is meant.
        where: Pairs `key=value`.
        changed: Whether only those are meant of whom something has changed.
        changed_since: A time (UTC unless it says otherwise) or an age.
        older_than: Likewise.
        drifted: Whether only those are meant whose log has drifted.

    Raises:
        typer.BadParameter: An option cannot be read, or nothing says whose profiles are meant.
    """
    ids = _ids(user, users_file)
    if not (all_ or where or changed or changed_since or older_than or drifted) and ids is None:
        raise typer.BadParameter(
            "say whose: --all, --user ID, --users-file FILE, --where KEY=VALUE, --changed, --changed-since TIME, "
            "--older-than AGE or --drifted"
        )
    try:
        return Selection(
            users=ids,
            where=_pairs(where or ()),
            changed_since=moment(changed_since, now, "--changed-since") if changed_since else None,
            changed=changed,
            older_than=moment(older_than, now, "--older-than") if older_than else None,
            drifted=drifted,
            everyone=all_,
        )
    except ValidationError as error:
        raise typer.BadParameter(error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")) from error


def moment(given: str, now: datetime, option: str) -> datetime:
    """Return the time that is meant: a time or a date (UTC unless it says otherwise), or an age such as 30d or 24h.

    Raises:
        typer.BadParameter: It is neither.
    """
    if age := _AGE.fullmatch(given.strip()):
        try:
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        except OverflowError as error:
            raise typer.BadParameter(f"{given} is longer than time itself", param_hint=option) from error
    try:
        at = datetime.fromisoformat(given.strip())
    except ValueError as error:
        what = f"{given} is no time and no age: 2025-08-31, 2025-08-31T22:00, 24h, 30d"
        raise typer.BadParameter(what, param_hint=option) from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _ids(user: Sequence[str] | None, users_file: Path | None) -> tuple[str, ...] | None:
    if not user and users_file is None:
        return None
    lines = users_file.read_text(encoding="utf-8").splitlines() if users_file else ()
    return tuple(dict.fromkeys([*(user or ()), *(line.strip() for line in lines if line.strip())]))


def _pairs(where: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for pair in where:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair} is not of the form key=value", param_hint="--where")
        if key in pairs:
            raise typer.BadParameter(f"{key} is given twice, and a user has one value", param_hint="--where")
        pairs[key] = value
    return pairs
