"""Recommendations and explanations over HTTP, by a model that was trained: what is served adds up and acts at once."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import make_url, text
from starlette.testclient import TestClient

import api.runtime
import recommend.service
from agent.loading import prepare_catalogue
from api.http.app import create_app
from api.training import train_model
from recommend.parameters import Parameters
from store.database import Database
from store.tables import UserRow
from tests.http_client import client, fresh, http, problem, settings, small
from tests.small_world import EVERYONE, START, FakeEmbedder, event, fill, profiler, ratings, wrote

__all__ = ["http", "small"]  # fixtures

ITEMS = 30
PARAMETERS = Parameters(
    factors=8, epochs=6, projection=8, user_features=1.0, item_features=1.0, alpha0=1.0, reg=0.005, half_trust=5.0,
    sparse_alpha=0.0, popular=1.0,
)  # fmt: skip
ANN, TIM, NEO = "/v1/users/ann", "/v1/users/tim", "/v1/users/neo"  # a profile and events; events only; neither


class Trained(NamedTuple):
    """A database with a model, to be copied, and the folder that the model's file is in."""

    template: str
    home: Path


Read = Callable[..., dict[str, Any]]


class World(NamedTuple):
    """A client without a key, and the database behind it."""

    http: TestClient
    database: Database


@pytest.fixture(scope="module")
def trained(postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patched, fresh(postgres_url, migrated_template) as url:
        patched.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
        database = Database(url)
        fill(database)
        with database.session() as session:
            session.add_all([UserRow(user_id="tim", log_revision=1), UserRow(user_id="neo")])
            session.flush()
            liked = enumerate(("m1", "m2", "m3", "k1", "k2"))
            session.add_all(event("tim", n, "like", item, START + timedelta(hours=n)) for n, item in liked)
        wrote(profiler(database), EVERYONE)
        train_model(database, settings(home), PARAMETERS)
        database.close()  # a template must have no connections
        yield Trained(make_url(url).database or "", home)


def serving(postgres_url: str, trained: Trained) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patched, fresh(postgres_url, trained.template) as url:
        patched.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
        database = Database(url)
        with client(create_app(settings(trained.home), database)) as made:
            yield World(made, database)
        database.close()


@pytest.fixture(scope="module")
def still(postgres_url: str, trained: Trained) -> Iterator[World]:
    """For tests that change nothing."""
    yield from serving(postgres_url, trained)


@pytest.fixture(scope="module")
def read(still: World) -> Read:
    """Read what is there."""
    return lambda path, **query: got(still.http, path, **query)


@pytest.fixture
def world(postgres_url: str, trained: Trained) -> Iterator[World]:
    """For tests that change something."""
    yield from serving(postgres_url, trained)


def got(http: TestClient, path: str, **query: Any) -> dict[str, Any]:
    answer = http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(listed: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in listed["items"]]


def top(http: TestClient, user: str = ANN, **query: Any) -> list[str]:
    return ids(got(http, f"{user}/recommendations", **query))


def had(user_id: str) -> set[str | None]:
    """The items that a user of the small world has had to do with."""
    return {row.item_id for row in ratings(user_id)}


@pytest.mark.parametrize("user", [ANN, "/v1/users/sam", TIM, NEO])
@pytest.mark.parametrize(
    "query", [{}, {"k": 5, "category": "Camping"}, {"k": 5, "exclude": ["t1", "h2"], "seen": True}]
)
def test_the_parts_of_an_explanation_sum_to_the_score_of_the_list(read: Read, user: str, query: dict[str, Any]) -> None:
    listed = read(f"{user}/recommendations", **query)
    assert listed["model_id"] == "1"
    assert [item["rank"] for item in listed["items"]] == list(range(1, len(listed["items"]) + 1))
    scores = [item["score"] for item in listed["items"]]
    assert scores == sorted(scores, reverse=True)
    for item in listed["items"]:
        why = read(f"{user}/explanations/{item['item_id']}", **query, shown=3)
        assert (why["title"], why["rank"]) == (item["title"], item["rank"])
        parts = sum(part["contribution"] for part in why["parts"])
        assert parts == pytest.approx(why["total"], abs=1e-12) == pytest.approx(item["score"], abs=1e-9)
        assert why["score"] == pytest.approx(item["score"], abs=1e-12)
        assert why["error"] == why["total"] - why["score"]
        assert why["text"]


def test_what_a_score_rests_on_is_named(read: Read) -> None:
    bases = {u: read(f"{u}/recommendations")["basis"] for u in (ANN, TIM, NEO)}
    assert bases == {ANN: "events and profile", TIM: "events", NEO: "popularity"}
    (best,) = read(f"{ANN}/recommendations", k=1, seen=True)["items"]
    claims = {c["claim_id"]: c for c in read(f"{ANN}/profile")["interests"]}
    cited = [p for p in read(f"{ANN}/explanations/{best['item_id']}")["parts"] if p["kind"] == "claim"]
    assert cited
    for part in cited:
        assert part["contribution"] == pytest.approx(part["events_part"] + part["text_part"])
        if part["claim_id"] in claims:
            stored = {piece["event_id"] for piece in claims[part["claim_id"]]["evidence"]}
            assert set(part["evidence"]) <= stored


def test_k(read: Read) -> None:
    ten = ids(read(f"{ANN}/recommendations"))
    assert ids(read(f"{ANN}/recommendations", k=3)) == ten[:3]
    everything = read(f"{ANN}/recommendations", k=1_000)
    assert set(ids(everything)) == {f"t{n}" for n in range(1, 9)}  # the one group that ann has never met
    assert "There are only 8 such items." in everything["notes"]


@pytest.mark.parametrize(
    "query",
    [
        {"k": 0}, {"k": 1_001}, {"k": "ten"}, {"seen": "perhaps"}, {"attribute": "year"}, {"attribute": "=2021"},
        {"attribute": ["year=2021", ""]},
        {"attribute": ["year=2021", "year=1994"]}, {"category": ["x"] * 21}, {"exclude": ["x"] * 101},
        {"diversity": 1.1}, {"diversity": "nan"}, {"near": -0.1}, {"claim": "x" * 513},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_queries(still: World, query: dict[str, Any]) -> None:
    problem(still.http.get(f"{ANN}/recommendations", params=query), 422, "invalid")
    problem(still.http.get(f"{ANN}/explanations/t1", params=query), 422, "invalid")


def test_seen_items(read: Read) -> None:
    assert not had("ann") & set(ids(read(f"{ANN}/recommendations", k=ITEMS)))
    assert len(ids(read(f"{ANN}/recommendations", k=ITEMS, seen=True))) == ITEMS
    note = "The user has had to do with this item already: it would not be recommended."
    assert note in read(f"{ANN}/explanations/m1")["notes"]
    assert note not in read(f"{ANN}/explanations/m1", seen=True)["notes"]


def test_filters(read: Read) -> None:
    def listed(**query: Any) -> set[str]:
        return set(ids(read(f"{NEO}/recommendations", k=ITEMS, **query)))

    cooking, camping = ({f"{group}{n}" for n in range(1, last)} for group, last in (("k", 8), ("t", 9)))
    assert listed(category="Tents") == camping
    assert listed(category=["Tents", "Baking"]) == camping | cooking
    assert listed(attribute="year=2021") == {"t5"}  # `small_world` adds the number of the item, modulo 5
    assert listed(attribute="year=2013", category="Tents") == set()
    assert listed(attribute="colour=red") == set()
    assert "The filters leave this item out." in read(f"{NEO}/explanations/m1", category="Tents")["notes"]


def test_excluded_items(read: Read) -> None:
    plain = ids(read(f"{ANN}/recommendations"))
    left = [i for i in plain if i not in {"t1", "t2"}]
    assert {"t1", "t2"} < set(plain)
    assert ids(read(f"{ANN}/recommendations", exclude=["t1", "t2", "no-item"])) == left


def test_only_the_items_of_a_claim(still: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommend.service, "OF_CLAIM", 7)
    query = """
        select c.claim_id, array_agg(i.owner_id order by i.vector <#> f.vector, i.owner_id)
        from profiles p
        join claims c using (profile_id)
        join factors f on f.kind = 'claim' and f.owner_id = c.claim_pk::text
        join factors i on i.kind = 'item'
        where p.user_id = 'ann' and p.active and c.kind = 'interest'
        group by 1
    """
    with still.database.session() as session:
        nearest = {row[0]: row[1][:7] for row in session.execute(text(query))}
    lists = {claim: top(still.http, claim=claim, seen=True, k=ITEMS) for claim in nearest}
    assert {claim: sorted(listed) for claim, listed in lists.items()} == {c: sorted(n) for c, n in nearest.items()}
    assert len({frozenset(listed) for listed in lists.values()}) == len(lists) == 2
    (claim, listed), _ = lists.items()
    assert [got(still.http, f"{ANN}/explanations/{i}", claim=claim, seen=True)["rank"] for i in listed] == [
        1,
        2,
        3,
        4,
        5,
        6,
        7,
    ]
    missing = still.http.get(f"{ANN}/recommendations", params={"claim": "i99"})
    assert "no claim i99" in problem(missing, 404, "not-found")["detail"]


def test_diversity_is_named_in_the_reasons(read: Read) -> None:
    query = {"k": 10, "seen": True, "diversity": 0.7}
    plain = ids(read(f"{ANN}/recommendations", k=ITEMS, seen=True))
    varied = read(f"{ANN}/recommendations", **query)["items"]
    assert [item["diversity"] for item in varied] == [plain.index(item["item_id"]) + 1 for item in varied]
    moved = [item for item in varied if item["diversity"] != item["rank"]]
    assert moved

    def notes(item_id: str, **query: Any) -> str:
        return " ".join(read(f"{ANN}/explanations/{item_id}", **query)["notes"])

    for item in varied:
        assert ("if the list did not have to be varied" in notes(item["item_id"], **query)) == (item in moved)
    (out, *_) = [i for i in plain if i not in {item["item_id"] for item in varied}]
    assert "not among the 10 items of the list as it is varied" in notes(out, **query)
    assert "varied" not in notes(out)


def test_who_and_what_is_unknown(still: World) -> None:
    for path in ("recommendations", "explanations/t1"):
        assert "no user nobody" in problem(still.http.get(f"/v1/users/nobody/{path}"), 404, "not-found")["detail"]
    assert "no item x/y" in problem(still.http.get(f"{ANN}/explanations/x%2Fy"), 404, "unknown-item")["detail"]


def test_without_a_model_there_is_nothing_to_recommend(http: TestClient) -> None:
    for path in ("recommendations", "explanations/t1"):
        assert "limner train" in problem(http.get(f"{ANN}/{path}"), 503, "no-model")["detail"]


def test_of_whom_nothing_is_known_gets_what_is_popular_and_is_told(world: World) -> None:
    made = world.http.put("/v1/users/newcomer", json={"consent": True})
    assert made.status_code == 201
    listed = got(world.http, "/v1/users/newcomer/recommendations")
    assert listed["basis"] == "popularity"
    assert "Nothing is known of this user: these items are what most users like." in listed["notes"]
    assert ids(listed) == top(world.http, NEO)
    why = got(world.http, f"/v1/users/newcomer/explanations/{ids(listed)[0]}")
    assert [part["kind"] for part in why["parts"]] == ["crowd"]
    assert why["notes"] == [n for n in listed["notes"] if "only" not in n]


def test_an_event_acts_on_the_next_request(world: World) -> None:
    before = top(world.http, TIM, k=ITEMS)
    liked = before[0]
    why = got(world.http, f"{TIM}/explanations/{before[1]}")
    row = {"user_id": "tim", "item_id": liked, "type": "like", "ts": "2025-08-01T10:00:00Z", "event_id": "new"}
    stored = world.http.post("/v1/events", json=[row])
    assert stored.json()["rows_stored"] == 1
    after = top(world.http, TIM, k=ITEMS)
    assert set(after) == set(before) - {liked}
    now = got(world.http, f"{TIM}/explanations/{before[1]}", shown=100)
    assert now["score"] != why["score"]
    assert "new" in {part.get("event_id") for part in now["parts"]}


def test_the_first_event_of_a_newcomer_acts_on_the_next_request(world: World) -> None:
    before = got(world.http, f"{NEO}/recommendations")
    assert before["basis"] == "popularity"
    row = {"user_id": "neo", "item_id": "h1", "type": "like", "ts": "2025-08-01T10:00:00Z"}
    assert world.http.post("/v1/events", json=[row]).status_code == 200
    now = got(world.http, f"{NEO}/recommendations")
    assert now["basis"] == "events"
    assert now["items"][0]["score"] != before["items"][0]["score"]
    parts = got(world.http, f"{NEO}/explanations/h2")["parts"]
    assert [part["item_id"] for part in parts if part["kind"] == "event"] == ["h1"]


def test_a_correction_and_its_undo_act_on_the_next_request(world: World) -> None:
    query: dict[str, Any] = {"k": ITEMS, "seen": True}
    before = got(world.http, f"{ANN}/recommendations", **query)
    best = ids(before)[0]
    why = got(world.http, f"{ANN}/explanations/{best}", seen=True, shown=100)
    claim = next(part["claim_id"] for part in why["parts"] if part["kind"] == "claim")
    rejected = world.http.post(f"{ANN}/claims/{claim}/reject")
    assert rejected.status_code == 201
    without = got(world.http, f"{ANN}/recommendations", **query)
    score = {item["item_id"]: item["score"] for item in without["items"]}
    assert score[best] < before["items"][0]["score"]
    assert score[best] == got(world.http, f"{ANN}/explanations/{best}", seen=True)["score"]
    parts = got(world.http, f"{ANN}/explanations/{best}", seen=True, shown=100)["parts"]
    assert [p["strength"] for p in parts if p.get("claim_id") == claim] in ([], [0.0])
    changes = {c["item_id"]: c["after"] for c in rejected.json()["changes"]}
    assert {i: rank for i, rank in changes.items() if rank} == {
        i: rank for rank, i in enumerate(top(world.http), 1) if i in changes
    }
    undone = world.http.delete(f"{ANN}/corrections/{rejected.json()['correction']['correction_id']}")
    assert undone.status_code == 200
    assert got(world.http, f"{ANN}/recommendations", **query) == before


def test_a_claim_of_ones_own_acts_on_the_next_request(world: World) -> None:
    before = {i["item_id"]: i["score"] for i in got(world.http, f"{TIM}/recommendations", k=ITEMS)["items"]}
    added = world.http.post(f"{TIM}/claims", json={"name": "Horror with monsters"})
    assert added.status_code == 201
    after = got(world.http, f"{TIM}/recommendations", k=ITEMS)
    gained = {i["item_id"]: i["score"] - before[i["item_id"]] for i in after["items"]}
    assert after["basis"] == "events and profile"
    horror = [gain for item_id, gain in gained.items() if item_id[0] == "h"]
    assert sum(horror) / len(horror) > 2 * sum(gained.values()) / len(gained)
    claim = f"+{added.json()['correction']['correction_id']}"
    why = got(world.http, f"{TIM}/explanations/{ids(after)[0]}")
    assert claim in {part.get("claim_id") for part in why["parts"]}


def test_consent_withdrawn_acts_on_the_next_request(world: World) -> None:
    popular = got(world.http, f"{NEO}/recommendations")
    before = top(world.http)
    assert world.http.put(ANN, json={"consent": False}).status_code == 200
    now = got(world.http, f"{ANN}/recommendations")
    assert (now["items"], now["basis"], now["notes"]) == (popular["items"], "popularity", popular["notes"])
    why = got(world.http, f"{ANN}/explanations/{ids(now)[0]}", counterfactual=True)
    assert [part["kind"] for part in why["parts"]] == ["crowd"]
    assert world.http.put(ANN, json={"consent": True}).status_code == 200
    again = got(world.http, f"{ANN}/recommendations")
    assert (ids(again) != ids(popular), set(ids(again)) <= set(before)) == (True, True)


def test_an_erasure_acts_on_the_next_request(world: World) -> None:
    assert top(world.http)
    assert world.http.delete(ANN).status_code == 204
    problem(world.http.get(f"{ANN}/recommendations"), 404, "not-found")
    problem(world.http.get(f"{ANN}/explanations/t1"), 404, "not-found")


def test_a_new_item_is_recommended_once_its_text_is_embedded(world: World) -> None:
    assert "new" not in top(world.http, NEO, k=ITEMS)
    row = {"item_id": "new", "title": "The Late Alibi", "categories": ["Mystery", "Detective"]}
    assert world.http.post("/v1/items", json=[row]).json()["rows_stored"] == 1
    assert "new" not in top(world.http, NEO, k=ITEMS + 1)
    prepare_catalogue(world.database, FakeEmbedder())  # as a worker does before it writes profiles
    listed = got(world.http, f"{NEO}/recommendations", k=ITEMS + 1)
    assert "The Late Alibi" in {item["title"] for item in listed["items"]}
    why = got(world.http, f"{ANN}/explanations/new", shown=100)
    assert sum(part["contribution"] for part in why["parts"]) == pytest.approx(why["score"])
    assert {part["kind"] for part in why["parts"]} > {"claim"}


def test_what_would_have_to_be_otherwise(world: World) -> None:
    listed = top(world.http, TIM, k=3)
    path = f"{TIM}/explanations/{listed[0]}"
    assert got(world.http, path, k=3)["counterfactual"] is None
    assert (
        got(world.http, f"{TIM}/explanations/h1", k=1, counterfactual=True)["counterfactual"] is None
    )  # not at the top
    found = got(world.http, path, k=3, counterfactual=True)["counterfactual"]
    removed = [gone["event_id"] for gone in found["removed"]]
    own = {e["event_id"]: e["item_id"] for e in got(world.http, f"{TIM}/events")["items"]}
    assert removed
    assert {gone["event_id"]: gone["item_id"] for gone in found["removed"]}.items() <= own.items()
    assert found["new_rank"] > 3
    with world.database.session() as session:  # let it be so
        session.execute(text("delete from events where event_id = any(:gone)"), {"gone": removed})
        session.execute(text("update users set log_revision = log_revision + 1 where user_id = 'tim'"))
    gone = {"exclude": [own[event_id] for event_id in removed]}
    assert got(world.http, path, **gone)["rank"] == found["new_rank"]
    now = top(world.http, TIM, k=3, **gone)
    assert listed[0] not in now
    assert found["replaced_by"]["item_id"] in now
    assert found["replaced_by"]["item_id"] not in listed


def test_what_if_nothing_is_left_out(read: Read) -> None:
    listed = read(f"{ANN}/recommendations")["items"]
    found = read(f"{ANN}/explanations/{listed[2]['item_id']}/what-if")
    assert (found["rank"], found["was_rank"]) == (3, 3)
    assert found["score"] == found["was_score"] == pytest.approx(listed[2]["score"], abs=1e-12)
    assert [(i["item_id"], i["rank"], i["was"]) for i in found["items"]] == [
        (i["item_id"], i["rank"], i["rank"]) for i in listed
    ]


@pytest.mark.parametrize("user", [ANN, "/v1/users/sam", TIM])
def test_what_if_agrees_with_the_counterfactuals(read: Read, user: str) -> None:
    (best,) = read(f"{user}/recommendations", k=1)["items"]
    path = f"{user}/explanations/{best['item_id']}"
    why = read(path, k=1, counterfactual=True)
    removed = why["counterfactual"]
    assert removed["new_rank"] is not None
    found = read(f"{path}/what-if", k=1, without_event=[e["event_id"] for e in removed["removed"]])
    assert found["rank"] == removed["new_rank"]
    assert found["items"][0]["item_id"] == removed["replaced_by"]["item_id"]
    assert (len(why["claim_counterfactuals"]) > 0) == (user != TIM)
    for claim in why["claim_counterfactuals"]:
        assert read(f"{path}/what-if", without_claim=[claim["claim_id"]])["rank"] == claim["new_rank"]


def test_what_if_an_event_had_not_happened_is_what_is_when_it_is_gone(world: World) -> None:
    with world.database.session() as session:
        session.add(event("tim", 99, "dislike", "m1", START + timedelta(days=1)))
        session.execute(text("update users set log_revision = log_revision + 1 where user_id = 'tim'"))
    query = {"without_event": ["tim-0099"], "k": ITEMS}
    supposed = got(world.http, f"{TIM}/explanations/t1/what-if", **query)
    before = got(world.http, f"{TIM}/recommendations", k=ITEMS)
    with world.database.session() as session:
        session.execute(text("delete from events where event_id = 'tim-0099'"))
        session.execute(text("update users set log_revision = log_revision + 1 where user_id = 'tim'"))
    after = got(world.http, f"{TIM}/recommendations", k=ITEMS)
    assert [i["item_id"] for i in supposed["items"]] == ids(after)
    scores = {i["item_id"]: i["score"] for i in after["items"]}
    assert supposed["score"] == pytest.approx(scores["t1"], abs=1e-12)
    assert [i["score"] for i in supposed["items"]] == pytest.approx(list(scores.values()), abs=1e-5)
    assert supposed["was_score"] == pytest.approx({i["item_id"]: i["score"] for i in before["items"]}["t1"], abs=1e-12)
    assert {i["item_id"]: i["was"] for i in supposed["items"]} == {i["item_id"]: i["rank"] for i in before["items"]}
    assert supposed["score"] != supposed["was_score"]


@pytest.mark.parametrize(
    "query", [{"without_event": ["ann-9999"]}, {"without_event": ["bob-0000"]}, {"without_claim": ["i99"]}], ids=str
)
def test_what_if_takes_only_what_counts(still: World, query: dict[str, Any]) -> None:
    problem(still.http.get(f"{ANN}/explanations/t1/what-if", params=query), 404, "not-found")
    problem(still.http.get(f"{ANN}/explanations/no-item/what-if"), 404, "unknown-item")
