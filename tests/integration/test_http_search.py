"""Search of users by claim text: exact or by an index, with consent, for operators."""

from collections.abc import Callable

import numpy as np
import pytest
from sqlalchemy import text as sql
from starlette.testclient import TestClient

from agent.loading import index_claims
from store import search
from store.database import Database
from store.tables import ClaimRow, EmbeddingRow, ProfileRow, UserRow
from store.vectors import claim_vectors
from tests.http_client import PROBLEM, http, small, with_key
from tests.small_world import EVERYONE, NOW, FakeEmbedder, profiler, wrote

__all__ = ["http", "small", "with_key"]

SEARCH = "/v1/users/search"


@pytest.fixture
def indexed(http: TestClient, database: Database) -> TestClient:
    """The client, with everyone's profile."""
    wrote(profiler(database), EVERYONE)
    index_claims(database, FakeEmbedder())
    return http


def test_users_whose_claims_are_nearest_come_first(indexed: TestClient, database: Database) -> None:
    found = indexed.get(SEARCH, params={"q": "tents for camping", "limit": 50}).json()["items"]
    assert {user["user_id"] for user in found} == set(EVERYONE)
    stored = claim_vectors(database, "fake")
    (sought,) = FakeEmbedder().embed(["tents for camping"])
    cosines = dict(zip(zip(stored.user_ids, stored.claim_ids, strict=True), stored.vectors @ sought, strict=True))
    for user in found:
        own = {claim: cosine for (user_id, claim), cosine in cosines.items() if user_id == user["user_id"]}
        listed = [claim["similarity"] for claim in user["claims"]]
        assert listed == sorted(listed, reverse=True)
        assert user["similarity"] == listed[0] >= max(own.values()) - 1e-5
        for claim in user["claims"]:
            if claim["kind"] != "intent":
                assert claim["similarity"] == pytest.approx(own[claim["claim_id"]], abs=1e-5)
    best = [user["similarity"] for user in found]
    assert best == sorted(best, reverse=True)
    camping = {"bob", "cid", "dee", "eli", "sam"}  # who like tents, or do not
    assert {user["user_id"] for user in found[:5]} == camping
    first = found[0]["claims"][0]
    assert set(first) == {"claim_id", "kind", "name", "statement", "similarity"}
    assert "tents" in first["name"].lower()


def test_the_limit_and_ties(indexed: TestClient) -> None:
    everyone = indexed.get(SEARCH, params={"q": "horror", "limit": 50}).json()["items"]
    assert indexed.get(SEARCH, params={"q": "horror", "limit": 2}).json()["items"] == everyone[:2]
    assert indexed.get(SEARCH, params={"q": "horror", "limit": 2}).json()["items"] == everyone[:2]


def test_without_consent_nobody_is_found_and_older_versions_neither(indexed: TestClient, database: Database) -> None:
    with database.session() as session:
        session.get_one(UserRow, "bob").consent = False
        session.execute(sql("update profiles set active = false where user_id = 'cid'"))
    found = {user["user_id"] for user in indexed.get(SEARCH, params={"q": "tents"}).json()["items"]}
    assert found == set(EVERYONE) - {"bob", "cid"}


def test_an_empty_store_has_nobody(http: TestClient) -> None:
    assert http.get(SEARCH, params={"q": "tents"}).json() == {"items": []}


WRONG: list[dict[str, str]] = [
    {}, {"q": ""}, {"q": "x" * 1001}, {"q": "a\0b"}, {"q": "x", "limit": "0"}, {"q": "x", "limit": "201"},
    {"q": "x", "limit": "y"},
]  # fmt: skip


def test_wrong_searches(http: TestClient) -> None:
    for params in WRONG:
        found = http.get(SEARCH, params=params)
        assert (found.status_code, found.headers["content-type"]) == (422, PROBLEM), params


def test_odd_texts_are_text(indexed: TestClient) -> None:
    for q in ("'; drop table users; --", "<b>tents</b>", "%", "帐篷", " "):
        found = indexed.get(SEARCH, params={"q": q})
        assert (found.status_code, len(found.json()["items"])) == (200, len(EVERYONE)), q


def test_only_operators_may_search_and_each_person_found_is_noted(
    indexed: TestClient, with_key: Callable[..., TestClient], database: Database
) -> None:
    allowed = {
        scope: with_key(scope).get(SEARCH, params={"q": "tents"}).status_code for scope in ("read", "write", "self:ann")
    }
    assert set(allowed.values()) == {403}
    assert with_key("admin").get(SEARCH, params={"q": "tents", "limit": 3}).status_code == 200
    with database.session() as session:
        rows = session.execute(sql("select action, count(distinct subject_hash) from audit group by action")).all()
    assert [tuple(row) for row in rows] == [("search_users", 3)]


def test_thousands_of_claims_are_searched_exactly(database: Database) -> None:
    rng = np.random.default_rng(5)
    n, d = 4_000, 32
    vectors = rng.normal(size=(n, d)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    plain = {"habits": [], "tags": [], "log": {}, "provenance": {}, "quality": {}, "summary": []}
    with database.session() as session:
        session.add_all(UserRow(user_id=f"u{i:04}") for i in range(n // 4))
        session.flush()
        rows = [
            ProfileRow(user_id=f"u{i:04}", version=1, active=True, language="en", created_at=NOW, **plain)
            for i in range(n // 4)
        ]
        session.add_all(rows)
        session.flush()
        claims = [
            ClaimRow(
                profile_id=rows[k // 4].profile_id, claim_id=f"i{k % 4}", position=k % 4, kind="interest", name="n",
                statement="s", strength=0.5, confidence=0.5, origin="model", wording="template",
            )
            for k in range(n)
        ]  # fmt: skip
        session.add_all(claims)
        session.flush()
        session.add_all(
            EmbeddingRow(kind="claim", owner_id=str(c.claim_pk), model="test", text_hash="", vector=v)
            for c, v in zip(claims, vectors, strict=True)
        )
    sought = vectors[77] + 0.3 * vectors[78]
    best = (vectors @ (sought / np.linalg.norm(sought))).reshape(-1, 4)
    order = np.argsort(-best.max(axis=1))[:20]
    found = search.nearest_users(database, "test", sought, 20)
    assert [user.user_id for user in found] == [f"u{i:04}" for i in order]
    assert all(len(user.claims) == 3 for user in found)
    np.testing.assert_allclose([u.claims[0].similarity for u in found], best.max(axis=1)[order], atol=1e-5)


@pytest.mark.usefixtures("indexed")
def test_an_index_over_the_claims_finds_whom_the_exact_search_finds(database: Database) -> None:
    (sought,) = FakeEmbedder().embed(["tents for camping"])
    exact = search.nearest_users(database, "fake", sought, 3)
    few = "select count(*) from pg_indexes where starts_with(indexname, 'ix_embeddings_claim')"
    search.index_claim_vectors(database, "fake")
    assert database.execute(few) == [(0,)]  # of so few, all are looked at
    for _ in range(2):
        search.index_claim_vectors(database, "fake", exact_up_to=10)
        assert database.execute(few) == [(1,)]
    literal = search.pg.Literal
    query = search.pg.SQL(search._NEAREST_CLAIMS).format(
        model=literal("fake"), size=literal(len(sought)), vector=literal(sought), most=literal(3)
    )
    with database.raw() as connection:
        connection.execute("set local enable_seqscan = off")
        connection.execute("set local enable_sort = off")
        plan = "\n".join(row[0] for row in connection.execute(search.pg.SQL("explain ") + query))
    assert "ix_embeddings_claim" in plan
    assert search.nearest_users(database, "fake", sought, 3) == exact


def test_more_claims_are_looked_at_until_these_are_of_enough_users(
    indexed: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = indexed.get(SEARCH, params={"q": "tents", "limit": 6}).json()["items"]
    monkeypatch.setattr(search, "_CLAIMS_A_USER", 2)
    assert indexed.get(SEARCH, params={"q": "tents", "limit": 6}).json()["items"] == everyone
    assert len(everyone) == 6
