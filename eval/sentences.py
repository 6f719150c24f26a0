"""What explanations say: parts, counterfactuals and sentences by the code that serves, for a world in memory."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from agent.contract import Language
from agent.embedder import Embedder
from agent.evidence import weigh
from eval.faithfulness import LIST
from eval.fused import Fused
from eval.interactions import Floats
from eval.profiles.writing import Written, embedded
from eval.world import World
from recommend.contract import ClaimPart, Explanation, RestPart
from recommend.explaining import Removal, counterfactual, explain
from recommend.history import to_events
from recommend.model import Card, Model, Projection
from recommend.parameters import Parameters
from recommend.people import KnownClaim, Person
from recommend.ranking import rank_of, top_k
from recommend.wording import parts, sentences
from store.records import Event

MOST = 10
"""Events that the search for a counterfactual removes at most."""


class Told(NamedTuple):
    """An explanation as it is served, without the counterfactual in its sentence.

    Attributes:
        explanation: Of the item.
        removal: The counterfactual; None where the item is not in the list.
        events: `(e,)`, the part of each event.
    """

    explanation: Explanation
    removal: Removal | None
    events: Floats

    @property
    def additive_error(self) -> float:
        """By how much the sum of all parts is off the score, which is served in single precision, over the score."""
        return abs(self.explanation.error / self.explanation.score)

    @property
    def named_share(self) -> float:
        """What the reasons that the sentence names for the item add, over the score."""
        named = (p for p in self.explanation.parts if not isinstance(p, RestPart) and p.contribution > 0)
        return sum(p.contribution for p in named if p.text in self.explanation.text) / self.explanation.total

    @property
    def claims(self) -> frozenset[str]:
        """Names of the claims that the sentence gives as reasons."""
        listed = (p for p in self.explanation.parts if isinstance(p, ClaimPart) and p.contribution > 0)
        return frozenset(p.name for p in listed if p.text in self.explanation.text)


def served_model(world: World, fused: Fused, parameters: Parameters, embedder: Embedder) -> Model:
    """Put what was trained on a world into the form that serves."""
    last = datetime.fromtimestamp(float(world.interactions.time.max()), UTC)
    card = Card(
        parameters=parameters, embedder=embedder.name, watermark=last, events=len(world.interactions),
        users=len(world.user_ids), trained_at=last, seconds=0.0,
    )  # fmt: skip
    fitted = fused.fitted
    return Model(
        card=card,
        item_ids=tuple(item.item_id for item in world.items),
        factors=fitted.factors,
        popularity=fitted.factors[:, -1],  # only its sign is read
        crowd=fitted.crowd,
        precision=fitted.precision,
        user_weights=fitted.user_weights,
        item_weights=fitted.item_weights,
        projection=Projection.learn(world.texts, parameters.projection),
    )


def person(world: World, model: Model, written: Written, embedder: Embedder) -> Person:
    """Put a user together as the service does, from their log and their profile."""
    log = world.logs[written.code]
    weights = weigh(log.types, log.values, log.times, float(log.times.max(initial=0.0)), world.settings)
    known = [KnownClaim.of(claim) for claim in written.claims]
    vectors = embedder.embed([embedded(claim) for claim in written.claims])
    told = {
        event_id: Event(
            event_id=event_id, user_id=log.user_id, item_id=item, type=kind, ts=datetime.fromtimestamp(at, UTC),
            value=value,
        )
        for event_id, item, kind, at, value in zip(
            log.event_ids, log.items, log.types, log.times.tolist(), log.values, strict=True
        )
    }  # fmt: skip
    return Person(
        user_id=log.user_id,
        model=model,
        events=to_events(log.event_ids, log.items, weights.undecayed, model.row_of),
        told=told,
        decayed=dict(zip(log.event_ids, weights.decayed.tolist(), strict=True)),
        explicit=frozenset(i for i, said in zip(log.event_ids, weights.explicit, strict=True) if said),
        claims=known,
        texts=model.claim_factors(vectors, np.ones(len(known))),
        settings=world.settings,
        has_profile=True,
    )


def adds_up(someone: Person, within: float = 1e-5) -> bool:
    """Tell whether the parts sum to the served score of each of the ten best items, within so much of it."""
    scores = someone.model.factors @ someone.folded.vector.astype(np.float32)
    totals = {
        row: explain(
            someone.folded, someone.history, someone.events, someone.model.factors[row], someone.claims_of_event
        ).total
        for row in top_k(scores, LIST, someone.seen).tolist()
    }
    return all(abs(total - scores[row]) <= within * abs(scores[row]) for row, total in totals.items())


def tell(someone: Person, row: int, titles: Mapping[str, str], language: Language = "en") -> Told:
    """Explain an item to a user as the service does.

    Args:
        someone: The user.
        row: Of the item.
        titles: By item id.
        language: Of the sentence.
    """
    model = someone.model
    factor = model.factors[row]
    reasons = explain(someone.folded, someone.history, someone.events, factor, someone.claims_of_event)
    scores = model.factors @ someone.folded.vector.astype(np.float32)
    removal = counterfactual(
        model.fold_in, someone.events, someone.claim_factors, row, LIST, someone.seen,
        removable=someone.removable, max_removed=MOST, claims_without=someone.claims_without,
    )  # fmt: skip
    item = model.item_ids[row]
    score = float(scores[row])
    explanation = Explanation(
        user_id=someone.user_id, item_id=item, title=titles[item], score=score,
        rank=rank_of(scores, row, someone.seen), parts=parts(someone, reasons, titles, language=language),
        total=reasons.total, error=reasons.total - score, text="",
    )  # fmt: skip
    return Told(explanation.model_copy(update={"text": sentences(explanation, language)}), removal, reasons.events)
