"""The suite of simulated users, on a few of them and with a fake embedder."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agent.embedder import Vectors
from agent.evidence import EvidenceSettings
from eval.findings import Findings
from eval.options import Options
from eval.simulation.factors import with_factors
from eval.simulation.memory import invent, populate
from eval.simulation.plan import Simulation
from eval.simulation.settings import NoiseSettings, read_settings
from eval.suites.simulated import FACTORS, HISTOGRAM, TEMPLATE, measure

SMALL = NoiseSettings.model_validate(
    {
        "levels": [0.0, 0.2], "domains": ["shop"], "languages": ["en", "zh"], "users": 20, "items": 100,
        "events_per_user": 60, "bots": 0.2,
        "drift": {
            "users": 30, "events_per_user": 150, "noise": 0.1, "profile_day": 60, "calibration_seed": 9,
        },
    }
)  # fmt: skip


class WordEmbedder:
    """Unit vectors: the sum of one direction for each word of a text, or for each Chinese character."""

    name = "words"
    dimension = 128

    def embed(self, texts: Sequence[str]) -> Vectors:
        rows = [sum((self._direction(w) for w in re.findall(r"[a-z]+|[\u4e00-\u9fff]", t.lower())), np.zeros(128))
                for t in texts]  # fmt: skip
        return np.stack([row / max(np.linalg.norm(row), 1e-9) for row in rows]).astype(np.float32)

    def _direction(self, word: str) -> Vectors:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
        return np.asarray(np.random.default_rng(seed).normal(size=self.dimension))


@pytest.fixture(scope="module")
def findings() -> Findings:
    return measure(SMALL, WordEmbedder(), EvidenceSettings(), Options(seeds=1), lambda _: None)


def value(findings: Findings, protocol: str, metric: str, subject: str, segment: str = "all") -> float:
    (found,) = [f.value for f in findings.figures if f.key[1:] == (protocol, metric, subject, segment)]
    return found


def test_interests_are_found_and_noise_costs(findings: Findings) -> None:
    clean = value(findings, "0% noise", "f1", TEMPLATE)
    assert clean > 0.6
    assert value(findings, "20% noise", "f1", TEMPLATE) < clean
    assert value(findings, "0% noise", "f1", HISTOGRAM) < clean
    named = value(findings, "0% noise", "recall", TEMPLATE, "named interests")
    assert named > value(findings, "0% noise", "recall", HISTOGRAM) > 0.2


def test_every_figure_is_described_and_comparable(findings: Findings) -> None:
    assert len({f.key for f in findings.figures}) == len(findings.figures)
    assert {f.metric for f in findings.figures} <= findings.metrics.keys()
    assert {f.protocol for f in findings.figures} <= findings.protocols.keys()
    assert {(t.first, t.second) for t in findings.tests} == {(TEMPLATE, HISTOGRAM), (FACTORS, HISTOGRAM)}
    assert {c.title.rsplit(" ", 1)[1] for c in findings.curves} == {"all", "English", "Chinese"}
    assert all(c.x == SMALL.levels for c in findings.curves)


def test_bots_and_people_are_apart(findings: Findings) -> None:
    bots = [f for f in findings.figures if f.segment == "bots"]
    assert {f.metric for f in bots} == {"claims"}
    people = [f.n for f in findings.figures if f.key[1:] == ("20% noise", "claims", TEMPLATE, "all")]
    assert people[0] + bots[0].n == 40


def test_drift_is_noticed_more_often_than_in_those_who_do_not_drift(findings: Findings) -> None:
    protocol = "drift of all interests"
    assert value(findings, protocol, "noticed", "groups known") > 0.7
    assert value(findings, protocol, "false alarms", "groups known") < 5
    assert any("set on seed 9" in note for note in findings.notes)


def test_the_same_users_at_each_level_of_noise() -> None:
    invented = invent(Simulation(30, items=100, bots=0.1), WordEmbedder())
    quiet, loud = populate(invented, noise=0.0), populate(invented, noise=0.5)
    assert all(np.array_equal(a, b) for a, b in zip(quiet.tastes, loud.tastes, strict=True))
    assert [len(log.items) for log in quiet.logs] == [len(log.items) for log in loud.logs]
    log = loud.logs[0]
    assert set(log.items) <= invented.items.items.keys()
    assert log.times.tolist() == sorted(log.times)


def test_factors_bring_the_items_of_a_group_together() -> None:
    invented = invent(Simulation(5, items=100, seed=3), WordEmbedder())
    both = with_factors(invented, WordEmbedder(), 200, 0.1)
    same = invented.theme[:100, None] == invented.theme[None, :100]

    def apart(vectors: Vectors) -> float:
        close = vectors[:100] @ vectors[:100].T
        return float(close[same].mean() - close[~same].mean())

    assert both.items.vectors.shape[1] == invented.items.vectors.shape[1] + 16
    assert apart(both.items.vectors) > apart(invented.items.vectors)
    assert np.linalg.norm(both.items.vectors, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_the_committed_settings() -> None:
    settings = read_settings()
    assert settings.levels == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert settings.domains == ("shop", "video", "news", "music")
    assert settings.drift.calibration_seed not in range(100)  # not among those that are measured
    committed = json.loads((Path(__file__).parents[2] / "eval" / "noise.json").read_text())
    assert settings.model_dump(mode="json") == committed
