"""Is a profile this user's, or could it be anyone's? What they like next must pick it out of ten.

The nine others are hard decoys: of all profiles that are judged, the ones most like the user's own. A profile is one
direction among texts (`eval.profiles.writing.profile_vectors`), what a user likes next another: the mean text of the
items, centred on the catalogue's mean, by weight. The profile with the highest cosine is picked; each of `t` equals
counts `1 / t`.

The own profile lies in the middle of those nearest to it, and a direction that has nothing to do with them is nearest
to one at their edge: so chance is well below one in ten. What chance is, the owners of the decoys show: how often
does what one of *them*, drawn at random, likes next pick the user's profile out of the same ten? With nine others at
random chance is .1.
"""

from typing import NamedTuple

import numpy as np

from agent.catalogue import unit
from eval.interactions import Floats, Interactions, Ints
from eval.profiles.writing import Metric

PICKED_FROM = 10

METRICS = {
    "picked out of 10": Metric("How often what a user likes next is nearest to their own profile, out of ten: theirs "
                               "and the nine most like it. Chance is how often the likes of an owner of one of the "
                               "nine pick it."),
    "picked out of 10 at random": Metric("The same with nine other profiles at random; by chance .1."),
}  # fmt: skip


def behaviour(held_out: Interactions, texts: Floats) -> Floats:
    """Return what each user likes next as a direction among texts, `(users, d)`; zero for those without any.

    Args:
        held_out: What users did next.
        texts: `(m, d)`, of the items, centred.
    """
    found = np.zeros((held_out.n_users, texts.shape[1]))
    likes = held_out.take(held_out.weight > 0)
    np.add.at(found, likes.user, likes.weight[:, None] * texts[likes.item])
    return unit(found).astype(np.float64)


class Picked(NamedTuple):
    """How often the right profile is picked, `(users,)` each; nan for those who lack a profile or have no later like.

    Attributes:
        own: By what its user likes next.
        another: By what the owner of one of the decoys, drawn at random, likes next: chance.
        at_random: By what its user likes next, among nine others at random.
    """

    own: Floats
    another: Floats
    at_random: Floats


def pick(profiles: Floats, behaved: Floats, users: Ints, rng: np.random.Generator, out_of: int = PICKED_FROM) -> Picked:
    """Let behaviour pick profiles.

    Args:
        profiles: `(n, d)`, unit rows, zero for a user without a profile.
        behaved: `(n, d)`, likewise, zero for a user without any.
        users: Codes of those who take part, as owners and as decoys; those who lack one of the two do not.
        rng: Of what is drawn.
        out_of: How many profiles are to pick from, the own one among them.

    Raises:
        ValueError: There are fewer profiles than that.
    """
    have = users[(np.abs(profiles[users]).sum(axis=1) > 0) & (np.abs(behaved[users]).sum(axis=1) > 0)]
    if len(have) < out_of:
        raise ValueError(f"{out_of} profiles are needed to pick from, but there are {len(have)}")
    mine, theirs = profiles[have], behaved[have]
    alike = mine @ mine.T
    np.fill_diagonal(alike, np.inf)
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, :out_of]  # the own one first
    chance = rng.random(alike.shape)
    np.fill_diagonal(chance, -1.0)
    drawn = np.argsort(chance, axis=1)[:, :out_of]
    one = nearest[np.arange(len(have)), rng.integers(1, out_of, len(have))]
    found = np.full((3, len(profiles)), np.nan)
    found[:, have] = right(mine[nearest], theirs), right(mine[nearest], theirs[one]), right(mine[drawn], theirs)
    return Picked(*found)


def right(ten: Floats, behaved: Floats) -> Floats:
    """Return how far the first of the profiles is picked, `(n,)`: 1, `1 / t` if `t` are equally near, or 0.

    >>> ten = np.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [0.6, 0.8]]])
    >>> right(ten, np.array([[0.8, 0.6], [0.6, 0.8], [1.0, 0.0]]))
    array([1. , 0. , 0.5])

    Args:
        ten: `(n, k, d)`, unit vectors, the right one first.
        behaved: `(n, d)`.
    """
    cosines = np.einsum("nd,nkd->nk", behaved, ten).round(9)
    best = cosines == cosines.max(axis=1, keepdims=True)
    return np.asarray(best[:, 0] / best.sum(axis=1))
