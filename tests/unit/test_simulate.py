"""Simulated data: the same seed gives the same bytes, and what is planted is in the logs."""

import hashlib
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from eval.domains import DOMAINS, DomainName
from eval.simulate import BATCH, DAYS, UNTIL, ZONES, Simulation, Written, simulate


def digests(written: Written) -> list[str]:
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in written[:4]]


def events_of(written: Written) -> pl.DataFrame:
    return pl.read_parquet(written.events).with_columns(pl.col("user_id", "item_id", "type", "text").cast(pl.String))


def themes_of(written: Written) -> pl.DataFrame:
    return pl.read_parquet(written.items).select("item_id", theme=pl.col("categories").list.first())


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    wanted = Simulation(300, seed=4, domain="music")
    first = digests(simulate(wanted, tmp_path / "a"))
    assert digests(simulate(wanted, tmp_path / "b")) == first
    other = digests(simulate(Simulation(300, seed=5, domain="music"), tmp_path / "c"))
    assert not set(first) & set(other)


def test_batches_differ_and_more_users_leave_the_first_ones_as_they_are(tmp_path: Path) -> None:
    few = simulate(Simulation(BATCH, seed=1, items=50, events_per_user=6), tmp_path / "few")
    many = simulate(Simulation(BATCH + 40, seed=1, items=50, events_per_user=6), tmp_path / "many")
    one, two = events_of(few), events_of(many)
    assert two[: len(one)].equals(one)
    assert two["user_id"].n_unique() == BATCH + 40
    rest, start = two[len(one) :], one[: len(two) - len(one)]
    assert not rest["ts"].equals(start["ts"])


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_what_a_simulation_holds(tmp_path: Path, domain: DomainName) -> None:
    wanted = Simulation(400, seed=2, domain=domain)
    written = simulate(wanted, tmp_path)
    events, items = events_of(written), pl.read_parquet(written.items)
    assert len(events) == written.total == pytest.approx(400 * 50, rel=0.15)
    assert len(items) == wanted.catalogue_size == 200
    assert items["title"].n_unique() > 100
    assert 0 < items["image_caption"].null_count() < len(items)
    assert (items["price"] > 0).all()
    assert len(set(events["type"]) & {"view", "click", "rating", "purchase", "search"}) == 5
    searches = events.filter(pl.col("type") == "search")
    assert (searches["item_id"].null_count(), searches["text"].null_count()) == (len(searches), 0)
    others = events.filter(pl.col("type") != "search")
    assert (others["item_id"].null_count(), others["text"].null_count()) == (0, len(others))
    stars = events.filter(pl.col("type") == "rating")["value"]
    assert set(stars) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert events["ts"].max() < UNTIL.replace(day=3)
    assert (UNTIL - events["ts"].min()).days in range(DAYS - 20, DAYS + 3)
    ordered = events.sort("user_id", "ts", maintain_order=True)
    assert ordered.equals(events)


def test_popular_items_are_met_far_more_often(tmp_path: Path) -> None:
    events = events_of(simulate(Simulation(500, seed=3), tmp_path))
    counts = np.sort(events["item_id"].drop_nulls().value_counts()["count"].to_numpy())[::-1]
    assert counts[: len(counts) // 10].sum() > 3 * 0.1 * counts.sum()


def test_most_of_a_log_is_about_its_users_tastes_and_dislikes_are_rated_low(tmp_path: Path) -> None:
    written = simulate(Simulation(500, seed=3), tmp_path)
    truth = pl.read_parquet(written.truth)
    log = (
        events_of(written)
        .join(themes_of(written), on="item_id")
        .join(truth.select("user_id", "main", "disliked", steady=pl.col("early") == pl.col("late")), on="user_id")
    )
    about = log.group_by("user_id", "main", "steady").agg(pl.col("theme").mode().sort().first())
    right = about.with_columns(right=pl.col("theme") == pl.col("main"))
    assert right.filter(pl.col("steady"))["right"].mean() > 0.75
    ratings = log.filter(pl.col("type") == "rating")
    low = ratings.filter(pl.col("theme") == pl.col("disliked"))["value"].mean()
    high = ratings.filter(pl.col("theme") == pl.col("main"))["value"].mean()
    assert (low < 2, high > 4) == (True, True)


def test_tastes_drift_as_the_truth_says(tmp_path: Path) -> None:
    written = simulate(Simulation(600, seed=6, events_per_user=100), tmp_path)
    truth = pl.read_parquet(written.truth)
    shares = {
        (row["user_id"], when): dict(row[when]) for row in truth.iter_rows(named=True) for when in ("early", "late")
    }
    drifting = [u for u in truth["user_id"] if shares[u, "early"] != shares[u, "late"]]
    assert 0.2 < len(drifting) / len(truth) < 0.5
    for user in truth["user_id"]:
        assert sum(shares[user, "early"].values()) == pytest.approx(1.0, abs=1e-3)
        assert sum(shares[user, "late"].values()) == pytest.approx(1.0, abs=1e-3)
    log = events_of(written).join(themes_of(written), on="item_id").filter(pl.col("user_id").is_in(drifting))
    falls = {
        u: max(shares[u, "early"], key=lambda k: shares[u, "early"][k] - shares[u, "late"].get(k, 0)) for u in drifting
    }
    own = log.filter(pl.col("theme") == pl.col("user_id").replace_strict(falls))
    middle = UNTIL.timestamp() - DAYS * 43_200
    early = (own["ts"].dt.epoch("s") < middle).sum()
    assert early > 1.5 * (len(own) - early)


def test_sessions_begin_at_the_hours_of_habit(tmp_path: Path) -> None:
    written = simulate(Simulation(300, seed=7), tmp_path)
    users = pl.read_parquet(written.users)
    zone = dict(zip(users["user_id"], users["tz"], strict=True))
    peak = dict(pl.read_parquet(written.truth).select("user_id", "peak_hour").iter_rows())
    local = [
        (ts.astimezone(ZoneInfo(zone[user])), peak[user])
        for user, ts in events_of(written).select("user_id", "ts").iter_rows()
    ]
    away = np.array([abs((at.hour + at.minute / 60 - hour + 12) % 24 - 12) for at, hour in local])
    assert (away < 4).mean() > 0.85
    assert set(zone.values()) == set(ZONES)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Simulation(0), "users: 0 is too few"),
        (Simulation(5, items=3), "items: 3 is too few"),
        (Simulation(5, events_per_user=1), "events per user"),
        (Simulation(5, seed=-1), "seed: -1"),
        (Simulation(5, domain="films"), "there is no domain films: choose shop, courses, music"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_simulated(tmp_path: Path, wanted: Simulation, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        simulate(wanted, tmp_path / "none")
    assert not (tmp_path / "none").exists()
