"""Claims over HTTP: what users say to their profile, and what they are shown of what it changes."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient

from api.http.state import State
from recommend.errors import NoModelError
from store import corrections
from store.database import Database
from tests.counting_recommender import CountingRecommender
from tests.http_client import http, small, with_key
from tests.small_world import profiler, wrote

__all__ = ["http", "small", "with_key"]
ANN = "/v1/users/ann"
MYSTERY = "Detective and mystery, partly 1990s"
NASTY = "'; drop table claims;-- <script>alert(1)</script> {{7*7}} %s [1] 你好 👩‍🚀"


def problem(answer: httpx.Response, status: int, slug: str) -> str:
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:limner:problem:{slug}"), answer.text
    return str(answer.json()["detail"])


def said(answer: httpx.Response, status: int = 201) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def listed(http: TestClient) -> list[tuple[str, str]]:
    return [(c["action"], c["name"]) for c in http.get(f"{ANN}/corrections").json()["items"]]


def execute(database: Database, statement: str) -> None:
    with database.session() as session:
        session.execute(text(statement))


@pytest.fixture
def world(small: FastAPI, database: Database) -> Database:
    """The small world, where ann has a profile; there is no model."""
    wrote(profiler(database), ["ann"])
    return database


@pytest.fixture
def counting(world: Database, monkeypatch: pytest.MonkeyPatch) -> CountingRecommender:
    """The same with a recommender that counts."""
    made = CountingRecommender(world)
    monkeypatch.setattr(State, "recommender", lambda self: made)
    return made


def test_a_rejection_shows_the_change_and_taken_back_leaves_none(
    counting: CountingRecommender, http: TestClient
) -> None:
    plain = counting.top("ann", 10)
    done = said(http.post(f"{ANN}/claims/i1/reject"))
    row = done["correction"]
    assert (row["action"], row["claim_id"], row["name"], row["kind"]) == ("reject", "i1", MYSTERY, "interest")
    assert (done["note"], row["undone_at"], row["evidence"] != []) == (None, None, True)
    assert {c["item_id"][0] for c in done["changes"] if c["after"] is None} == {"m"}
    assert all(c["before"] != c["after"] for c in done["changes"])
    assert counting.top("ann", 10) != plain
    problem(http.post(f"{ANN}/claims/i1/reject"), 409, "conflict")
    undone = said(http.delete(f"{ANN}/corrections/{row['correction_id']}"), 200)
    assert undone["correction"]["undone_at"] is not None
    assert {c["item_id"][0] for c in undone["changes"] if c["before"] is None} == {"m"}
    assert counting.top("ann", 10) == plain
    problem(http.delete(f"{ANN}/corrections/{row['correction_id']}"), 409, "conflict")
    assert listed(http) == []


def test_less_takes_how_much_is_left(counting: CountingRecommender, http: TestClient) -> None:
    assert said(http.post(f"{ANN}/claims/i1/less"))["correction"]["rho"] == 0.3
    assert said(http.post(f"{ANN}/claims/i2/less", params={"rho": 0}))["correction"]["rho"] == 0
    for wrong in ("-0.1", "1.1", "nan", "x"):
        problem(http.post(f"{ANN}/claims/d1/less", params={"rho": wrong}), 422, "invalid")


def test_an_added_claim_counts_at_once_and_is_in_the_next_summary(
    world: Database, counting: CountingRecommender, http: TestClient
) -> None:
    answer = http.post(f"{ANN}/claims", json={"name": " Camping ", "statement": NASTY})
    done = said(answer)
    assert (done["correction"]["name"], done["correction"]["statement"]) == ("Camping", NASTY)
    assert {c["item_id"][0] for c in done["changes"] if c["before"] is None} <= {"t"}
    disliked = said(http.post(f"{ANN}/claims", json={"name": "Baking", "kind": "dislike"}))
    assert (disliked["correction"]["kind"], disliked["correction"]["statement"]) == ("dislike", None)
    wrote(profiler(world), ["ann"])
    own = [c for c in claims(http) if c["origin"] == "user"]
    assert [(c["name"], c["statement"], c["correction_id"]) for c in own] == [
        ("Camping", NASTY, done["correction"]["correction_id"]),
        ("Baking", "Baking", disliked["correction"]["correction_id"]),
    ]
    detail = problem(http.post(f"{ANN}/claims/{own[0]['claim_id']}/reject"), 409, "conflict")
    assert f"correction {own[0]['correction_id']} back" in detail


def test_pinned_and_rewritten_words_are_in_the_next_summary(world: Database, http: TestClient) -> None:
    pinned = said(http.post(f"{ANN}/claims/i1/pin"))
    assert (pinned["changes"], "no effect on recommendations" in pinned["note"]) == (None, True)
    rewritten = said(http.patch(f"{ANN}/claims/i2", json={"name": NASTY}))
    assert (rewritten["correction"]["new_name"], rewritten["correction"]["new_statement"]) == (NASTY, None)
    said(http.patch(f"{ANN}/claims/d1", json={"statement": "I was made to."}))
    before = {c["claim_id"]: c for c in claims(http)}
    wrote(profiler(world, language="zh"), ["ann"])
    now = {c["claim_id"]: c for c in claims(http)}
    assert (now["i1"]["name"], now["i1"]["statement"]) == (MYSTERY, before["i1"]["statement"])
    assert (now["i2"]["name"], now["i2"]["statement"]) == (NASTY, before["i2"]["statement"])
    assert (now["d1"]["name"], now["d1"]["statement"]) == (before["d1"]["name"], "I was made to.")
    assert all(c["locked"] for c in now.values())


def claims(http: TestClient) -> list[dict[str, Any]]:
    found = http.get(f"{ANN}/profile").json()
    return [*found["interests"], *found["intents"], *found["dislikes"]]


def test_without_a_model_the_correction_is_stored_and_the_note_says_so(world: Database, http: TestClient) -> None:
    done = said(http.post(f"{ANN}/claims/i1/reject"))
    assert (done["changes"], "No model has been trained yet" in done["note"]) == (None, True)
    assert listed(http) == [("reject", MYSTERY)]


def test_where_the_model_fails_the_correction_is_stored_once(
    world: Database, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(self: State) -> None:
        raise NoModelError("The model's file is damaged.")

    monkeypatch.setattr(State, "recommender", damaged)
    assert "damaged" in said(http.post(f"{ANN}/claims", json={"name": "Tents"}))["note"]
    assert listed(http) == [("add", "Tents")]


def test_a_change_can_rest_on_the_profile_that_was_read(world: Database, http: TestClient) -> None:
    tag = http.get(f"{ANN}/profile").headers["etag"]
    first = http.post(f"{ANN}/claims/i1/reject", headers={"If-Match": tag})
    assert said(first)["correction"]["name"] == MYSTERY
    assert first.headers["etag"] == http.get(f"{ANN}/profile").headers["etag"] != tag
    stale = {"If-Match": tag}
    problem(http.post(f"{ANN}/claims/i2/reject", headers=stale), 412, "stale")
    problem(http.post(f"{ANN}/claims/i2/less", headers=stale), 412, "stale")
    problem(http.post(f"{ANN}/claims/i2/pin", headers=stale), 412, "stale")
    problem(http.patch(f"{ANN}/claims/i2", json={"name": "Mine"}, headers=stale), 412, "stale")
    problem(http.post(f"{ANN}/claims", json={"name": "Mine"}, headers=stale), 412, "stale")
    problem(http.delete(f"{ANN}/corrections/1", headers=stale), 412, "stale")
    assert listed(http) == [("reject", MYSTERY)]
    second = http.delete(f"{ANN}/corrections/1", headers={"If-Match": first.headers["etag"]})
    assert second.status_code == 200
    third = http.post(f"{ANN}/claims/i2/pin", headers={"If-Match": f'"x", {second.headers["etag"]}'})
    wrote(profiler(world), ["ann"])
    problem(http.post(f"{ANN}/claims/d1/pin", headers={"If-Match": third.headers["etag"]}), 412, "stale")
    assert said(http.post(f"{ANN}/claims/d1/pin", headers={"If-Match": "*"}))


def test_where_there_is_no_profile_a_claim_can_be_added_all_the_same(world: Database, http: TestClient) -> None:
    assert said(http.post("/v1/users/bob/claims", json={"name": "Tents"}))["correction"]["action"] == "add"
    problem(http.post("/v1/users/bob/claims", json={"name": "More"}, headers={"If-Match": '"x"'}), 412, "stale")
    problem(http.post("/v1/users/bob/claims/i1/reject"), 404, "not-found")


@pytest.mark.parametrize(
    "words",
    [
        {"name": ""},
        {"name": "  "},
        {"name": "x" * 601},
        {"name": "a\nb"},
        {"name": "a\x1b[31mb"},
        {"name": "a\u202eb"},
        {"name": "a\u2028b"},
        {"name": 7},
        {"name": None},
        {},
        {"name": "x", "mood": "good"},
        {"name": "x", "statement": "y" * 601},
        {"name": "x", "statement": "\t"},
    ],
    ids=repr,
)
def test_words_that_cannot_be(world: Database, http: TestClient, words: dict[str, Any]) -> None:
    problem(http.post(f"{ANN}/claims", json=words), 422, "invalid")
    problem(http.patch(f"{ANN}/claims/i1", json=words), 422, "invalid")
    assert listed(http) == []


def test_only_what_can_be_added_is(world: Database, http: TestClient) -> None:
    problem(http.post(f"{ANN}/claims", json={"name": "x", "kind": "intent"}), 422, "invalid")
    assert said(http.post(f"{ANN}/claims", json={"name": "x" * 600}))["correction"]["name"] == "x" * 600


@pytest.mark.parametrize("what", ["i9", NASTY.replace("/", "%2F").replace("%s", "%25s"), "x" * 512])
def test_unknown_claims(world: Database, http: TestClient, what: str) -> None:
    problem(http.post(f"{ANN}/claims/{what}/reject"), 404, "not-found")
    problem(http.patch(f"{ANN}/claims/{what}", json={"name": "x"}), 404, "not-found")


def test_unknown_corrections(world: Database, http: TestClient) -> None:
    said(http.post("/v1/users/bob/claims", json={"name": "Tents"}))
    for number in (1, 999):  # bob's, and no one's
        problem(http.delete(f"{ANN}/corrections/{number}"), 404, "not-found")
    for wrong in ("0", "x", str(1 << 31)):
        problem(http.delete(f"{ANN}/corrections/{wrong}"), 422, "invalid")


def test_corrections_come_in_pages(world: Database, http: TestClient) -> None:
    for n in range(5):
        said(http.post(f"{ANN}/claims", json={"name": f"Claim {n}"}))
    said(http.delete(f"{ANN}/corrections/2"), 200)
    first = http.get(f"{ANN}/corrections", params={"limit": 3}).json()
    second = http.get(f"{ANN}/corrections", params={"limit": 3, "after": first["next"]}).json()
    assert [c["correction_id"] for c in (*first["items"], *second["items"])] == [1, 3, 4, 5]
    assert second["next"] is None
    problem(http.get(f"{ANN}/corrections", params={"after": "bm8"}), 422, "bad-cursor")


def test_who_is_unknown_or_does_not_consent(world: Database, http: TestClient) -> None:
    execute(world, "update users set consent = false where user_id = 'ann'")
    for user, status, slug in (("nobody", 404, "not-found"), ("ann", 403, "no-consent")):
        at = f"/v1/users/{user}"
        problem(http.get(f"{at}/corrections"), status, slug)
        problem(http.post(f"{at}/claims", json={"name": "x"}), status, slug)
        problem(http.post(f"{at}/claims/i1/reject"), status, slug)
        problem(http.patch(f"{at}/claims/i1", json={"name": "x"}), status, slug)
        problem(http.delete(f"{at}/corrections/1"), status, slug)


def test_a_user_corrects_their_own_profile_and_no_one_elses(world: Database, with_key: Any) -> None:
    own, other, reader = with_key("self:ann"), with_key("self:bob"), with_key("read")
    said(own.post(f"{ANN}/claims/i1/pin"))
    assert own.get(f"{ANN}/corrections").status_code == reader.get(f"{ANN}/corrections").status_code == 200
    problem(other.get(f"{ANN}/corrections"), 403, "forbidden")
    for client in (other, reader):
        problem(client.post(f"{ANN}/claims/i1/reject"), 403, "forbidden")
        problem(client.delete(f"{ANN}/corrections/1"), 403, "forbidden")
    said(own.delete(f"{ANN}/corrections/1"), 200)


def test_sent_twice_under_one_key_it_is_done_once(world: Database, http: TestClient) -> None:
    answers = [
        http.post(f"{ANN}/claims", json={"name": "Tents"}, headers={"Idempotency-Key": "once"}) for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers["etag"] == answers[1].headers["etag"]
    with world.session() as session:
        assert len(corrections.live(session, "ann")) == 1
