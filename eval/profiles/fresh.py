"""How fast does a profile go stale? Profiles of the past, held against what their users liked later, by age.

A user's profile is written at several cuts in their log. Each later like of an item they had not met is ranked by the
profile's texts among all items not met (`useful.percentiles`; its mean is nearly the area under the ROC curve, .5 is
chance), and put under the profile's age then: the time since the last event it was made of. A user counts once in each
band of age, with the mean over cuts and likes.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from eval.interactions import Floats, Ints
from eval.past import after, before, cuts
from eval.profiles.specific import by_user
from eval.profiles.useful import by_text, percentiles
from eval.profiles.writing import Metric, Writing, claim_vectors
from eval.world import World

HOUR, DAY = 3600.0, 86_400.0
BANDS: dict[str, tuple[float, float]] = {
    "within an hour": (0.0, HOUR),
    "an hour to a day": (HOUR, DAY),
    "a day to a week": (DAY, 7 * DAY),
    "1 to 4 weeks": (7 * DAY, 28 * DAY),
    "over 4 weeks": (28 * DAY, np.inf),
}
HELD_OUT = (0.2, 0.4, 0.6)
SPAN = 7 * DAY
FEWEST = 5

METRICS = {
    "AUC by age": Metric("Share of the items not met that a later like outranks, by the profile's texts alone; .5 is "
                         "chance."),
}  # fmt: skip


class Aged(NamedTuple):
    """What profiles of one age are worth: `(users,)`, nan where there is none, and the median age in days."""

    values: Floats
    days: float


def long_logs(world: World) -> Ints:
    """Return the codes of users whose log spans a week or more."""
    spans = [log.times[-1] - log.times[0] if len(log.times) else 0.0 for log in world.logs]
    return np.flatnonzero(np.array(spans) >= SPAN).astype(np.int64)


def measure(writing: Writing, world: World, codes: Ints, held_out: Sequence[float] = HELD_OUT) -> dict[str, Aged]:
    """Write profiles at several cuts and measure them by age.

    Args:
        writing: How they are written; its world is not used.
        world: The whole of it.
        codes: Of users; those whose log spans less than a week are left out.
        held_out: Shares of a user's events that lie after the cuts.

    Returns:
        By band of age; bands with fewer than 5 users are left out.
    """
    users = np.intersect1d(codes, long_logs(world))
    values, owners, ages = [], [], []
    for share in held_out:
        cut = cuts(world.interactions, share)
        cut[np.setdiff1d(np.arange(len(cut)), users)] = np.inf
        then = replace(writing, world=before(world, cut), failed={})
        written = then.write(then.drafts(users[np.isfinite(cut[users])]))
        later = after(world, cut)
        scores = by_text(claim_vectors(written, writing.embedder), world)
        found, places = percentiles(scores, then.world.interactions, later)
        made = np.full(len(world.user_ids), np.nan)
        for one in written:
            made[one.code] = one.log.times[-1] if one.claims else np.nan
        age = later.time[places] - made[later.user[places]]
        known = ~np.isnan(age)
        values.append(found[known])
        owners.append(later.user[places][known])
        ages.append(age[known])
    value, owner, age = np.concatenate(values), np.concatenate(owners), np.concatenate(ages)
    aged = {}
    for name, (low, high) in BANDS.items():
        inside = (age >= low) & (age < high)
        by = by_user(value[inside], owner[inside], len(world.user_ids))
        if np.count_nonzero(~np.isnan(by)) >= FEWEST:
            aged[name] = Aged(by, float(np.median(age[inside]) / DAY))
    return aged
