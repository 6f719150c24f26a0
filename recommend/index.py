"""The best items of a catalogue for a user's vector: exact, or from candidates that an index finds where it is large.

Scores are exact in either case; an index may only miss an item.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recommend.model import Model
from recommend.ranking import Bools, Ints, eligible, top_k
from store import factors
from store.database import Database

SEARCHED = factors.MAX_BREADTH
"""Items that are taken from the index; to go on from there takes as long as to score all, and misses more."""
LEFT = 750
"""Of these that must be left once seen and filtered items are taken out: the index knows the very best items best."""


@dataclass(frozen=True)
class Candidates:
    """Finds the best items: by exact scores of all up to a size, of candidates from there on.

    Attributes:
        database: That holds the model's item factors, indexed.
        model: That scores; it may have been extended.
        model_id: Its id in the store.
        indexed: Number of items, from the first, whose factors are in the store; the others are always scored.
        exact_up_to: Items up to which all are scored.
    """

    database: Database
    model: Model
    model_id: int
    indexed: int
    exact_up_to: int = factors.EXACT_UP_TO

    def candidates(
        self, person_vector: npt.NDArray[np.floating], k: int, excluded_rows: Ints, allowed: Bools | None = None
    ) -> Ints:
        """Return the rows of the `k` best items, the best first, as `top_k` does.

        All items are scored where at most `exact_up_to` are left by `excluded_rows` and `allowed`, and where too few
        of those that the index finds are among them.

        Args:
            person_vector: `(k,)`.
            k: How many are wanted.
            excluded_rows: That are left out, such as items that the user has seen.
            allowed: `(m,)`, which rows may be returned at all; None for all.
        """
        vector = np.asarray(person_vector, dtype=np.float32)
        mask = eligible(len(self.model.factors), excluded_rows, allowed)
        left = int(np.count_nonzero(mask))
        if left <= self.exact_up_to or k > SEARCHED - LEFT:
            return self._best(vector, k, mask, few=left < len(mask) // 4)
        ids = factors.search(self.database, self.model_id, "item", vector, SEARCHED)
        found = np.zeros_like(mask)
        found[[self.model.row_of[item_id] for item_id in ids]] = True
        found &= mask
        if np.count_nonzero(found) < LEFT:
            return self._best(vector, k, mask, few=False)
        found[self.indexed :] = mask[self.indexed :]
        return self._best(vector, k, found, few=True)

    def _best(self, vector: npt.NDArray[np.float32], k: int, mask: Bools, *, few: bool) -> Ints:
        """Score the items of a mask, one by one if they are few: to gather many costs more than to score all."""
        nothing = np.zeros(0, dtype=np.int64)
        if not few:
            return top_k(self.model.factors @ vector, k, nothing, mask)
        rows = np.flatnonzero(mask)
        return np.asarray(rows[top_k(self.model.factors[rows] @ vector, k, nothing)], dtype=np.int64)
