"""Recommendations and their reasons on a real database: what is served adds up, whoever asks and whatever is asked."""

import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import spearmanr
from sqlalchemy import text

import api.commands.recommend
import api.runtime
from agent import archive
from agent.contract import Claim
from agent.evidence import EventType, EvidenceSettings
from agent.loading import prepare_catalogue
from api.cli import main
from api.settings import Settings
from recommend.contract import ClaimPart, EventPart, Explanation, RestPart
from recommend.data import read_training
from recommend.errors import NoModelError, UnknownItemError
from recommend.model import Model
from recommend.parameters import Parameters
from recommend.service import Recommender, Request
from recommend.training import train
from store import corrections, models, profiles
from store.database import Database
from store.errors import NotFoundError
from store.tables import EventRow, ItemRow, UserRow
from tests.command_line import Ended
from tests.conftest import admin, with_name
from tests.small_world import EVERYONE, NOW, RATERS, START, FakeEmbedder, event, fill, profiler, wrote

Limner = Callable[..., Ended]
SMALL = Parameters(
    factors=8, epochs=6, projection=8, user_features=1.0, item_features=1.0, alpha0=1.0, reg=0.005, half_trust=5.0,
    sparse_alpha=0.0, crowd=1.0, popular=0.0, covariance=0.0, dislike_weight=0.0, rating_weights=False,
)  # fmt: skip
RICH = SMALL.model_copy(
    update={"rating_weights": True, "dislike_target": 0.5, "dislike_weight": 0.5, "recency": 2.0}
)  # fmt: skip
ITEMS = 30
MANY = 50_000

# Beside the small world's: events and no profile; a profile and no event about an item; neither; no consent any more.
TIM, SUE, NEO, CON = "tim", "sue", "neo", "con"
ALL = (*EVERYONE, TIM, SUE, NEO, CON)
_numbers = itertools.count(1)


class Filled(NamedTuple):
    """A database to be copied, and the model that was trained on it."""

    name: str
    model: Model


def tim_likes(*item_ids: str) -> list[EventRow]:
    return [event(TIM, n, "like", i, START + timedelta(hours=n)) for n, i in enumerate(item_ids)]


def fill_all(database: Database) -> None:
    fill(database)
    with database.session() as session:
        session.add_all(UserRow(user_id=user_id, log_revision=int(user_id != NEO)) for user_id in (TIM, SUE, NEO, CON))
        session.flush()
        session.add_all(tim_likes("m1", "m2", "k1"))
        for user_id, sought in ((SUE, "light tents for camping"), (CON, "baking")):
            session.add_all(event(user_id, n, "search", None, START + timedelta(days=n), text=sought) for n in range(5))
        session.add(event(CON, 9, "like", "h1", START))
    wrote(profiler(database), [*EVERYONE, SUE, CON])
    with database.session() as session:
        session.get_one(UserRow, CON).consent = False


def fitted(database: Database, parameters: Parameters = SMALL) -> Model:
    return train(read_training(database, "fake", EvidenceSettings()), parameters, "fake", NOW)


@contextmanager
def copied(url: str, template: str) -> Iterator[tuple[str, Database]]:
    name = f"limner_test_recommend_{os.getpid()}_{next(_numbers)}"
    with admin(url) as connection:
        connection.execute(f'create database "{name}" template "{template}" strategy file_copy')
        database = Database(with_name(url, name))
        yield name, database
        database.close()
        connection.execute(f'drop database "{name}" with (force)')


@pytest.fixture(scope="module")
def filled(postgres_url: str, migrated_template: str) -> Iterator[Filled]:
    with copied(postgres_url, migrated_template) as (name, database):
        fill_all(database)
        model = fitted(database)
        database.close()  # a template must have no connections
        yield Filled(name, model)


@pytest.fixture(scope="module")
def shared(postgres_url: str, filled: Filled) -> Iterator[Recommender]:
    """For tests that change nothing."""
    with copied(postgres_url, filled.name) as (_, database):
        yield serve(database, filled.model)


@pytest.fixture
def world(postgres_url: str, filled: Filled) -> Iterator[Recommender]:
    """For tests that do."""
    with copied(postgres_url, filled.name) as (_, database):
        yield serve(database, filled.model)


def serve(database: Database, model: Model) -> Recommender:
    return Recommender(database, model, 7, FakeEmbedder(), EvidenceSettings())


def with_parameters(model: Model, parameters: Parameters) -> Model:
    return dataclasses.replace(model, card=model.card.model_copy(update={"parameters": parameters}))


def scores(made: Recommender, user_id: str) -> dict[str, float]:
    """The exact score of every item."""
    vector = made.person(user_id).folded.vector
    return dict(zip(made.model.item_ids, (made.model.factors.astype(np.float64) @ vector).tolist(), strict=True))


def mean(of: dict[str, float], group: str) -> float:
    """The mean score of a group of items."""
    return float(np.mean([score for item_id, score in of.items() if item_id[0] == group]))


def of_group(made: Recommender, user_id: str, group: str) -> float:
    return mean(scores(made, user_id), group)


def claims(database: Database, user_id: str) -> tuple[Claim, ...]:
    with database.session() as session:
        return archive.from_rows(profiles.load(session, user_id)).claims


def assert_adds_up(made: Recommender, user_id: str, shown: int = 8, k: int = 10) -> None:
    for item in made.top(user_id, k).items:
        found = made.why(user_id, item.item_id, shown=shown, counterfactuals=False)
        total = sum(part.contribution for part in found.parts)
        assert abs(total - item.score) <= 1e-5 * abs(item.score), (user_id, item)
        assert (found.total, found.error) == (total, total - found.score)
        assert found.score == pytest.approx(item.score, rel=1e-9)
        assert (found.rank, found.title) == (item.rank, item.title)


@pytest.mark.parametrize(
    ("parameters", "shown"), [(SMALL, 8), (RICH, 0), (RICH, 1000)], ids=["plain", "rich, all in one", "rich, in full"]
)
def test_parts_add_up_for_every_recommendation_of_every_user(
    shared: Recommender, parameters: Parameters, shown: int
) -> None:
    made = serve(shared.database, with_parameters(shared.model, parameters))
    for user_id in ALL:
        assert_adds_up(made, user_id, shown)


def parts_of(found: Explanation, user_id: str) -> set[str]:
    """Ids of the events that some listed part counts; none is counted twice."""
    events = [part.event_id for part in found.parts if isinstance(part, EventPart)]
    events += [event_id for part in found.parts if isinstance(part, ClaimPart) for event_id in part.evidence]
    assert len(events) == len(set(events))
    assert {event_id.split("-")[0] for event_id in events} <= {user_id}
    return set(events)


def test_each_event_is_counted_once(shared: Recommender) -> None:
    ann = shared.person("ann")
    found = shared.why("ann", "t1", shown=1000)
    assert parts_of(found, "ann") == set(ann.events.ids)
    assert not any(isinstance(part, RestPart) for part in found.parts)
    short = shared.why("ann", "t1", shown=1)
    assert [part.contribution for part in short.parts][-1] == pytest.approx(
        found.total - sum(part.contribution for part in short.parts[:-1])
    )
    assert short.parts[-1].kind == "rest"


def test_an_unknown_user(shared: Recommender) -> None:
    for call in (lambda: shared.top("nobody"), lambda: shared.why("nobody", "t1")):
        with pytest.raises(NotFoundError, match=r"There is no user nobody\. `limner doctor`"):
            call()


def test_an_unknown_item(world: Recommender) -> None:
    with pytest.raises(UnknownItemError, match=r"There is no item x9 .*`limner ingest items`"):
        world.why("ann", "x9")
    with world.database.session() as session:  # known, and without a vector
        session.add(ItemRow(item_id="x9", title="New"))
    with pytest.raises(UnknownItemError, match="no item x9 that the model can place"):
        serve(world.database, world.model).why("ann", "x9")


@pytest.mark.parametrize("k", [0, -3])
def test_fewer_than_one_item(shared: Recommender, k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k}: ask for at least 1 item"):
        shared.top("ann", k)


def test_a_million_items(shared: Recommender) -> None:
    found = shared.recommend("ann", Request(k=1_000_000, seen=True))
    assert sorted(item.item_id for item in found.items) == sorted(shared.model.item_ids)
    assert [item.rank for item in found.items] == list(range(1, ITEMS + 1))
    assert [item.score for item in found.items] == sorted((item.score for item in found.items), reverse=True)
    assert "There are only 30 such items." in found.notes
    assert len(shared.recommend("ann", Request(k=1_000_000, diversity=0.5)).items) == 8
    why = shared.why("ann", "t1", Request(k=1_000_000))
    assert why.counterfactual is not None
    assert (why.counterfactual.new_rank, why.counterfactual.removed) == (None, [])


def test_what_was_only_shown_is_still_recommended(world: Recommender) -> None:
    types = {**EvidenceSettings().types, "impression": EventType(weight=0.0)}
    world.settings = EvidenceSettings(types=types)
    first = world.top("tim", 1).items[0].item_id
    with world.database.session() as session:
        session.add(event(TIM, 90, "impression", first, START))
        session.get_one(UserRow, TIM).log_revision += 1
    assert world.top("tim", 1).items[0].item_id == first
    with world.database.session() as session:
        session.add(event(TIM, 91, "view", first, START))
        session.get_one(UserRow, TIM).log_revision += 1
    assert world.top("tim", 1).items[0].item_id != first


def test_what_was_seen_is_explained_and_not_recommended(shared: Recommender) -> None:
    assert {item.item_id[0] for item in shared.top("ann", ITEMS).items} == {"t"}
    again = shared.recommend("ann", Request(k=ITEMS, seen=True))
    assert len(again.items) == ITEMS
    found = shared.why("ann", "m1")
    assert "The user has had to do with this item already: it would not be recommended." in found.notes
    assert found.score == pytest.approx(next(item.score for item in again.items if item.item_id == "m1"))
    assert found.rank == 1  # among the tents, and not among what was seen
    ranked = shared.why("ann", "m1", Request(seen=True))
    assert ranked.notes == []
    assert ranked.rank == next(item.rank for item in again.items if item.item_id == "m1")


@pytest.mark.parametrize(
    ("categories", "attributes", "expected"),
    [
        (("Tents",), {}, {f"t{n}" for n in range(1, 9)}),
        (("Tents", "Baking"), {}, {f"t{n}" for n in range(1, 9)} | {f"k{n}" for n in range(1, 8)}),
        ((), {"year": "2022"}, {"t1", "t6"}),
        (("Tents", "Baking"), {"year": "2014"}, {"k1", "k6"}),
        (("Tents",), {"year": "2014"}, set()),
        (("tents; drop table items",), {}, set()),
        ((), {"no such": "x"}, set()),
    ],
    ids=["one category", "two", "an attribute", "both", "nothing has both", "no such category", "no such attribute"],
)
def test_filters(
    shared: Recommender, categories: tuple[str, ...], attributes: dict[str, str], expected: set[str]
) -> None:
    found = shared.recommend(TIM, Request(ITEMS, seen=True, categories=categories, attributes=attributes))
    assert {item.item_id for item in found.items} == expected
    assert f"There are only {len(expected)} such items." in found.notes
    plain = {item.item_id: item for item in shared.recommend(TIM, Request(ITEMS, seen=True)).items}
    assert [plain[item.item_id].score for item in found.items] == pytest.approx([i.score for i in found.items])
    assert [item.item_id for item in found.items] == sorted(expected, key=lambda i: plain[i].rank)


def test_a_filter_that_leaves_the_item_out(shared: Recommender) -> None:
    found = shared.why(TIM, "h1", Request(categories=("Tents",)))
    assert "The filters leave this item out." in found.notes
    order = [item.score for item in shared.recommend(TIM, Request(ITEMS, categories=("Tents",))).items]
    assert found.rank == 1 + sum(score > found.score for score in order)


@pytest.mark.parametrize(
    ("user_id", "basis", "kinds"),
    [
        ("ann", "events and profile", {"claim", "crowd"}),
        (TIM, "events", {"event", "crowd"}),
        (SUE, "profile", {"claim", "crowd"}),
        (NEO, "popularity", {"crowd"}),
        (CON, "popularity", {"crowd"}),
    ],
)
def test_what_scores_rest_on(shared: Recommender, user_id: str, basis: str, kinds: set[str]) -> None:
    found = shared.top(user_id)
    assert (found.basis, found.model_id) == (basis, "7")
    assert {part.kind for part in shared.why(user_id, "t1", shown=1000).parts} == kinds
    assert any("Nothing is known of this user" in note for note in found.notes) == (basis == "popularity")


def test_who_is_unknown_gets_what_most_like(shared: Recommender) -> None:
    unknown = scores(shared, NEO)
    order = [unknown[item_id] for item_id in shared.model.item_ids]
    assert spearmanr(order, shared.model.popularity).statistic > 0.7
    assert len(shared.top(NEO, ITEMS).items) == ITEMS


def test_nothing_of_a_user_without_consent_is_used(shared: Recommender) -> None:
    assert scores(shared, CON) == scores(shared, NEO)
    assert "h1" in {item.item_id for item in shared.top(CON, ITEMS).items}
    found = shared.why(CON, "h1")
    assert not any("already" in note for note in found.notes)


def test_a_profile_without_usable_events_speaks_by_its_texts(shared: Recommender) -> None:
    sue, unknown = scores(shared, SUE), scores(shared, NEO)
    raised = {item_id: sue[item_id] - unknown[item_id] for item_id in sue}
    assert min(raised[i] for i in raised if i[0] == "t") > max(raised[i] for i in raised if i[0] != "t")
    (part,) = (part for part in shared.why(SUE, "t1").parts if isinstance(part, ClaimPart))
    assert (part.evidence, part.events_part) == ((), 0.0)
    assert part.text_part == pytest.approx(part.contribution)
    assert part.text_part > 0


def test_events_without_a_profile(shared: Recommender) -> None:
    tim = scores(shared, TIM)
    assert [item.item_id[0] for item in shared.top(TIM, 6).items] == ["m"] * 6
    assert mean(tim, "m") > mean(tim, "h")
    assert shared.person(TIM).claims == []


def test_new_items_are_placed_by_their_texts(world: Recommender) -> None:
    with world.database.session() as session:
        session.add(ItemRow(item_id="t9", title="Fernhold", categories=["Camping", "Tents"]))
        session.add(ItemRow(item_id="m9", title="The Last Proof", categories=["Mystery", "Detective"]))
    prepare_catalogue(world.database, FakeEmbedder())
    made = serve(world.database, world.model)
    assert made.model.item_ids == (*world.model.item_ids, "m9", "t9")
    found = made.top("bob", ITEMS)
    order = [item.item_id for item in found.items]
    assert found.items[0].title == "Fernhold"
    assert order.index("t9") < order.index("m9")
    assert_adds_up(made, "bob")
    assert made.why("bob", "t9").counterfactual is not None
    was, now = scores(world, "bob"), scores(made, "bob")
    assert {i: now[i] for i in was} == pytest.approx(was, rel=1e-12)
    # What the user does with a new item counts as well.
    with world.database.session() as session:
        session.add(event(TIM, 50, "like", "t9", START + timedelta(days=1)))
    assert of_group(made, TIM, "t") > of_group(world, TIM, "t")
    assert "t9" not in {item.item_id for item in made.top(TIM, ITEMS).items}


def test_a_model_older_than_the_data_is_served_and_says_so(world: Recommender) -> None:
    assert world.top(TIM).notes == []
    before = of_group(world, TIM, "t")
    with world.database.session() as session:
        session.add(event(TIM, 50, "like", "t1", NOW))
        session.get_one(UserRow, TIM).log_revision += 1
    found = world.top(TIM)
    (note,) = found.notes
    assert note == (
        f"The model has learned from events up to {world.model.card.watermark:%-d %b %Y}; later ones count as they are."
    )
    assert world.why(TIM, "t2").notes == [note]
    assert of_group(world, TIM, "t") > before
    assert found.items
    assert serve(world.database, fitted(world.database)).top(TIM).notes == []


def test_a_late_search_does_not_make_the_model_old(world: Recommender) -> None:
    """A search is about no item, so that no training could learn from it."""
    with world.database.session() as session:
        session.add(event(TIM, 50, "search", None, NOW, text="anything"))
    assert serve(world.database, fitted(world.database)).top(TIM).notes == []


# Corrections.


def correct(database: Database, user_id: str, action: corrections.Action, name: str, **about: object) -> int:
    kind = about.pop("kind", "interest")
    with database.session() as session:
        return corrections.add(session, user_id, action, kind, name, NOW, **about)  # type: ignore[arg-type]


def undo(database: Database, user_id: str) -> None:
    with database.session() as session:
        corrections.undo_last(session, user_id, NOW)


def close(found: dict[str, float], expected: dict[str, float]) -> bool:
    return found.keys() == expected.keys() and all(abs(found[i] - expected[i]) <= 1e-12 for i in found)


@pytest.mark.parametrize("user_id", RATERS)
def test_a_rejected_claim_lowers_its_items_until_it_is_undone(world: Recommender, user_id: str) -> None:
    claim = max(claims(world.database, user_id), key=lambda c: c.strength)
    evidence = [e.event_id for e in claim.evidence]
    rows = {row for i, row in zip(*world.person(user_id).events[:2], strict=True) if i in evidence}
    items = {world.model.item_ids[row] for row in rows}
    before = scores(world, user_id)
    correct(world.database, user_id, "reject", claim.name, claim_id=claim.claim_id, evidence=evidence)
    after = scores(world, user_id)
    assert np.mean([after[i] for i in items]) < 0.5 * np.mean([before[i] for i in items])
    assert claim.claim_id not in {c.claim_id for c in world.person(user_id).claims}
    assert_adds_up(world, user_id)
    (denied,) = [c for c in world.person(user_id).claims if c.claim_id.startswith("-")]
    assert denied.name == claim.name
    listed = [p for i in items for p in world.why(user_id, i, shown=100).parts if p.text.startswith("you do not want")]
    assert listed
    assert sum(part.contribution for part in listed) < 0
    undo(world.database, user_id)
    assert close(scores(world, user_id), before)
    assert {claim.claim_id} <= {c.claim_id for c in world.person(user_id).claims}


def test_what_is_foreseen_of_a_rejection_is_about_real_claims(shared: Recommender) -> None:
    found = shared.why("ann", "t1").claim_counterfactuals
    assert {c.claim_id for c in found} == {"i1", "i2"}


def test_less_lies_between(world: Recommender) -> None:
    claim = claims(world.database, "ann")[0]
    ladder = [of_group(world, "ann", "m")]
    for action, rho in (("less", 0.3), ("reject", None)):
        correct(world.database, "ann", action, claim.name, evidence=[e.event_id for e in claim.evidence], rho=rho)
        ladder.append(of_group(world, "ann", "m"))
        assert_adds_up(world, "ann")
        undo(world.database, "ann")
    assert ladder == sorted(ladder, reverse=True)
    assert ladder[2] < ladder[1] < ladder[0]


def test_an_added_claim_raises_what_is_near_it_and_a_dislike_lowers_it(world: Recommender) -> None:
    before = scores(world, "ann")
    number = correct(world.database, "ann", "add", "Tents for camping")
    raised = scores(world, "ann")
    assert all(raised[i] > before[i] for i in before if i[0] == "t")
    assert_adds_up(world, "ann")
    (part,) = (p for p in world.why("ann", "t1").parts if isinstance(p, ClaimPart) and p.claim_id == f"+{number}")
    assert part.contribution > 0
    assert len(part.evidence) == 10
    assert all(event_id.startswith(f"+{number}:") for event_id in part.evidence)
    removed = world.why("ann", "t1").counterfactual
    assert removed is not None
    assert not any(e.event_id.startswith("+") for e in removed.removed)
    assert {item.item_id[0] for item in world.top("ann", ITEMS).items} == {"t"}  # what it stands for was not seen
    undo(world.database, "ann")
    assert close(scores(world, "ann"), before)
    correct(world.database, "ann", "add", "Tents for camping", kind="dislike")
    lowered = scores(world, "ann")
    assert all(lowered[i] < before[i] for i in before if i[0] == "t")
    assert_adds_up(world, "ann")
    undo(world.database, "ann")
    assert close(scores(world, "ann"), before)


def test_a_claim_that_a_user_of_whom_nothing_is_known_adds(world: Recommender) -> None:
    correct(world.database, NEO, "add", "Tents for camping")
    found = world.top(NEO, 5)
    assert found.basis == "profile"
    assert {item.item_id[0] for item in found.items} == {"t"}
    assert_adds_up(world, NEO)


# Long histories, diversity.


def test_a_user_with_fifty_thousand_events(world: Recommender) -> None:
    few = ("m1", "m2", "t1", "h1")
    with world.database.session() as session:
        session.add(UserRow(user_id="max", log_revision=1))
        session.flush()
        session.execute(
            text(
                "insert into events (event_id, user_id, item_id, type, ts) select 'max-' || n, 'max', "
                "(cast(:few as text[]))[n % 4 + 1], case n % 9 when 0 then 'hide' else 'view' end, "
                "cast(:start as timestamptz) + n * interval '1 minute' from generate_series(0, :last) n"
            ),
            {"few": list(few), "start": START, "last": MANY - 1},
        )
    wrote(profiler(world.database), ["max"])
    made = serve(world.database, with_parameters(world.model, RICH))
    found = made.top("max", ITEMS)
    assert {item.item_id for item in found.items} == set(world.model.item_ids) - set(few)
    assert all(np.isfinite(item.score) for item in found.items)
    assert_adds_up(made, "max", k=3)
    best = made.why("max", found.items[0].item_id, shown=MANY)
    counted = sum(len(p.evidence) if isinstance(p, ClaimPart) else 1 for p in best.parts if p.kind != "crowd")
    assert 0 < counted <= MANY
    assert best.counterfactual is not None
    assert len(best.counterfactual.removed) <= 10


def test_diversity_says_what_the_rank_would_be_without_it(shared: Recommender) -> None:
    plain = {item.item_id: item for item in shared.top(NEO, ITEMS).items}
    assert all(item.diversity is None for item in plain.values())
    varied = shared.recommend(NEO, Request(k=8, diversity=0.8)).items
    moved = next(item for item in varied if item.diversity not in {None, item.rank})
    assert any(
        "if the list did not have to be varied" in note
        for note in shared.why(NEO, moved.item_id, Request(k=8, diversity=0.8)).notes
    )
    assert shared.why(NEO, moved.item_id, Request(k=8)).notes == shared.recommend(NEO, Request(k=8)).notes
    assert [item.rank for item in varied] == list(range(1, 9))
    assert [item.diversity for item in varied] == [plain[item.item_id].rank for item in varied]
    assert [item.score for item in varied] == pytest.approx([plain[item.item_id].score for item in varied])
    assert [item.item_id for item in varied] != list(plain)[:8]

    def likeness(item_ids: list[str]) -> float:
        factors = shared.model.factors[[shared.model.row_of[i] for i in item_ids]]
        units = factors / np.linalg.norm(factors, axis=1, keepdims=True)
        return float((units @ units.T).mean())

    assert likeness([item.item_id for item in varied]) < likeness(list(plain)[:8])
    assert varied[0].diversity == 1


@pytest.mark.parametrize("near", [0.0, 0.9])
def test_near_duplicates_are_put_back(shared: Recommender, near: float) -> None:
    plain = [item.item_id for item in shared.top(NEO, ITEMS).items]
    found = shared.recommend(NEO, Request(k=ITEMS, near=near)).items
    factors = {i: shared.model.factors[shared.model.row_of[i], :-1] for i in plain}
    units = {i: f / np.linalg.norm(f) for i, f in factors.items()}
    chosen: list[str] = []
    for item_id in plain:
        if all(units[item_id] @ units[other] < near for other in chosen):
            chosen.append(item_id)
    assert [item.item_id for item in found][: len(chosen)] == chosen
    assert len(chosen) < ITEMS
    assert [item.diversity for item in found] == [plain.index(item.item_id) + 1 for item in found]


# Training.


def test_users_without_consent_are_not_trained_on(shared: Recommender) -> None:
    data = read_training(shared.database, "fake", EvidenceSettings())
    assert data.user_ids == sorted([*EVERYONE, TIM, SUE])
    assert CON not in data.claims.user_ids
    assert set(data.item_ids) == set(shared.model.item_ids)
    assert data.watermark == shared.model.card.watermark
    assert (shared.model.card.events, shared.model.card.users) == (len(data.user), 8)
    assert shared.model.popularity[shared.model.row_of["m1"]] == 4  # ann, cid, eli and tim; con is not counted


def test_nothing_to_train_on(database: Database) -> None:
    with pytest.raises(NoModelError, match=r"nothing to train on\. See `limner ingest`"):
        read_training(database, "fake", EvidenceSettings())
    fill(database, [])
    prepare_catalogue(database, FakeEmbedder())
    with pytest.raises(NoModelError, match="nothing to train on"):
        read_training(database, "fake", EvidenceSettings())


def test_dislikes_alone_are_nothing_to_train_on(database: Database) -> None:
    fill(database, [])
    prepare_catalogue(database, FakeEmbedder())
    with database.session() as session:
        session.add(UserRow(user_id=TIM, log_revision=1))
        session.flush()
        session.add(event(TIM, 1, "hide", "m1", START))
    with pytest.raises(NoModelError, match="nothing to train on"):
        fitted(database)


def test_without_profiles_the_claims_are_left_out(database: Database) -> None:
    fill(database, ["ann", "bob"])
    prepare_catalogue(database, FakeEmbedder())
    made = serve(database, fitted(database))
    assert made.model.user_weights.shape == (0, 9)  # with that of the popularity
    wrote(profiler(database), ["ann"])
    assert_adds_up(made, "ann")
    assert {part.kind for part in made.why("ann", "t1").parts} <= {"claim", "crowd"}
    texts = [part.text_part for part in made.why("ann", "t1").parts if isinstance(part, ClaimPart)]
    assert texts
    assert not any(texts)


# The active model.


def settings_of(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def activate(database: Database, model: Model, path: Path) -> None:
    digest = model.save(path)
    with database.session() as session:
        models.add_model(session, str(path), digest, model.card.model_dump(mode="json"), NOW)


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())


def active(database: Database, tmp_path: Path) -> Recommender:
    with api.runtime.recommender(settings_of(tmp_path), database) as made:
        return made


@pytest.mark.usefixtures("faked")
def test_the_active_model_is_served(world: Recommender, tmp_path: Path) -> None:
    with pytest.raises(NoModelError, match=r"No model has been trained yet\. Train one with `limner train`"):
        active(world.database, tmp_path)
    activate(world.database, world.model, tmp_path / "m.safetensors")
    made = active(world.database, tmp_path)
    assert scores(made, "ann") == scores(world, "ann")
    assert made.top("ann").model_id == "1"


@pytest.mark.usefixtures("faked")
def test_a_damaged_model_is_not_served(world: Recommender, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    activate(world.database, world.model, path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(NoModelError, match="is not the file that was trained"):
        active(world.database, tmp_path)
    world.model.save(path)
    with world.database.session() as session:
        session.execute(text("update models set sha256 = :sha"), {"sha": "0" * 64})
    with pytest.raises(NoModelError, match="is not the file that was trained"):
        active(world.database, tmp_path)
    path.unlink()
    with pytest.raises(NoModelError, match="There is no model"):
        active(world.database, tmp_path)


@pytest.mark.usefixtures("faked")
def test_a_model_for_another_embedder(world: Recommender, tmp_path: Path) -> None:
    other = dataclasses.replace(world.model, card=world.model.card.model_copy(update={"embedder": "other"}))
    activate(world.database, other, tmp_path / "m.safetensors")
    with pytest.raises(NoModelError, match=r"embedded by other, the settings name fake\. Train one for it"):
        active(world.database, tmp_path)


def test_a_model_for_another_dimension(shared: Recommender) -> None:
    projection = dataclasses.replace(
        shared.model.projection,
        mean=shared.model.projection.mean[:12],
        components=shared.model.projection.components[:12],
    )
    with pytest.raises(NoModelError, match=r"embeddings of length 12, these have 16\. Train one"):
        serve(shared.database, dataclasses.replace(shared.model, projection=projection))


# The commands.


@pytest.fixture
def limner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, faked: None) -> Limner:
    """The command in this process, in an empty data directory."""

    def run(*args: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["limner", *args])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        return Ended(int(caught.value.code or 0), said.out, said.err)

    monkeypatch.setenv("LIMNER_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture
def served(world: Recommender, limner: Limner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Limner:
    """The same, with the world and an active model."""
    activate(world.database, world.model, tmp_path / "m.safetensors")
    monkeypatch.setenv("LIMNER_DATABASE_URL", world.database.url)
    return limner


def test_limner_recommend_json(served: Limner, shared: Recommender) -> None:
    document = json.loads(served("recommend", "ann", "-k", "3", "--json").out)
    assert set(document) >= {"user_id", "items"}
    assert document["user_id"] == "ann"
    assert all(set(item) >= {"item_id", "title", "rank", "score"} for item in document["items"])
    expected = shared.top("ann", 3).items
    assert [item["item_id"] for item in document["items"]] == [item.item_id for item in expected]


def test_limner_why_json(served: Limner) -> None:
    document = json.loads(served("why", "ann", "t1", "--json").out)
    assert set(document) >= {"user_id", "item_id", "score", "rank", "parts", "counterfactual", "text"}
    assert {part["kind"] for part in document["parts"]} <= {"event", "claim", "crowd", "rest"}
    assert sum(part["contribution"] for part in document["parts"]) == pytest.approx(document["score"], rel=1e-5)


def test_what_a_person_reads(served: Limner) -> None:
    said = served("recommend", "neo", "-k", "3", "--category", "Tents", "--attribute", "year=2022", "--diversity", "1")
    assert (said.code, said.err) == (0, "")
    assert "For user neo, by popularity" in said.out
    assert "without diversity" in said.out
    assert {line.split()[0] for line in said.out.splitlines() if line.strip()[:1].isdigit()} == {"1", "2"}
    assert "Nothing is known of this user" in said.out
    assert "There are only 2 such items." in said.out
    why = served("why", "ann", "m1", "--shown", "1").out
    assert "Why The Ash Garden?   rank 1, score" in why
    assert "in all (off by" in why
    assert "it would not be recommended" in why


WRONG = [
    (["recommend", "nobody"], 1, "There is no user nobody."),
    (["why", "ann", "x9"], 1, "There is no item x9"),
    (["why", "nobody", "t1"], 1, "There is no user nobody."),
    (["recommend", "ann", "-k", "0"], 2, "Invalid value for '-k'"),
    (["recommend", "ann", "-k", "1000000"], 2, "Invalid value for '-k'"),
    (["why", "ann", "t1", "-k", "0"], 2, "Invalid value for '-k'"),
    (["recommend", "ann", "--diversity", "2"], 2, "Invalid value for '--diversity'"),
    (["recommend", "ann", "--attribute", "year"], 2, "--attribute takes NAME=VALUE, not year"),
    (["recommend", "ann", "--attribute", "=2022"], 2, "--attribute takes NAME=VALUE, not =2022"),
]


def test_wrong_use(served: Limner) -> None:
    for args, code, said in WRONG:
        found = served(*args)
        assert (found.code, found.out) == (code, ""), args
        assert said in " ".join(found.err.split()), args
        assert "Traceback" not in found.err, args


def test_no_model_yet_then_trained(world: Recommender, limner: Limner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_DATABASE_URL", world.database.url)
    for args in (["recommend", "ann"], ["why", "ann", "t1"]):
        found = limner(*args)
        assert (found.code, "No model has been trained yet. Train one with `limner train`." in found.err) == (1, True)
    trained = limner("train")
    assert (trained.code, "Model 1:" in trained.out) == (0, True)
    assert "users on 30 items" in trained.out
    assert limner("recommend", "ann", "-k", "2").code == 0


def test_a_search_goes_on_where_it_was_stopped(
    world: Recommender, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMNER_DATABASE_URL", world.database.url)
    refused = limner("train", "--tune")  # what they like last is what they have seen first
    assert (refused.code, "Train without --tune" in refused.err) == (1, True)
    with world.database.session() as session:
        session.add_all(UserRow(user_id=f"new{n}", log_revision=1) for n in range(6))
        session.flush()
        session.add_all(
            event(f"new{n}", place, "like", f"{'mkth'[(n + place // 7) % 4]}{place % 7 + 1}", START + timedelta(place))
            for n in range(6)
            for place in range(10)
        )
    tried: list[dict[str, object]] = []
    measured = api.commands.recommend.validation

    def counted(*of: object) -> Callable[[str], Callable[[dict[str, object]], float]]:
        measure = measured(*of)("fused")
        return lambda _name: lambda point: tried.append(point) or measure(point)

    monkeypatch.setattr(api.commands.recommend, "validation", counted)
    found = limner("train", "--tune", "--trials", "2")
    assert (found.code, len(tried)) == (0, 2)
    assert "Best of 2 points: NDCG@10" in found.out
    assert limner("train", "--tune", "--trials", "3").code == 0
    assert len(tried) == 3
    with world.database.session() as session:
        card = models.active_model(session).card
    assert 0 <= card["metrics"]["validation_ndcg@10"] <= 1
    best = {name: card["parameters"][name] for name in ("alpha0", "reg", "crowd")}
    assert best in [{name: point[name] for name in best} for point in tried]
