"""Search for parameters on a validation split; the same budget for every model that is compared."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from recommend.parameters import Parameters

Point = dict[str, Any]
Space = Callable[[optuna.Trial], Point]
Measure = Callable[[Point], float]


def ials_space(trial: optuna.Trial) -> Point:
    """Return parameters of iALS alone."""
    return {
        "alpha0": trial.suggest_float("alpha0", 0.03, 3.0, log=True),
        "reg": trial.suggest_float("reg", 5e-4, 5e-2, log=True),
    }


def fused_space(trial: optuna.Trial) -> Point:
    """Return parameters of the fused scorer, but for recency, which is a choice of its own."""
    return ials_space(trial) | {
        "user_features": trial.suggest_float("user_features", 1.0, 1e4, log=True),
        "item_features": trial.suggest_float("item_features", 1.0, 1e4, log=True),
        "new_items": trial.suggest_float("new_items", 0.0, 1.0),
        "dislike_weight": trial.suggest_float("dislike_weight", 0.0, 1.0),
        "dislike_target": trial.suggest_float("dislike_target", 0.0, 0.5),
        "half_trust": trial.suggest_float("half_trust", 0.1, 50.0, log=True),
        "sparse_alpha": trial.suggest_float("sparse_alpha", 0.0, 1.0),
        "crowd": trial.suggest_float("crowd", 0.0, 2.0),
        "popular": trial.suggest_float("popular", 0.0, 0.5),
        "covariance": trial.suggest_float("covariance", 0.0, 1.0),
        "rating_weights": trial.suggest_categorical("rating_weights", [False, True]),
    }


def search(
    space: Space,
    measure: Measure,
    trials: int,
    *,
    seed: int = 0,
    first: tuple[Mapping[str, Any], ...] = (),
    journal: Path | None = None,
    name: str = "search",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Point, float]:
    """Search with optuna's tree-structured Parzen estimator.

    Args:
        space: What may be chosen.
        measure: To be made as large as possible.
        trials: How many points are tried in all; a search that goes on counts those it finds in the journal.
        seed: Of the search.
        first: Points that are tried first.
        journal: File in which the trials are kept, so that a search that was stopped goes on; None keeps nothing.
        name: Of the search within the journal.
        progress: Called with the trials done and their number.

    Returns:
        The best point, and its measure.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = None
    if journal is not None:
        journal.parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(journal), JournalFileOpenLock(str(journal))))
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        storage=storage,
        study_name=name,
        load_if_exists=True,
    )
    done = len([t for t in study.trials if t.state.is_finished()])
    if not done:
        for point in first:
            study.enqueue_trial(dict(point), skip_if_exists=True)

    def objective(trial: optuna.Trial) -> float:
        point = space(trial)
        trial.set_user_attr("point", point)
        return measure(point)

    while done < trials:
        study.optimize(objective, n_trials=1)
        done += 1
        if progress:
            progress(done, trials)
    best = study.best_trial
    return dict(best.user_attrs["point"]), float(best.value if best.value is not None else np.nan)


def parameters(point: Point, **fixed: Any) -> Parameters:
    """Make parameters of a point, the rest being the defaults or what is fixed."""
    return Parameters(**(point | fixed))
