"""The public protocol: MovieLens-100K as the library `recommenders` splits and scores it, so that figures compare.

25 % of each item's ratings are held out at random with its very random numbers (NumPy's Mersenne Twister, seed 42, one
for each row of the file in its order), so that the split is the same row by row. All ratings are positive. Each user
is recommended 10 of the training's items but their own; who has none held out is not asked. NDCG has binary gain and
the ideal of `min(10, held out)` hits, recall divides by what is held out, and MAP, too: the definitions of
`eval.metrics`. The split is random in time, so that the future teaches: it compares recommenders with those of other
people, and says little of how they would serve.

Parameters are chosen on the training part, split once more in the same way.
"""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sps
from irspack import IALSRecommender

from eval import baselines, metrics
from eval.findings import Figure, figure
from eval.interactions import Floats, Ints
from eval.splits import held_out_of_items

SEED, SHARE, K = 42, 0.25, 10
SHOWN = ("map", "ndcg", "precision", "recall")
PROTOCOL = "public, MovieLens-100K"

PUBLISHED: dict[str, dict[str, float]] = {
    "BiVAE": {"map": 0.146126, "ndcg": 0.475077, "precision": 0.411771, "recall": 0.219145},
    "BPR": {"map": 0.132478, "ndcg": 0.441997, "precision": 0.388229, "recall": 0.212522},
    "LightGCN": {"map": 0.088526, "ndcg": 0.419846, "precision": 0.379626, "recall": 0.144336},
    "NCF": {"map": 0.107720, "ndcg": 0.396118, "precision": 0.347296, "recall": 0.180775},
    "SAR": {"map": 0.110591, "ndcg": 0.382461, "precision": 0.330753, "recall": 0.176385},
    "ALS (Spark)": {"map": 0.004732, "ndcg": 0.044239, "precision": 0.048462, "recall": 0.017796},
}
"""From the table of recommenders-team/recommenders (README, release 1.1.1); measured there."""

GRID: dict[str, list[dict[str, Any]]] = {
    "popularity": [{}],
    "item-kNN": [
        {"neighbours": n, "shrinkage": s, "weighting": w}
        for n in (50, 100, 200) for s in (0.0, 50.0) for w in ("NONE", "BM_25")
    ],
    "EASE": [{"ridge": ridge} for ridge in (100.0, 200.0, 300.0, 400.0, 500.0, 700.0, 1000.0)],
    "iALS": [
        {"factors": f, "alpha0": alpha0, "reg": reg}
        for f in (64, 128) for alpha0 in (0.1, 0.2, 0.3, 0.5, 1.0) for reg in (0.005, 0.01, 0.02)
    ],
}  # fmt: skip
"""What is tried for each recommender."""

Model = Callable[..., baselines.Scorer]


class Ratings(NamedTuple):
    """Ratings in the order of their file.

    Attributes:
        user: `(n,)`, codes.
        item: `(n,)`, codes.
    """

    user: Ints
    item: Ints


class Row(NamedTuple):
    """What a recommender has.

    Attributes:
        point: Its parameters.
        by_user: By metric, `(users,)`; nan for who is not asked.
    """

    point: Mapping[str, Any]
    by_user: dict[str, Floats]


def read(path: Path) -> Ratings:
    """Read the ratings of an `events.csv` (`store.datasets.fetch_ml_100k`)."""
    with path.open(encoding="utf-8", newline="") as file:
        pairs = [(row["user_id"], row["item_id"]) for row in csv.DictReader(file)]
    users, items = zip(*pairs, strict=True)
    return Ratings(*(np.unique(ids, return_inverse=True)[1].astype(np.int64) for ids in (users, items)))


def split(ratings: Ratings, seed: int = SEED) -> tuple[sps.csr_matrix, sps.csr_matrix]:
    """Return what is learned from and what is held out, `(users, items)` each."""
    draws = np.random.RandomState(seed).rand(len(ratings.item))  # their generator, and so their very split
    gone = held_out_of_items(ratings.item, draws, SHARE)
    shape = (int(ratings.user.max()) + 1, int(ratings.item.max()) + 1)

    def matrix(kept: Any) -> sps.csr_matrix:
        return sps.csr_matrix((np.ones(int(kept.sum())), (ratings.user[kept], ratings.item[kept])), shape=shape)

    return matrix(~gone), matrix(gone)


def run(ratings: Ratings, tell: Callable[[str], None]) -> dict[str, Row]:
    """Choose parameters for each recommender, and measure it on what is held out."""
    train, test = split(ratings)
    rows, columns = train.nonzero()
    inner, rest = split(Ratings(rows.astype(np.int64), columns.astype(np.int64)))
    inner, rest = (sps.csr_matrix(part, shape=train.shape) for part in (inner, rest))
    found = {}
    for name, points in GRID.items():
        tell(f"{name}: {len(points)} points")
        best = points[0]
        if len(points) > 1:
            best = max(points, key=lambda point: metrics.mean(measure(name, point, inner, rest)["ndcg"]))
        found[name] = Row(best, measure(name, best, train, test))
    return found


def measure(name: str, point: Mapping[str, Any], train: sps.csr_matrix, test: sps.csr_matrix) -> dict[str, Floats]:
    """Measure a recommender of `GRID` with some parameters; by metric, `(users,)`."""
    scores = _scores(name, point, train)
    scores[:, np.asarray(train.getnnz(axis=0)) == 0] = -np.inf  # nothing is known of them
    return metrics.measure(metrics.rank(scores, test, train, K, np.random.default_rng(SEED)))


def figures(found: Mapping[str, Row]) -> tuple[Figure, ...]:
    """Return the figures of what was measured, and beside them the published ones, which have no interval."""
    ours = [
        figure(row.by_user[metric], suite="ranking", protocol=PROTOCOL, metric=f"{metric}@{K}", subject=name)
        for name, row in found.items()
        for metric in SHOWN
    ]
    asked = int(np.count_nonzero(~np.isnan(found["popularity"].by_user["ndcg"])))
    theirs = [
        Figure(
            suite="ranking", protocol=PROTOCOL, metric=f"{metric}@{K}", subject=f"{name}, published", value=value,
            n=asked,
        )
        for name, values in PUBLISHED.items()
        for metric, value in values.items()
    ]  # fmt: skip
    return (*ours, *theirs)


def _scores(name: str, point: Mapping[str, Any], train: sps.csr_matrix) -> Floats:
    if name == "iALS":
        model = IALSRecommender(
            train, n_components=point["factors"], alpha0=point["alpha0"], reg=point["reg"], nu=1.0, train_epochs=16,
            random_seed=SEED,
        )  # fmt: skip
        model.start_learning()
        for _ in range(model.train_epochs):
            model.run_epoch()
        return np.asarray(model.get_score(np.arange(train.shape[0])), dtype=np.float64)
    made: dict[str, Model] = {
        "popularity": baselines.popularity,
        "item-kNN": baselines.item_knn,
        "EASE": baselines.ease,
    }
    return made[name](train, **point)(train)
