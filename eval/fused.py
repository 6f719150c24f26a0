"""The fused scorer on arrays: trained and folded in by the very code that serves, for many users at once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eval.interactions import Floats, Interactions
from eval.world import Claims
from recommend.data import likes_matrix
from recommend.foldin import FoldIn
from recommend.history import Events, summarize
from recommend.model import Projection
from recommend.parameters import Parameters
from recommend.training import Fitted, fit, user_features

PLAIN = {
    "user_features": None, "item_features": None, "half_trust": 0.0, "crowd": 0.0, "dislike_weight": 0.0,
    "rating_weights": False, "recency": 0.0, "popular": 0.0, "covariance": 0.0,
}  # fmt: skip
"""What turns `Parameters` into those of iALS alone."""


@dataclass(frozen=True)
class Fused:
    """A trained scorer.

    Attributes:
        fitted: Factors and weights.
        fold_in: By them.
        claims: `(q, k)`, of all users' claims in factor space, times their strengths.
        owner: `(q,)`, codes of their users, in order.
    """

    fitted: Fitted
    fold_in: FoldIn
    claims: Floats
    owner: npt.NDArray[np.int64]

    def vectors(self, known: Interactions, users: npt.NDArray[np.int64], *, claims: bool = True) -> Floats:
        """Fold users in by the interactions that are known of them.

        Args:
            known: Their events.
            users: `(b,)`, codes.
            claims: Whether their claims count.

        Returns:
            `(b, k)`.
        """
        starts = known.starts()
        found = np.zeros((len(users), self.claims.shape[1]))
        for n, user in enumerate(users):
            part = slice(starts[user], starts[user + 1])
            size = int(starts[user + 1] - starts[user])
            events = Events.told([""] * size, known.item[part], known.weight[part])
            history = summarize(events, self.fold_in.parameters)
            own = self.claims[np.searchsorted(self.owner, user) : np.searchsorted(self.owner, user, "right")]
            found[n] = self.fold_in(history.taste(own if claims else own[:0])).vector
        return found

    def scores(self, known: Interactions, users: npt.NDArray[np.int64], *, claims: bool = True) -> Floats:
        """Score all items, `(b, m)`."""
        return np.asarray(self.vectors(known, users, claims=claims) @ self.fitted.factors.T.astype(np.float64))


def train_fused(
    train: Interactions,
    claims: Claims,
    texts: npt.NDArray[np.float32],
    parameters: Parameters,
    learners: npt.NDArray[np.bool_] | None = None,
) -> Fused:
    """Train the fused scorer.

    Args:
        train: What may be learned from.
        claims: Made of the same events.
        texts: `(m, d)`, embeddings of the items.
        parameters: Of the model.
        learners: `(u,)`, whose events are learned from; all users unless given.
    """
    shape = (train.n_users, train.n_items)
    likes = likes_matrix(train.user, train.item, train.weight, shape, parameters)
    projection = Projection.learn(texts, parameters.projection)
    projected = projection(claims.vectors)
    of_users = user_features(projected, claims.strengths, claims.owner, train.n_users)
    if learners is not None:
        rows = np.flatnonzero(learners)
        likes, of_users = likes[rows], of_users[rows]
    met = np.bincount(train.item, minlength=train.n_items) > 0
    fitted = fit(likes, parameters, of_users, projection(texts), met)
    learned = np.asarray(likes.getnnz(axis=0)) > 0
    fold_in = FoldIn(fitted.factors, fitted.crowd, fitted.precision, parameters, learned)
    mapped = np.zeros((len(claims.owner), fitted.factors.shape[1]))
    if len(fitted.user_weights):
        mapped = claims.strengths[:, None] * (projected.astype(np.float64) @ fitted.user_weights.astype(np.float64))
    order = np.argsort(claims.owner, kind="stable")
    return Fused(fitted, fold_in, mapped[order], claims.owner[order])
