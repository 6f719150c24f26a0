"""Kinds of users: with few events or many, with the taste of most or one of their own."""

import numpy as np

from eval.interactions import Bools, Floats, Interactions, Ints

SEGMENTS = ("few events", "many events", "mainstream", "niche")


def segments(train: Interactions, users: Ints) -> dict[str, Bools]:
    """Part users at the medians of two figures, each of which leaves half of them on either side.

    *Few* and *many events*: by the number of their training events. *Mainstream* and *niche*: by the mean, over what
    they like in training, of the share of users who like it; who likes nothing is in neither.

    Args:
        train: What is known.
        users: `(b,)`, codes of the users to be parted.

    Returns:
        For each of `SEGMENTS`, who is in it, `(b,)`. A user at the median is among the few, or the niche.
    """
    events = np.bincount(train.user, minlength=train.n_users)[users]
    liking = mainstreamness(train)[users]
    many = events > np.median(events) if len(users) else events > 0
    known = ~np.isnan(liking)
    middle = float(np.median(liking[known])) if known.any() else 0.0
    main = known & (liking > middle)
    return dict(zip(SEGMENTS, (~many, many, main, known & ~main), strict=True))


def mainstreamness(train: Interactions) -> Floats:
    """Return the mean share of users who like what each user likes, `(n_users,)`; nan for who likes nothing."""
    likes = train.take(train.weight > 0).matrix()
    share = np.asarray(likes.sum(axis=0)).ravel() / max(train.n_users, 1)
    count = np.asarray(likes.sum(axis=1)).ravel()
    return np.asarray((likes @ share) / np.where(count > 0, count, np.nan))
