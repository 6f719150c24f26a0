"""Are explanations faithful? Deletion curves (Samek et al. 2017, arXiv 1509.06321) of each user's best recommendation.

An explainer puts the user's events in an order. They are deleted one by one; after each the user is summarized and
folded in anew, so that the item's score is exact. The score over that before any deletion, averaged over 0 to 10
deletions, is the area under the curve: the smaller, the better the explainer knows what the score rests on. Claims
stay as they are. Only events that the model uses are put in order, by every explainer.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from agent.embedder import Embedder
from eval.fused import Fused, train_fused
from eval.interactions import Floats, Interactions, Ints
from eval.stats import compare
from eval.world import Matrix, World
from recommend.explaining import explain
from recommend.foldin import Folded
from recommend.history import Events, History, summarize
from recommend.parameters import Parameters
from recommend.ranking import top_k

STEPS = 10
OURS, RANDOM = "parts", "random"


class Case(NamedTuple):
    """A user's best recommendation.

    Attributes:
        events: Of the user.
        history: That summarizes them.
        folded: The user.
        row: Of the item.
        used: `(n,)`, places of the events that the model uses.
    """

    events: Events
    history: History
    folded: Folded
    row: int
    used: Ints


Explainer = Callable[[Case], Floats]
"""From a case to how much each event that is used matters, `(n,)`."""


def first_choice(model: Fused, known: Interactions, user: int) -> Case:
    """Find the best item that is new to a user, and what it rests on."""
    starts = known.starts()
    part = slice(starts[user], starts[user + 1])
    rows = known.item[part]
    events = Events.told([str(n) for n in range(len(rows))], rows, known.weight[part])
    history, folded = _fold(model, events, user)
    best = top_k(model.fitted.factors @ folded.vector, 1, np.unique(rows))
    return Case(events, history, folded, int(best[0]), np.flatnonzero(history.item >= 0))


def deletion_curve(model: Fused, case: Case, user: int, order: Ints, steps: int = STEPS) -> Floats:
    """Delete events one by one.

    Args:
        model: That folds in.
        case: The recommendation.
        user: Code of the user.
        order: Places of events, the first to go first; after the last of them nothing changes any more.
        steps: Number of deletions.

    Returns:
        `(steps + 1,)`, the item's score over that before any deletion.
    """
    item = model.fitted.factors[case.row].astype(np.float64)
    scores = [case.folded.score(item)]
    gone = np.zeros(len(case.events.rows), dtype=np.bool_)
    for place in order[:steps]:
        gone[place] = True
        scores.append(_fold(model, case.events.without(gone), user)[1].score(item))
    scores += [scores[-1]] * (steps + 1 - len(scores))
    return np.array(scores) / scores[0]


def area(curve: Floats) -> float:
    """Return the area under a curve by the trapezoid rule, over its number of steps.

    >>> area(np.array([1.0, 0.5, 0.0]))
    0.5
    """
    return float(np.trapezoid(curve) / (len(curve) - 1))


def by_parts(model: Fused) -> Explainer:
    """Order events by their parts of the score."""

    def matter(case: Case) -> Floats:
        reasons = explain(case.folded, case.history, case.events, model.fitted.factors[case.row], {})
        return reasons.events[case.used]

    return matter


def by_cosine(vectors: Matrix) -> Explainer:
    """Order events by the cosine of their items with the recommended one.

    Args:
        vectors: `(m, d)`, of the items.
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled = vectors / np.where(length > 0, length, 1.0)
    return lambda case: np.asarray(scaled[case.events.rows[case.used]] @ scaled[case.row], dtype=np.float64)


def at_random(rng: np.random.Generator) -> Explainer:
    """Order events at random."""
    return lambda case: rng.random(len(case.used))


def _fold(model: Fused, events: Events, user: int) -> tuple[History, Folded]:
    history = summarize(events, model.fold_in.parameters)
    own = slice(*np.searchsorted(model.owner, [user, user + 1]))
    return history, model.fold_in(history.taste(model.claims[own]))


def run(
    world: World, embedder: Embedder, users: int = 200, seeds: int = 5, parameters: Parameters | None = None
) -> dict[str, Any]:
    """Measure explainers on a sample of users.

    Args:
        world: The data.
        embedder: Of claims.
        users: Size of the sample, of those of whom the model uses an event; all there are if fewer.
        seeds: Random orders for each user, over which the curve is averaged.
        parameters: Of the model; the defaults unless given.

    Returns:
        For each explainer its curve and area, and for all but ours how much larger the area is.
    """
    events = world.interactions
    model = train_fused(events, world.template_claims(events, embedder), world.texts, parameters or Parameters())
    explainers: dict[str, list[Explainer]] = {
        OURS: [by_parts(model)],
        "cosine of factors": [by_cosine(model.fitted.factors)],
        "cosine of texts": [by_cosine(world.texts - world.texts.mean(axis=0))],
        RANDOM: [at_random(np.random.default_rng(seed)) for seed in range(seeds)],
    }
    curves: dict[str, list[Floats]] = {name: [] for name in explainers}
    for user in np.random.default_rng(0).permutation(np.unique(events.user)).tolist():
        case = first_choice(model, events, user)
        if not len(case.used) or case.folded.score(model.fitted.factors[case.row].astype(np.float64)) <= 0:
            continue
        for name, repeated in explainers.items():
            orders = [case.used[np.argsort(-explainer(case), kind="stable")] for explainer in repeated]
            curves[name].append(np.mean([deletion_curve(model, case, user, order) for order in orders], axis=0))
        if len(curves[OURS]) == users:
            break
    areas = {name: np.array([area(curve) for curve in found]) for name, found in curves.items()}
    figures: dict[str, Any] = {}
    for name, found in curves.items():
        figures[name] = {"area": float(areas[name].mean()), "curve": np.mean(found, axis=0).tolist()}
        if name != OURS:
            test = compare(areas[name], areas[OURS])
            figures[name] |= {"difference": test.difference, "low": test.low, "high": test.high, "p": test.wilcoxon}
    return {"users": len(curves[OURS]), "explainers": figures}
