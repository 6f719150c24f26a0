"""Simulated data: the same seed gives the same bytes, and what is planted is in the logs."""

import hashlib
import re
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from agent.contract import Language
from eval.simulation.domains import DOMAINS, DomainName
from eval.simulation.files import Written, simulate
from eval.simulation.logs import ZONES
from eval.simulation.plan import BATCH, DAYS, UNTIL, Simulation
from eval.simulation.tastes import draw_tastes


def digests(written: Written) -> list[str]:
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in written[:5]]


def events_of(written: Written) -> pl.DataFrame:
    return pl.read_parquet(written.events).with_columns(pl.col("user_id", "item_id", "type", "text").cast(pl.String))


def themes_of(written: Written) -> pl.DataFrame:
    return pl.read_parquet(written.interests).select("item_id", theme="interest")


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


@pytest.mark.parametrize(("language", "domain"), [(x, domain) for x in sorted(DOMAINS) for domain in DOMAINS[x]])
def test_what_a_simulation_holds(tmp_path: Path, domain: DomainName, language: Language) -> None:
    wanted = Simulation(400, seed=2, domain=domain, language=language)
    written = simulate(wanted, tmp_path)
    events, items = events_of(written), pl.read_parquet(written.items)
    assert len(events) == written.total == pytest.approx(400 * 50, rel=0.15)
    assert len(items) == wanted.catalogue_size == 200
    assert items["title"].n_unique() > 100
    assert 0 < items["image_caption"].null_count() < len(items)
    assert (items["price"] > 0).all()
    assert {"view", "click", "search"} < set(events["type"])
    searches = events.filter(pl.col("type") == "search")
    assert (searches["item_id"].null_count(), searches["text"].null_count()) == (len(searches), 0)
    others = events.filter(pl.col("type") != "search")
    assert (others["item_id"].null_count(), others["text"].null_count()) == (0, len(others))
    stars = events.filter(pl.col("type") == "rating")["value"]
    assert set(stars) == ({1.0, 2.0, 3.0, 4.0, 5.0} if domain != "news" else set())
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
    truth = pl.read_parquet(written.truth).filter(~pl.col("bot"))
    log = (
        events_of(written)
        .join(themes_of(written), on="item_id")
        .join(truth.select("user_id", "main", "disliked"), on="user_id")
    )
    usual = log.group_by("user_id", "main").agg(pl.col("theme").mode().sort().first())
    assert (usual["theme"] == usual["main"]).mean() > 0.4
    liked = dict(
        zip(truth["user_id"], [dict(a) | dict(b) for a, b in truth.select("early", "late").iter_rows()], strict=True)
    )
    assert np.mean([theme in liked[user] for user, _, theme in usual.iter_rows()]) > 0.95
    ratings = log.filter(pl.col("type") == "rating")
    low = ratings.filter(pl.col("theme") == pl.col("disliked"))["value"].mean()
    high = ratings.filter(pl.col("theme") == pl.col("main"))["value"].mean()
    assert (low < 2, high > 4) == (True, True)


def test_tastes_drift_as_the_truth_says(tmp_path: Path) -> None:
    written = simulate(Simulation(600, seed=6, events_per_user=100, bots=0.0), tmp_path)
    truth = pl.read_parquet(written.truth)
    drifting = truth.filter(pl.col("drifted_at").is_not_null())
    assert 0.2 < len(drifting) / len(truth) < 0.5
    assert drifting["drifted_at"].is_between(UNTIL - timedelta(days=120), UNTIL - timedelta(days=60)).all()
    for row in truth.iter_rows(named=True):
        early, late = dict(row["early"]), dict(row["late"])
        assert sum(early.values()) == pytest.approx(1.0, abs=1e-3)
        assert sum(late.values()) == pytest.approx(1.0, abs=1e-3)
        assert 2 <= len(early) <= 4
        assert max(early.values()) < 3.01 * min(early.values())
        assert (early == late) == (row["drifted_at"] is None)
        if row["drifted_at"] is not None:
            main = max(early, key=lambda k: early[k])
            (new,) = late.keys() - early.keys()
            assert late[new] == pytest.approx(0.85 * early[main], abs=1e-3)
    log = events_of(written).join(themes_of(written), on="item_id").join(drifting, on="user_id")
    own = log.filter(pl.col("theme") == pl.col("user_id").replace_strict(
        {row["user_id"]: (dict(row["late"]).keys() - dict(row["early"]).keys()).pop()
         for row in drifting.iter_rows(named=True)}
    ))  # fmt: skip
    after = (own["ts"] >= own["drifted_at"]).mean()
    assert after > 0.8  # what is not is noise


def test_users_who_give_up_all_their_interests() -> None:
    tastes = draw_tastes(np.random.default_rng(0), 500, 10, 0.0, "all")
    drifts = tastes.drift_day < DAYS
    kept = np.minimum(tastes.early, tastes.late).sum(axis=1)
    assert kept[drifts] == pytest.approx(0.15)
    assert kept[~drifts] == pytest.approx(1.0)
    assert (tastes.disliked[drifts, None] != np.argsort(-tastes.late[drifts], axis=1)[:, :4]).all()


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_noise_is_what_is_about_no_interest(tmp_path: Path, noise: float) -> None:
    written = simulate(Simulation(500, seed=8, noise=noise, bots=0.0), tmp_path)
    liked = [
        {"user_id": row["user_id"], "theme": theme, "own": True}
        for row in pl.read_parquet(written.truth).iter_rows(named=True)
        for theme in dict(row["early"]).keys() | dict(row["late"]).keys() | {row["disliked"]} - {None}
    ]
    log = events_of(written).join(themes_of(written), on="item_id")
    of_none = log.join(pl.DataFrame(liked), on=["user_id", "theme"], how="left")["own"].is_null().mean()
    assert of_none == pytest.approx(noise, abs=0.01)


def test_half_of_the_interests_are_no_categories(tmp_path: Path) -> None:
    written = simulate(Simulation(20, seed=9, items=500), tmp_path)
    items = pl.read_parquet(written.items).join(pl.read_parquet(written.interests), on="item_id")
    named = items.group_by("interest").agg(
        is_category=(pl.col("interest") == pl.col("categories").list.first()).mean(), named=pl.col("named").mean()
    )
    assert sorted(named["is_category"]) == [0.0] * 5 + [1.0] * 5
    assert named["is_category"].equals(named["named"].rename("is_category"))
    shelves = items.filter(~pl.col("named")).group_by(shelf=pl.col("categories").list.first())
    assert (shelves.agg(pl.col("interest").n_unique())["interest"] == 5).all()  # they tell nothing


def test_bots_look_at_everything_at_one_pace(tmp_path: Path) -> None:
    written = simulate(Simulation(300, seed=10, bots=0.2), tmp_path)
    truth = pl.read_parquet(written.truth)
    bots = truth.filter(pl.col("bot"))
    assert len(bots) / 300 == pytest.approx(0.2, abs=0.08)
    assert bots["main"].null_count() == len(bots)
    assert all(not early for early in bots["early"])
    log = events_of(written).join(bots.select("user_id"), on="user_id")
    gaps = log.select(pl.col("ts").dt.epoch("s").diff().over("user_id"))["ts"].drop_nulls()
    assert set(gaps) == {20}
    met = log.join(themes_of(written), on="item_id")["theme"].value_counts()["count"]
    assert met.min() > 0.6 * met.max()


def test_chinese_catalogues_are_chinese(tmp_path: Path) -> None:
    written = simulate(Simulation(30, seed=4, domain="news", language="zh"), tmp_path)
    items = pl.read_parquet(written.items)
    texts = [*items["title"], *items["description"], *items["categories"].explode()]
    assert all(re.search(r"[\u4e00-\u9fff]", text) and not re.search("[A-Za-z]", text) for text in texts)
    assert set(pl.read_parquet(written.users)["language"]) == {"zh"}
    english = simulate(Simulation(30, seed=4, domain="news"), tmp_path / "en")
    ids = pl.col("item_id").str.replace("news-zh-4", "news4")
    assert events_of(written).with_columns(ids)["item_id"].equals(events_of(english)["item_id"])


def test_sessions_begin_at_the_hours_of_habit(tmp_path: Path) -> None:
    written = simulate(Simulation(300, seed=7, bots=0.0), tmp_path)
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
        (Simulation(5, domain="plays"), "there is no domain plays in en: choose shop, courses, music, video"),  # type: ignore[arg-type]
        (Simulation(5, language="fr"), "there is no language fr: choose en, zh"),  # type: ignore[arg-type]
        (Simulation(5, noise=0.95), "noise: 0.95 is no share from 0 to 0.9"),
        (Simulation(5, bots=-0.1), "bots: -0.1"),
    ],
)
def test_what_cannot_be_simulated(tmp_path: Path, wanted: Simulation, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        simulate(wanted, tmp_path / "none")
    assert not (tmp_path / "none").exists()
