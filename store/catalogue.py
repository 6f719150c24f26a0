"""The catalogue as the recommender asks for it: filters, items that a model has not seen, neighbours of a text."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from sqlalchemy import or_, select
from sqlmodel import Session, col

from store.database import Database
from store.tables import ItemRow
from store.vectors import ItemVectors, stack


def matching(session: Session, categories: Sequence[str], attributes: Mapping[str, str]) -> list[str]:
    """Return the ids of items that have any of the categories and all of the attributes, in order.

    An attribute holds if its value is the one given, as text or number, or a list that contains it.
    """
    query = select(col(ItemRow.item_id)).order_by(col(ItemRow.item_id))
    if categories:
        query = query.where(col(ItemRow.categories).overlap(list(categories)))  # type: ignore[attr-defined]
    for name, value in attributes.items():
        field = ItemRow.attributes[name]
        query = query.where(or_(field.astext == value, col(ItemRow.attributes).contains({name: [value]})))
    return list(session.scalars(query))


def items_besides(database: Database, model: str, known: Sequence[str]) -> ItemVectors:
    """Read the vectors of items that are not among those known."""
    with database.raw() as connection, connection.cursor(binary=True) as cursor:
        cursor.execute("select owner_id from embeddings where kind = 'item' and model = %s", (model,))
        new = sorted({row[0] for row in cursor} - set(known))
        cursor.execute(
            "select owner_id, vector from embeddings where kind = 'item' and model = %s and owner_id = any(%s)"
            " order by owner_id",
            (model, new),
        )
        rows = cursor.fetchall()
    return ItemVectors([row[0] for row in rows], stack([row[1] for row in rows]))


def nearest(
    database: Database,
    model: str,
    vector: npt.NDArray[np.float32],
    count: int,
    *,
    centre: npt.NDArray[np.float32] | None = None,
    besides: Sequence[str] = (),
) -> list[str]:
    """Return the ids of the items whose vectors are nearest to one by cosine, the nearest first; all are looked at.

    Args:
        database: To read from.
        model: The embedder.
        vector: `(d,)`.
        count: How many are wanted.
        centre: `(d,)`, what is taken off the items' vectors first; nothing unless given.
        besides: Ids of items that are not wanted.
    """
    query = """
        select owner_id
        from embeddings
        where kind = 'item' and model = %(model)s and owner_id <> all(%(besides)s)
        order by case when %(centre)s::vector is null then vector else vector - %(centre)s::vector end <=> %(vector)s,
            owner_id
        limit %(count)s
    """
    given = {"model": model, "vector": vector, "count": count, "centre": centre, "besides": list(besides)}
    with database.raw() as connection, connection.cursor() as cursor:
        cursor.execute(query, given)
        return [row[0] for row in cursor]
