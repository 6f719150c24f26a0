"""What a user's events add up to, item by item: worked by hand, and in general."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recommend.history import Events, History, summarize, to_events
from recommend.parameters import Parameters

PLAIN = Parameters(rating_weights=False, dislike_weight=0.0)
SIGNED = Parameters(rating_weights=True, dislike_weight=0.5, dislike_target=0.25)


def told(*pairs: tuple[int, float], scale: list[float] | None = None) -> Events:
    """Events on rows, with their weights."""
    rows = np.array([row for row, _ in pairs], dtype=np.int64)
    weights = np.array([weight for _, weight in pairs], dtype=float)
    return Events.told([f"e{n}" for n in range(len(pairs))], rows, weights, None if scale is None else np.array(scale))


def listed(history: History) -> tuple[list[float], ...]:
    return tuple(column.tolist() for column in history[:5])


# Row 4 is liked in spite of one event, row 7 disliked in spite of one, row 9 is neutral.
MIXED = told((4, 0.5), (7, -1.0), (4, 1.0), (4, -0.25), (9, 0.0), (7, 0.25))


@pytest.mark.parametrize(
    ("parameters", "rows", "confidence", "target", "item", "share"),
    [
        (SIGNED, [4, 7], [1.5, 0.5], [1.0, -0.25], [0, 1, 0, 0, -1, 1], [1 / 3, 1, 2 / 3, 0, 0, 0]),
        (
            SIGNED.model_copy(update={"rating_weights": False}),
            [4, 7], [2.0, 0.5], [1.0, -0.25], [0, 1, 0, 0, -1, 1], [0.5, 1, 0.5, 0, 0, 0],
        ),
        (PLAIN, [4], [2.0], [1.0], [0, -1, 0, 0, -1, -1], [0.5, 0, 0.5, 0, 0, 0]),
    ],
    ids=["weights and dislikes", "all alike", "likes only"],
)  # fmt: skip
def test_mixed_signs_and_neutral_events(
    parameters: Parameters,
    rows: list[int],
    confidence: list[float],
    target: list[float],
    item: list[int],
    share: list[float],
) -> None:
    found = summarize(MIXED, parameters)
    assert found.rows.tolist() == rows
    assert found.confidence == pytest.approx(confidence)
    assert found.target.tolist() == target
    assert found.item.tolist() == item
    assert found.share == pytest.approx(share)


def test_signs_that_cancel_say_nothing() -> None:
    found = summarize(told((4, 0.5), (4, -0.5), (2, 0.0)), SIGNED)
    assert listed(found) == ([], [], [], [-1, -1, -1], [0, 0, 0])


def test_items_come_in_the_order_of_their_first_event() -> None:
    assert summarize(told((9, 1), (2, 1), (9, 1), (5, 1)), PLAIN).rows.tolist() == [9, 2, 5]


def test_a_repeated_item_counts_each_time() -> None:
    found = summarize(told(*[(3, 1.0)] * 4), PLAIN)
    assert listed(found) == ([3], [4.0], [1.0], [0, 0, 0, 0], [0.25] * 4)


def test_recency_counts_events_not_items() -> None:
    recent = Parameters(recency=2.0, recency_half=1.0)
    found = summarize(told((3, 1.0), (8, 1.0), (3, 1.0)), recent)
    assert found.confidence.tolist() == [1.5 + 3.0, 2.0]
    assert found.share.tolist() == [1.5 / 4.5, 1.0, 3.0 / 4.5]


def test_scaled_events_count_less_and_do_not_change_what_is_liked() -> None:
    found = summarize(told((3, 1.0), (3, 1.0), (3, -0.5), (8, 1.0), scale=[0.0, 0.3, 1.0, 0.0]), PLAIN)
    assert listed(found) == ([3], [0.3], [1.0], [0, 0, 0, -1], [0.0, 1.0, 0.0, 0.0])


def test_an_added_claims_event_is_an_entry_of_its_own() -> None:
    events = Events(
        ["e0", "+1:0", "+1:1", "+2:0"],
        np.array([4, 4, 6, 4], dtype=np.int64),
        np.array([0.5, 1.0, 1.0, -1.0]),
        np.array([1.0, 2.5, 2.5, 0.5]),
        np.array([np.nan, 1.0, 1.0, -1.0]),
    )
    # Without dislikes and with recency, an added dislike still counts, at its own confidence.
    found = summarize(events, PLAIN.model_copy(update={"recency": 4.0, "recency_half": 1.0}))
    assert found.rows.tolist() == [4, 4, 6, 4]
    assert found.confidence.tolist() == [1.5, 2.5, 2.5, 0.5]
    assert found.target.tolist() == [1.0, 1.0, 1.0, -1.0]
    assert (found.item.tolist(), found.share.tolist()) == ([0, 1, 2, 3], [1.0] * 4)


def test_no_events() -> None:
    assert listed(summarize(told(), SIGNED)) == ([], [], [], [], [])


@st.composite
def some_events(draw: st.DrawFn) -> Events:
    numbers = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0])
    pairs = draw(st.lists(st.tuples(st.integers(0, 5), numbers), max_size=15))
    scales = st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=len(pairs), max_size=len(pairs))
    given_ = st.lists(st.sampled_from([np.nan, np.nan, 1.0, -1.0]), min_size=len(pairs), max_size=len(pairs))
    return told(*pairs, scale=draw(scales))._replace(given=np.array(draw(given_), dtype=float))


@given(some_events(), st.sampled_from([PLAIN, SIGNED, SIGNED.model_copy(update={"recency": 2.0})]))
def test_the_shares_of_an_item_add_up_to_one(events: Events, parameters: Parameters) -> None:
    found = summarize(events, parameters)
    kept = found.item >= 0
    sums = np.bincount(found.item[kept], weights=found.share[kept], minlength=len(found.rows))
    assert sums == pytest.approx(np.ones(len(found.rows)))
    assert (found.share >= 0).all()
    assert not found.share[~kept].any()
    assert (found.confidence > 0).all()
    assert (found.rows[found.item[kept]] == events.rows[kept]).all()
    own = np.unique(found.item[kept & np.isnan(events.given)])
    assert len(set(found.rows[own].tolist())) == len(own)


@given(some_events(), st.data())
def test_a_removed_event_has_never_happened(events: Events, data: st.DataObject) -> None:
    size = len(events.rows)
    gone = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=np.bool_)
    left = events.without(gone)
    assert left.ids == [i for i, removed in zip(events.ids, gone, strict=True) if not removed]
    anew = Events(left.ids, events.rows[~gone], events.weights[~gone], events.scale[~gone], events.given[~gone])
    assert listed(summarize(left, SIGNED)) == listed(summarize(anew, SIGNED))


def test_events_on_items_without_a_factor_are_left_out() -> None:
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    found = to_events(["a", "b", "c", "d"], ["x", None, "lost", "y"], weights, {"y": 7, "x": 3}, {"d": 0.5, "b": 0.0})
    assert found.ids == ["a", "d"]
    assert [column.tolist() for column in found[1:4]] == [[3, 7], [0.1, 0.4], [1.0, 0.5]]
    assert np.isnan(found.given).all()
    nothing = to_events(["a"], [None], np.ones(1), {"y": 7})
    assert listed(summarize(nothing, PLAIN)) == ([], [], [], [], [])
