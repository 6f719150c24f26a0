"""Splits by time and by who or what is new.

No event of a user's test comes before an event of the same user's training. MovieLens is entered in one sitting by
most of its users: `same_sitting` and `later_visits` keep the two questions apart.
"""

from typing import NamedTuple

import numpy as np

from eval.interactions import Bools, Interactions, Ints

HOUR = 3600.0
FEWEST_EVENTS = 5


class Split(NamedTuple):
    """What may be learned from, and what is asked."""

    train: Interactions
    test: Interactions


def per_user_time(interactions: Interactions, share: float = 0.2, seed: int = 0) -> Split:
    """Hold out the last events of each user.

    Args:
        interactions: Of all users.
        share: Of a user's events, rounded down, that are held out. Users with fewer than 5 events are all training.
        seed: Of the order of a user's events at the same time, in both parts.

    Raises:
        ValueError: The share is not between 0 and 1.
    """
    _check_share(share)
    events = interactions.shuffled_ties(np.random.default_rng(seed))
    starts = events.starts()
    counts = np.diff(starts)
    held_out = np.where(counts < FEWEST_EVENTS, 0, _floor(share * counts))
    first_held_out = (starts[1:] - held_out)[events.user]
    return _part(events, np.arange(len(events)) >= first_held_out)


def global_time(interactions: Interactions, share: float = 0.2, seed: int = 0) -> Split:
    """Hold out the last events of the whole log: one cut for all users.

    Args:
        interactions: Of all users.
        share: Of all events, rounded down, that are held out. The events at the very time of the cut are held out
            too, so that all training is strictly before all of the test.
        seed: Of the order of a user's events at the same time, in both parts.

    Raises:
        ValueError: The share is not between 0 and 1.
    """
    _check_share(share)
    events = interactions.shuffled_ties(np.random.default_rng(seed))
    held_out = int(_floor(np.array(share * len(events))))
    if not held_out:
        return _part(events, np.zeros(len(events), dtype=np.bool_))
    cut = np.sort(events.time)[len(events) - held_out]
    return _part(events, events.time >= cut)


def same_sitting(split: Split, within: float = HOUR) -> Split:
    """Keep of the test what comes within so many seconds of the user's last training event."""
    return Split(split.train, split.test.take(_since_training(split) <= within))


def later_visits(split: Split, within: float = HOUR) -> Split:
    """Keep of the test what comes more than so many seconds after the user's last training event.

    What `same_sitting` has is then in neither part. A user without training comes later.
    """
    return Split(split.train, split.test.take(_since_training(split) > within))


def cold_users(n_users: int, folds: int = 5, seed: int = 0) -> Ints:
    """Deal users out to folds, in each of which they are the new ones.

    Returns:
        `(n_users,)`, the fold of each user, from 0 to `folds - 1`; the sizes differ by at most 1.

    Raises:
        ValueError: There are fewer than 2 folds, or more folds than users.
    """
    return _deal(n_users, folds, seed)


def cold_items(n_items: int, folds: int = 5, seed: int = 0) -> Ints:
    """Deal items out to folds, in each of which they are the new ones; as `cold_users`.

    Returns:
        `(n_items,)`, the fold of each item.

    Raises:
        ValueError: There are fewer than 2 folds, or more folds than items.
    """
    return _deal(n_items, folds, seed)


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"the share held out must lie between 0 and 1, not {share}")


def _floor(counts: np.ndarray) -> Ints:
    return np.floor(counts + 1e-9).astype(np.int64)  # 0.29 * 100 is a little less than 29


def _part(events: Interactions, held_out: Bools) -> Split:
    return Split(events.take(~held_out), events.take(held_out))


def _since_training(split: Split) -> np.ndarray:
    return split.test.time - split.train.last_time()[split.test.user]


def _deal(count: int, folds: int, seed: int) -> Ints:
    if not 2 <= folds <= count:  # noqa: PLR2004
        raise ValueError(f"{count} cannot be dealt out to {folds} folds")
    return np.random.default_rng(seed).permutation(count) % folds
