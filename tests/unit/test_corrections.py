"""What corrections do to claims and events, and what the command says of the top 10."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract import Claim, Evidence, Kind
from agent.corrections import ALONE_STRENGTH, fixing, is_about, likeness
from agent.embedder import Vectors
from agent.evidence import EvidenceSettings
from api.correcting import find, own_words
from recommend.comparing import Change, changes
from recommend.contract import RecommendedItem
from recommend.corrections import KAPPA, LESS_RHO, Corrected, correct, denied_items
from recommend.foldin import Floats, FoldIn
from recommend.history import Events, summarize, to_events
from recommend.parameters import Parameters
from recommend.people import KnownClaim, Person
from store.errors import NotFoundError
from store.tables import CorrectionRow

NOW = datetime(2025, 9, 1, tzinfo=UTC)
EVENTS = "abcdefghij"


def claim(claim_id: str, name: str, events: str, strength: float = 0.5, **fields: Any) -> Claim:
    """A claim that rests on events, a letter each."""
    values = {"kind": "dislike" if strength < 0 else "interest", "confidence": 0.9, "wording": "llm"} | fields
    weight = -1.0 if strength < 0 else 1.0
    evidence = tuple(Evidence(event_id=e, weight=weight) for e in events)
    return Claim(claim_id=claim_id, name=name, statement=f"{name}.", strength=strength, evidence=evidence, **values)


def row(action: str, name: str, events: str = "", **fields: Any) -> CorrectionRow:
    values = {"correction_id": 1, "kind": "interest"} | fields
    return CorrectionRow(user_id="ann", created_at=NOW, action=action, name=name, evidence=list(events), **values)


def ids(claims: tuple[Claim, ...]) -> list[str]:
    return [c.claim_id for c in claims]


WAR = claim("i1", "War films", "abcd", 0.5)
NOIR = claim("i2", "Film noir", "defg", 0.3)
GORE = claim("d1", "Gore", "hi", -0.8)
CLAIMS = [WAR, NOIR, GORE]


def test_without_corrections_nothing_changes() -> None:
    assert correct([], CLAIMS, EVENTS) == Corrected(tuple(CLAIMS), (), {}, (), ())


def test_a_rejected_claim_goes_with_its_events_but_not_with_those_that_another_cites() -> None:
    found = correct([row("reject", "War films", "abcd")], CLAIMS, EVENTS)
    assert (ids(found.claims), ids(found.rejected)) == (["i2", "d1"], ["i1"])
    assert found.scale == {"a": 0.0, "b": 0.0, "c": 0.0}


def test_a_rejected_interest_is_denied_whether_or_not_the_profile_has_it() -> None:
    found = correct([row("reject", "War films", "abcd"), row("reject", "Gone", "xy")], CLAIMS, EVENTS)
    assert [(d.name, d.evidence) for d in found.denied] == [("War films", tuple("abcd")), ("Gone", ("x", "y"))]
    told = found.denied[0].pseudo_events(["m1", "m2"])
    assert [(p.item_id, p.target, p.confidence) for p in told] == [("m1", -1.0, 0.3), ("m2", -1.0, 0.3)]
    assert {p.event_id[0] for p in told} == {"-"}
    weighted = correct([row("reject", "War films", "abcd", weight=4.0)], CLAIMS, EVENTS).denied[0]
    assert [p.confidence for p in weighted.pseudo_events(["m1", "m2"])] == [2.0, 2.0]
    assert [denied_items(m) for m in (1, 30, 1_682, 10**6)] == [1, 8, 420, 420]
    assert found.denied[0].pseudo_events([]) == []
    assert correct([row("less", "War films", "abcd")], CLAIMS, EVENTS).denied == ()
    assert correct([row("reject", "War films", "abcd", kind="dislike")], CLAIMS, EVENTS).denied == ()


def test_an_event_goes_when_all_the_claims_that_cite_it_go() -> None:
    found = correct([row("reject", "War films", "abcd"), row("reject", "Film noir", "defg")], CLAIMS, EVENTS)
    assert found.scale == dict.fromkeys("abcdefg", 0.0)


def test_less_leaves_the_claim_with_less_strength() -> None:
    found = correct([row("less", "War films", "abcd", rho=0.25)], CLAIMS, EVENTS)
    assert ids(found.claims) == ["i1", "i2", "d1"]
    assert [c.strength for c in found.claims] == [0.125, 0.3, -0.8]
    assert (found.rejected, found.scale) == ((), dict.fromkeys("abc", 0.25))
    assert correct([row("less", "War films", "abcd")], CLAIMS, EVENTS).scale == dict.fromkeys("abc", LESS_RHO)
    nothing_left = correct([row("less", "War films", "abcd", rho=0.0)], CLAIMS, EVENTS)
    assert (ids(nothing_left.claims), nothing_left.scale) == (["i1", "i2", "d1"], dict.fromkeys("abc", 0.0))


def test_an_event_of_a_rejected_claim_keeps_what_a_lessened_claim_leaves_it() -> None:
    found = correct([row("reject", "War films", "abcd"), row("less", "Film noir", rho=0.5)], CLAIMS, EVENTS)
    assert found.scale == dict.fromkeys("abc", 0.0) | dict.fromkeys("defg", 0.5)


def test_a_claim_that_is_rejected_and_lessened_is_rejected() -> None:
    corrections = [row("reject", "War films", "abcd"), row("less", "War films", "abcd")]
    assert correct(corrections, CLAIMS, EVENTS) == correct(corrections[:1], CLAIMS, EVENTS)
    assert correct(corrections[::-1], CLAIMS, EVENTS) == correct(corrections[:1], CLAIMS, EVENTS)


def test_names_are_compared_without_case() -> None:
    assert ids(correct([row("reject", "WAR FILMS")], CLAIMS, EVENTS).rejected) == ["i1"]
    assert ids(correct([row("reject", "War")], CLAIMS, EVENTS).rejected) == []


def test_a_dislike_of_the_same_name_stays() -> None:
    same = [claim("i1", "Horror", "abc"), claim("d1", "Horror", "def", -1.0)]
    found = correct([row("reject", "Horror", "abc")], same, EVENTS)
    assert (ids(found.rejected), set(found.scale)) == (["i1"], set("abc"))
    found = correct([row("reject", "Horror", "def", kind="dislike")], same, EVENTS)
    assert (ids(found.rejected), set(found.scale)) == (["d1"], set("def"))


@pytest.mark.parametrize(("events", "rejected"), [("abef", True), ("aefg", False)])
def test_a_claim_under_another_name_is_known_by_half_of_its_evidence(events: str, *, rejected: bool) -> None:
    found = correct([row("reject", "War films", "abcd")], [claim("i1", "Men at arms", events)], EVENTS)
    assert ids(found.rejected) == (["i1"] if rejected else [])
    live = set() if rejected else set(events)
    assert set(found.scale) == (set("abcd") | set(events)) - live


def test_events_of_a_claim_that_is_no_longer_written_stay_scaled() -> None:
    corrections = [row("less", "War films", "abcd", rho=0.5), row("reject", "Men at arms", "cd")]
    found = correct(corrections, [GORE], EVENTS)
    assert found.scale == {"a": 0.5, "b": 0.5, "c": 0.0, "d": 0.0}


def test_events_that_are_gone_are_not_scaled() -> None:
    assert correct([row("reject", "War films", "abcd")], CLAIMS, "bdefghi").scale == {"b": 0.0}


def test_a_pin_has_no_effect() -> None:
    assert correct([row("pin", "War films", "abcd")], CLAIMS, EVENTS) == correct([], CLAIMS, EVENTS)


def test_claims_of_the_users_own_are_counted_by_their_corrections_alone() -> None:
    own = claim("+1", "Space opera", "", 0.1, origin="user", locked=True, correction_id=1)
    found = correct([row("add", "Space opera")], [*CLAIMS, own], EVENTS)
    assert found == correct([row("add", "Space opera")], CLAIMS, EVENTS)
    assert correct([], [*CLAIMS, own], EVENTS) == correct([], CLAIMS, EVENTS)


def test_an_intent_does_not_count_in_the_usual_strength() -> None:
    need = claim("n1", "A tent", "ab", 0.01, kind="intent")
    assert correct([row("add", "Space opera")], [NOIR, need], EVENTS).added[0].strength == 0.3


def test_an_added_claim_has_the_median_strength_and_pseudo_events() -> None:
    corrections = [row("add", "Space opera"), row("add", "Spiders", kind="dislike", weight=2.0, correction_id=2)]
    found = correct(corrections, CLAIMS, EVENTS)
    assert (found.claims, found.scale) == (tuple(CLAIMS), {})
    opera, spiders = found.added
    assert (opera.claim_id, opera.text, opera.sign, opera.strength) == ("+1", "Space opera", 1, 0.5)
    assert (spiders.claim_id, spiders.sign, spiders.strength) == ("+2", -1, 0.5)
    events = opera.pseudo_events(["x", "y", "z", "w"])
    assert [(e.event_id, e.item_id) for e in events] == [("+1:0", "x"), ("+1:1", "y"), ("+1:2", "z"), ("+1:3", "w")]
    assert {(e.target, e.confidence) for e in events} == {(1.0, KAPPA / 4)}
    assert {(e.target, e.confidence) for e in spiders.pseudo_events(["x", "y"])} == {(-1.0, 1.0)}
    assert opera.pseudo_events([]) == []


def test_an_added_claim_of_someone_without_claims() -> None:
    (added,) = correct([row("add", "Space opera", statement="Likes space opera.")], [], ()).added
    assert (added.strength, added.text) == (ALONE_STRENGTH, "Space opera. Likes space opera.")


def test_rejecting_other_claims_does_not_move_an_added_one() -> None:
    opera = row("add", "Space opera", correction_id=7)
    alone = correct([opera], CLAIMS, EVENTS).added
    assert correct([row("reject", "War films"), opera], CLAIMS, EVENTS).added == alone


class World(NamedTuple):
    """Claims on some of ten events, and corrections of them."""

    claims: list[Claim]
    corrections: list[CorrectionRow]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    some = st.sets(st.sampled_from(EVENTS), min_size=1).map(lambda s: "".join(sorted(s)))
    cited = draw(st.lists(some, max_size=4))
    claims = [claim(f"i{n}", f"Claim {n}", events, 0.1 + 0.2 * n) for n, events in enumerate(cited)]
    about = st.builds(
        row,
        st.sampled_from(["reject", "less"]),
        st.integers(0, 4).map("Claim {}".format),
        some,
        rho=st.none() | st.floats(0, 1),
    )
    return World(claims, draw(st.lists(about, max_size=3)))


@given(worlds())
def test_every_claim_is_in_force_or_rejected_and_no_untouched_claim_loses_an_event(world: World) -> None:
    found = correct(world.corrections, world.claims, EVENTS)
    assert sorted(ids(found.claims) + ids(found.rejected)) == ids(tuple(world.claims))
    assert all(0 <= rho < 1 for rho in found.scale.values())
    assert set(found.scale) <= {e for r in world.corrections for e in r.evidence} | {
        e.event_id for c in world.claims for e in c.evidence
    }
    for kept in found.claims:
        if kept in world.claims and kept.strength > 0:
            touched = [r for r in world.corrections if _about(r, kept)]
            assert touched or not {e.event_id for e in kept.evidence} & found.scale.keys()


def _about(r: CorrectionRow, c: Claim) -> bool:
    shared = [e for e in c.evidence if e.event_id in r.evidence]
    return r.name == c.name or 2 * len(shared) >= len(c.evidence)


@given(worlds(), st.floats(0, 1))
def test_one_correction_more_never_raises_what_an_event_counts(world: World, rho: float) -> None:
    before = correct(world.corrections, world.claims, EVENTS)
    after = correct([*world.corrections, row("less", "Claim 0", "abc", rho=rho)], world.claims, EVENTS)
    assert all(after.scale.get(e, 1.0) <= before.scale.get(e, 1.0) for e in EVENTS)
    assert set(ids(before.rejected)) == set(ids(after.rejected))


def _vector(events: str, scale: dict[str, float], factors: Floats) -> Floats:
    """Fold in ten events on items of their own."""
    row_of = {e: n for n, e in enumerate(EVENTS)}
    history = summarize(to_events(events, events, np.ones(len(events)), row_of, scale), Parameters())
    taste = history.taste(np.zeros((0, factors.shape[1])))
    size = factors.shape[1]
    precision = np.diag([1.0] * (size - 1) + [0.0])
    fold_in = FoldIn(factors.astype(np.float32), np.zeros(size), precision, Parameters(factors=size - 1))
    return fold_in(taste).vector


def test_folded_in_a_rejection_is_as_if_its_events_had_never_been() -> None:
    factors = np.random.default_rng(0).normal(size=(30, 8)) / 3
    scale = correct([row("reject", "War films", "abcd")], CLAIMS, EVENTS).scale
    plain, rejected, without = (_vector(e, s, factors) for e, s in ((EVENTS, {}), (EVENTS, scale), ("defghij", {})))
    assert rejected == pytest.approx(without, rel=1e-12)
    assert (factors[:3] @ rejected).mean() < (factors[:3] @ plain).mean()
    lessened = _vector(EVENTS, correct([row("less", "War films", "abcd")], CLAIMS, EVENTS).scale, factors)
    mean = [float((factors[:3] @ x).mean()) for x in (rejected, lessened, plain)]
    assert mean == sorted(mean)


# In the next summary.


def about(action_row: CorrectionRow, name: str, events: str, meaning: float = 0.0, kind: Kind = "interest") -> bool:
    return is_about(action_row, kind, name, frozenset(events), meaning)


@pytest.mark.parametrize(
    ("events", "meaning", "same"),
    [
        ("abxy", 0.0, True),  # half of it is the correction's
        ("axyz", 0.0, False),
        ("xyz", 0.8, True),  # other events, the same meaning
        ("xyz", 0.79, False),
        ("abuvwxyz", 0.5, True),  # it has taken over half of the correction's, and is alike
        ("abuvwxyz", 0.49, False),
        ("auvwxyz", 0.5, False),
        ("", 0.0, False),
    ],
)
def test_what_a_correction_is_about(events: str, meaning: float, *, same: bool) -> None:
    rejected = row("reject", "War films", "abcd")
    assert about(rejected, "Men at arms", events, meaning) is same
    assert about(rejected, "war FILMS", events)
    assert not about(rejected, "War films", events, meaning, "dislike")
    assert about(rejected, "War films", events, meaning, "intent")


def test_a_rewritten_claim_is_known_by_either_name() -> None:
    rewritten = row("rewrite", "War films", new_name="What grandfather saw")
    assert about(rewritten, "war films", "")
    assert about(rewritten, "what grandfather saw", "")


def _letters(texts: Sequence[str]) -> Vectors:
    counts = np.array([[text.count(c) for c in "abc"] for text in texts], dtype=np.float32)
    return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


def test_likeness_is_the_cosine_and_of_chinese_the_share_of_letters_in_common() -> None:
    found = likeness(["aab", "侦探小说"], ["ab", "c", "侦探电影", "侦探小说"], _letters)
    assert found[0] == pytest.approx([3 / np.sqrt(10), 0, 0, 0])
    assert found[1] == pytest.approx([0, 0, 1 / 5, 1])


def test_the_latest_words_for_a_claim_count_until_it_is_rejected() -> None:
    def fixed(*rows: CorrectionRow) -> list[int | None]:
        return [r.correction_id for r in fixing(rows)]

    pin = row("pin", "War films", "abcd", correction_id=1)
    words = row("rewrite", "war films", "abcd", correction_id=2, new_name="Mine")
    again = row("rewrite", "Mine", "", correction_id=3, new_statement="I say.")
    drifted = row("pin", "Other", "cdxy", correction_id=4)
    apart = row("pin", "Jazz", "xyz", correction_id=5)
    assert fixed(pin, apart) == [1, 5]
    assert fixed(pin, words, apart) == [2, 5]
    assert fixed(pin, words, again) == [3]
    assert fixed(pin, drifted) == [4]
    assert fixed(pin, row("rewrite", "War films", "abcd", correction_id=6, kind="dislike")) == [1, 6]
    assert fixed(pin, apart, row("reject", "War films", "abcd", correction_id=7)) == [5]
    assert fixed(words, row("reject", "MINE", "", correction_id=7)) == []
    assert fixed(row("reject", "War films", "abcd", correction_id=7), pin) == []
    assert fixed(pin, row("reject", "A need", "ab", kind="intent", correction_id=7)) == [1]


@pytest.mark.parametrize("words", ["", " ", "x" * 601, "a\nb", "a\tb", "a\x7fb", "a\u202eb", "a\ufeffb", "a\ud800b"])
def test_words_that_a_user_cannot_have(words: str) -> None:
    with pytest.raises(ValueError, match="must have"):
        own_words(words)


@pytest.mark.parametrize(
    "words", ["x" * 600, "<b>'; drop table claims;--</b>", "我喜欢", "👩\u200d🚀", "[1] {x} %s \\n"]
)
def test_words_of_a_user_are_kept_as_they_are(words: str) -> None:
    assert own_words(f"  {words} ") == words


@pytest.mark.parametrize(("locked", "left"), [(True, 0.25), (False, 0.0)])
def test_a_claim_that_the_user_keeps_stays_while_any_of_its_events_does(left: float, *, locked: bool) -> None:
    events = Events(list("ab"), np.array([0, 1]), np.ones(2), np.ones(2), np.full(2, np.nan))
    decayed = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0, "e": 1.0}
    known = KnownClaim("i1", "War films", 0.4, {"a": 1.0, "b": 1.0}, frozenset("ab"), locked)
    model: Any = None
    person = Person(
        "ann", model, events, {}, decayed, frozenset(decayed), [known], np.ones((1, 3)), EvidenceSettings(), True
    )
    assert person.claims_without(np.array([False, False]))[0] == pytest.approx(0.4)
    assert person.claims_without(np.array([True, False]))[0] == pytest.approx(left)
    assert person.claims_without(np.array([True, True]))[0] == pytest.approx(0.0)


def ranked(letters: str) -> list[RecommendedItem]:
    return [RecommendedItem(item_id=i, title=i.upper(), rank=n, score=1 / n) for n, i in enumerate(letters, 1)]


def test_the_change_in_a_list() -> None:
    assert changes(ranked("abcd"), ranked("aedb")) == [
        Change("e", "E", None, 2),
        Change("d", "D", 4, 3),
        Change("b", "B", 2, 4),
        Change("c", "C", 3, None),
    ]
    assert changes(ranked("abc"), ranked("abc")) == []
    assert changes([], ranked("a")) == [Change("a", "A", None, 1)]


def test_a_claim_is_found_by_id_or_name() -> None:
    assert find(CLAIMS, "i2") is NOIR
    assert find(CLAIMS, " film  NOIR ") is NOIR
    with pytest.raises(NotFoundError, match=r"no claim 'Jazz'. It has: i1 \(War films\); i2"):
        find(CLAIMS, "Jazz")
    with pytest.raises(NotFoundError, match=r"It has: none"):
        find([], "i1")
    twice = [*CLAIMS, claim("n1", "war films", "j", kind="intent")]
    with pytest.raises(NotFoundError, match=r"Several .* i1 \(War films\); n1 \(war films\)\.$"):
        find(twice, "War Films")
    assert find(twice, "n1") is twice[-1]
