"""Factors that themes are made with: learned from likes, frozen, part of the key, and taken back without a trace."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from agent.loading import load_users, prepare_catalogue
from api import runtime, training
from api.cli import app
from api.settings import Settings
from recommend.errors import NoModelError
from recommend.theme_factors import ThemeParameters
from store import profiles, theme_factors
from store.database import Database
from store.errors import ConflictError
from tests.small_world import EVERYONE, RATERS, FakeEmbedder, fill, profiler, wrote

SMALL = ThemeParameters(factors=4)


@pytest.fixture
def settings(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(runtime, "embedder", lambda _: FakeEmbedder())
    return Settings(home=tmp_path, database_url=database.url)


def learn(database: Database, settings: Settings, parameters: ThemeParameters = SMALL) -> str:
    training.learn_themes(database, settings, parameters)
    with database.session() as session:
        row = theme_factors.active(session)
    assert row is not None
    return row.sha256


def vectors(database: Database) -> tuple[dict[str, int], np.ndarray]:
    catalogue = prepare_catalogue(database, FakeEmbedder())
    items = load_users(database, EVERYONE, catalogue, FakeEmbedder()).items
    return dict(items.row), items.vectors


def key(database: Database, user_id: str) -> str:
    with database.session() as session:
        return profiles.load(session, user_id).row.key or ""


def test_items_that_the_same_users_like_come_closer(database: Database, settings: Settings) -> None:
    fill(database)
    row, plain = vectors(database)
    learn(database, settings)
    same, together = vectors(database)
    assert same == row
    assert (plain.shape[1], together.shape[1]) == (16, 20)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, rtol=1e-5)
    # Nobody searches and rates at once: what was searched for keeps the direction of its text.
    (stand_in,) = (n for name, n in row.items() if name.startswith("text:"))
    np.testing.assert_allclose(together[stand_in, :16], plain[stand_in], atol=1e-6)
    assert not together[stand_in, 16:].any()

    def between(made: np.ndarray, one: str, other: str) -> float:
        rows = [[row[f"{group}{n}"] for n in range(1, 8)] for group in (one, other)]
        return float((made[rows[0]] @ made[rows[1]].T).mean())

    gain = {pair: between(together, *pair) - between(plain, *pair) for pair in ("mk", "mh", "ht", "tm", "kt", "kh")}
    assert min(gain, key=lambda pair: gain[pair]) == "kh"  # the only two groups that nobody likes both of


def test_a_profile_is_due_when_the_factors_change_and_only_then(database: Database, settings: Settings) -> None:
    fill(database)
    wrote(profiler(database))
    before = {user: key(database, user) for user in RATERS}
    learn(database, settings)
    assert set(wrote(profiler(database)).written) == set(EVERYONE)
    assert wrote(profiler(database)).written == []
    after = {user: key(database, user) for user in RATERS}
    assert all(before[user] != after[user] for user in RATERS)
    first = learn(database, settings)
    assert wrote(profiler(database)).written == []  # the same likes give the same factors
    assert learn(database, settings, ThemeParameters(factors=3)) != first
    assert set(wrote(profiler(database)).written) == set(EVERYONE)
    with database.session() as session:
        assert theme_factors.forget(session)
        assert not theme_factors.forget(session)
    wrote(profiler(database))
    assert {user: key(database, user) for user in RATERS} == before


def test_a_run_that_began_with_other_factors_keeps_the_old_profiles(database: Database, settings: Settings) -> None:
    fill(database)
    learn(database, settings)
    wrote(profiler(database))
    before = {user: key(database, user) for user in RATERS}
    late = profiler(database, force=True)
    learn(database, settings, ThemeParameters(factors=3))
    with pytest.raises(ConflictError, match="Start the run again"):
        wrote(late)
    assert {user: key(database, user) for user in RATERS} == before


def test_without_a_like_there_is_nothing_to_learn(database: Database, settings: Settings) -> None:
    with pytest.raises(NoModelError, match="nothing to train on"):
        training.learn_themes(database, settings, SMALL)
    with database.session() as session:
        assert theme_factors.active(session) is None


def test_the_commands(database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_HOME", str(settings.home))
    monkeypatch.setenv("LIMNER_DATABASE_URL", database.url)
    fill(database)

    def said(*arguments: str) -> str:
        ran = CliRunner().invoke(app, ["themes", *arguments], catch_exceptions=False)
        assert ran.exit_code == 0
        return " ".join(ran.output.split())

    assert "Themes are made of texts alone." in said("show")
    assert "There were no factors: nothing has changed." in said("forget")
    learned = said("learn", "--factors", "4")
    assert "likes of 6 users" in learned
    assert "Profiles are due to be written anew" in learned
    assert "4 factors of" in said("show")
    assert "Profiles are due to be written anew" in said("forget")
    assert "Themes are made of texts alone." in said("show")
