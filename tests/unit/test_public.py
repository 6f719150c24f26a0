"""The public protocol: the split is that of the others row by row, and seen and unknown items are not recommended."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sps

from api.commands import evaluate_public
from eval import public
from eval.metrics import mean
from eval.public import GRID, PUBLISHED, Ratings, figures, measure, read, run, split


@pytest.fixture(scope="module")
def ratings() -> Ratings:
    """40 users of two tastes rate 24 items; item 24 is rated once."""
    rng = np.random.default_rng(0)
    likely = np.where(np.arange(40)[:, None] % 2 == np.arange(24) % 2, 0.8, 0.1)
    user, item = np.nonzero(rng.random((40, 24)) < likely)
    order = rng.permutation(len(user))
    return Ratings(np.append(user[order], 3), np.append(item[order], 24))


def test_the_split_is_that_of_the_library(ratings: Ratings) -> None:
    # `python_stratified_split`: sort by item and random number; the rank over the count is at most .75 in training.
    draws = np.random.RandomState(42).rand(len(ratings.item))
    train, test = split(ratings)
    for item in range(25):
        rows = np.flatnonzero(ratings.item == item)
        rows = rows[np.argsort(draws[rows])]
        kept = (np.arange(len(rows)) + 1) / len(rows) <= 0.75
        assert set(train[:, item].nonzero()[0]) == set(ratings.user[rows[kept]])
        assert set(test[:, item].nonzero()[0]) == set(ratings.user[rows[~kept]])
    assert train.nnz + test.nnz == len(ratings.item)


def test_an_unknown_item_is_not_recommended_but_was_missed() -> None:
    train = sps.csr_matrix(np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    test = sps.csr_matrix(np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]]))
    found = measure("popularity", {}, train, test)
    assert found["recall"].tolist() == [0.0, 0.5]  # item 2 is unknown, item 0 seen
    assert found["hit"].tolist() == [0.0, 1.0]


def test_taste_beats_popularity(ratings: Ratings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public, "GRID", {name: points[:2] for name, points in GRID.items()})
    told: list[str] = []
    found = run(ratings, told.append)
    assert list(found) == list(GRID)
    assert len(told) == 4
    ndcg = {name: mean(row.by_user["ndcg"]) for name, row in found.items()}
    assert min(ndcg["EASE"], ndcg["iALS"], ndcg["item-kNN"]) > ndcg["popularity"] + 0.1
    shown = figures(found)
    assert len(shown) == 4 * (len(GRID) + len(PUBLISHED))
    assert {f.subject: f.value for f in shown if f.metric == "ndcg@10"}["BiVAE, published"] == 0.475077
    assert all(f.low is not None for f in shown if "published" not in f.subject)


def test_rows_are_read_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,type,ts,value\nb,7,rating,5,3\na,9,rating,4,2\nb,9,rating,3,1\n")
    found = read(path)
    assert found.user.tolist() == [1, 0, 1]
    assert found.item.tolist() == [0, 1, 1]


def test_the_command_prints_the_table(
    ratings: Ratings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"u{u},i{i},rating,1,5\n" for u, i in zip(*ratings, strict=True))
    (tmp_path / "events.csv").write_text(f"user_id,item_id,type,ts,value\n{rows}")
    monkeypatch.setattr(public, "GRID", {name: points[:1] for name, points in GRID.items()})
    monkeypatch.setattr(evaluate_public, "fetch_ml_100k", lambda _home, _progress: tmp_path)
    evaluate_public.command(tmp_path / "out")
    report = json.loads((tmp_path / "out" / "public.json").read_text())
    assert {figure["subject"] for figure in report["figures"]} >= {"EASE", "iALS", "BiVAE, published"}
    shown = capsys.readouterr().out
    assert "EASE" in shown
    assert "0.475" in shown
