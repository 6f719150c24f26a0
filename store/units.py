"""What a user's profile rests on, for many users at once and without reading their logs.

A profile's row keeps the revisions that it was made of. Whoever writes profiles reads these first and the logs after
them: then a profile may rest on something newer than its row says, and is written once more than it need be; never the
other way round.

`items.revision` only helps because those who write items take turns (`store.ingest.runs`): a lower one can not become
visible after a higher one.
"""

from collections.abc import Sequence
from typing import LiteralString, NamedTuple

from psycopg import Connection
from sqlmodel import Session

from store.database import driver
from store.tables import ProfileRow

DECLARED: LiteralString = (
    "encode(sha256(convert_to(jsonb_build_array(u.attributes, u.tz, u.language)::text, 'UTF8')), 'hex')"
)
"""The hash of what a user (`u`) has declared."""
LATEST: LiteralString = "coalesce((select max(revision) from items), 0)"
"""The revision of the whole catalogue."""
NEWER_ITEMS: LiteralString = (
    f"coalesce(p.catalogue_revision < {LATEST}, false) and exists (select from events e join items i using (item_id)"
    " where e.user_id = u.user_id and i.revision > p.catalogue_revision)"
)
"""Whether an item of a user's log has changed since their profile (`p`) was written."""

_NOW: LiteralString = f"""
select u.user_id, u.log_revision, u.corrections_revision, {DECLARED}, p.profile_id is not null, p.key,
    case when p.log_revision = u.log_revision then p.items_revision end, p.catalogue_revision
from users u left join profiles p on p.user_id = u.user_id and p.active
where u.user_id = any(%s) and u.consent
"""  # noqa: S608 - our own text
_ITEMS: LiteralString = """
select e.user_id, max(i.revision) from events e join items i using (item_id)
where e.user_id = any(%s) and i.revision > %s group by e.user_id
"""


class Inputs(NamedTuple):
    """What a user's profile would be made of now, but for the recipe.

    Attributes:
        log_revision: Of the user's events.
        corrections_revision: Of their corrections.
        items_revision: The latest of the items that their log names; 0 if it names none.
        declared: Hash of what they have declared.
        catalogue_revision: The latest of all items; it is no part of the key.
    """

    user_id: str
    log_revision: int
    corrections_revision: int
    items_revision: int
    declared: str
    catalogue_revision: int


class Standing(NamedTuple):
    """What a user's profile would be made of now, whether there is one, and the key that it was made under."""

    inputs: Inputs
    has_profile: bool
    key: str | None


def standings(session: Session, ids: Sequence[str]) -> dict[str, Standing]:
    """Return how these users stand; those without consent are left out.

    Logs are looked into only where the profile does not tell: where it is of another log, or items have changed since.
    """
    connection = driver(session)
    row = connection.execute(f"select {LATEST}").fetchone()  # before all else, see above
    latest = int(row[0]) if row else 0
    rows = connection.execute(_NOW, [list(ids)]).fetchall()
    known = {user_id: (items, since) for user_id, *_, items, since in rows if items is not None and since is not None}
    items = _items(connection, [row[0] for row in rows if row[0] not in known], 0)
    behind = [user_id for user_id, (_, since) in known.items() if since < latest]
    newer = _items(connection, behind, min((known[user_id][1] for user_id in behind), default=0))
    items |= {user_id: max(before, newer.get(user_id, 0)) for user_id, (before, _) in known.items()}
    return {
        user_id: Standing(Inputs(user_id, log, corrections, items.get(user_id, 0), declared, latest), *before)
        for user_id, log, corrections, declared, *before, _, _ in rows
    }


def _items(connection: Connection, ids: Sequence[str], above: int) -> dict[str, int]:
    return dict(connection.execute(_ITEMS, [ids, above]).fetchall()) if ids else {}


def stamp(row: ProfileRow, key: str, inputs: Inputs, recipe: str, weight: float) -> None:
    """Note in a profile's row what it is made of.

    Args:
        row: That is about to be stored.
        key: Of all of it.
        inputs: Read before the log was.
        recipe: Hash of the recipe.
        weight: Of the events, without sign, scale or decay.
    """
    row.key, row.recipe, row.declared, row.weight = key, recipe, inputs.declared, weight
    row.log_revision, row.corrections_revision = inputs.log_revision, inputs.corrections_revision
    row.items_revision, row.catalogue_revision = inputs.items_revision, inputs.catalogue_revision
