"""Search as people ask: a user's events by words and time, items by title, users by what is claimed of them."""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from psycopg import Connection
from psycopg import sql as pg
from sqlalchemy import text as sql
from sqlmodel import Session

from store.database import Database
from store.records import Event

EXACT_UP_TO = 100_000
"""Vectors of claims that are searched one by one; more have an index."""
Order = Literal["best", "worst"]
_CLAIMS_A_USER = 50
_MOST_TITLES = 200
_BRACKETS = re.compile(r"\s*\([^)]*\)\s*$")
_ARTICLE = re.compile(r"^(the|a|an)\s+", re.IGNORECASE)

_EVENTS = """
    with found as (
        select e.*, i.title, (
            select count(*) from unnest(cast(:words as text[])) word
            where strpos(
                lower(concat_ws(' ', i.title, array_to_string(i.categories, ' '), e.text, e.type)), lower(word)
            ) > 0
        ) as hits
        from events e left join items i on i.item_id = e.item_id
        where e.user_id = :user_id
          and (cast(:item as text) is null or e.item_id = cast(:item as text))
          and (cast(:since as timestamptz) is null or e.ts >= :since)
          and (cast(:until as timestamptz) is null or e.ts < :until)
    )
    select *, count(*) over () as total from found
    where hits = (select max(hits) from found) and (hits > 0 or cardinality(cast(:words as text[])) = 0)
    order by case cast(:order as text) when 'best' then -value when 'worst' then value end, ts desc, event_id
    limit :limit
"""
# A title as people say it: without what stands in brackets at its end, and without an article behind a comma.
_ITEMS = """
    with named as (
        select item_id, title, regexp_replace(
            regexp_replace(lower(title), '\\s*\\([^)]*\\)\\s*$', ''),
            ',\\s+(the|a|an|les|le|la|das|der|die|el|il)$', ''
        ) as core
        from items
    )
    select item_id, title, core,
           exists (select from events e where e.user_id = :user_id and e.item_id = named.item_id) as own
    from named where {condition}
    order by length(core) desc, own desc, item_id
"""
_IN_TEXT = _ITEMS.format(condition="length(core) > 1 and strpos(:text, core) > 0")
_OF_ID = _ITEMS.format(condition="item_id = :text")
_WITH_TEXT = _ITEMS.format(condition="strpos(core, :text) > 0").replace("desc, own", ", own")


class FoundEvents(NamedTuple):
    """Events that match best.

    Attributes:
        events: The first of them, each with the title of its item.
        total: How many there are.
    """

    events: list[tuple[Event, str | None]]
    total: int


class FoundItem(NamedTuple):
    """An item by its title.

    Attributes:
        core: The title without what stands in brackets at its end, and without a trailing article.
        own: Whether the user has an event about it.
    """

    item_id: str
    title: str
    core: str
    own: bool


def events(
    session: Session,
    user_id: str,
    words: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 8,
    item: str | None = None,
    order: Order | None = None,
) -> FoundEvents:
    """Find a user's events in which as many of the words occur as in any.

    Args:
        session: The unit of work.
        user_id: Whose events.
        words: Parts of item titles, categories, event texts or event types; all events match if there are none.
        since: Not before this time.
        until: Before this time.
        limit: How many are returned.
        item: Only events about this item.
        order: Those of the highest (`best`) or lowest (`worst`) value first; else the latest.
    """
    asked = {
        "user_id": user_id, "words": list(words), "since": since, "until": until, "limit": limit, "item": item,
        "order": order,
    }  # fmt: skip
    rows = session.execute(sql(_EVENTS), asked).all()
    listed = []
    for row in rows:
        values = {name: getattr(row, name) for name in Event.model_fields}
        values["context"] = values["context"] or {}
        listed.append((Event.model_construct(None, **values), row.title))
    return FoundEvents(listed, rows[0].total if rows else 0)


def titles_in(session: Session, text: str, user_id: str) -> list[FoundItem]:
    """Return the items whose titles stand in a text, the longest titles first.

    A title may stand there without what it has in brackets at its end, and without its article; case does not matter.
    """
    return _items(session, _IN_TEXT, text.lower(), user_id)


def titles_with(session: Session, text: str, user_id: str) -> list[FoundItem]:
    """Return the item of this id, or those whose titles contain a text, the shortest titles first."""
    if of_id := _items(session, _OF_ID, text, user_id):
        return of_id
    plain = _ARTICLE.sub("", _BRACKETS.sub("", text)).strip().lower()
    return _items(session, _WITH_TEXT, plain, user_id) if plain else []


def _items(session: Session, query: str, text: str, user_id: str) -> list[FoundItem]:
    found = session.execute(sql(f"{query} limit {_MOST_TITLES}"), {"text": text, "user_id": user_id})
    return [FoundItem(*row) for row in found]


class FoundClaim(NamedTuple):
    """A claim, and the cosine of its text and the text sought."""

    claim_id: str
    kind: str
    name: str
    statement: str
    similarity: float


class FoundUser(NamedTuple):
    """A user, and the claims of the active profile that are nearest to the text sought, the nearest first."""

    user_id: str
    claims: list[FoundClaim]


# The nearest claims are found before anything is joined: by an index where there is one, else by looking at all.
_NEAREST_CLAIMS = """
    select owner_id, vector <=> {vector} from embeddings where kind = 'claim' and model = {model}
    order by vector::halfvec({size}) <=> {vector}::halfvec({size}) limit {most}
"""
_USERS_OF = """
    select p.user_id from unnest(%(claims)s::int[], %(distances)s::float8[]) as near (claim_pk, distance)
    join claims c using (claim_pk)
    join profiles p on p.profile_id = c.profile_id and p.active
    join users u on u.user_id = p.user_id and u.consent
    group by p.user_id order by min(distance), p.user_id limit %(limit)s
"""
_CLAIMS_OF = """
    with measured as (
        select p.user_id, c.claim_id, c.kind, c.name, c.statement, c.position, e.vector <=> %(vector)s as distance
        from profiles p
        join claims c on c.profile_id = p.profile_id
        join embeddings e on e.kind = 'claim' and e.model = %(model)s and e.owner_id = c.claim_pk::text
        where p.active and p.user_id = any(%(users)s)
    ), ranked as (
        select *, min(distance) over (partition by user_id) as nearest,
            row_number() over (partition by user_id order by distance, position) as place
        from measured
    )
    select user_id, claim_id, kind, name, statement, 1 - distance
    from ranked where place <= %(claims)s order by nearest, user_id, place
"""


def nearest_users(
    database: Database, model: str, vector: npt.NDArray[np.float32], limit: int, claims: int = 3
) -> list[FoundUser]:
    """Find the users with a claim nearest to a vector by cosine, among active profiles with consent.

    Exact, but that of users who are as near as each other any may be found; with an index (`index_claim_vectors`) it
    may miss some.

    Args:
        database: To read from.
        model: The embedder of the vector.
        vector: `(d,)`.
        limit: How many users.
        claims: How many claims of each.
    """
    found: dict[str, list[FoundClaim]] = {}
    with database.raw() as connection:
        users = _nearest(connection, model, vector, limit)
        asked = {"vector": vector, "model": model, "users": users, "claims": claims}
        for user_id, *claim in connection.execute(_CLAIMS_OF, asked):
            found.setdefault(user_id, []).append(FoundClaim(*claim))
    return [FoundUser(user_id, nearest) for user_id, nearest in found.items()]


def _nearest(connection: Connection, model: str, vector: npt.NDArray[np.float32], limit: int) -> list[str]:
    """Return users by their nearest claim; of more and more claims, until these are of enough users."""
    connection.execute("set local hnsw.ef_search = 1000")
    connection.execute("set local hnsw.iterative_scan = relaxed_order")
    most = _CLAIMS_A_USER * limit
    while True:
        query = pg.SQL(_NEAREST_CLAIMS).format(
            model=pg.Literal(model), size=pg.Literal(len(vector)), vector=pg.Literal(vector), most=pg.Literal(most)
        )
        near = connection.execute(query).fetchall()
        asked = {"claims": [int(pk) for pk, _ in near], "distances": [d for _, d in near], "limit": limit}
        rows = connection.execute(_USERS_OF, asked).fetchall()
        if len(rows) == limit or len(near) < most:
            return [user_id for (user_id,) in rows]
        most *= _CLAIMS_A_USER


def index_claim_vectors(database: Database, model: str, exact_up_to: int = EXACT_UP_TO) -> None:
    """Build the index over the vectors of claims (HNSW), if there are many and it is not there yet.

    Claims that come later are in it at once. While it is built, vectors are read but not written.

    Args:
        database: To write to.
        model: The embedder.
        exact_up_to: Of so many vectors, all are looked at instead.
    """
    counted = (
        "select count(*), max(size) from (select vector_dims(vector) as size from embeddings "
        "where kind = 'claim' and model = %s limit %s) found"
    )
    with database.raw() as connection:
        [(many, size)] = connection.execute(counted, [model, exact_up_to + 1]).fetchall()
        if many <= exact_up_to:
            return
        connection.execute("set local maintenance_work_mem = '1GB'")
        name = f"ix_embeddings_claim_{hashlib.sha256(model.encode()).hexdigest()[:16]}"
        connection.execute(
            pg.SQL(
                "create index if not exists {} on embeddings using hnsw ((vector::halfvec({})) halfvec_cosine_ops) "
                "where kind = 'claim' and model = {}"
            ).format(pg.Identifier(name), pg.Literal(size), pg.Literal(model))
        )
