"""Does the same log give the same profile, and does a new event change no more than it must?

*Same log*: the profile is written again with the events of one time in another order, the items of the catalogue in
another, and another seed. *One more event*: the last events before the cut come one by one, and each profile goes on
from the one before, as it does in service.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agent.catalogue import ItemSet
from agent.contract import Claim, Profile
from agent.themes import UserLog
from eval.interactions import Floats
from eval.past import interactions, rows_of
from eval.profiles.writing import Metric, Writing, Written
from eval.world import World

SAME = 0.5
LAST_EVENTS = 5

METRICS = {
    "tag Jaccard": Metric("Tags that two profiles of the same log share, over all tags of either."),
    "matched claims": Metric("Share of the claims of two profiles of the same log that match one of the other: of the "
                             "same kind, with a Jaccard of their evidence of .5 or more, one to one."),
    "same names": Metric("Share of the matched claims that have the same name in both."),
    "churn": Metric("Claims that are not in both profiles with the same id and name, over all of either; mean over the "
                    "last 5 events, of a profile and the one after one more event.", "lower"),
}  # fmt: skip


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Return the share of what either has that both have; 1 if neither has anything.

    >>> jaccard(frozenset("ab"), frozenset("bc")), jaccard(frozenset(), frozenset())
    (0.3333333333333333, 1.0)
    """
    either = first | second
    return len(first & second) / len(either) if either else 1.0


def match(first: Sequence[Claim], second: Sequence[Claim]) -> list[tuple[Claim, Claim]]:
    """Pair claims of a kind one to one, the most alike first, by the Jaccard of their evidence, from .5 on."""
    events = {id(c): frozenset(e.event_id for e in c.evidence) for c in (*first, *second)}
    pairs = [
        (jaccard(events[id(a)], events[id(b)]), n, m)
        for n, a in enumerate(first)
        for m, b in enumerate(second)
        if a.kind == b.kind
    ]
    taken: tuple[set[int], set[int]] = (set(), set())
    found = []
    for alike, n, m in sorted(pairs, key=lambda pair: (-pair[0], pair[1:])):
        if alike >= SAME and n not in taken[0] and m not in taken[1]:
            taken[0].add(n)
            taken[1].add(m)
            found.append((first[n], second[m]))
    return found


def compare(first: Profile, second: Profile) -> dict[str, float]:
    """Compare two profiles of one log: `|tags of both| / |tags of either|`, `2 |matched| / (|claims| + |claims|)`.

    `same names` is nan if no claims match; the other two are 1 if neither profile has any.
    """
    tags = [frozenset(f"{tag.field}:{tag.name}" for tag in profile.tags) for profile in (first, second)]
    pairs = match(first.claims, second.claims)
    claims = len(first.claims) + len(second.claims)
    return {
        "tag Jaccard": jaccard(*tags),
        "matched claims": 2 * len(pairs) / claims if claims else 1.0,
        "same names": float(np.mean([a.name == b.name for a, b in pairs])) if pairs else float("nan"),
    }


def churn(first: Profile, second: Profile) -> float:
    """Return the share of the claims of either profile that are not in both with the same id and name."""
    said = [frozenset(f"{c.claim_id}: {c.name}" for c in profile.claims) for profile in (first, second)]
    return 1.0 - jaccard(*said)


def shuffled(world: World, rng: np.random.Generator) -> World:
    """Return the same world in another order: of items, and of a user's events at one time."""
    order = rng.permutation(len(world.items))
    items = [world.items[n] for n in order]
    rows = [world.item_set.row[item.item_id] for item in items]
    vectors = world.item_set.vectors[rows]
    item_set = ItemSet({item.item_id: item for item in items}, vectors, world.item_set.base_rates)
    logs: list[UserLog] = []
    for log in world.logs:
        perm = np.lexsort((rng.random(len(log.times)), log.times)).tolist()
        logs.append(replace(rows_of(log, perm, world), revision=log.revision))
    made = replace(world, items=items, texts=world.texts[order], item_set=item_set, logs=logs)
    return replace(made, interactions=interactions(logs, made))


def measure(writing: Writing, written: Sequence[Written], seed: int) -> dict[str, Floats]:
    """Write profiles of the same logs again, shuffled; `(users,)` for each metric but churn."""
    again = replace(writing, world=shuffled(writing.world, np.random.default_rng(seed)), failed={})
    second = {one.code: one for one in again.write(again.drafts([one.code for one in written]))}
    count = len(writing.world.user_ids)
    found = {name: np.full(count, np.nan) for name in METRICS if name != "churn"}
    for one in written:
        if one.code in second:
            for name, value in compare(one.profile, second[one.code].profile).items():
                found[name][one.code] = value
    return found


def churned(writing: Writing, codes: Sequence[int], events: int = LAST_EVENTS) -> Floats:
    """Let the last events of these users come one by one; the mean churn of each user, `(users,)`."""
    found = np.full(len(writing.world.user_ids), np.nan)
    for code in codes:
        log = writing.world.logs[code]
        count = len(log.event_ids)
        if count <= events:
            continue
        profile: Profile | None = None
        moved = []
        for known in range(count - events, count + 1):
            part = rows_of(log, range(known), writing.world)
            after = writing.go_on(code, part, profile).profile
            if profile is not None:
                moved.append(churn(profile, after))
            profile = after
        found[code] = float(np.mean(moved))
    return found
