"""Interactions and splits: tables by hand, and for any log that nothing after the cut is learned from."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval import splits
from eval.interactions import Interactions
from eval.splits import (
    HOUR,
    Split,
    SplitError,
    by_user,
    check_past,
    cold_items,
    cold_users,
    global_time,
    held_out_of_items,
    later_visits,
    leave_last_out,
    per_item,
    per_user_time,
    rescaled,
    same_sitting,
)


def log(*rows: tuple[int, int, float], n_users: int = 4, n_items: int = 50) -> Interactions:
    """Rows are (user, item, time); weight and value tell the rows apart."""
    user, item, time = zip(*rows, strict=True) if rows else ((), (), ())
    number = np.arange(len(rows), dtype=float)
    return Interactions(
        np.array(user, dtype=np.int64), np.array(item, dtype=np.int64), np.array(time, dtype=float),
        number / 1000, number, n_users, n_items,
    )  # fmt: skip


rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 49), st.integers(0, 12).map(float)), max_size=60)
logs = rows.map(lambda found: log(*found))
seeds = st.integers(0, 9)
shares = st.sampled_from([0.1, 0.2, 0.5])


def ids(interactions: Interactions) -> list[float]:
    return sorted(interactions.value)


def test_interactions_are_sorted_and_ties_stay() -> None:
    found = log((1, 5, 2.0), (0, 7, 9.0), (1, 6, 2.0), (1, 8, 1.0), (0, 9, 3.0))
    assert found.item.tolist() == [9, 7, 8, 5, 6]
    assert found.value.tolist() == [4, 1, 3, 0, 2]
    assert found.starts().tolist() == [0, 2, 5, 5, 5]
    assert found.last_item().tolist() == [7, 6, -1, -1]
    assert found.last_time().tolist() == [9.0, 2.0, -np.inf, -np.inf]


def test_take_keeps_the_codes() -> None:
    found = log((0, 7, 1.0), (2, 8, 1.0)).take(np.array([False, True]))
    assert (found.user.tolist(), found.n_users, found.n_items) == ([2], 4, 50)


def test_matrix_adds_up_or_counts_once() -> None:
    found = log((0, 1, 1.0), (0, 1, 2.0), (1, 0, 1.0), n_users=2, n_items=2)
    assert found.matrix().toarray().tolist() == [[0, 1], [1, 0]]
    assert found.matrix(np.array([2.0, 3.0, 4.0])).toarray().tolist() == [[0, 5], [4, 0]]


@pytest.mark.parametrize(("user", "item"), [(4, 0), (-1, 0), (0, 50), (0, -1)])
def test_codes_out_of_range_are_refused(user: int, item: int) -> None:
    with pytest.raises(ValueError, match="codes must lie"):
        log((user, item, 0.0))


def test_arrays_of_other_lengths_are_refused() -> None:
    one, two = np.zeros(1), np.zeros(2)
    with pytest.raises(ValueError, match="differ in length"):
        Interactions(np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64), two, one, two, 1, 1)


def test_shuffled_ties_reach_every_order_and_move_nothing_else() -> None:
    found = log((0, 1, 5.0), (0, 2, 5.0), (0, 3, 5.0), (0, 4, 1.0), (1, 5, 5.0))
    orders = set()
    for seed in range(200):
        shuffled = found.shuffled_ties(np.random.default_rng(seed))
        assert (shuffled.item[0], shuffled.item[-1]) == (4, 5)
        orders.add(tuple(shuffled.item[1:4]))
    assert len(orders) == 6


def test_the_last_fifth_of_each_user_is_held_out() -> None:
    # 10 events of user 0 (2 held out), 5 of user 1 (1), 4 of user 2 (none).
    events = [(user, n, float(n)) for user, count in ((0, 10), (1, 5), (2, 4)) for n in range(count)]
    split = per_user_time(log(*events[::-1]))
    assert list(zip(split.test.user, split.test.item, strict=True)) == [(0, 8), (0, 9), (1, 4)]
    assert len(split.train) == 16


def test_a_share_of_a_round_count_is_not_rounded_down() -> None:
    split = per_user_time(log(*((0, n % 50, float(n)) for n in range(100))), share=0.29)  # 0.29 * 100 < 29
    assert len(split.test) == 29


def test_ties_are_held_out_at_random() -> None:
    events = log(*((0, n, 0.0) for n in range(5)))
    held_out = {int(per_user_time(events, seed=seed).test.item[0]) for seed in range(100)}
    assert held_out == {0, 1, 2, 3, 4}


def test_the_cut_for_all_keeps_ties_together() -> None:
    # The last fifth begins at the third of the events of time 6, so all of them are held out.
    times = [1, 2, 3, 4, 5, 6, 6, 6, 7, 8]
    split = global_time(log(*((n % 3, n, float(t)) for n, t in enumerate(times))), share=0.3)
    assert sorted(split.test.time) == [6, 6, 6, 7, 8]
    assert sorted(split.train.time) == [1, 2, 3, 4, 5]


def test_a_sitting_ends_an_hour_after_the_last_training_event() -> None:
    train = log((0, 1, 0.0), (0, 2, 100.0), (1, 3, 50.0))
    test = log((0, 4, 100.0), (0, 5, 100.0 + HOUR), (0, 6, 101.0 + HOUR), (1, 7, 60.0 + HOUR), (2, 8, 0.0))
    split = Split(train, test)
    assert same_sitting(split).test.item.tolist() == [4, 5]
    assert later_visits(split).test.item.tolist() == [6, 7, 8]
    assert same_sitting(split).train is train


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2])
def test_a_share_of_all_or_nothing_is_refused(share: float) -> None:
    for splitter in (per_user_time, global_time):
        with pytest.raises(ValueError, match="share"):
            splitter(log((0, 0, 0.0)), share)


@given(logs, shares, seeds)
def test_no_user_is_asked_about_their_past(events: Interactions, share: float, seed: int) -> None:
    train, test = per_user_time(events, share, seed)
    assert sorted([*train.value, *test.value]) == ids(events)
    last = train.last_time()
    assert (test.time >= last[test.user]).all()
    for user in range(4):
        count = int((events.user == user).sum())
        expected = 0 if count < 5 else int(share * count + 1e-9)
        assert (test.user == user).sum() == expected


@given(logs, shares, seeds)
def test_all_training_is_before_all_of_the_test(events: Interactions, share: float, seed: int) -> None:
    train, test = global_time(events, share, seed)
    assert sorted([*train.value, *test.value]) == ids(events)
    assert len(test) >= int(share * len(events) + 1e-9)
    if len(train) and len(test):
        assert train.time.max() < test.time.min()


@given(logs, shares, seeds, st.floats(0, 13))
def test_sittings_and_visits_part_the_test(events: Interactions, share: float, seed: int, within: float) -> None:
    split = per_user_time(events, share, seed)
    same, later = same_sitting(split, within).test, later_visits(split, within).test
    assert sorted([*same.value, *later.value]) == ids(split.test)
    last = split.train.last_time()
    assert (same.time - last[same.user] <= within).all()
    assert (later.time - last[later.user] > within).all()


@given(logs, seeds)
def test_a_seed_gives_the_same_split(events: Interactions, seed: int) -> None:
    for splitter in (per_user_time, global_time):
        first, second = splitter(events, seed=seed), splitter(events, seed=seed)
        assert first.train.value.tolist() == second.train.value.tolist()
        assert first.test.value.tolist() == second.test.value.tolist()


@given(st.integers(2, 40), st.integers(2, 6), seeds)
def test_everyone_is_new_once(count: int, folds: int, seed: int) -> None:
    for deal in (cold_users, cold_items):
        if folds > count:
            with pytest.raises(ValueError, match="folds"):
                deal(count, folds, seed)
            continue
        sizes = np.bincount(deal(count, folds, seed), minlength=folds)
        assert sizes.sum() == count
        assert len(sizes) == folds
        assert np.ptp(sizes) <= 1


def test_folds_are_not_blocks_of_codes() -> None:
    assert cold_users(100, 5, seed=0).tolist() != cold_users(100, 5, seed=1).tolist()
    assert len(set(cold_users(100, 5, seed=0)[:20])) > 1


def test_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(splits)
    assert result.attempted >= 1
    assert result.failed == 0


@given(logs, seeds)
def test_the_last_event_is_left_out(events: Interactions, seed: int) -> None:
    split = leave_last_out(events, seed)
    check_past(split)
    assert sorted([*split.train.value, *split.test.value]) == ids(events)
    counts = np.bincount(events.user, minlength=4)
    assert (np.bincount(split.test.user, minlength=4) == (counts >= 5)).all()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.integers(0, 99))
def test_a_share_of_each_item_is_held_out_as_others_do(items: list[int], seed: int) -> None:
    # `python_stratified_split` of the library `recommenders`: in training while rank / count <= .75.
    item = np.array(items)
    draws = np.random.default_rng(seed).random(len(item))
    gone = held_out_of_items(item, draws)
    for code in set(items):
        rows = np.flatnonzero(item == code)
        rows = rows[np.argsort(draws[rows])]
        assert gone[rows].tolist() == (np.arange(1, len(rows) + 1) / len(rows) > 0.75).tolist()


@given(logs, seeds)
def test_events_of_items_are_parted(events: Interactions, seed: int) -> None:
    split = per_item(events, seed=seed)
    assert sorted([*split.train.value, *split.test.value]) == ids(events)
    assert per_item(events, seed=seed).test.value.tolist() == split.test.value.tolist()


@given(logs, seeds)
def test_training_of_a_fold_knows_nothing_of_its_users(events: Interactions, seed: int) -> None:
    folds = by_user(events, 3, seed=seed)
    assert sorted(v for fold in folds for v in [*fold.known.value, *fold.test.value]) == ids(events)
    for fold in folds:
        new = {*fold.known.user.tolist(), *fold.test.user.tolist()}
        assert not new & set(fold.train.user.tolist())
        assert sorted([*fold.train.value, *fold.known.value, *fold.test.value]) == ids(events)
        check_past(Split(fold.known, fold.test))


@given(logs, shares, seeds)
def test_splits_by_time_pass_the_check(events: Interactions, share: float, seed: int) -> None:
    check_past(per_user_time(events, share, seed))
    check_past(global_time(events, share, seed), one_cut=True)


@given(st.integers(0, 3), seeds)
def test_a_future_event_that_is_planted_in_training_is_seen(user: int, seed: int) -> None:
    events = log(*((u, n, 10.0 * n + u) for u in range(4) for n in range(10)))
    for cut, one_cut in ((per_user_time, False), (global_time, True), (leave_last_out, False)):
        split = cut(events, seed=seed)
        leaked = split.test.take(split.test.user == user)
        late = leaked.time + 1.0
        planted = Interactions(
            np.append(split.train.user, leaked.user), np.append(split.train.item, leaked.item),
            np.append(split.train.time, late), np.append(split.train.weight, leaked.weight),
            np.append(split.train.value, leaked.value), 4, 50,
        )  # fmt: skip
        with pytest.raises(SplitError, match=f"of user {user} about item"):
            check_past(Split(planted, split.test), one_cut=one_cut)


def test_one_cut_is_more_than_each_users_own() -> None:
    split = Split(log((0, 1, 5.0), (1, 2, 1.0)), log((0, 3, 6.0), (1, 4, 2.0)))
    check_past(split)
    with pytest.raises(SplitError, match="user 0 about item 1"):
        check_past(split, one_cut=True)


def test_the_strongest_event_of_training_weighs_1_whatever_comes_later() -> None:
    events = Interactions(
        np.array([0, 0, 0, 0, 0, 1]), np.arange(6), np.arange(6.0), np.array([0.5, -0.25, 0.1, 0.0, 1.0, 0.0]),
        np.zeros(6), 2, 6,
    )  # fmt: skip
    assert per_user_time(events).train.weight.tolist() == [1.0, -0.5, 0.2, 0.0, 0.0]
    assert rescaled(events).weight.tolist() == events.weight.tolist()
