"""Where an item would stand if events had never happened, and without claims: folded in anew, as what is served."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recommend.foldin import Floats, Ints
from recommend.people import Person
from recommend.ranking import rank_of, top_k
from store.errors import NotFoundError


class Supposed(NamedTuple):
    """An item and the best ones, as they are and as they would be.

    Attributes:
        before: `(m,)`, scores as they are.
        after: `(m,)`, scores as they would be.
        was_rank: Of the item, as it is.
        rank: Of the item, as it would be.
        best: Rows of the best items as they would be.
        best_was: Their ranks as they are.
    """

    before: Floats
    after: Floats
    was_rank: int
    rank: int
    best: Ints
    best_was: list[int]


def suppose(
    person: Person,
    event_ids: Collection[str],
    claim_ids: Collection[str],
    row: int,
    k: int,
    excluded: Ints,
    allowed: npt.NDArray[np.bool_] | None,
) -> Supposed:
    """Fold a user in as if these events had never happened, and without these claims.

    Args:
        person: The user as they are.
        event_ids: Of events.
        claim_ids: Of claims.
        row: Of the item.
        k: How many of the best items are wanted.
        excluded: Rows that are not recommended.
        allowed: `(m,)`, which items may be recommended at all.

    Raises:
        NotFoundError: The user has no such event or claim, or it has no part in the scores.
    """
    happened = {event_id for event_id, real in zip(person.events.ids, person.removable, strict=True) if real}
    _require("event", person.user_id, set(event_ids) - happened)
    _require("claim", person.user_id, set(claim_ids) - {claim.claim_id for claim in person.claims})
    before = person.scores(row)
    after = person.without(set(event_ids), set(claim_ids)).scores(row)
    best = top_k(after, k, excluded, allowed)
    return Supposed(
        before=before,
        after=after,
        was_rank=rank_of(before, row, excluded, allowed),
        rank=rank_of(after, row, excluded, allowed),
        best=best,
        best_was=[rank_of(before, int(other), excluded, allowed) for other in best],
    )


def _require(what: str, user_id: str, missing: Collection[str]) -> None:
    if missing:
        raise NotFoundError(
            f"User {user_id} has no {what} {min(missing)} that recommendations go by. `limner why` lists what counts."
        )
