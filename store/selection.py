"""Selections of users: all, a segment, those of whom something has changed, those of an old profile, a list."""

from collections.abc import Iterator, Sequence
from typing import Any, LiteralString, NamedTuple, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from sqlmodel import Session

from store.database import Database, driver
from store.units import DECLARED, NEWER_ITEMS

PAGE = 20_000
"""Users looked at by one query: together as quick as all at once, and memory is bounded."""


class Selection(BaseModel):
    """Whose profiles: of the users with consent and a log, those for whom all that is given holds.

    Attributes:
        users: They are of these ids; None: of any.
        where: They have declared these attributes with these values (or lists with these values in them).
        changed_since: Their log, their corrections or what they declare has changed at this time or later; who has not
            changed since Limner began to keep this time is left out.
        changed: They have no profile, or their log, their corrections, what they declare or an item of their log has
            changed since it was written.
        older_than: Their profile was written before this time.
        drifted: Their log has drifted away from their profile. `agent.planning` tells; here it means no more than that
            they have a profile and the log has changed.
        everyone: All of them are taken; where nothing else is given this must be said.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    users: tuple[str, ...] | None = None
    where: dict[str, str] = Field(default_factory=dict)
    changed_since: AwareDatetime | None = None
    changed: bool = False
    older_than: AwareDatetime | None = None
    drifted: bool = False
    everyone: bool = False

    @model_validator(mode="after")
    def _says_whose(self) -> Self:
        narrowed = self.users is not None or self.where or self.changed_since or self.changed
        if not (narrowed or self.older_than or self.drifted or self.everyone):
            raise ValueError("say whose: users, where, changed_since, changed, older_than, drifted or everyone")
        if self.everyone and self.users is not None:
            raise ValueError("users and everyone: only one of them can be meant")
        return self


class Condition(NamedTuple):
    """SQL over a user `u` and their active profile `p`, with its parameters."""

    sql: LiteralString
    parameters: dict[str, Any]


FROM: LiteralString = "users u left join profiles p on p.user_id = u.user_id and p.active"

_LISTED: LiteralString = "u.user_id = any(%(users)s)"
_WHERE: LiteralString = """not exists (
    select from unnest(%(names)s::text[], %(values)s::text[]) w (name, value)
    where not coalesce(u.attributes->>w.name = w.value or u.attributes->w.name ? w.value, false)
)"""
_CHANGED: LiteralString = f"""(p.key is null
    or (p.log_revision, p.corrections_revision, p.declared)
        is distinct from (u.log_revision::bigint, u.corrections_revision::bigint, {DECLARED})
    or {NEWER_ITEMS})"""
_MISSING: LiteralString = """
select wanted.user_id, count(*) over () from unnest(%s::text[]) as wanted (user_id)
where not exists (select from users u where u.user_id = wanted.user_id and u.consent and u.log_revision > 0)
order by 1 limit %s
"""


def condition(selection: Selection) -> Condition:
    """Return a selection as SQL."""
    held: list[LiteralString] = ["u.consent and u.log_revision > 0"]
    if selection.users is not None:
        held.append(_LISTED)
    if selection.where:
        held.append(_WHERE)
    if selection.changed_since is not None:
        held.append("u.changed_at >= %(changed_since)s")
    if selection.changed:
        held.append(_CHANGED)
    if selection.older_than is not None:
        held.append("p.created_at < %(older_than)s")
    if selection.drifted:
        held.append("p.key is not null and p.log_revision is distinct from u.log_revision")
    parameters = {
        "users": list(selection.users or ()),
        "names": list(selection.where),
        "values": list(selection.where.values()),
        "changed_since": selection.changed_since,
        "older_than": selection.older_than,
    }
    return Condition(" and ".join(held), parameters)


def pages(database: Database, selection: Selection, size: int = PAGE) -> Iterator[list[str]]:
    """Yield the ids of the selected users in order, page by page, each read in a unit of work of its own."""
    for part in parts(selection, size):
        yield from _pages(database, condition(part), size)


def parts(selection: Selection, size: int = PAGE) -> Iterator[Selection]:
    """Divide a selection with a long list of ids, so that the list is not sent along with each query."""
    if selection.users is None:
        yield selection
        return
    listed = sorted(set(selection.users))
    for start in range(0, len(listed), size):
        yield selection.model_copy(update={"users": tuple(listed[start : start + size])})


def _pages(database: Database, held: Condition, size: int) -> Iterator[list[str]]:
    query: LiteralString = (
        f"select u.user_id from {FROM} where {held.sql} and u.user_id > %(after)s order by u.user_id limit %(size)s"  # noqa: S608 - our own text
    )
    after, full = "", True
    while full:
        with database.raw() as connection:
            rows = connection.execute(query, held.parameters | {"after": after, "size": size}).fetchall()
        page = [user_id for (user_id,) in rows]
        full = len(page) == size
        if page:
            after = page[-1]
            yield page


def missing(session: Session, users: Sequence[str], shown: int = 5) -> tuple[int, list[str]]:
    """Count the listed users who are not in the store, have no log or do not consent, and return the first of them."""
    rows = driver(session).execute(_MISSING, [list(users), shown]).fetchall()
    return (rows[0][1], [user_id for user_id, _ in rows]) if rows else (0, [])
