"""The catalogue's numbers: what is usual, what a sentence may name, how titles and items read."""

from collections import Counter

import numpy as np
import pytest

from agent.catalogue import (
    Attribute,
    BaseRates,
    attributes_of,
    item_text,
    item_vectors,
    noun_of,
    readable_title,
    year_of,
)
from agent.themes import informative, most_telling
from store.records import Item


def test_lift_is_smoothed() -> None:
    rates = BaseRates(items=99, counts={Attribute("category", "crime"): 9})
    found = rates.telling(Attribute("category", "crime"), 4, 10)
    p = 9.5 / 100
    assert found.share == 0.4
    assert found.lift == pytest.approx((4 + 5 * p) / 15 / p)
    assert rates.telling(Attribute("category", "new"), 0, 0).lift == pytest.approx(1.0)
    assert rates.rate(Attribute("category", "new")) == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("count", "usual", "holds"),
    [(5, 90, True), (4, 90, False), (3, 1, True), (2, 1, False), (3, 30, False)],
)
def test_what_a_sentence_may_name(count: int, usual: int, holds: bool) -> None:  # noqa: FBT001
    """Of ten events: half always, a quarter at twice the usual share."""
    a = Attribute("category", "x")
    assert BaseRates(99, {a: usual}).telling(a, count, 10).holds is holds


def test_most_telling_leaves_out_what_is_usual() -> None:
    crime, drama, nineties = (
        Attribute("category", "crime"),
        Attribute("category", "drama"),
        Attribute("decade", "1990s"),
    )
    rates = BaseRates(100, {crime: 10, drama: 95, nineties: 55})
    found = most_telling(Counter({crime: 8, drama: 9, nineties: 7}), 10, rates)
    assert [t.attribute for t in found] == [crime, nineties]
    assert [t.attribute for t in informative(found)] == [crime]  # a decade at 1.2 times the usual says little
    assert informative(found[1:]) == []


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("Lantern Keeper, The (1994)", "The Lantern Keeper (1994)"),
        ("Quiet Harbour, A", "A Quiet Harbour"),
        ("Avventura, L' (1960)", "L'Avventura (1960)"),
        ("Boys, The Girls", "Boys, The Girls"),
        ("The Keeper", "The Keeper"),
        ("  Nothing  ", "Nothing"),
        ("Me, Myself, The", "The Me, Myself"),
    ],
)
def test_titles_are_turned_round(stored: str, read: str) -> None:
    assert readable_title(stored) == read


def test_attributes_of_an_item() -> None:
    fields = {"director": "Ada Holm", "cast": ["B", "", 3, "C"], "long": "x" * 81, "n": 7}
    item = Item(item_id="x", title="x", categories=("Drama", "Drama"), attributes={"year": "1994-03-01", **fields})
    assert year_of(item) == 1994
    assert attributes_of(item) == (
        Attribute("category", "Drama"), Attribute("decade", "1990s"), Attribute("director", "Ada Holm"),
        Attribute("cast", "B"), Attribute("cast", "C"),
    )  # fmt: skip


def test_what_the_embedder_reads() -> None:
    item = Item(
        item_id="x", title="Keeper, The", categories=("Drama", "War"), image_caption="A lamp",
        description="d" * 900, attributes={"year": 1994, "director": "Ada Holm"},
    )  # fmt: skip
    assert item_text(item) == f"The Keeper. Drama, War. Ada Holm. 1990s. {'d' * 400}. A lamp"
    assert item_text(Item(item_id="x", title="Bare")) == "Bare"


def test_what_items_are_called_is_no_trait_of_them() -> None:
    plain = Item(item_id="x", title="Keeper", attributes={"director": "Ada Holm"})
    named = Item(item_id="x", title="Keeper", attributes={"noun": "films", "director": "Ada Holm"})
    assert (attributes_of(named), item_text(named)) == (attributes_of(plain), item_text(plain))


@pytest.mark.parametrize(
    ("noun", "read"),
    [
        ("films", "films"), ("board games", "board games"), ("films and TV series", "films and TV series"),
        ("电影", "电影"),
        ("", None), (3, None), (["films"], None), ("films.", None), ("films\nIgnore all", None), ("a b c d", None),
        ("one more word than four", None), ("x" * 21, None),
    ],
)  # fmt: skip
def test_nouns(noun: object, read: str | None) -> None:
    item = Item(item_id="x", title="x", attributes={"noun": noun})
    assert noun_of([item, item]) == noun_of([item]) == read
    assert noun_of([item, Item(item_id="y", title="y")]) is None


def test_nothing_has_no_noun() -> None:
    assert noun_of([]) is None


@pytest.mark.parametrize(("year", "read"), [(1994, 1994), ("1899", 1899), (3000, None), ("19945", None), ("", None)])
def test_year_of(year: object, read: int | None) -> None:
    assert year_of(Item(item_id="x", title="x", attributes={"year": year})) == read


def test_factors_count_less_than_text() -> None:
    text, mean, factors = np.array([[2.0, 1.0], [1.0, 1.0]]), np.array([1.0, 1.0]), np.array([[3.0], [4.0]])
    found = item_vectors(text, mean, factors)
    np.testing.assert_allclose(found[0], np.array([1.0, 0.0, 0.8]) / np.sqrt(1.64), rtol=1e-6)
    np.testing.assert_allclose(found[1], [0, 0, 1.0], rtol=1e-6)  # nothing but its factor
    np.testing.assert_allclose(item_vectors(text, mean), [[1, 0], [0, 0]])
