"""Factors of items and claims in the store: written in bulk, searched by inner product.

The factors of one kind and model have an HNSW index (Malkov and Yashunin 2018) of their own where they are many:
models differ in dimension, and an index over several of them would search in all.

An index over inner products alone misses many items with short factors. So each factor gets one more number there,
its slack `sqrt(max(0, L^2 - |y|^2))`, and the vector that is searched for a 0: factors up to the length L are equally
long then, and the order by inner product stays (Bachrach et al. 2014). L is that which nine in ten do not exceed: with
the longest of all, the slack would drown the rest.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from psycopg import Connection, sql

from store.database import Database

Matrix = npt.NDArray[np.float32]
Kind = Literal["item", "claim"]

EXACT_UP_TO = 300_000
"""Factors that are searched one by one; more have an index."""
MAX_BREADTH = 1_000
"""Of a search in the index (`hnsw.ef_search`); pgvector allows no more."""
_LEVEL = 0.9
_LINKS, _BUILD_BREADTH = 32, 200  # m and ef_construction; with pgvector's 16 and 64, one list in fifteen had a gap
_BUILD_MEMORY = "1GB"  # a million factors of length 128 take 900 MB; what does not fit is built far more slowly


class NearClaim(NamedTuple):
    """A claim of an active profile, and the inner product that it was found by."""

    user_id: str
    claim_id: str
    name: str
    product: float


def write_factors(
    database: Database,
    model_id: int,
    kind: Kind,
    ids: Sequence[str],
    matrix: Matrix,
    exact_up_to: int = EXACT_UP_TO,
) -> None:
    """Store the factors of a model, in the place of those of this kind that it has; all or nothing.

    Args:
        database: To write to.
        model_id: Of a stored model.
        kind: Of the owners.
        ids: `n` ids of the owners.
        matrix: `(n, k)`.
        exact_up_to: With more than these, an index is built; readers are not kept waiting.
    """
    vectors = np.asarray(matrix, dtype=np.float32)
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    level = np.quantile(squares, _LEVEL) if len(squares) else 0.0
    slacks = np.sqrt(np.maximum(level - squares, 0.0)).tolist()
    with database.raw() as connection:
        _forget(connection, model_id, kind)
        with connection.cursor() as cursor:
            query = "copy factors (model_id, kind, owner_id, vector, slack) from stdin (format binary)"
            with cursor.copy(query) as copy:
                copy.set_types(["int4", "text", "text", "vector", "float8"])
                for owner_id, vector, slack in zip(ids, vectors, slacks, strict=True):
                    copy.write_row((model_id, kind, owner_id, vector, slack))
        if len(ids) > exact_up_to:
            _build(connection, model_id, kind, matrix.shape[1])


def write_claim_factors(database: Database, model_id: int, users: Sequence[str] | None = None) -> int:
    """Give each claim of active profiles whose users consent the mean factor of the distinct items that it cites.

    The model's item factors must be there; a claim that cites none of its items gets no factor.

    Args:
        database: To write to.
        model_id: Of a stored model.
        users: Only claims of these users' profiles, in the place of those of their older versions; None for all.

    Returns:
        The number of claims that have got a factor.
    """
    add = sql.SQL("""
        insert into factors (model_id, kind, owner_id, vector)
        select %(model)s, 'claim', cited.claim_pk::text, avg(f.vector)
        from (
            select distinct c.claim_pk, v.item_id
            from profiles p
            join users u on u.user_id = p.user_id and u.consent
            join claims c on c.profile_id = p.profile_id
            join evidence e on e.claim_pk = c.claim_pk and not e.counter
            join events v on v.event_id = e.event_id
            where p.active {}
        ) cited
        join factors f on f.model_id = %(model)s and f.kind = 'item' and f.owner_id = cited.item_id
        group by cited.claim_pk
        on conflict do nothing
    """).format(sql.SQL("" if users is None else "and p.user_id = any(%(users)s)"))
    forget = """
        delete from factors f using claims c, profiles p
        where f.model_id = %(model)s and f.kind = 'claim' and f.owner_id = c.claim_pk::text
          and p.profile_id = c.profile_id and p.user_id = any(%(users)s) and not p.active
    """
    given = {"model": model_id, "users": None if users is None else list(users)}
    with database.raw() as connection:
        if users is None:
            _forget(connection, model_id, "claim")
        else:
            connection.execute(forget, given)
        return connection.execute(add, given).rowcount


def search(database: Database, model_id: int, kind: Kind, vector: npt.NDArray[np.floating], count: int) -> list[str]:
    """Return the ids with the largest inner products; with an index, about from the largest, and it may miss some.

    Args:
        database: To read from.
        model_id: The model.
        kind: Of what is wanted.
        vector: `(k,)`.
        count: How many are wanted. An index is searched once for up to `MAX_BREADTH`; more come from further on,
            where it misses more.
    """
    query = sql.SQL(
        "select owner_id from factors where model_id = {} and kind = {} order by {} <#> %s limit {}"
    ).format(sql.Literal(model_id), sql.Literal(kind), _level(len(vector)), sql.Literal(count))
    sought = np.append(vector, 0.0).astype(np.float32)
    with database.raw() as connection:
        connection.execute(sql.SQL("set local hnsw.ef_search = {}").format(max(1, min(count, MAX_BREADTH))))
        connection.execute("set local hnsw.iterative_scan = relaxed_order")
        connection.execute("set local enable_seqscan = off")
        rows = connection.execute(query, (sought,)).fetchall()
    return [owner_id for (owner_id,) in rows]


def items_for_claim(database: Database, model_id: int, user_id: str, claim_id: str, count: int) -> list[str]:
    """Return the items nearest to a claim of a user's active profile; none if the claim has no factor."""
    query = """
        select f.vector
        from profiles p
        join users u on u.user_id = p.user_id and u.consent
        join claims c on c.profile_id = p.profile_id and c.claim_id = %s
        join factors f on f.model_id = %s and f.kind = 'claim' and f.owner_id = c.claim_pk::text
        where p.active and p.user_id = %s
    """
    with database.raw() as connection, connection.cursor(binary=True) as cursor:
        row = cursor.execute(query, (claim_id, model_id, user_id)).fetchone()
    return [] if row is None else search(database, model_id, "item", row[0].to_numpy(), count)


def claims_near_item(database: Database, model_id: int, item_id: str, count: int) -> list[NearClaim]:
    """Return the claims whose factors have the largest inner products with an item's; none if it has no factor.

    Only claims of active profiles whose users consent; all of them are looked at.
    """
    query = """
        select p.user_id, c.claim_id, c.name, -(f.vector <#> i.vector) as product
        from factors i
        join factors f on f.model_id = i.model_id and f.kind = 'claim'
        join claims c on c.claim_pk = f.owner_id::int
        join profiles p on p.profile_id = c.profile_id and p.active
        join users u on u.user_id = p.user_id and u.consent
        where i.model_id = %s and i.kind = 'item' and i.owner_id = %s
        order by product desc, c.claim_pk
        limit %s
    """
    with database.raw() as connection:
        return [NearClaim(*row) for row in connection.execute(query, (model_id, item_id, count))]


def forget_old_factors(database: Database) -> None:
    """Remove the factors of models that are no longer active, and their indexes."""
    query = "select distinct f.model_id, f.kind from factors f join models m using (model_id) where not m.active"
    with database.raw() as connection:
        for model_id, kind in connection.execute(query).fetchall():
            _forget(connection, model_id, kind)


def _forget(connection: Connection, model_id: int, kind: str) -> None:
    connection.execute(sql.SQL("drop index if exists {}").format(_index(model_id, kind)))
    connection.execute("delete from factors where model_id = %s and kind = %s", (model_id, kind))


def _build(connection: Connection, model_id: int, kind: str, size: int) -> None:
    connection.execute(sql.SQL("set local maintenance_work_mem = {}").format(sql.Literal(_BUILD_MEMORY)))
    statement = sql.SQL(
        "create index {} on factors using hnsw ({} vector_ip_ops) with (m = {}, ef_construction = {}) "
        "where model_id = {} and kind = {}"
    )
    numbers = (_LINKS, _BUILD_BREADTH, model_id, kind)
    connection.execute(statement.format(_index(model_id, kind), _level(size), *map(sql.Literal, numbers)))


def _level(size: int) -> sql.Composed:
    return sql.SQL("((vector || array[slack]::vector)::vector({}))").format(sql.Literal(size + 1))


def _index(model_id: int, kind: str) -> sql.Identifier:
    return sql.Identifier(f"ix_factors_{kind}_{model_id}")
