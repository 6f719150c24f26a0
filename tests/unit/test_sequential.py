"""SASRec learns an order that no bag of items shows."""

import numpy as np
import pytest

from eval.interactions import Interactions

sequential = pytest.importorskip("eval.sequential", reason="torch-rechub is not installed", exc_type=ImportError)


def walks(starts: list[int], lengths: list[int], items: int = 6) -> Interactions:
    """Each user goes round the items, one after the other."""
    user = np.repeat(np.arange(len(starts)), lengths)
    steps = np.concatenate([np.arange(n) for n in lengths])
    item = (np.repeat(starts, lengths) + steps) % items
    return Interactions(user, item, steps * 1.0, np.ones(len(user)), np.ones(len(user)), len(starts), items)


def test_sequences_hold_the_latest_items() -> None:
    tokens = sequential.sequences(walks([0, 3, 5], [5, 2, 0]), 3)
    assert tokens.tolist() == [[3, 4, 5], [4, 5, 0], [0, 0, 0]]


@pytest.fixture(scope="module")
def trained() -> "sequential.Sequential":
    settings = sequential.SequentialSettings(width=16, length=8, blocks=1, dropout=0.0, epochs=150, batch=16, rate=0.01)
    rng = np.random.default_rng(0)
    train = walks(rng.integers(0, 6, 31).tolist(), rng.integers(1, 9, 31).tolist())
    return sequential.train_sequential(train, settings)


def test_the_next_item_comes_first(trained: "sequential.Sequential") -> None:
    starts, lengths = [0, 1, 2, 3, 4, 5, 0], [3, 4, 5, 2, 6, 3, 0]
    scores = trained(walks(starts, lengths))
    expected = [(s + n) % 6 for s, n in zip(starts, lengths, strict=True)]
    assert scores[:6].argmax(axis=1).tolist() == expected[:6]
    assert (scores[6] == 0).all()


def test_one_user_is_scored_as_among_many(trained: "sequential.Sequential") -> None:
    many = trained(walks([0, 1, 2], [3, 4, 5]))
    one = trained(walks([1], [4]))
    assert one[0] == pytest.approx(many[1], abs=1e-4)
