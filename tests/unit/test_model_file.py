"""The file of a model: what goes in comes out, nothing in it can run, and damage is told in a sentence."""

import dataclasses
import hashlib
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from recommend.errors import NoModelError
from recommend.model import Card, Model, Projection, load
from recommend.parameters import Parameters

NOW = datetime(2025, 9, 1, 12, 0, 0, 123456, tzinfo=UTC)
ITEMS, FACTORS, DIMENSION, PROJECTED = 5, 3, 6, 2


def model(**changed: object) -> Model:
    rng = np.random.default_rng(1)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    made = Model(
        card=Card(
            parameters=Parameters(factors=FACTORS, reg=0.1 + 0.2, user_features=None), embedder="fake",
            watermark=NOW, events=10, users=4, trained_at=NOW, seconds=0.5, metrics={"ndcg": 1 / 3},
        ),
        item_ids=("a", 'quoted "b"', "c\n", "《雷雨》", ""),
        factors=normal(ITEMS, FACTORS),
        popularity=np.array([3, 0, 1, 2, 1], dtype=np.float32),
        crowd=rng.normal(size=FACTORS),
        precision=rng.normal(size=(FACTORS, FACTORS)),
        user_weights=normal(PROJECTED, FACTORS),
        item_weights=normal(PROJECTED, FACTORS),
        projection=Projection(normal(DIMENSION), normal(DIMENSION, PROJECTED)),
    )  # fmt: skip
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def arrays(of: Model) -> dict[str, np.ndarray]:
    return {
        "factors": of.factors, "popularity": of.popularity, "crowd": of.crowd, "precision": of.precision,
        "user_weights": of.user_weights, "item_weights": of.item_weights,
        "mean": of.projection.mean, "components": of.projection.components,
    }  # fmt: skip


@pytest.mark.parametrize("weights", [PROJECTED, 0], ids=["with features", "without"])
def test_what_is_saved_is_loaded(tmp_path: Path, weights: int) -> None:
    was = model(user_weights=np.zeros((weights, FACTORS), dtype=np.float32))
    path = tmp_path / "deep" / "model.safetensors"
    digest = was.save(path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]
    found = load(path, digest)
    assert (found.card, found.item_ids, found.row_of) == (was.card, was.item_ids, was.row_of)
    for name, expected in arrays(was).items():
        array = arrays(found)[name]
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape), name
        assert np.array_equal(array, expected), name


def test_an_array_in_another_order_in_memory_comes_back_as_it_was(tmp_path: Path) -> None:
    was = model(factors=np.asfortranarray(model().factors))
    was.save(tmp_path / "m")
    assert np.array_equal(load(tmp_path / "m").factors, was.factors)


def test_the_file_is_a_header_and_numbers_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model().save(path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    told = header.pop("__metadata__")
    assert set(told) == {"card", "items"}
    assert Card.model_validate_json(told["card"]) == model().card
    assert {entry["dtype"] for entry in header.values()} == {"F32", "F64"}
    taken = sorted(entry["data_offsets"] for entry in header.values())
    starts, ends = [start for start, _ in taken], [end for _, end in taken]
    assert [*starts, len(content) - 8 - size] == [0, *ends]
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(content)  # noqa: S301 - our own, and no pickle


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_in_its_place_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(NoModelError, match="cannot be read"):
        load(path)
    assert not (tmp_path / "sprung").exists()


def flip_last(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a bit": flip_last,
    "cut off": lambda content: content[:-20],
    "half a header": lambda content: content[:40],
    "empty": lambda _: b"",
    "text": lambda _: b"version https://git-lfs.github.com/spec/v1\n",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_file_is_not_the_one_that_was_trained(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "m.safetensors"
    digest = model().save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(NoModelError, match=r"is not the file that was trained\. Train again with `limner train`"):
        load(path, digest)
    if damage is not flip_last:
        with pytest.raises(NoModelError, match=r"cannot be read: .*limner train"):
            load(path)


def test_the_wrong_sha256(tmp_path: Path) -> None:
    model().save(tmp_path / "m")
    with pytest.raises(NoModelError, match="is not the file that was trained"):
        load(tmp_path / "m", "0" * 64)


def test_no_file(tmp_path: Path) -> None:
    for sha256 in (None, "0" * 64):
        with pytest.raises(NoModelError, match=r"There is no model .*gone\. Train one with `limner train`"):
            load(tmp_path / "gone", sha256)


@pytest.mark.parametrize("left_out", ["card", "items", "crowd"])
def test_a_file_of_something_else(tmp_path: Path, left_out: str) -> None:
    path = tmp_path / "m"
    model().save(path)
    with safe_open(path, framework="numpy") as file:
        metadata = {name: text for name, text in file.metadata().items() if name != left_out}
        kept = {name: file.get_tensor(name) for name in file.keys() if name != left_out}  # noqa: SIM118 - not a mapping
    save_file(kept, path, metadata)
    with pytest.raises(NoModelError, match=f"cannot be read: '{left_out}'"):
        load(path)
    save_file(kept, path)
    with pytest.raises(NoModelError, match="cannot be read"):
        load(path)


def test_a_card_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "m"
    model().save(path)
    path.write_bytes(path.read_bytes().replace(rb"sparse_alpha", rb"sparse_omega"))
    with pytest.raises(NoModelError, match=r"(?s)cannot be read: .*sparse_omega.*limner train"):
        load(path)


def test_texts_of_another_length_are_refused() -> None:
    wrong = np.zeros((2, DIMENSION + 1), dtype=np.float32)
    for call in (model().text_factors, lambda v: model().claim_factors(v, np.ones(2)), model().projection):
        with pytest.raises(NoModelError, match=r"embeddings of length 6, these have 7\. Train one"):
            call(wrong)


def test_texts_are_mapped_by_the_formula() -> None:
    m = model()
    vectors = np.random.default_rng(2).normal(size=(2, DIMENSION)).astype(np.float32)
    projected = (vectors - m.projection.mean) @ m.projection.components
    assert m.text_factors(vectors) == pytest.approx(projected @ m.item_weights, abs=1e-5)
    expected = np.array([[0.5], [-2.0]]) * (projected @ m.user_weights)
    assert m.claim_factors(vectors, np.array([0.5, -2.0])) == pytest.approx(expected, abs=1e-5)
    plain = model(user_weights=np.zeros((0, FACTORS)), item_weights=np.zeros((0, FACTORS)))
    assert not plain.text_factors(vectors).any()
    assert not plain.claim_factors(vectors, np.ones(2)).any()


def test_new_items_follow_those_that_were_learned() -> None:
    m = model()
    vectors = np.random.default_rng(2).normal(size=(2, DIMENSION)).astype(np.float32)
    more = m.extended(["new", "newer"], vectors)
    assert more.item_ids == (*m.item_ids, "new", "newer")
    assert (more.row_of["a"], more.row_of["newer"]) == (0, ITEMS + 1)
    assert np.array_equal(more.factors[:ITEMS], m.factors)
    assert np.array_equal(more.factors[ITEMS:], m.text_factors(vectors))
    assert more.popularity.tolist() == [3, 0, 1, 2, 1, 0, 0]
    # The all-items term stays that of the items that were learned: here all but one that nobody liked.
    assert more.fold_in.items == m.fold_in.items == ITEMS - 1
    assert np.array_equal(more.fold_in.gram, m.fold_in.gram)


@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 99))
def test_the_projection_keeps_what_differs(size: int, items: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(items, DIMENSION)).astype(np.float32)
    found = Projection.learn(vectors, size)
    kept = min(size, DIMENSION, items - 1)
    assert found.components.shape == (DIMENSION, kept)
    mapped = found(vectors)
    assert np.abs(mapped.mean(axis=0)).max(initial=0) < 1e-5
    if kept:
        assert np.linalg.norm(mapped, axis=1).mean() == pytest.approx(1.0, abs=1e-4)


def test_the_projection_of_equal_items_is_empty() -> None:
    found = Projection.learn(np.ones((3, DIMENSION), dtype=np.float32), 4)
    assert found(np.zeros((2, DIMENSION), dtype=np.float32)).shape == (2, 0)
