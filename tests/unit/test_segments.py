"""Segments of users, by hand."""

import numpy as np
import pytest

from eval.interactions import Interactions
from eval.segments import SEGMENTS, mainstreamness, segments

# Users like: 0 item 0; 1 items 0 and 1; 2 items 0, 1 and 2; 3 dislikes item 0 four times; 4 has no events.
USER = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
ITEM = np.array([0, 0, 1, 0, 1, 2, 0, 0, 0, 0])
WEIGHT = np.where(USER == 3, -1.0, 1.0)
TRAIN = Interactions(USER, ITEM, np.arange(10.0), WEIGHT, WEIGHT, 5, 3)


def test_mainstreamness_by_hand() -> None:
    # Of 5 users 3, 2 and 1 like the items.
    found = mainstreamness(TRAIN)
    assert found[:3] == pytest.approx([0.6, 0.5, 0.4])
    assert np.isnan(found[3:]).all()


def test_users_are_parted_at_the_median() -> None:
    found = segments(TRAIN, np.array([0, 1, 2, 3]))
    assert tuple(found) == SEGMENTS
    assert found["few events"].tolist() == [True, True, False, False]  # 1, 2, 3 and 4 events
    assert found["many events"].tolist() == [False, False, True, True]
    assert found["mainstream"].tolist() == [True, False, False, False]
    assert found["niche"].tolist() == [False, True, True, False]  # user 3 likes nothing


def test_nobody_is_in_no_segment() -> None:
    assert all(not len(inside) for inside in segments(TRAIN, np.zeros(0, dtype=np.int64)).values())
