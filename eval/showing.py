"""Click and conversion rates of what was shown, and of what each recommender would have shown."""

import numpy as np

from eval import metrics
from eval.findings import Figure
from eval.interactions import Floats, Ints
from eval.logged import effective_sample_size
from eval.ranking_terms import better, unit
from eval.stats import pooled
from eval.world import World

SUITE, PROTOCOL, LOGGED = "ranking", "shown", "as logged"
LISTED, CLIP = 10, 10.0


def figures(world: World, model: str, users: Ints, scores: Floats, since: float, seed: int) -> list[Figure]:
    """Estimate what a recommender would have earned on the impressions since a time.

    Its policy shows one of its best ten items at random. Without impressions there are no figures, and without
    propensities only those of what was shown.

    Args:
        world: With the impressions.
        model: Name of the recommender; with `popularity` come the figures of what was shown.
        users: `(b,)`, codes.
        scores: `(b, m)`, theirs, which know nothing since that time.
        since: Seconds since 1970.
        seed: Of ties and of the bootstrap.
    """
    shown = world.impressions
    if shown is None or not len(shown.item):
        return []
    place = np.full(len(world.user_ids), -1, dtype=np.int64)
    place[users] = np.arange(len(users))
    code = {item.item_id: n for n, item in enumerate(world.items)}
    item = np.array([code.get(item_id, -1) for item_id in shown.item], dtype=np.int64)
    taken = (shown.time >= since) & (place[shown.user] >= 0) & (item >= 0)
    found = []
    rewards = {"ctr": shown.clicked, "conversion": shown.converted}
    if model == "popularity":
        found += _rates(rewards, np.ones(len(item)), shown.user, taken, LOGGED, seed)
    taken &= ~np.isnan(shown.propensity)
    best = metrics.best(scores, None, LISTED, np.random.default_rng(seed))
    would = (best[place[shown.user]] == item[:, None]).any(axis=1) / LISTED
    weights = np.where(taken, np.minimum(would / np.where(taken, shown.propensity, 1.0), CLIP), 0.0)
    if not weights.any():
        return found
    size = effective_sample_size(weights[taken])
    found.append(_figure("effective sample size", model, size, None, None, int(taken.sum())))
    return found + _rates(rewards, weights, shown.user, taken, model, seed)


def _rates(
    rewards: dict[str, np.ndarray], weights: Floats, user: Ints, taken: np.ndarray, subject: str, seed: int
) -> list[Figure]:
    if len(np.unique(user[taken])) < 2:  # noqa: PLR2004
        return []
    found = []
    for metric, reward in rewards.items():
        rate = pooled((reward * weights)[taken], weights[taken], user[taken], seed=seed)
        found.append(_figure(metric, subject, rate.value, rate.low, rate.high, int(taken.sum())))
    return found


def _figure(metric: str, subject: str, value: float, low: float | None, high: float | None, n: int) -> Figure:
    return Figure(
        suite=SUITE, protocol=PROTOCOL, metric=metric, subject=subject, value=value, low=low, high=high, n=n,
        better=better(metric), unit=unit(metric),
    )  # fmt: skip
