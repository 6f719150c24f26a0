"""Splits by time, by chance, and by who or what is new.

Of the splits by time, no event of a user's test comes before an event of the same user's training: `check_past` sees
one that does. Weights of training are those that training alone gives. MovieLens is entered in one sitting by most of
its users: `same_sitting` and `later_visits` keep the two questions apart. `per_item` splits at random, so that it lets
the future teach; it is there to compare with what others have published.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from eval.errors import EvaluationError
from eval.interactions import Bools, Floats, Interactions, Ints

HOUR = 3600.0
FEWEST_EVENTS = 5


class Split(NamedTuple):
    """What may be learned from, and what is asked."""

    train: Interactions
    test: Interactions


class Fold(NamedTuple):
    """Users who are new: what may be learned from others, what is known of the new ones, and what is asked of them."""

    train: Interactions
    known: Interactions
    test: Interactions


class SplitError(EvaluationError):
    """A split lets the future into training."""


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


def leave_last_out(interactions: Interactions, seed: int = 0) -> Split:
    """Hold out the last event of each user.

    Args:
        interactions: Of all users.
        seed: Of the order of a user's events at the same time. Users with fewer than 5 events are all training.
    """
    events = interactions.shuffled_ties(np.random.default_rng(seed))
    starts = events.starts()
    last = starts[events.user + 1] - 1
    return _part(events, (np.arange(len(events)) == last) & (np.diff(starts)[events.user] >= FEWEST_EVENTS))


def per_item(interactions: Interactions, share: float = 0.25, seed: int = 0) -> Split:
    """Hold out a share of each item's events at random, as `held_out_of_items` rounds it.

    Raises:
        ValueError: The share is not between 0 and 1.
    """
    draws = np.random.default_rng(seed).random(len(interactions))
    return _part(interactions, held_out_of_items(interactions.item, draws, share))


def held_out_of_items(item: Ints, draws: Floats, share: float = 0.25) -> Bools:
    """Tell which events are held out, so that of each item's n events the `floor((1 - share) n)` of lowest draw stay.

    An item with a single event is held out. This is what `python_stratified_split(filter_by="item")` of the library
    `recommenders` does.

    Args:
        item: `(n,)`, the item of each event.
        draws: `(n,)`, a random number for each.
        share: That is held out.

    Raises:
        ValueError: The share is not between 0 and 1.

    >>> held_out_of_items(np.array([7, 7, 7, 7, 3]), np.array([0.2, 0.9, 0.1, 0.4, 0.5]))
    array([False,  True, False, False,  True])
    """
    _check_share(share)
    order = np.lexsort((draws, item))
    _, first, counts = np.unique(item[order], return_index=True, return_counts=True)
    place = np.empty(len(item), dtype=np.int64)
    place[order] = np.arange(len(item)) - np.repeat(first, counts)
    kept = np.empty(len(item), dtype=np.int64)
    kept[order] = np.repeat(_floor((1.0 - share) * counts), counts)
    return np.asarray(place >= kept, dtype=np.bool_)


def by_user(interactions: Interactions, folds: int = 5, share: float = 0.2, seed: int = 0) -> list[Fold]:
    """Let each user be new in one fold, with their last events held out and the others known.

    Training has all events of the other folds' users, and none of the new ones' (strong generalization; Marlin 2004).

    Args:
        interactions: Of all users.
        folds: Their number.
        share: Of a new user's events that are held out, as in `per_user_time`.
        seed: Of the folds, and of the order of a user's events at the same time.

    Raises:
        ValueError: The share is not between 0 and 1, or there are fewer than 2 folds, or more folds than users.
    """
    fold_of = cold_users(interactions.n_users, folds, seed)
    known, asked = per_user_time(interactions, share, seed)
    found = []
    for fold in range(folds):
        new = fold_of == fold
        train = interactions.take(~new[interactions.user])
        found.append(Fold(train, known.take(new[known.user]), asked.take(new[asked.user])))
    return found


def check_past(split: Split, *, one_cut: bool = False) -> None:
    """Refuse a split by time in which training knows the future.

    Args:
        split: To be checked.
        one_cut: Whether all training must lie before all of the test, and not only each user's own.

    Raises:
        SplitError: An event of training comes after the first of the same user's test, or of the whole test.
    """
    first = np.full(split.test.n_users, np.inf)
    np.minimum.at(first, split.test.user, split.test.time)
    late = split.train.time > first[split.train.user]
    if one_cut:
        late = split.train.time >= split.test.time.min(initial=np.inf)
    if late.any():
        where = int(np.flatnonzero(late)[0])
        raise SplitError(
            f"{int(late.sum())} training events come after what is asked, first the one of user "
            f"{split.train.user[where]} about item {split.train.item[where]}. Split the log by time before training."
        )


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
    return Split(rescaled(events.take(~held_out)), events.take(held_out))


def rescaled(events: Interactions) -> Interactions:
    """Return the events with weights as they are when no others are known: a user's strongest weighs 1.

    Weights are scaled by the strongest event of the whole log, which may lie after the cut.
    """
    top = np.zeros(events.n_users)
    np.maximum.at(top, events.user, np.abs(events.weight))
    scale = top[events.user]
    return replace(events, weight=events.weight / np.where(scale > 0, scale, 1.0))


def _since_training(split: Split) -> np.ndarray:
    return split.test.time - split.train.last_time()[split.test.user]


def _deal(count: int, folds: int, seed: int) -> Ints:
    if not 2 <= folds <= count:  # noqa: PLR2004
        raise ValueError(f"{count} cannot be dealt out to {folds} folds")
    return np.random.default_rng(seed).permutation(count) % folds
