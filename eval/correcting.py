"""Do corrections act? Every user rejects their strongest interest, adds a claim, and undoes both.

Claims are worded by the template from all of a user's events, in memory; what a correction does to claims and events
is worked out by the code that serves (`recommend.corrections`), and the user is folded in anew. Of a rejected claim
it is asked whether

- the mean score of the items like its evidence falls: the 20 unseen items whose texts are nearest to the mean of the
  evidence's texts, by cosine of texts centred on the catalogue's mean;
- its theme's share of the top 10 at least halves: the share of items whose texts are nearer to its evidence's mean
  than to that of any other claim of the user. It is undefined for a user with a single claim, and for one without any
  item of the theme among the top 10.

Of an added claim, whose text is the name of another user's interest drawn at random, it is asked whether the mean
score of the 20 unseen items nearest to the text rises; also for those of them that it does not itself turn into
pseudo-events.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from agent.assembly import build_claim
from agent.catalogue import unit
from agent.contract import Claim
from agent.drafting import Drafter
from agent.embedder import Embedder
from agent.evidence import EvidenceSettings, weigh
from agent.themes import UserLog
from agent.verify import Vocabulary
from eval.fused import Fused, train_fused
from eval.interactions import Floats, Ints
from eval.world import Claims, Matrix, World
from recommend.corrections import NEAREST, PseudoEvent, correct, denied_items
from recommend.history import Events, summarize, to_events
from recommend.model import Projection
from recommend.parameters import Parameters
from recommend.ranking import top_k
from store.tables import CorrectionRow

K = 10
LIKE = 20
"""Items that are looked at for being like the evidence, or near to a text."""
HALF = 0.5

Shares = dict[str, float | None]


class User(NamedTuple):
    """A user with claims.

    Attributes:
        code: Of the user.
        log: Of all events.
        claims: Written by the template.
        texts: `(q, d)`, embeddings of their names.
    """

    code: int
    log: UserLog
    claims: tuple[Claim, ...]
    texts: Matrix


@dataclass(frozen=True)
class Corrector:
    """Folds users in as their corrections leave them.

    Attributes:
        model: Trained on all events and claims.
        row_of: Rows of items by id.
        texts: `(m, d)`, embeddings of the items.
        mapping: `(d + 1, k)`, from a text's embedding, and 1, into factor space.
        embedder: Of added claims.
        settings: Of the evidence.
    """

    model: Fused
    row_of: dict[str, int]
    texts: Matrix
    mapping: Floats
    embedder: Embedder
    settings: EvidenceSettings

    def scores(self, user: User, corrections: Sequence[CorrectionRow]) -> Floats:
        """Score all items, `(m,)`."""
        log = user.log
        corrected = correct(corrections, user.claims, log.event_ids)
        weights = weigh(log.types, log.values, log.times, 0.0, self.settings).undecayed
        events = to_events(log.event_ids, log.items, weights, self.row_of, corrected.scale)
        place = {claim.claim_id: n for n, claim in enumerate(user.claims)}
        texts = [user.texts[place[claim.claim_id]] for claim in corrected.claims]
        strengths = [claim.strength for claim in corrected.claims]
        item_ids = list(self.row_of)

        def told(pseudo: list[PseudoEvent]) -> Events:
            targets = np.array([p.target for p in pseudo])
            return Events(
                [*events.ids, *(p.event_id for p in pseudo)],
                np.append(events.rows, [self.row_of[p.item_id] for p in pseudo]).astype(np.int64),
                np.append(events.weights, targets),
                np.append(events.scale, [p.confidence for p in pseudo]),
                np.append(events.given, targets),
            )

        for added in corrected.added:
            vector = self.embedder.embed([added.text])[0]
            events = told(added.pseudo_events([item_ids[row] for row in self.nearest(vector)]))
            texts.append(vector)
            strengths.append(added.sign * added.strength)
        for denied in corrected.denied:
            like = self.like(user, denied.evidence)
            events = told(denied.pseudo_events([item_ids[row] for row in like]))
        vectors = np.column_stack([np.stack(texts), np.ones(len(texts))]) if texts else np.zeros((0, len(self.mapping)))
        history = summarize(events, self.model.fold_in.parameters)
        claims = np.array(strengths).reshape(-1, 1) * (vectors @ self.mapping)
        folded = self.model.fold_in(history.taste(claims))
        return np.asarray(self.model.fitted.factors.astype(np.float64) @ folded.vector)

    def nearest(self, vector: Matrix) -> Ints:
        """Return the items that stand for an added claim: those nearest to its text."""
        length = np.linalg.norm(self.texts, axis=1)
        return top_k(self.texts @ vector / np.where(length > 0, length, 1.0), NEAREST, np.zeros(0, dtype=np.int64))

    def like(self, user: User, evidence: Sequence[str]) -> Ints:
        """Return the unseen items that stand for a rejected claim: those nearest to its evidence."""
        item_of = dict(zip(user.log.event_ids, user.log.items, strict=True))
        rows = sorted({self.row_of[item] for i in evidence if (item := item_of.get(i)) in self.row_of})
        if not rows:
            return np.zeros(0, dtype=np.int64)
        return top_k(self.centred @ self.centred[rows].mean(axis=0), denied_items(len(self.texts)), self.seen(user))

    @cached_property
    def centred(self) -> Matrix:
        """The items' texts about their mean, of unit length, `(m, d)`."""
        return unit(self.texts - self.texts.mean(axis=0))

    def seen(self, user: User) -> Ints:
        """Return the rows of the items that a user has had to do with."""
        return np.unique([self.row_of[item] for item in user.log.items if item in self.row_of]).astype(np.int64)


class Rejection(NamedTuple):
    """What came of rejecting a claim.

    Attributes:
        falls: Whether the mean score of the items like its evidence falls.
        before: Its theme's share of the top 10; nan where the user has a single claim.
        after: The share without the claim.
        undone: Whether every score is as it was once the correction is taken back.
    """

    falls: bool
    before: float
    after: float
    undone: bool


class Addition(NamedTuple):
    """What came of adding a claim.

    Attributes:
        rises: Whether the mean score of the unseen items near its text rises.
        others_rise: Whether it rises for those that are no pseudo-events; None if there are none.
        undone: As for a rejection.
    """

    rises: bool
    others_rise: bool | None
    undone: bool


def reject(corrector: Corrector, user: User) -> Rejection | None:
    """Reject the strongest interest of a user; None if there is none.

    Args:
        corrector: That folds in.
        user: Who rejects.
    """
    centred = corrector.centred
    interests = [n for n, claim in enumerate(user.claims) if claim.kind == "interest"]
    if not interests:
        return None
    strongest = max(interests, key=lambda n: (user.claims[n].strength, -n))
    centroids = _centroids(corrector, user, centred)
    seen = corrector.seen(user)
    alike = top_k(centred @ centroids[strongest], LIKE, seen)
    row = _row(user, "reject", user.claims[strongest])
    before, after = corrector.scores(user, []), corrector.scores(user, [row])
    shares = [np.nan, np.nan]
    if len(centroids) > 1:
        tops = [top_k(scores, K, seen) for scores in (before, after)]
        shares = [float((np.argmax(centred[top] @ centroids.T, axis=1) == strongest).mean()) for top in tops]
    falls = bool(after[alike].mean() < before[alike].mean())
    return Rejection(falls, shares[0], shares[1], np.array_equal(corrector.scores(user, []), before))


def add(corrector: Corrector, user: User, text: str) -> Addition:
    """Add an interest."""
    row = CorrectionRow(
        correction_id=1, user_id=user.log.user_id, created_at=datetime.now(UTC), action="add", name=text,
        kind="interest",
    )  # fmt: skip
    vector = corrector.embedder.embed([text])[0]
    near = top_k(corrector.texts @ vector, LIKE, corrector.seen(user))
    others = np.setdiff1d(near, corrector.nearest(vector))
    before, after = corrector.scores(user, []), corrector.scores(user, [row])
    rise = after - before
    undone = np.array_equal(corrector.scores(user, []), before)
    return Addition(bool(rise[near].mean() > 0), bool(rise[others].mean() > 0) if len(others) else None, undone)


def _centroids(corrector: Corrector, user: User, centred: Matrix) -> Matrix:
    """Return the mean text of each claim's evidence, `(q, d)`, of unit length."""
    item_of = dict(zip(user.log.event_ids, user.log.items, strict=True))
    found = np.zeros((len(user.claims), centred.shape[1]), dtype=np.float32)
    for n, claim in enumerate(user.claims):
        items = [item_of[e.event_id] for e in claim.evidence]
        rows = [corrector.row_of[item] for item in items if item in corrector.row_of]
        if rows:
            found[n] = centred[rows].mean(axis=0)
    return unit(found)


def _row(user: User, action: str, claim: Claim) -> CorrectionRow:
    return CorrectionRow(
        correction_id=1, user_id=user.log.user_id, created_at=datetime.now(UTC), action=action, name=claim.name,
        kind=claim.kind, evidence=[e.event_id for e in claim.evidence],
    )  # fmt: skip


def write_claims(world: World, embedder: Embedder) -> list[User]:
    """Write everyone's claims by the template from all events; users without any are left out."""
    drafter = Drafter(world.settings, Vocabulary.of(world.item_set.base_rates), "en")
    items = world.item_set_from(world.interactions)
    found = []
    for code, log in enumerate(world.logs):
        draft = drafter.draft(log, items)
        claims = tuple(build_claim(c, c.task.fallback, draft) for c in draft.claims if c.kind != "intent")
        if claims:
            found.append(User(code, log, claims, np.zeros((0, 0), dtype=np.float32)))
    names = [claim.name for user in found for claim in user.claims]
    if not names:
        return []
    ends = np.cumsum([len(user.claims) for user in found])[:-1]
    return [user._replace(texts=v) for user, v in zip(found, np.split(embedder.embed(names), ends), strict=True)]


def corrector_of(world: World, embedder: Embedder, users: Sequence[User], parameters: Parameters) -> Corrector:
    """Train on all events and on these users' claims."""
    claims = Claims(
        np.repeat([user.code for user in users], [len(user.claims) for user in users]).astype(np.int64),
        np.array([claim.strength for user in users for claim in user.claims]),
        np.concatenate([user.texts for user in users]),
    )
    model = train_fused(world.interactions, claims, world.texts, parameters)
    mapping = np.zeros((world.texts.shape[1] + 1, model.fitted.factors.shape[1]))
    if len(weights := model.fitted.user_weights.astype(np.float64)):
        projection = Projection.learn(world.texts, parameters.projection)
        mapping[:-1] = projection.components @ weights
        mapping[-1] = -projection.mean @ mapping[:-1]
    row_of = {item.item_id: n for n, item in enumerate(world.items)}
    return Corrector(model, row_of, world.texts, mapping, embedder, world.settings)


def run(
    world: World, embedder: Embedder, users: int = 0, seeds: int = 1, parameters: Parameters | None = None
) -> dict[str, Any]:
    """Let users correct their claims.

    Args:
        world: The data.
        embedder: Of claims.
        users: Size of a random sample; 0 takes all who have claims.
        seeds: Claims that are drawn for each user to add, one at a time.
        parameters: Of the model; the defaults unless given.

    Returns:
        For rejections and additions their number, and shares of them; None for a share of none.

    Raises:
        ValueError: Nobody has a claim.
    """
    everyone = write_claims(world, embedder)
    if not everyone:
        raise ValueError("nobody has a claim that could be corrected")
    corrector = corrector_of(world, embedder, everyone, parameters or Parameters())
    order = np.random.default_rng(0).permutation(len(everyone))[: users or None]
    sample = [everyone[n] for n in np.sort(order)]
    rejections = [found for user in sample if (found := reject(corrector, user))]
    texts = sorted({claim.name for user in everyone for claim in user.claims if claim.kind == "interest"})
    additions = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        for user in sample:
            own = {claim.name for claim in user.claims}
            if new := [text for text in texts if text not in own]:
                additions.append(add(corrector, user, new[int(rng.integers(len(new)))]))
    return {"users": len(sample), "reject": _rejected(rejections), "add": _added(additions)}


def _rejected(found: Sequence[Rejection]) -> Shares:
    before, after = (np.array([r[n] for r in found], dtype=np.float64) for n in (1, 2))
    falls = np.array([r.falls for r in found])
    shown = before > 0  # nan is not
    halves = after <= HALF * before
    return {
        "users": len(found),
        "single_claim": int(np.isnan(before).sum()),
        "theme_not_in_top": int((before == 0).sum()),
        "falls": _share(falls),
        "share_before": _share(before[shown]),
        "share_after": _share(after[shown]),
        "halves": _share(halves[shown]),
        "halves_or_absent": _share(halves[~np.isnan(before)]),
        "falls_and_halves": _share((falls & halves)[shown]),
        "undone": _share(np.array([r.undone for r in found])),
    }


def _added(found: Sequence[Addition]) -> Shares:
    return {
        "additions": len(found),
        "rises": _share(np.array([a.rises for a in found])),
        "others_rise": _share(np.array([a.others_rise for a in found if a.others_rise is not None])),
        "undone": _share(np.array([a.undone for a in found])),
    }


def _share(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
