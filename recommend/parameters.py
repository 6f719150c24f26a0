"""The parameters of the factorization and of the fold-in; all that `limner train --tune` searches."""

from pydantic import BaseModel, ConfigDict, Field


class Parameters(BaseModel):
    """How factors are trained, and how a user's events and claims are folded in.

    The defaults come from `limner train --tune` on MovieLens-100K: 120 points, NDCG@10 of held-out later visits of 259
    users .154, against .125 where the search began; rounded. Other logs want a search of their own.

    Attributes:
        factors: Length `k` of a factor.
        epochs: Of alternating least squares.
        alpha0: Weight of the all-items term.
        reg: Regularization lambda; both sides have `lambda * (count + alpha0 * others) ** nu`.
        nu: Exponent of the regularization.
        user_features: Ridge of the weights of user features (claims); None leaves the claims out.
        item_features: Ridge of the weights of item features (text); None leaves the text out.
        new_items: Length of the factors of items without any event, as a share of the mean length of learned ones.
        projection: Length `p` to which embeddings are projected by PCA.
        seed: Of the training.
        rating_weights: Whether stronger events count more, or all likes alike.
        dislike_target: `tau`; a disliked item has the target `-tau`.
        dislike_weight: What the confidence of disliked items is multiplied by; 0 leaves them out.
        half_trust: Distinct items at which a history is trusted half; 0 trusts every history.
        sparse_alpha: Share of `alpha0` that a user without any event has, between 0 and 1.
        crowd: Weight of the crowd's mean for a user without any event.
        popular: Weight of an item's popularity for a user without any event.
        covariance: Share of the training users' covariance in the shape of the prior; 0 is the same in all directions.
        recency: How much more the latest event counts, in rank; 0 is off.
        recency_half: Number of events back at which that bonus is halved.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    factors: int = Field(default=64, ge=1, le=1024)
    epochs: int = Field(default=16, ge=1)
    alpha0: float = Field(default=0.37, gt=0)
    reg: float = Field(default=0.026, gt=0)
    nu: float = Field(default=1.0, ge=0)
    user_features: float | None = Field(default=160.0, gt=0)
    item_features: float | None = Field(default=450.0, gt=0)
    new_items: float = Field(default=1.0, ge=0)
    projection: int = Field(default=48, ge=1)
    seed: int = 0
    rating_weights: bool = True
    dislike_target: float = Field(default=0.2, ge=0)
    dislike_weight: float = Field(default=0.25, ge=0)
    half_trust: float = Field(default=0.6, ge=0)
    sparse_alpha: float = Field(default=0.96, ge=0, le=1)
    crowd: float = Field(default=1.9, ge=0)
    popular: float = Field(default=0.34, ge=0)
    covariance: float = Field(default=0.87, ge=0, le=1)
    recency: float = Field(default=0.0, ge=0)
    recency_half: float = Field(default=3.0, gt=0)

    def trust(self, n: int) -> float:
        """Return how far a history of `n` distinct items is trusted: `n / (n + half_trust)`.

        >>> Parameters(half_trust=5).trust(5)
        0.5
        >>> Parameters(half_trust=0).trust(0)
        1.0
        """
        return 1.0 if self.half_trust == 0 else n / (n + self.half_trust)

    def alpha(self, n: int) -> float:
        """Return the weight of the all-items term for `n` distinct items."""
        return self.alpha0 * (self.sparse_alpha + (1.0 - self.sparse_alpha) * self.trust(n))

    def beta(self, n: int) -> float:
        """Return the weight of the crowd's mean for `n` distinct items."""
        return self.crowd * (1.0 - self.trust(n))

    def popularity(self, n: int) -> float:
        """Return the weight of an item's popularity for `n` distinct items."""
        return self.popular * (1.0 - self.trust(n))

    def ridge(self, n: int, items: int) -> float:
        """Return the weight of the prior for `n` distinct items out of a catalogue of `items`.

        It goes by `alpha0`: where the all-items term counts less, the prior shall count for more.
        """
        return float(self.reg * (n + self.alpha0 * items) ** self.nu)
