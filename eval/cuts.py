"""How the ranking suite cuts a log: what is learned from, what is known of those who are asked, and what is asked."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from eval import splits
from eval.interactions import Interactions, Ints


class Part(NamedTuple):
    """A part of a cut.

    Attributes:
        train: What may be learned from.
        known: Of the users who are asked; the same object as `train`, unless these users are new.
        asked: By protocol, what is held out.
    """

    train: Interactions
    known: Interactions
    asked: Mapping[str, Interactions]

    def askable(self, protocol: str) -> Ints:
        """Return who likes something that is held out and not known of them, in ascending order."""
        held_out = self.asked[protocol]
        likes = held_out.take(held_out.weight > 0).matrix()
        return np.flatnonzero((likes - likes.multiply(self.known.matrix())).getnnz(axis=1)).astype(np.int64)


Cut = Callable[[Interactions, int], list[Part]]
"""From all events and a seed to parts with different users each."""


def last_events(events: Interactions, seed: int) -> list[Part]:
    """Hold out each user's last 20 %, of one sitting with the rest or of a later visit."""
    split = splits.per_user_time(events, seed=seed)
    splits.check_past(split)
    views = {
        "last 20 %": split.test,
        "same sitting": splits.same_sitting(split).test,
        "later visit": splits.later_visits(split).test,
    }
    return [Part(split.train, split.train, views)]


def last_days(events: Interactions, seed: int) -> list[Part]:
    """Hold out the last 20 % of the log."""
    split = splits.global_time(events, seed=seed)
    splits.check_past(split, one_cut=True)
    return [Part(split.train, split.train, {"global time": split.test})]


def last_event(events: Interactions, seed: int) -> list[Part]:
    """Hold out each user's last event, to be ranked among all items, and among 99."""
    split = splits.leave_last_out(events, seed)
    splits.check_past(split)
    return [Part(split.train, split.train, {"leave one out": split.test, "leave one out, 1 + 99": split.test})]


def new_users(events: Interactions, seed: int) -> list[Part]:
    """Let each user be new in one of five folds."""
    folds = splits.by_user(events, min(5, events.n_users), seed=seed)
    return [Part(fold.train, fold.known, {"new users": fold.test}) for fold in folds]


def random_of_items(events: Interactions, seed: int) -> list[Part]:
    """Hold out 25 % of each item's events at random."""
    split = splits.per_item(events, seed=seed)
    return [Part(split.train, split.train, {"per item": split.test})]


BY_TIME: tuple[Cut, ...] = (last_events, last_days)
OTHERS: tuple[Cut, ...] = (last_event, new_users, random_of_items)
