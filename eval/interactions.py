"""Interactions of many users with items, as arrays: what splits, baselines and sequential models work on."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sps

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interactions:
    """Interactions, sorted by user and time; those of one user at one time stay in the order in which they came.

    Attributes:
        user: `(n,)`, codes from 0 to `n_users - 1`.
        item: `(n,)`, codes from 0 to `n_items - 1`.
        time: `(n,)`, seconds.
        weight: `(n,)`, signed and undecayed weights of the evidence, in [-1, 1].
        value: `(n,)`, a rating for example; nan where there is none.
        n_users: Number of user codes, also of users without any interaction.
        n_items: Number of item codes.

    Raises:
        ValueError: The arrays differ in length, or a code is out of range.
    """

    user: Ints
    item: Ints
    time: Floats
    weight: Floats
    value: Floats
    n_users: int
    n_items: int

    def __post_init__(self) -> None:
        lengths = {len(a) for a in (self.user, self.item, self.time, self.weight, self.value)}
        if len(lengths) > 1:
            raise ValueError(f"the arrays differ in length: {sorted(lengths)}")
        for name, codes, count in (("user", self.user, self.n_users), ("item", self.item, self.n_items)):
            if len(codes) and not 0 <= codes.min() <= codes.max() < count:
                raise ValueError(f"{name} codes must lie between 0 and {count - 1}")
        order = np.lexsort((self.time, self.user))
        for name in ("user", "item"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.int64)[order])
        for name in ("time", "weight", "value"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64)[order])

    def __len__(self) -> int:
        """Return the number of interactions."""
        return len(self.user)

    def take(self, kept: Bools | Ints) -> "Interactions":
        """Return those that a mask `(n,)` or an array of places picks; the codes keep their meaning."""
        return Interactions(
            self.user[kept], self.item[kept], self.time[kept], self.weight[kept], self.value[kept],
            self.n_users, self.n_items,
        )  # fmt: skip

    def shuffled_ties(self, rng: np.random.Generator) -> "Interactions":
        """Return the same interactions with those of one user at one time in random order."""
        return self.take(np.lexsort((rng.random(len(self)), self.time, self.user)))

    def starts(self) -> Ints:
        """Return where each user begins, `(n_users + 1,)`; user `u` has `[starts[u], starts[u + 1])`."""
        return np.searchsorted(self.user, np.arange(self.n_users + 1)).astype(np.int64)

    def last_item(self) -> Ints:
        """Return the item of each user's last interaction, `(n_users,)`; -1 for a user without any."""
        last = np.full(self.n_users, -1, dtype=np.int64)
        last[self.user] = self.item  # the interactions are in order, so that the last one stays
        return last

    def last_time(self) -> Floats:
        """Return the time of each user's last interaction, `(n_users,)`; -inf for a user without any."""
        last = np.full(self.n_users, -np.inf)
        last[self.user] = self.time
        return last

    def matrix(self, data: Floats | None = None) -> sps.csr_matrix:
        """Add the interactions up in a matrix.

        Args:
            data: `(n,)`, what each adds to its cell. Without it, a cell is 1 however often the user met the item.

        Returns:
            `(n_users, n_items)`.
        """
        cells = np.ones(len(self)) if data is None else data
        found = sps.csr_matrix((cells, (self.user, self.item)), shape=(self.n_users, self.n_items))
        if data is None:
            found.data[:] = 1.0
        return cast("sps.csr_matrix", found)
