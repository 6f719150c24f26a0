"""What the protocols and metrics of the ranking suite are, in a sentence each."""

from eval.findings import Better
from eval.ratings import TYPES

PROTOCOLS = {
    "last 20 %": "Each user's last 20 % of events are held out, by time; users with fewer than 5 are not asked.",
    "same sitting": "Of the last 20 %, what comes within an hour of the user's last training event.",
    "later visit": "Of the last 20 %, what comes more than an hour after the user's last training event.",
    "global time": "One cut for all: the last 20 % of the whole log are held out. Users without a past are new.",
    "leave one out": "Each user's last event is held out; whoever did not like it is not asked.",
    "leave one out, 1 + 99": (
        "As leave one out, but the item is ranked among 99 drawn at random. Such figures are higher, and may order "
        "recommenders differently (Krichene and Rendle 2020); they are here to compare with what others publish."
    ),
    "new users": "Five folds of users, in which training knows nothing of them; the first 80 % of their log is told.",
    "per item": (
        "25 % of each item's events are held out at random, so that the future teaches and claims read it; it is here "
        "to compare with what others publish."
    ),
    "shown": (
        "Impressions after the cut of global time. As logged: what the users did. A recommender: what they would have "
        "done had it shown one of its best ten at random, by self-normalized inverse propensity weights of at most 10; "
        "the propensities come with the impressions."
    ),
}
"""By name."""

_AT = {
    "ndcg": "normalized discounted cumulative gain of the first {k}: relevant items count more, the higher they stand",
    "recall": "share of the relevant items among the first {k}",
    "precision": "share of the first {k} that is relevant",
    "hit": "share of users with a relevant item among the first {k}",
    "map": "mean over the relevant items of the precision at each one's rank, 0 beyond rank {k}",
    "mrr": "1 over the rank of the first relevant item, 0 beyond rank {k}",
    "coverage": "share of the catalogue that is among anyone's first {k}",
    "gini": "inequality of how often items are among the first {k}: 0 all alike, 1 always the same",
    "novelty": "mean of -log2 of the share of users who have an item, over the first {k}",
    "diversity": "1 less the mean cosine of the texts of the first {k}, by pairs",
    "popularity lift": "by how much more popular the first {k} are than what the user likes: 0 not at all, 1 twice",
}
_PLAIN = {
    "auc": "how often a relevant item stands before one that is not, over the whole ranking",
    "mae": f"mean absolute error of predicted ratings ({' and '.join(TYPES)} events)",
    "rmse": "root of the mean squared error of predicted ratings",
    "ctr": "share of impressions that were clicked within a day",
    "conversion": "share of impressions whose item was bought within a day",
    "effective sample size": "equally weighted impressions that the estimate is worth (Kish 1965)",
}
_BETTER: dict[str, Better] = {
    "gini": "lower", "mae": "lower", "rmse": "lower",
    "effective sample size": "neither", "novelty": "neither", "diversity": "neither", "popularity lift": "neither",
}  # fmt: skip


def describe(metric: str) -> str:
    """Return what a metric is, such as `ndcg@10`.

    >>> describe("hit@5")
    'Share of users with a relevant item among the first 5.'
    """
    name, _, k = metric.partition("@")
    said = _AT[name].format(k=k) if k else _PLAIN[name]
    return said[0].upper() + said[1:] + "."


def better(metric: str) -> Better:
    """Return which way a metric is better.

    >>> better("gini@10"), better("ndcg@10")
    ('lower', 'higher')
    """
    return _BETTER.get(metric.partition("@")[0], "higher")


def unit(metric: str) -> str:
    """Return a metric's unit; empty for shares and scores.

    >>> unit("novelty@10")
    'bits'
    """
    return {"novelty": "bits", "mae": "stars", "rmse": "stars", "effective sample size": "impressions"}.get(
        metric.partition("@")[0], ""
    )
