"""Matching claims with planted interests, by hand."""

import doctest

import numpy as np
import pytest

from agent.catalogue import ItemSet, count_attributes
from agent.evidence import EvidenceSettings, weigh
from agent.themes import UserLog, find_themes
from eval import interests
from eval.interests import Matched, cited, groups_of, histogram, match, named_interest, supported
from store.records import Item

SETTINGS = EvidenceSettings()


def claim(*groups: int, weights: list[float] | None = None) -> tuple[np.ndarray, np.ndarray]:
    return np.array(groups), np.array(weights or [1.0] * len(groups))


@pytest.mark.parametrize(
    ("evidence", "named"),
    [
        (claim(2, 2, 1), 2),
        (claim(2, 2, 1, weights=[0.2, 0.2, 0.5]), 1),  # weight counts, not number
        (claim(2, 1), -1),  # no majority
        (claim(2, -1, -1), -1),  # most of it is of no group
        (claim(-1, -1), -1),
    ],
)
def test_a_claim_names_what_most_of_its_evidence_is_about(evidence: tuple[np.ndarray, np.ndarray], named: int) -> None:
    assert named_interest(*evidence) == named


def test_precision_recall_and_f1() -> None:
    """Interests 1, 2, 3; claims: 1 right, 1 again, 9 wrong, one of nothing, 2 right."""
    found = match([claim(1, 1), claim(1, 1, 1), claim(9, 9), claim(1, 9), claim(2, 2, -1)], {1, 2, 3})
    assert found == Matched(claims=5, right=2, interests=3)
    assert (found.precision, found.recall) == (2 / 5, 2 / 3)
    assert found.f1 == pytest.approx(2 * (2 / 5) * (2 / 3) / (2 / 5 + 2 / 3)) == 0.5
    nothing = match([], {1})
    assert (np.isnan(nothing.precision), nothing.recall, nothing.f1) == (True, 0.0, 0.0)
    unfounded = match([claim(1, 1)], set())
    assert (unfounded.precision, np.isnan(unfounded.recall), np.isnan(unfounded.f1)) == (0.0, True, True)


def world() -> tuple[ItemSet, dict[str, int]]:
    """Eight groups of five items; groups 0 and 1 are categories, the others stand on two shelves alike."""
    items, group_of = [], {}
    for group in range(8):
        for n in range(5):
            category = f"c{group}" if group < 2 else f"shelf{n % 2}"
            items.append(Item(item_id=f"{group}-{n}", title=f"{group} {n}", categories=(category, "all")))
            group_of[items[-1].item_id] = group
    vectors = np.eye(8, dtype=np.float32)[[group_of[item.item_id] for item in items]]
    return ItemSet({item.item_id: item for item in items}, vectors, count_attributes(items)), group_of


def log_of(*items: str, kind: str = "like") -> UserLog:
    n = len(items)
    return UserLog("u", [f"e{k}" for k in range(n)], items, [kind] * n, [None] * n, np.arange(n) * 60.0, [None] * n)


def test_what_themes_cite_is_matched_and_only_what_has_support_is_asked_for() -> None:
    items, group_of = world()
    log = log_of("0-0", "0-1", "0-2", "2-0", "2-1", "2-2", "3-0")
    groups = groups_of(log, group_of)
    assert groups.tolist() == [0, 0, 0, 2, 2, 2, 3]
    themes = find_themes(log, items, SETTINGS)
    wanted = supported(groups, themes.weights, [0, 1, 2, 3], SETTINGS)
    assert wanted == {0, 2}  # one like of group 3 is no support
    assert match(cited(themes.interests, groups, themes.weights), wanted) == Matched(2, 2, 2)


def test_the_histogram_sees_named_interests_alone() -> None:
    items, group_of = world()
    log = log_of("0-0", "0-1", "0-2", "0-3", "2-0", "2-1", "2-2")
    weights = weigh(log.types, log.values, log.times, float(log.times.max()), SETTINGS)
    claims = histogram(log, items, groups_of(log, group_of), weights, SETTINGS)
    assert [named_interest(*one) for one in claims] == [0]  # not the category of all items, nor the shelves
    assert len(claims[0][0]) == 4


def test_the_histogram_keeps_to_the_support_rule() -> None:
    items, group_of = world()
    log = log_of("0-0", "0-1", "1-0", "1-1", "1-2", kind="view")
    weights = weigh(log.types, log.values, log.times, float(log.times.max()), SETTINGS)
    claims = histogram(log, items, groups_of(log, group_of), weights, SETTINGS)
    assert [named_interest(*one) for one in claims] == ([1] if claims else [])
    assert all(len(groups) >= 3 for groups, _ in claims)


def test_the_worked_examples_hold() -> None:
    found = doctest.testmod(interests)
    assert (found.failed, found.attempted > 0) == (0, True)
