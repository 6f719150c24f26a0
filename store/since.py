"""What has come since profiles were written, for many users at once, and what profiles have cost."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, LiteralString, NamedTuple

from store.database import Database
from store.selection import FROM, PAGE, Selection, condition, parts
from store.units import DECLARED, LATEST

_RECENT = 2_000

_LOOK: LiteralString = f"""
select u.user_id, p.profile_id, p.recipe is distinct from %(recipe)s or p.key is null,
    p.corrections_revision is distinct from u.corrections_revision, p.declared is distinct from {DECLARED},
    p.log_revision is distinct from u.log_revision, p.created_at, (p.log->>'last')::timestamptz, p.weight,
    p.catalogue_revision
from {FROM}
"""  # noqa: S608 - our own text
# For a page of users far quicker than a look at each one's items.
_TOUCHED: LiteralString = """
select distinct p.user_id from profiles p join events e using (user_id) join items i using (item_id)
where p.active and p.user_id between %(first)s and %(last)s and i.revision > %(oldest)s
    and i.revision > p.catalogue_revision
"""
_SIGNED: LiteralString = """t.weight * case
    when e.value = 'NaN' or t.how = 'centred' and e.value is null then 0
    when t.how = 'centred' then greatest(-1, least(1, (e.value - %(neutral)s) / %(span)s))
    when t.how = 'fraction' and e.value is not null then greatest(0, least(1, e.value))
    else 1 end"""
_EVENTS: LiteralString = f"""
from unnest(%(users)s::text[], %(lasts)s::timestamptz[]) s (user_id, last)
join events e using (user_id)
join unnest(%(types)s::text[], %(weights)s::float8[], %(hows)s::text[]) t (type, weight, how) using (type)
cross join lateral (select {_SIGNED} as signed) w
"""
_WEIGHED: LiteralString = f"""
select s.user_id, sum(abs(w.signed)), count(*) filter (where e.ts > s.last and w.signed > 0 and e.item_id is not null)
{_EVENTS} group by s.user_id
"""
_LIKED: LiteralString = f"""
select s.user_id, e.item_id, sum(w.signed) {_EVENTS}
where e.ts > s.last and w.signed > 0 and e.item_id is not null group by s.user_id, e.item_id
"""
_THEMES: LiteralString = """
select p.user_id, c.claim_id, c.strength, array_agg(distinct e.item_id)
from profiles p
join claims c using (profile_id)
join evidence v using (claim_pk)
join events e using (event_id)
where p.active and p.user_id = any(%s) and c.kind = 'interest' and c.origin = 'model' and not v.counter
    and e.item_id is not null
group by p.user_id, c.claim_pk
"""
# Of the latest profiles: what is older was made by other means. Attempts run side by side: how much so is told by the
# sum of their times over the time in which any of them ran.
_ACCOUNTS: LiteralString = """
select p.version > 1, spent.tokens_in, spent.tokens_out, spent.calls, a.started_at, a.finished_at
from (select * from profiles order by profile_id desc limit %(recent)s) p
join attempts a on a.user_id = p.user_id and a.version = p.version and a.outcome = 'written'
cross join lateral (
    select coalesce(sum(c.tokens_in), 0)::bigint as tokens_in, coalesce(sum(c.tokens_out), 0)::bigint as tokens_out,
        count(*) as calls
    from attempts t join llm_calls c using (attempt_id)
    where t.user_id = a.user_id and t.writer = a.writer and t.attempt_id <= a.attempt_id and not exists (
        select from attempts w
        where w.user_id = a.user_id and w.outcome = 'written'
            and w.attempt_id >= t.attempt_id and w.attempt_id < a.attempt_id
    )
) spent
where p.provenance->>'writer' = %(writer)s and p.provenance->>'model' is not distinct from %(model)s
"""


class Look(NamedTuple):
    """What a look at a user tells, without reading the log.

    Attributes:
        profile_id: Of the active profile, or None.
        other_recipe: Whether the profile was made by another recipe, or it is not known by which.
        corrected: Whether the user has made or taken back corrections since.
        declared: Whether they have declared something else since.
        log: Whether their log has changed since.
        written_at: When the profile was written.
        last: Time of the last event that it has read.
        weight: Of the events that it has read; see `ProfileRow`.
        catalogue_revision: Of all items at that time.
        items: Whether an item of their log has changed since.
    """

    user_id: str
    profile_id: int | None
    other_recipe: bool
    corrected: bool
    declared: bool
    log: bool
    written_at: datetime | None
    last: datetime | None
    weight: float | None
    catalogue_revision: int | None
    items: bool = False


class Weighing(NamedTuple):
    """What events weigh, in the terms of SQL: of each type its weight and what its value does; see `agent.evidence`.

    A value that is centred counts as `(value - neutral) / span`, within [-1, 1].
    """

    types: Sequence[str]
    weights: Sequence[float]
    hows: Sequence[str]
    neutral: float
    span: float


class Weighed(NamedTuple):
    """The weight of a whole log without sign, scale or decay, and the number of items' likes since the profile."""

    weight: float
    liked_since: int


class ThemeItems(NamedTuple):
    """An interest of an active profile: its share of the positive weight, and the items that it cites."""

    claim_id: str
    share: float
    items: list[str]


class Written(NamedTuple):
    """What a profile has cost, with the attempts since the one before that failed.

    Attributes:
        again: Whether it was not the user's first.
        started_at: When the attempt began that wrote it.
        finished_at: When it ended.
    """

    again: bool
    tokens_in: int
    tokens_out: int
    calls: int
    started_at: datetime
    finished_at: datetime


def looks(database: Database, selection: Selection, recipe: str, size: int = PAGE) -> Iterator[list[Look]]:
    """Look at the selected users in order, page by page.

    Args:
        database: To look into.
        selection: Whom to look at.
        recipe: Hash of the present one.
        size: Users of a page.
    """
    for part in parts(selection, size):
        held = condition(part)
        query: LiteralString = f"{_LOOK} where {held.sql} and u.user_id > %(after)s order by u.user_id limit %(size)s"
        parameters = held.parameters | {"recipe": recipe, "after": "", "size": size}
        full = True
        while full:
            page = [Look(*row) for row in _rows(database, query, parameters)]
            full = len(page) == size
            if page:
                parameters["after"] = page[-1].user_id
                touched = _touched(database, page)
                yield [look._replace(items=look.user_id in touched) for look in page] if touched else page


def _touched(database: Database, page: Sequence[Look]) -> set[str]:
    """Return the users of whose log an item has changed since their profile was written."""
    known = [look.catalogue_revision for look in page if look.catalogue_revision is not None]
    latest = _rows(database, f"select {LATEST}", ())[0][0]
    if not known or min(known) >= latest:
        return set()
    rows = _rows(database, _TOUCHED, {"first": page[0].user_id, "last": page[-1].user_id, "oldest": min(known)})
    return {user_id for (user_id,) in rows}


def weighed(database: Database, since: Mapping[str, datetime], weighing: Weighing) -> dict[str, Weighed]:
    """Weigh users' logs; one that holds no event of a known type is left out.

    Args:
        database: To read from.
        since: By user, the time of the last event that the profile has read.
        weighing: What events weigh.
    """
    rows = _rows(database, _WEIGHED, _events(since, weighing))
    return {user_id: Weighed(float(weight), liked) for user_id, weight, liked in rows}


def liked(database: Database, since: Mapping[str, datetime], weighing: Weighing) -> dict[str, dict[str, float]]:
    """Return the positive weight of each item that a user has liked later than at this time, by user and item."""
    found: dict[str, dict[str, float]] = {}
    for user_id, item_id, weight in _rows(database, _LIKED, _events(since, weighing)):
        found.setdefault(user_id, {})[item_id] = float(weight)
    return found


def theme_items(database: Database, users: Sequence[str]) -> dict[str, list[ThemeItems]]:
    """Return the interests of users' active profiles that rest on events."""
    found: dict[str, list[ThemeItems]] = {}
    for user_id, *theme in _rows(database, _THEMES, [list(users)]):
        found.setdefault(user_id, []).append(ThemeItems(*theme))
    return found


def accounts(database: Database, writer: str, model: str | None) -> list[Written]:
    """Return what the latest profiles by a writer and a model have cost; at most the latest 2,000 are looked at."""
    parameters = {"writer": writer, "model": model, "recent": _RECENT}
    return [Written(*row) for row in _rows(database, _ACCOUNTS, parameters)]


def _events(since: Mapping[str, datetime], weighing: Weighing) -> dict[str, Any]:
    return {"users": list(since), "lasts": list(since.values()), **weighing._asdict()}


def _rows(database: Database, query: LiteralString, parameters: Any) -> list[tuple[Any, ...]]:
    with database.raw() as connection:
        return connection.execute(query, parameters).fetchall()
