"""Themes that go on from those before: who stays, who joins, what is new, and when all is formed anew."""

import dataclasses
from datetime import UTC, datetime

import numpy as np
import pytest

from agent.catalogue import ItemSet, count_attributes, unit
from agent.continuing import Before, Known, drift, group, number, outgrown
from agent.contract import Claim, Clustering, Evidence, LogSpan, Profile, Provenance, Quality
from agent.evidence import EvidenceSettings
from agent.themes import Earlier, Theme, UserLog, find_themes
from store.records import Item

SETTINGS = EvidenceSettings()
DAY = 86_400.0
KINDS = ("crime", "baking", "tents", "opera")
TOLD = datetime(2025, 1, 1, tzinfo=UTC)


def near(axis: int, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(100 * axis + seed)
    return unit(np.eye(6)[axis] + 0.15 * rng.standard_normal((n, 6)))


@pytest.fixture
def items() -> ItemSet:
    """Forty items of four kinds: `crime0` … `opera9`, in a catalogue in which most are of none of these."""
    found = [Item(item_id=f"{kind}{n}", title=f"{kind} {n}", categories=(kind,)) for kind in KINDS for n in range(10)]
    others = [Item(item_id=f"o{n}", title="Other", categories=("other",)) for n in range(200)]
    vectors = np.concatenate([near(axis, 10) for axis in range(len(KINDS))]).astype(np.float32)
    return ItemSet({i.item_id: i for i in found}, vectors, count_attributes([*found, *others]))


def log_of(*liked: str, disliked: tuple[str, ...] = ()) -> UserLog:
    rows = [*((i, "like") for i in liked), *((i, "dislike") for i in disliked)]
    return UserLog(
        user_id="u",
        event_ids=[f"{kind}-{item}" for item, kind in rows],
        items=[item for item, _ in rows],
        types=[kind for _, kind in rows],
        values=[None] * len(rows),
        times=np.full(len(rows), DAY),
        offsets=[None] * len(rows),
    )


def some(kind: str, count: int, start: int = 0) -> list[str]:
    return [f"{kind}{n}" for n in range(start, start + count)]


def profile_of(log: UserLog, items: ItemSet) -> Profile:
    """The profile of a log, in words that do not matter."""
    grouped = group(log, items, SETTINGS, None, None)
    claims: dict[str, list[Claim]] = {"interest": [], "dislike": []}
    ids = {"interest": grouped.interest_ids, "dislike": grouped.dislike_ids}
    themes = {"interest": grouped.themes.interests, "dislike": grouped.themes.dislikes}
    for kind, found in themes.items():
        claims[kind] = [
            Claim(
                claim_id=claim_id, kind=kind, name="A theme", statement="A statement.", strength=theme.strength,
                confidence=theme.confidence, wording="template",
                evidence=tuple(Evidence(event_id=log.event_ids[r], weight=1.0) for r in theme.events),
            )
            for claim_id, theme in zip(ids[kind], found, strict=True)
        ]  # fmt: skip
    return Profile(
        user_id="u", version=1, language="en",
        interests=tuple(claims["interest"]), dislikes=tuple(claims["dislike"]),
        log=LogSpan(first=TOLD, last=TOLD, as_of=TOLD, events_read=len(log.event_ids), revision=1),
        provenance=Provenance(key="k", writer="template", embedder="e", evidence_settings={}, created_at=TOLD,
                              clustering=grouped.clustering),
        quality=Quality(),
    )  # fmt: skip


def events_of(log: UserLog, theme: Theme) -> set[str]:
    return {str(log.items[row]) for row in theme.events}


def test_what_is_near_joins_and_nothing_moves(items: ItemSet) -> None:
    first = log_of(*some("crime", 8), *some("baking", 7), *some("tents", 6), disliked=("opera0", "opera1"))
    before = profile_of(first, items)
    now = log_of(
        *some("crime", 8), *some("baking", 7), *some("tents", 6), "crime8", disliked=("opera0", "opera1", "opera2")
    )
    after = group(now, items, SETTINGS, None, Before(before))
    assert after.anew is None
    assert after.clustering == before.provenance.clustering
    assert set(after.interest_ids) == {c.claim_id for c in before.interests}
    of = dict(zip(after.interest_ids, after.themes.interests, strict=True))
    for claim in before.interests:
        old = {e.event_id.removeprefix("like-") for e in claim.evidence}
        assert events_of(now, of[claim.claim_id]) == (old | {"crime8"} if "crime0" in old else old)
    assert after.dislike_ids == ("d1",)
    assert events_of(now, after.themes.dislikes[0]) == {"opera0", "opera1", "opera2"}


def test_what_is_of_another_kind_forms_a_theme_of_its_own(items: ItemSet) -> None:
    old = [*some("crime", 10), *some("baking", 10), *some("tents", 10)]
    before = profile_of(log_of(*old), items)
    now = log_of(*old, *some("opera", 4))
    after = group(now, items, SETTINGS, None, Before(before))
    assert after.anew is None
    new = set(after.interest_ids) - {c.claim_id for c in before.interests}
    assert len(new) == 1
    numbers = [int(c.claim_id[1:]) for c in before.interests]
    assert new == {f"i{max(numbers) + 1}"}
    (theme,) = [t for i, t in zip(after.interest_ids, after.themes.interests, strict=True) if i in new]
    assert events_of(now, theme) == set(some("opera", 4))


def test_a_user_who_has_moved_on_is_clustered_anew(items: ItemSet) -> None:
    before = profile_of(log_of(*some("crime", 6)), items)
    now = log_of(*some("crime", 6), *some("baking", 10), *some("tents", 10))
    after = group(now, items, SETTINGS, None, Before(before))
    assert after.anew is not None
    assert after.anew.endswith("lies outside the themes")
    assert after.clustering == Clustering(
        events=26, shares=dict(zip(after.interest_ids, (t.strength for t in after.themes.interests), strict=True))
    )
    plain = find_themes(now, items, SETTINGS)
    assert [events_of(now, t) for t in after.themes.interests] == [events_of(now, t) for t in plain.interests]


def test_asked_for_afresh_themes_are_formed_anew_and_keep_their_ids(items: ItemSet) -> None:
    log = log_of(*some("crime", 8), *some("baking", 7))
    before = profile_of(log, items)
    shifted = before.model_copy(
        update={
            "interests": tuple(c.model_copy(update={"claim_id": f"i{n + 7}"}) for n, c in enumerate(before.interests))
        }
    )
    after = group(log, items, SETTINGS, None, Before(shifted, afresh=True))
    assert after.anew == "as it was asked for"
    assert after.interest_ids == tuple(c.claim_id for c in shifted.interests)


def test_rejected_themes_stand_so_that_others_do_not_take_their_events(items: ItemSet) -> None:
    log = log_of(*some("crime", 8), *some("baking", 7))
    before = profile_of(log, items)
    gone, kept = before.interests[0], before.interests[1:]
    rejected = Known(gone.claim_id, "interest", frozenset(e.event_id for e in gone.evidence))
    after = group(log, items, SETTINGS, None, Before(before.model_copy(update={"interests": kept}), (rejected,)))
    assert after.anew is None
    found = [{log.event_ids[r] for r in theme.events} for theme in after.themes.interests]
    assert rejected.events in found
    assert gone.claim_id in after.interest_ids


def test_events_that_are_gone_leave_their_theme(items: ItemSet) -> None:
    before = profile_of(log_of(*some("crime", 8), *some("baking", 8)), items)
    now = log_of(*some("crime", 8), *some("baking", 7))
    after = group(now, items, SETTINGS, None, Before(before))
    assert set().union(*(events_of(now, t) for t in after.themes.interests)) == {*some("crime", 8), *some("baking", 7)}


def test_without_earlier_themes_of_a_sign_its_items_are_clustered(items: ItemSet) -> None:
    now = log_of(*some("crime", 5), disliked=("opera0", "opera1"))
    rows = np.arange(5)
    themes = find_themes(now, items, SETTINGS, earlier=Earlier([rows], []))
    assert [events_of(now, t) for t in themes.dislikes] == [{"opera0", "opera1"}]


def test_no_theme_has_two_ids_and_no_id_two_themes(items: ItemSet) -> None:
    log = log_of(*some("crime", 8), *some("baking", 7), *some("tents", 6))
    before = profile_of(log, items)
    themes = find_themes(log, items, SETTINGS)
    twice = [themes.interests[0], dataclasses.replace(themes.interests[0]), *themes.interests[1:]]
    ids = number(twice, "interest", log, themes.weights, Before(before).known)
    assert len(set(ids)) == len(twice)


@pytest.mark.parametrize(
    ("then", "now", "reason"),
    [
        ({"i1": 0.6, "i2": 0.3}, {"i1": 0.6, "i2": 0.3}, None),
        ({"i1": 0.6, "i2": 0.3}, {"i1": 0.55, "i2": 0.26}, None),
        ({"i1": 0.6, "i2": 0.3}, {"i1": 0.55, "i2": 0.24}, "11% more of what is liked lies outside the themes"),
        ({"i1": 0.6, "i2": 0.3}, {"i1": 0.2, "i2": 0.7}, "the shares of the themes have drifted by 0.37"),
    ],
)
def test_outgrown(then: dict[str, float], now: dict[str, float], reason: str | None) -> None:
    assert outgrown(Clustering(events=10, shares=then), now) == reason


def test_drift_is_a_distance() -> None:
    a, b = {"i1": 0.5, "i2": 0.5}, {"i1": 0.4, "i3": 0.6}
    assert drift(a, b) == drift(b, a) > 0
    # By hand: p = (.5, .5, 0), q = (.4, 0, .6); JSD = H((p+q)/2) - (H(p) + H(q)) / 2, in bits.
    entropy = lambda p: -sum(x * np.log2(x) for x in p if x)  # noqa: E731
    expected = entropy([0.45, 0.25, 0.3]) - (entropy([0.5, 0.5]) + entropy([0.4, 0.6])) / 2
    assert drift(a, b) == pytest.approx(np.sqrt(expected))
