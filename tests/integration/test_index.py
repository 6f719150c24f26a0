"""Large catalogues: candidates from the index give the same best items as the exact product; claims have factors."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from psycopg import sql
from sqlalchemy import text

from recommend import index
from recommend.index import SEARCHED, Candidates
from recommend.model import Card, Model, Projection
from recommend.parameters import Parameters
from recommend.ranking import eligible, top_k
from store import factors, models
from store.database import Database
from tests.conftest import _fresh
from tests.small_world import NOW, START, fill, profiler, wrote

ITEMS, SIZE, CLUSTERS, USERS = 20_000, 32, 100, 60
MANY, SHORT, SEEN = 250_000, 16, 50_000
NOTHING = np.zeros(0, dtype=np.int64)


def model_of(matrix: np.ndarray, ids: tuple[str, ...] | None = None) -> Model:
    size = matrix.shape[1]
    none = np.zeros((0, size), dtype=np.float32)
    card = Card(
        parameters=Parameters(factors=size), embedder="fake", watermark=START, events=1, users=1, trained_at=NOW,
        seconds=0.0,
    )  # fmt: skip
    return Model(
        card=card, item_ids=ids or tuple(f"i{n}" for n in range(len(matrix))), factors=matrix.astype(np.float32),
        popularity=np.ones(len(matrix), dtype=np.float32), crowd=np.zeros(size),
        precision=np.eye(size), user_weights=none, item_weights=none,
        projection=Projection(np.zeros(1, dtype=np.float32), np.zeros((1, 0), dtype=np.float32)),
    )  # fmt: skip


def add_model(database: Database, n: int = 0) -> int:
    with database.session() as session:
        return models.add_model(session, f"{n}.safetensors", f"{n:064x}", {}, NOW + timedelta(n))


def indexed(url: str, items: int, size: int) -> tuple[Candidates, np.ndarray]:
    """A clustered catalogue whose popular items have long factors, indexed; and users' vectors."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(CLUSTERS, size))
    matrix = centres[rng.integers(CLUSTERS, size=items)] + 0.5 * rng.normal(size=(items, size))
    matrix *= rng.lognormal(sigma=0.4, size=(items, 1))
    mix = rng.dirichlet(np.full(CLUSTERS, 0.03), size=USERS)
    people = mix @ centres + 0.1 * rng.normal(size=(USERS, size))
    database = Database(url)
    model = model_of(matrix)
    model_id = add_model(database)
    factors.write_factors(database, model_id, "item", model.item_ids, model.factors, exact_up_to=1_000)
    return Candidates(database, model, model_id, items, exact_up_to=1_000), people.astype(np.float32)


@pytest.fixture(scope="module")
def large(postgres_url: str, migrated_template: str) -> Iterator[tuple[Candidates, np.ndarray]]:
    for url in _fresh(postgres_url, migrated_template):
        made = indexed(url, ITEMS, SIZE)
        yield made
        made[0].database.close()


@pytest.fixture(scope="module")
def huge(postgres_url: str, migrated_template: str) -> Iterator[tuple[Candidates, np.ndarray]]:
    for url in _fresh(postgres_url, migrated_template):
        made = indexed(url, MANY, SHORT)
        yield made
        made[0].database.close()


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many ids each search in the index gave, as it goes on."""
    counts: list[int] = []
    search = factors.search

    def counted(*args):
        found = search(*args)
        counts.append(len(found))
        return found

    monkeypatch.setattr(factors, "search", counted)
    return counts


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Among how many items each choice was made, as it goes on."""
    counts: list[int] = []

    def counted(scores, k, excluded, allowed=None):
        counts.append(int(eligible(len(scores), excluded, allowed).sum()))
        return top_k(scores, k, excluded, allowed)

    monkeypatch.setattr(index, "top_k", counted)
    return counts


def agreement(large, excluded_of, allowed=None) -> float:
    """The share of users whose top 10 is the exact one, in the same order."""
    candidates, people = large
    same = 0
    for person in people:
        scores = candidates.model.factors @ person
        excluded = excluded_of(scores)
        exact = top_k(scores, 10, excluded, allowed)
        same += np.array_equal(candidates.candidates(person, 10, excluded, allowed), exact)
    return same / len(people)


def best(n: int):
    """Excludes the `n` items that fit the user best: the worst case of what they may have seen."""
    return lambda scores: np.argsort(-scores)[:n]


def test_the_index_gives_the_exact_top_ten(large, searches, scored):
    assert agreement(large, best(0)) >= 0.95
    assert len(searches) == USERS
    assert max(scored) == SEARCHED  # it never fell back


def test_the_index_is_used(large):
    candidates, people = large
    query = "explain select owner_id from factors where model_id = {} and kind = 'item' order by {} <#> %s limit 10"
    with candidates.database.raw() as connection:
        connection.execute("set local enable_seqscan = off")
        plan = connection.execute(
            sql.SQL(query).format(sql.Literal(candidates.model_id), factors._level(SIZE)), (np.append(people[0], 0),)
        ).fetchall()
    assert f"ix_factors_item_{candidates.model_id}" in str(plan)


def test_seen_items_are_passed_over(large, searches, scored):
    assert agreement(large, best(200)) >= 0.95
    assert len(searches) == USERS
    assert max(scored) < SEARCHED  # it never fell back


@pytest.mark.parametrize("seen", [400, 5_000])
def test_with_much_seen_that_is_near_all_others_are_scored(large, searches, scored, seen):
    assert agreement(large, best(seen)) == 1.0
    assert len(searches) == USERS
    assert min(scored) == ITEMS - seen


def test_a_filter_that_few_pass_is_exact(large, searches, scored):
    allowed = np.random.default_rng(1).random(ITEMS) < 0.01
    assert agreement(large, best(5_000), allowed) == 1.0
    assert searches == []
    assert max(scored) <= allowed.sum()


def test_a_filter_that_few_pass_of_those_in_the_index(large, searches, scored):
    candidates, people = large
    allowed = np.random.default_rng(1).random(ITEMS) < 0.01
    assert agreement((replace(candidates, exact_up_to=50), people), best(0), allowed) == 1.0
    assert len(searches) == USERS
    assert min(scored) == allowed.sum()


def test_a_filter_that_many_pass_uses_the_index(large, searches, scored):
    allowed = np.random.default_rng(1).random(ITEMS) < 0.8
    assert agreement(large, best(20), allowed) >= 0.95
    assert len(searches) == USERS
    assert max(scored) < SEARCHED


@pytest.mark.slow  # the index of so many items takes minutes
@pytest.mark.timeout(1_200)
def test_fifty_thousand_seen_items_and_a_filter_that_one_in_a_hundred_passes(huge, searches, scored):
    candidates, people = huge
    rng = np.random.default_rng(2)
    seen, allowed = rng.choice(MANY, SEEN, replace=False), rng.random(MANY) < 0.01
    assert agreement(huge, lambda _scores: seen) >= 0.95
    assert len(searches) == USERS
    assert max(scored) < SEARCHED  # it never fell back
    scored.clear()
    assert agreement(huge, best(SEEN)) == 1.0  # all that is near has been seen
    assert set(scored) == {MANY - SEEN}
    scored.clear()
    assert agreement(huge, lambda _scores: seen, allowed) == 1.0
    assert len(searches) == 3 * USERS  # too few of what the index gave passed
    scored.clear()
    assert agreement((replace(candidates, exact_up_to=MANY // 100), people), lambda _scores: seen, allowed) == 1.0
    assert len(searches) == 3 * USERS  # it was not asked
    assert set(scored) == {int(np.delete(allowed, seen).sum())}


def test_items_that_came_later_are_found(large):
    candidates, people = large
    later = np.stack([10 * people[0], -people[0]])
    ids = (*candidates.model.item_ids, "new", "other")
    model = model_of(np.concatenate([candidates.model.factors, later]), ids)
    extended = replace(candidates, model=model)
    assert extended.candidates(people[0], 10, NOTHING)[0] == ITEMS
    assert ITEMS not in extended.candidates(people[0], 10, np.array([ITEMS]))


def test_more_than_an_index_can_give(large):
    candidates, people = large
    exact = top_k(candidates.model.factors @ people[0], ITEMS, NOTHING)
    assert np.array_equal(candidates.candidates(people[0], 1_000_000, NOTHING), exact)
    assert len(candidates.candidates(people[0], 0, NOTHING)) == 0


def test_a_small_catalogue_asks_no_database():
    matrix = np.eye(4)
    unreachable = Database("postgresql://nobody@127.0.0.1:1/none")
    found = Candidates(unreachable, model_of(matrix), 1, 4).candidates(np.array([0.1, 0.4, 0.3, 0.2]), 2, np.array([1]))
    assert found.tolist() == [2, 3]


def test_claims_and_items_find_each_other(database: Database):
    fill(database)
    wrote(profiler(database))
    groups = {"m": 0, "k": 1, "t": 2, "h": 3}
    with database.session() as session:
        ids = list(session.scalars(text("select item_id from items order by item_id")))
    matrix = np.stack([np.eye(5)[groups[i[0]]] * (1 + 0.01 * int(i[1])) for i in ids])
    model_id = add_model(database)
    factors.write_factors(database, model_id, "item", ids, matrix)
    with database.session() as session:
        cited = session.execute(text(
            "select p.user_id, c.claim_id, c.claim_pk, array_agg(distinct v.item_id) from profiles p "
            "join claims c using (profile_id) join evidence e using (claim_pk) join events v using (event_id) "
            "where not e.counter and v.item_id is not null group by 1, 2, 3"
        )).all()  # fmt: skip
    assert factors.write_claim_factors(database, model_id) == len(cited)
    with database.raw() as connection:
        rows = connection.execute("select owner_id, vector from factors where kind = 'claim'").fetchall()
    stored = {owner: vector.to_numpy() for owner, vector in rows}
    for user_id, claim_id, pk, items in cited:
        expected = np.mean([matrix[ids.index(i)] for i in items], axis=0)
        np.testing.assert_allclose(stored[str(pk)], expected, atol=1e-6)
        exact = [ids[row] for row in np.argsort(-(matrix @ expected), kind="stable")]
        assert factors.items_for_claim(database, model_id, user_id, claim_id, 5) == exact[:5]

    claim_of = {pk: (user_id, claim_id) for user_id, claim_id, pk, _ in cited}
    products = sorted(
        ((float(v @ matrix[ids.index("t3")]), claim_of[int(pk)]) for pk, v in stored.items()), reverse=True
    )
    near = factors.claims_near_item(database, model_id, "t3", 3)
    assert [round(claim.product, 5) for claim in near] == [round(product, 5) for product, _ in products[:3]]
    assert near[0].product > 1
    with database.session() as session:
        session.execute(text("update users set consent = false where user_id = :u"), {"u": near[0].user_id})
    assert near[0].user_id not in {c.user_id for c in factors.claims_near_item(database, model_id, "t3", 100)}
    assert factors.items_for_claim(database, model_id, near[0].user_id, near[0].claim_id, 5) == []
    assert factors.claims_near_item(database, model_id, "nothing", 3) == []


def test_factors_of_old_models_are_forgotten(database: Database):
    matrix = np.eye(3, dtype=np.float32)
    numbers = []
    for n in range(2):
        numbers.append(add_model(database, n))
        factors.write_factors(database, numbers[-1], "item", ["a", "b", "c"], matrix, exact_up_to=2)
    factors.write_factors(database, numbers[-1], "item", ["b", "c", "d"], matrix, exact_up_to=2)  # once more
    factors.forget_old_factors(database)
    with database.raw() as connection:
        left = connection.execute("select model_id, owner_id from factors order by owner_id").fetchall()
        indexes = connection.execute("select indexname from pg_indexes where indexname like 'ix_factors%'").fetchall()
    assert left == [(numbers[-1], "b"), (numbers[-1], "c"), (numbers[-1], "d")]
    assert indexes == [(f"ix_factors_item_{numbers[-1]}",)]
    assert factors.search(database, numbers[-1], "item", np.array([0.1, 0.3, 0.2]), 2) == ["c", "d"]
