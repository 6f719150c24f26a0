"""What holds of the fold-in and its explanations for every history: parts add up, and removal is recomputation.

The reference is written from the formulas alone, with dense matrices and plain loops.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse as sps
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from irspack import IALSRecommender

from recommend.explaining import claim_counterfactuals, counterfactual, explain, without_claim
from recommend.foldin import Folded, FoldIn
from recommend.history import Events, summarize
from recommend.parameters import Parameters

ITEMS, FACTORS, CLAIMS = 24, 5, 3


class Told(NamedTuple):
    """An event as the reference sees it."""

    row: int
    weight: float
    scale: float
    added: float | None
    claims: tuple[int, ...]


class World(NamedTuple):
    """A user and a model, all of it random."""

    log: list[Told]
    parameters: Parameters
    factors: np.ndarray
    crowd: np.ndarray
    precision: np.ndarray
    claims: np.ndarray

    @property
    def events(self) -> Events:
        log = self.log
        return Events(
            [f"e{n}" for n in range(len(log))],
            np.array([e.row for e in log], dtype=np.int64),
            np.array([e.weight for e in log], dtype=float),
            np.array([e.scale for e in log], dtype=float),
            np.array([np.nan if e.added is None else e.added for e in log], dtype=float),
        )

    @property
    def claims_of_event(self) -> dict[str, list[int]]:
        return {f"e{n}": list(e.claims) for n, e in enumerate(self.log) if e.claims}

    @property
    def fold_in(self) -> FoldIn:
        return FoldIn(self.factors, widened(self.crowd), widened(self.precision, 2), self.parameters)

    def fold(self, events: Events | None = None, claims: np.ndarray | None = None) -> Folded:
        h = summarize(self.events if events is None else events, self.parameters)
        return self.fold_in(h.taste(self.claims if claims is None else claims))


def widened(array: np.ndarray, axes: int = 1) -> np.ndarray:
    """Add a last coordinate of 0, where a factor has the popularity."""
    return np.pad(array, [(0, 0)] * (array.ndim - axes) + [(0, 1)] * axes)


def entries(log: list[Told], p: Parameters) -> list[tuple[int, float, float]]:
    """(row, confidence, target) of what is folded in."""
    found = [(e.row, e.scale, e.added) for e in log if e.added is not None and e.scale > 0]
    for row in range(ITEMS):
        own = [(n, e) for n, e in enumerate(log) if e.row == row and e.added is None]
        net = sum(e.weight for _, e in own)
        confidence = 0.0
        for n, e in own:
            if e.weight * net > 0:
                bonus = 1 + p.recency * 2 ** (-(len(log) - 1 - n) / p.recency_half)
                confidence += (abs(e.weight) if p.rating_weights else 1) * bonus * e.scale
        if net < 0:
            confidence *= p.dislike_weight
        if confidence > 0:
            found.append((row, confidence, 1.0 if net > 0 else -p.dislike_target))
    return found


def reference(world: World, log: list[Told] | None = None, claims: np.ndarray | None = None) -> np.ndarray:
    """x = W (sum c t y + r P mu), and the weight of the popularity, from the formula."""
    p, y = world.parameters, world.factors[:, :-1].astype(np.float64)
    log = world.log if log is None else log
    known = entries(log, p)
    n = len(known) - sum(e.added is not None and e.scale > 0 for e in log)
    trust = 1.0 if p.half_trust == 0 else n / (n + p.half_trust)
    alpha = p.alpha0 * (p.sparse_alpha + (1 - p.sparse_alpha) * trust)
    ridge = p.reg * (n + p.alpha0 * ITEMS) ** p.nu
    matrix = ridge * world.precision + alpha * sum(np.outer(row, row) for row in y)
    right = ridge * p.crowd * (1 - trust) * world.precision @ world.crowd
    for row, confidence, target in known:
        matrix = matrix + confidence * np.outer(y[row], y[row])
        right = right + confidence * target * y[row]
    for claim in world.claims if claims is None else claims:
        right = right + ridge * world.precision @ claim[:FACTORS]
    return np.append(np.linalg.inv(matrix) @ right, p.popular * (1 - trust))


weights = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 1.0])
told = st.builds(
    Told,
    row=st.integers(0, ITEMS - 1),
    weight=weights,
    scale=st.sampled_from([0.0, 0.3, 1.0, 1.0, 1.0]),
    added=st.sampled_from([None, None, None, None, 1.0, -1.0]),
    claims=st.sets(st.integers(0, CLAIMS - 1), max_size=2).map(lambda found: tuple(sorted(found))),
)
parameters = st.builds(
    Parameters,
    alpha0=st.sampled_from([0.05, 1.0]),
    reg=st.sampled_from([0.01, 0.5]),
    nu=st.sampled_from([0.0, 1.0]),
    rating_weights=st.booleans(),
    dislike_target=st.sampled_from([0.0, 0.5]),
    dislike_weight=st.sampled_from([0.0, 0.7]),
    half_trust=st.sampled_from([0.0, 5.0]),
    sparse_alpha=st.sampled_from([0.1, 1.0]),
    crowd=st.sampled_from([0.0, 1.0]),
    popular=st.sampled_from([0.0, 0.3]),
    recency=st.sampled_from([0.0, 3.0]),
)


@st.composite
def worlds(draw: st.DrawFn, min_events: int = 0) -> World:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    root = np.eye(FACTORS) + draw(st.sampled_from([0.0, 0.5])) * rng.normal(size=(FACTORS, FACTORS))
    return World(
        log=draw(st.lists(told, min_size=min_events, max_size=20)),
        parameters=draw(parameters),
        factors=rng.normal(scale=0.5, size=(ITEMS, FACTORS + 1)).astype(np.float32),
        crowd=rng.normal(size=FACTORS),
        precision=root @ root.T + 0.1 * np.eye(FACTORS),
        claims=widened(rng.normal(size=(draw(st.integers(0, CLAIMS)), FACTORS))),
    )


def cited(world: World) -> dict[str, list[int]]:
    """Citations of the claims that there are."""
    q = len(world.claims)
    return {i: kept for i, places in world.claims_of_event.items() if (kept := [c for c in places if c < q])}


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(found - expected).max(initial=0) <= 1e-8 * max(np.abs(expected).max(initial=0), 1e-3))


@settings(deadline=None)
@given(worlds())
@example(
    World(
        [],
        Parameters(),
        np.eye(ITEMS, FACTORS + 1, dtype=np.float32),
        np.ones(FACTORS),
        np.eye(FACTORS),
        np.zeros((0, FACTORS + 1)),
    )
)
def test_the_vector_is_that_of_the_formula(world: World) -> None:
    assert same(world.fold().vector, reference(world))


@settings(deadline=None)
@given(worlds(), st.integers(0, ITEMS - 1))
def test_parts_add_up_to_the_score(world: World, row: int) -> None:
    folded, events = world.fold(), world.events
    score = folded.score(world.factors[row].astype(np.float64))
    reasons = explain(folded, summarize(events, world.parameters), events, world.factors[row], cited(world))
    alone = reasons.events[reasons.owner < 0].sum()
    lines = float(alone + reasons.evidence.sum() + reasons.texts.sum() + reasons.crowd)
    bound = 1e-5 * abs(score) + 1e-12 * np.abs([*reasons.events, *reasons.texts, reasons.crowd]).sum()
    assert abs(reasons.total - score) <= bound
    assert abs(lines - score) <= bound


@settings(deadline=None)
@given(worlds(), st.integers(0, ITEMS - 1))
def test_each_part_is_what_its_term_adds(world: World, row: int) -> None:
    """The right side without a term, the matrix as it is: the difference is the part."""
    events = world.events
    history, item = summarize(events, world.parameters), world.factors[row].astype(np.float64)
    reasons = explain(world.fold(), history, events, item, {})
    for place in range(len(world.claims)):
        less = np.delete(world.claims, place, axis=0)
        assert reasons.texts[place] == pytest.approx(
            item @ (reference(world) - reference(world, claims=less)), abs=1e-7
        )
    known = entries(world.log, world.parameters)
    of_items = [sum(reasons.events[history.item == place]) for place in range(len(history.rows))]
    unpopular = world.parameters.model_copy(update={"popular": 0.0})
    nothing = world._replace(parameters=unpopular, crowd=np.zeros(FACTORS), claims=np.zeros((0, FACTORS)))
    assert sum(of_items) == pytest.approx(item @ reference(nothing), abs=1e-7)
    assert len(of_items) == len(known)


@settings(deadline=None)
@given(worlds(min_events=1), st.data())
def test_without_events_it_is_as_if_they_had_never_happened(world: World, data: st.DataObject) -> None:
    gone = np.array(data.draw(st.lists(st.booleans(), min_size=len(world.log), max_size=len(world.log))))
    left = [e for e, removed in zip(world.log, gone, strict=True) if not removed]
    assert same(world.fold(world.events.without(gone)).vector, reference(world, left))


@settings(deadline=None)
@given(worlds(), st.integers(0, CLAIMS - 1), st.sampled_from([0.0, 0.3]))
def test_without_a_claim_its_text_and_its_own_evidence_are_gone(world: World, place: int, rho: float) -> None:
    assume(place < len(world.claims))
    citations = cited(world)
    log = [e._replace(scale=rho * e.scale) if citations.get(f"e{n}") == [place] else e for n, e in enumerate(world.log)]
    claims = np.array([c for n, c in enumerate(world.claims) if n != place]).reshape(-1, FACTORS + 1)
    vector = reference(world, log, claims)
    assert same(world.fold(*without_claim(world.events, world.claims, citations, place, rho)).vector, vector)
    scores = world.factors @ vector
    row, k = int(np.argmax(world.factors @ reference(world))), 2
    assume(np.abs(np.delete(scores, row) - scores[row]).min() > 1e-4 * np.abs(scores).max())
    nobody = np.zeros(0, dtype=np.int64)
    [(rank, entered)] = claim_counterfactuals(
        world.fold_in, world.events, world.claims, citations, [place], row, k, nobody, rho=rho
    )
    assert rank == 1 + int((scores > scores[row]).sum())
    assert (entered is None) == (rank <= k)


@settings(deadline=None)
@given(worlds(min_events=2), st.integers(1, 4), st.integers(0, 3))
def test_a_counterfactual_is_what_recomputation_says(world: World, k: int, place: int) -> None:
    seen = np.unique([e.row for e in world.log[:3]])
    before = world.factors @ reference(world)
    order = [int(row) for row in np.argsort(-before) if row not in seen]
    row = order[place]
    found = counterfactual(world.fold_in, world.events, world.claims, row, k, seen)
    if place > k:
        assert found is None
    if found is None or found.rank is None:
        return
    gone = [n in found.removed for n in range(len(world.log))]
    assert 1 <= sum(gone) <= 10
    assert all(world.log[n].added is None for n in found.removed)
    after = world.factors @ reference(world, [e for e, removed in zip(world.log, gone, strict=True) if not removed])
    others = np.delete(after, [*seen, row])
    assume(np.abs(others - after[row]).min() > 1e-5 * np.abs(after).max())
    assert found.rank == 1 + int((others > after[row]).sum()) > k
    entered = next(r for r in np.argsort(-after) if r not in seen and r not in order[:k])
    assert found.replaced_by == entered


@cache
def trained() -> tuple[IALSRecommender, np.ndarray]:
    rng = np.random.default_rng(3)
    likes = sps.csr_matrix((rng.random((60, ITEMS)) < 0.3).astype(np.float64))
    features = rng.normal(scale=0.3, size=(60, 4)).astype(np.float32)
    return IALSRecommender(
        likes, n_components=FACTORS, alpha0=0.5, reg=0.01, nu=1.0, train_epochs=4, solver_type="CHOLESKY",
        random_seed=1, n_threads=1, user_features=features, lambda_user_feature=0.5,
    ).learn(), features  # fmt: skip


@settings(deadline=None)
@given(st.sets(st.integers(0, ITEMS - 1), min_size=1), st.integers(0, 59))
def test_for_plain_likes_it_is_the_fold_in_of_irspack(liked: set[int], user: int) -> None:
    model, features = trained()
    core = model.trainer_as_ials.core_trainer
    row = sps.csr_matrix((np.ones(len(liked)), ([0] * len(liked), sorted(liked))), shape=(1, ITEMS))
    expected = model.compute_user_embedding(row, features[user : user + 1])[0]
    plain = Parameters(factors=FACTORS, alpha0=0.5, reg=0.01, nu=1.0, half_trust=0.0, crowd=0.0)
    rows = np.array(sorted(liked), dtype=np.int64)
    events = Events.told([f"e{n}" for n in rows], rows, np.ones(len(rows)))
    history = summarize(events, plain)
    claims = features[user].astype(np.float64)[:, None] * np.asarray(core.user_feature_weight, dtype=np.float64)
    fold_in = FoldIn(widened(np.asarray(core.item)), np.ones(FACTORS + 1), widened(np.eye(FACTORS), 2), plain)
    found = fold_in(history.taste(widened(claims))).vector[:-1]
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
