"""Themes on small hand-made vectors."""

import numpy as np
import pytest
from scipy.stats import beta

from agent.catalogue import (
    Attribute,
    ItemSet,
    count_attributes,
    unit,
)
from agent.evidence import EvidenceSettings, weigh
from agent.themes import (
    Grouping,
    Themes,
    UserLog,
    cluster,
    find_themes,
)
from store.records import Item

SETTINGS = EvidenceSettings()
DAY = 86_400.0


def near(axis: int, n: int, spread: float = 0.1, seed: int = 0, size: int = 6) -> np.ndarray:
    """`n` unit rows around an axis."""
    rng = np.random.default_rng(seed)
    return unit(np.eye(size)[axis] + spread * rng.standard_normal((n, size)))


def items_of(vectors: np.ndarray, categories: list[str]) -> ItemSet:
    """Items i0, i1 … in a catalogue ten times as large, in which nothing else is like them."""
    found = [Item(item_id=f"i{n}", title=f"Title {n}", categories=(c,)) for n, c in enumerate(categories)]
    others = [Item(item_id=f"o{n}", title="Other", categories=("other",)) for n in range(9 * len(found))]
    rates = count_attributes([*found, *others])
    return ItemSet({item.item_id: item for item in found}, np.asarray(vectors, dtype=np.float32), rates)


def log_of(*rows: tuple[str | None, str]) -> UserLog:
    """A day between events; rows are (item, type)."""
    return UserLog(
        user_id="u",
        event_ids=[f"e{n}" for n in range(len(rows))],
        items=[item for item, _ in rows],
        types=[kind for _, kind in rows],
        values=[None] * len(rows),
        times=DAY * np.arange(1, len(rows) + 1, dtype=np.float64),
        offsets=[None] * len(rows),
    )


def likes(*numbers: int) -> list[tuple[str | None, str]]:
    return [(f"i{n}", "like") for n in numbers]


@pytest.fixture
def two_kinds() -> ItemSet:
    """Six crime items (i0 to i5) and four jazz items (i6 to i9), far apart."""
    return items_of(np.vstack([near(0, 6), near(1, 4, seed=1)]), ["crime"] * 6 + ["jazz"] * 4)


def groups(found: Themes) -> list[set[str]]:
    return [set(theme.members) for theme in found.interests]


def test_two_clear_kinds(two_kinds: ItemSet) -> None:
    found = find_themes(log_of(*likes(*range(10))), two_kinds, SETTINGS)
    assert groups(found) == [{f"i{n}" for n in range(6)}, {f"i{n}" for n in range(6, 10)}]
    crime, jazz = found.interests
    assert [t.attribute.value for t in crime.telling] == ["crime"]
    assert crime.attribute_counts == {Attribute("category", "crime"): 6}
    assert crime.strength + jazz.strength == pytest.approx(1.0)
    weights = 2.0 ** (-(np.arange(9, -1, -1)) / 365)
    assert crime.strength == pytest.approx(weights[:6].sum() / weights.sum())
    assert crime.events.tolist() == [5, 4, 3, 2, 1, 0]  # the latest weigh most
    assert found.dislikes == ()


def test_examples_are_at_most_six_members(two_kinds: ItemSet) -> None:
    rows = likes(*[n for n in range(6) for _ in range(2)], 6, 7, 8, 9)
    crime = find_themes(log_of(*rows), two_kinds, SETTINGS).interests[0]
    assert len(crime.events) == 12
    assert sorted(crime.examples) == [f"i{n}" for n in range(6)]
    many = items_of(np.vstack([near(0, 9), near(1, 9, seed=1)]), ["crime"] * 9 + ["jazz"] * 9)
    for theme in find_themes(log_of(*likes(*range(18))), many, SETTINGS).interests:
        assert len(theme.examples) == len(set(theme.examples)) == 6
        assert set(theme.examples) <= set(theme.members)


def test_a_theme_without_support_is_left_out(two_kinds: ItemSet) -> None:
    found = find_themes(log_of(*likes(0, 1, 2), ("i6", "view"), ("i7", "view")), two_kinds, SETTINGS)
    assert groups(found) == [{"i0", "i1", "i2"}]
    assert found.interests[0].strength == pytest.approx(3 / 3.4, abs=0.01)


@pytest.mark.parametrize(("far", "counter"), [(0.05, ["i6"]), (0.9, [])])
def test_a_negative_event_counts_against_what_it_lies_within(far: float, counter: list[str]) -> None:
    """Crime items lie about 0.3 from their centre (in tangent); the disliked one nearer, or far away."""
    angle = np.eye(6)[1:4] * 0.3
    members = np.eye(6)[0] + np.vstack([angle, -angle])
    disliked = np.eye(6)[0] + far * np.eye(6)[4]
    items = items_of(unit(np.vstack([members, disliked])), ["crime"] * 7)
    found = find_themes(log_of(*likes(*range(6)), ("i6", "dislike")), items, SETTINGS)
    ids = [f"i{n}" for n in range(7)]
    against = [ids[row] for theme in found.interests for row in theme.counter]
    assert against == counter
    assert found.dislikes == ()  # one event alone has no support


def test_the_radius_is_the_90th_percentile() -> None:
    """Of 20 members, 18 lie 1 degree from the centre and two 10: 90 % of 19 steps up lies at 3.3 degrees."""
    degrees = np.radians([1, -1] * 9 + [10, -10] + [3.2, -3.4])
    items = items_of(np.column_stack([np.cos(degrees), np.sin(degrees)]), ["crime"] * 22)
    log = log_of(*likes(*range(20)), ("i20", "dislike"), ("i21", "dislike"))
    grouping = Grouping(log, items, weigh(log.types, log.values, log.times, log.times[-1], SETTINGS), SETTINGS)
    of_item = np.r_[np.zeros(20, dtype=np.int64), -1, -1]
    grouping._join(np.array([20, 21]), np.arange(20), of_item)
    assert of_item[20:].tolist() == [0, -1]


def test_a_second_thought_is_counter_evidence(two_kinds: ItemSet) -> None:
    log = log_of(*likes(0, 1, 2, 0), ("i0", "skip"))
    (theme,) = find_themes(log, two_kinds, SETTINGS).interests
    assert (sorted(theme.events), theme.counter.tolist()) == ([0, 1, 2, 3], [4])
    assert theme.support.negative == pytest.approx(0.3)
    assert theme.confidence == pytest.approx(beta.ppf(0.05, 5, 1.3))


def test_dislikes_mirror_likes(two_kinds: ItemSet) -> None:
    rows = [*likes(0, 1, 2), ("i6", "dislike"), ("i7", "dislike"), ("i8", "skip"), ("i9", "like")]
    found = find_themes(log_of(*rows), two_kinds, SETTINGS)
    (dislike,) = found.dislikes
    assert dislike.polarity == "negative"
    assert set(dislike.members) == {"i6", "i7", "i8"}
    assert dislike.strength == pytest.approx(-1.0)
    assert dislike.support.explicit == 2
    assert dislike.support.implicit == 1
    assert [t.attribute.value for t in dislike.telling] == ["jazz"]


def test_too_many_negatives_make_no_interest(two_kinds: ItemSet) -> None:
    rows = [*likes(0, 1, 2), ("i0", "dislike"), ("i1", "dislike"), ("i2", "skip")]
    found = find_themes(log_of(*rows), two_kinds, SETTINGS)
    assert found.interests == ()


def test_events_without_items_weigh_but_form_no_theme(two_kinds: ItemSet) -> None:
    (theme,) = find_themes(log_of(*likes(0, 1), (None, "like"), (None, "like")), two_kinds, SETTINGS).interests
    assert theme.events.tolist() == [1, 0]
    assert theme.strength == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [("i0", "like")],
        [("i0", "rating")] * 5,  # no value: all neutral
        [("i0", "wave")],
        [(None, "search")] * 5,
        [("i0", "dislike"), ("i1", "dislike"), ("i6", "skip")],
    ],
    ids=["empty", "single", "neutral", "unknown", "no items", "all negative"],
)
def test_poor_logs(two_kinds: ItemSet, rows: list[tuple[str | None, str]]) -> None:
    found = find_themes(log_of(*rows), two_kinds, SETTINGS)
    assert found.interests == ()
    assert len(found.weights.decayed) == len(rows)


def test_items_at_the_centre_of_the_catalogue() -> None:
    """Items that all read alike are centred to zero vectors."""
    items = items_of(np.zeros((4, 6)), ["crime"] * 4)
    (theme,) = find_themes(log_of(*likes(0, 1, 2, 3)), items, SETTINGS).interests
    assert len(theme.events) == 4


def test_the_heaviest_two_thousand_are_clustered() -> None:
    vectors = np.vstack([near(0, 1_250), near(1, 1_250, seed=1)])
    weight = np.ones(2_500)
    weight[:1_000] = weight[1_250:2_250] = 2.0
    labels = cluster(vectors, weight)
    core = cluster(vectors[weight == 2.0], weight[weight == 2.0])
    assert labels[weight == 2.0].tolist() == core.tolist()
    # The light ones join the nearest: none on the other side.
    assert not set(labels[:1_250]) & set(labels[1_250:])
    assert labels.shape == (2_500,)


def test_groups_are_one_theme_while_they_are_more_alike_than_by_chance() -> None:
    """Two bundles whose axes have a cosine of .2 are one theme, of .02 two."""
    for cosine, themes in ((0.2, 1), (0.02, 2)):
        other = np.r_[cosine, np.sqrt(1 - cosine**2), np.zeros(4)]
        vectors = unit(np.vstack([np.tile(np.eye(6)[0], (5, 1)), np.tile(other, (5, 1))]))
        assert len(set(cluster(vectors, np.ones(10)))) == themes
    assert cluster(np.zeros((0, 6), dtype=np.float32), np.zeros(0)).tolist() == []


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((9, 9, 2), 3),  # exactly a tenth
        ((18, 15, 2), 2),  # 6 % of all, 11 % of the strongest
        ((5,) * 4 + (2,) * 6, 10),  # a sixteenth each, but two fifths of the strongest
        ((2,) * 15, 12),  # at most twelve
    ],
)
def test_what_is_small_beside_the_others_is_not_said(sizes: tuple[int, ...], said: int) -> None:
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    items = items_of(np.eye(15)[groups], [f"c{group}" for group in groups])
    log = log_of(*likes(*range(len(groups))))
    still = log.__class__(**(log.__dict__ | {"times": np.full(len(groups), DAY)}))  # all of one age
    assert len(find_themes(still, items, SETTINGS).interests) == said


def test_rows_that_are_all_the_same_are_one_theme() -> None:
    same = np.tile(np.eye(1, 8, dtype=np.float32), (30, 1))
    assert cluster(same, np.ones(30)).tolist() == [0] * 30
