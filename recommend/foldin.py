r"""The fold-in: a user's vector from their events and claims in closed form, so that its parts add up to every score.

    x = W (sum_j c_j t_j y_j + r P mu),    W = (alpha Y'Y + sum_j c_j y_j y_j' + r P)^-1
    mu = beta crowd + sum_c s_c a_c,       score_i = y_i x + w p_i

j runs over distinct items; `c_j >= 0` is the confidence, `t_j` the target (1 liked, 0 or -tau disliked). `a_c` is a
claim's text as the user-feature weights map it into factor space. P is the precision of the prior: the identity, or by
what training users differ in. `p_i` is the item's popularity. alpha, beta, r and w go by the number of distinct items
(`Parameters`). With t = 1, alpha = alpha0, beta = w = 0 and P = I this is the fold-in of iALS (Rendle et al. 2021,
arXiv 2110.14037) with features, as irspack solves it.

Popularity is the last coordinate of a factor, and w that of a user's vector, so that a score is one inner product.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from recommend.parameters import Parameters

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Taste:
    """What is folded in.

    Attributes:
        rows: `(n,)`, rows of the factors.
        confidence: `(n,)`, at least 0.
        target: `(n,)`.
        claims: `(q, k)`, each claim's text in factor space times its signed strength; the last coordinate is 0.
        known: Number of distinct items that the user has had to do with, where some rows stand for corrections.
    """

    rows: Ints
    confidence: Floats
    target: Floats
    claims: Floats
    known: int | None = None

    @property
    def length(self) -> int:
        """Number of items by which the history is trusted."""
        return len(self.rows) if self.known is None else self.known


@dataclass(frozen=True)
class Folded:
    """A user's vector, and what its scores are the sum of.

    Attributes:
        vector: `x` and `w`, `(k,)`.
        factor: Cholesky factor of `W^-1`, for `cho_solve`.
        items: `(n, k)`, `c_j t_j y_j` of each item of the history.
        claims: `(q, k)`, `r s_c P a_c` of each claim.
        crowd: `(k,)`, `r beta P crowd` and `w`.
    """

    vector: Floats
    factor: tuple[Floats, bool]
    items: Floats
    claims: Floats
    crowd: Floats

    def score(self, item: Floats) -> float:
        """Return the score of an item, given its factor `(k,)`."""
        return float(item @ self.vector)

    def parts(self, item: Floats) -> tuple[Floats, Floats, float]:
        """Return what an item's score is the sum of.

        Args:
            item: Its factor, `(k,)`.

        Returns:
            The parts of the history's items `(n,)`, of the claims `(q,)`, and of the crowd.
        """
        seen = cho_solve(self.factor, item)
        return self.items @ seen, self.claims @ seen, float(self.crowd @ seen)


class FoldIn:
    """Folds users in.

    Args:
        factors: Of the items, `(m, k)`; the last coordinate is the popularity.
        crowd: The mean of what training users are beyond their claims, `(k,)`; the last coordinate is 0.
        precision: Of the prior, `(k, k)`; the last row and column are 0.
        parameters: Of the model.
        learned: `(m,)`, which items the factors were learned on; the all-items term goes over these. All unless given.
    """

    def __init__(
        self,
        factors: npt.NDArray[np.float32],
        crowd: Floats,
        precision: Floats,
        parameters: Parameters,
        learned: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.factors, self.parameters = factors, parameters
        self.crowd, self.precision = np.asarray(crowd, dtype=np.float64), np.asarray(precision, dtype=np.float64)
        exact = self.tastes(np.arange(len(factors)) if learned is None else np.flatnonzero(learned))
        self.items = len(exact)
        self.gram = exact.T @ exact

    def tastes(self, rows: Ints) -> Floats:
        """Return the factors of some items as the fold-in has them: without the popularity, `(n, k)`."""
        found = self.factors[rows].astype(np.float64)
        found[:, -1] = 0.0
        return found

    def __call__(self, taste: Taste) -> Folded:
        """Fold one user in; costs `O(n k^2 + k^3)`."""
        p, n = self.parameters, taste.length
        ridge = p.ridge(n, self.items)
        y = self.tastes(taste.rows)
        inverse = p.alpha(n) * self.gram + (y * taste.confidence[:, None]).T @ y + ridge * self.precision
        inverse[-1, -1] = 1.0
        factor = cho_factor(inverse, lower=True, check_finite=False)
        items = y * (taste.confidence * taste.target)[:, None]
        claims = ridge * (taste.claims @ self.precision)
        crowd = ridge * p.beta(n) * (self.precision @ self.crowd)
        crowd[-1] = p.popularity(n)
        vector = cho_solve(factor, items.sum(axis=0) + claims.sum(axis=0) + crowd)
        return Folded(vector, factor, items, claims, crowd)
