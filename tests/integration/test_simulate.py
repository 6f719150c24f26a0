"""Simulated data goes through ingest without a reject, and profiles find what was planted."""

import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sqlmodel import func, select

from agent import archive
from agent.embedder import Vectors
from agent.evidence import DEFAULT_TYPES, EvidenceSettings
from agent.loading import prepare_catalogue
from agent.profiling import Profiler
from api.cli import main
from eval.simulation.domains import DOMAIN_NAMES, DOMAINS, DomainName
from eval.simulation.files import Written, simulate
from eval.simulation.plan import Simulation
from store import profiles
from store.database import Database
from store.ingest import ingest
from store.privacy import Hasher
from store.tables import EventRow, ItemRow, UserRow
from tests.small_world import NOW, wrote


class WordEmbedder:
    """Unit vectors of 64 numbers: the sum of one direction for each word of a text."""

    name = "words"
    dimension = 64

    def embed(self, texts: Sequence[str]) -> Vectors:
        rows = [sum((self._direction(w) for w in re.findall(r"\w+", t.lower())), np.zeros(64)) for t in texts]
        return np.stack([row / max(np.linalg.norm(row), 1e-9) for row in rows]).astype(np.float32)

    def _direction(self, word: str) -> Vectors:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
        return np.asarray(np.random.default_rng(seed).normal(size=64))


def take_in(database: Database, written: Written, folder: Path) -> None:
    for kind in ("items", "users", "events"):
        report = ingest(
            database, kind, getattr(written, kind), source="simulated", known_types=set(DEFAULT_TYPES), now=NOW,
            hasher=Hasher(b"key of the tests"), rejects_path=folder / "rejects.csv",
        )  # fmt: skip
        assert (report.rows_rejected, report.stubs_made, report.left_out) == (0, 0, ())
        assert report.rows_stored == report.rows_read
        assert report.rows_read == pl.read_parquet(getattr(written, kind)).height


@pytest.mark.parametrize("domain", DOMAIN_NAMES)
def test_profiles_find_the_planted_main_theme(database: Database, tmp_path: Path, domain: DomainName) -> None:
    written = simulate(Simulation(80, seed=11, domain=domain), tmp_path)
    take_in(database, written, tmp_path)
    embedder = WordEmbedder()
    made = Profiler(
        database=database,
        embedder=embedder,
        catalogue=prepare_catalogue(database, embedder),
        evidence=EvidenceSettings(),
        language="en",
        clock=lambda: NOW,
    )
    truth = pl.read_parquet(written.truth)
    report = wrote(made, truth["user_id"].to_list())
    assert (len(report.failed), report.stopped_by) == (0, None)
    categories = pl.read_parquet(written.interests).filter(pl.col("named"))["interest"].unique().to_list()
    steady = truth.filter(pl.col("drifted_at").is_null() & pl.col("main").is_in(categories))
    stands_under = {theme.name: theme.categories or (theme.name,) for theme in DOMAINS["en"][domain].themes}
    right = 0
    for user_id, main_theme in steady.select("user_id", "main").iter_rows():
        with database.session() as session:
            profile = archive.from_rows(profiles.load(session, user_id))
        names = [claim.name.lower() for claim in profile.interests]
        right += any(category.lower() in name for category in stands_under[main_theme] for name in names)
    assert right > 0.6 * len(steady)


def test_limner_simulate(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIMNER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LIMNER_DATABASE_URL", database.url)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)

    def limner(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["limner", "simulate", *args])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        return int(caught.value.code or 0), said.out + said.err

    code, said = limner("--users", "12", "--seed", "3", "--items", "40", "--domain", "courses", "--ingest")
    assert code == 0
    assert "12 users, 40 items" in said
    assert said.count(" 0 rejected") == 3
    with database.session() as session:
        counts = [session.scalar(select(func.count()).select_from(row)) for row in (UserRow, ItemRow, EventRow)]
    assert counts[:2] == [12, 40]
    code, said = limner("--users", "12", "--seed", "3", "--items", "40", "--domain", "courses", "-o", "files")
    assert (code, "really likes is in truth.parquet" in said) == (0, True)
    assert pl.read_parquet(tmp_path / "files" / "events.parquet").height == counts[2]
    assert sorted(f.name for f in (tmp_path / "files").iterdir()) == [
        "events.parquet", "interests.parquet", "items.parquet", "truth.parquet", "users.parquet",
    ]  # fmt: skip
    code, said = limner("--users", "12", "--language", "zh", "--domain", "news", "--noise", "0.3", "-o", "zh")
    assert code == 0
    assert "news-zh-0-i000000" in pl.read_parquet(tmp_path / "zh" / "items.parquet")["item_id"]
    options = (
        "--users",
        "12",
        "--seed",
        "3",
        "--items",
        "40",
        "--domain",
        "courses",
        "--bare",
        "-o",
        "bare",
        "--ingest",
    )
    code, said = limner(*options)
    assert said.count(" 0 rejected") == 3  # an empty map is no attribute, and nothing bad
    bare, full = (pl.read_parquet(tmp_path / f / "items.parquet") for f in ("bare", "files"))
    assert (code, bare["item_id"][0], full["item_id"][0]) == (0, "courses-bare-3-i000000", "courses3-i000000")
    for column in ("title", "categories", "price"):
        assert bare[column].equals(full[column])
    assert bare["description"].null_count() == bare["image_caption"].null_count() == 40
    known = [{len(item) for item in found["attributes"].to_list()} for found in (full, bare)]
    assert known == [{2}, {0}]  # instructor and year
    code, said = limner("--users", "12")
    assert (code, "say where to: -o DIR, --ingest, or both" in said) == (2, True)
