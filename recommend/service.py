"""Recommendations and their reasons for users of the store: read the user, fold in, rank, explain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agent import archive
from agent.contract import Claim, Language
from agent.embedder import Embedder
from agent.evidence import EvidenceSettings, weigh
from recommend import explaining, wording
from recommend.contract import (
    Basis,
    ClaimCounterfactual,
    Counterfactual,
    Explanation,
    NamedItem,
    Recommendations,
    RecommendedItem,
    RemovedEvent,
)
from recommend.corrections import NEAREST, correct
from recommend.errors import UnknownItemError
from recommend.history import Events, to_events
from recommend.index import Candidates
from recommend.model import Model
from recommend.people import KnownClaim, Person
from recommend.ranking import diversify, rank_of
from store import catalogue, corrections, logs, profiles
from store.database import Database
from store.errors import NotFoundError
from store.logs import Log
from store.vectors import claim_vectors

Bools = npt.NDArray[np.bool_]
_POOL = 200


class Request(NamedTuple):
    """What is asked for.

    Attributes:
        k: How many items.
        seen: Whether items that the user has had to do with may be recommended again.
        categories: Only items of any of these.
        attributes: Only items that have all of these.
        diversity: Weight of diversity (MMR), in [0, 1]; 0 is off.
        near: Cosine of two items from which one is a near-duplicate of the other; None is off.
    """

    k: int = 10
    seen: bool = False
    categories: tuple[str, ...] = ()
    attributes: Mapping[str, str] = {}
    diversity: float = 0.0
    near: float | None = None


PLAIN = Request()


@dataclass
class Recommender:
    """Recommends, and says why.

    Attributes:
        database: Where logs, profiles and corrections are.
        model: That scores; items that it has not seen are placed by their texts.
        model_id: Its id in the store.
        embedder: Of the texts that users add.
        settings: Of the evidence.
        language: Of the reasons.

    Raises:
        NoModelError: The model was trained on embeddings of another length.
    """

    database: Database
    model: Model
    model_id: int
    embedder: Embedder
    settings: EvidenceSettings
    language: Language = "en"

    def __post_init__(self) -> None:
        self.model.projection.check(self.embedder.dimension)
        indexed = len(self.model.item_ids)
        new = catalogue.items_besides(self.database, self.embedder.name, self.model.item_ids)
        if new.item_ids:
            self.model = self.model.extended(new.item_ids, new.vectors)
        self._candidates = Candidates(self.database, self.model, self.model_id, indexed)

    def top(self, user_id: str, k: int = 10) -> Recommendations:
        """Return the `k` best items that are new to the user."""
        return self.recommend(user_id, Request(k=k))

    def recommend(self, user_id: str, request: Request) -> Recommendations:
        """Return the best items for a user.

        Raises:
            NotFoundError: There is no such user.
            ValueError: `k` is below 1.
        """
        if request.k < 1:
            raise ValueError(f"k is {request.k}: ask for at least 1 item")
        person = self.person(user_id)
        excluded = self._excluded(person, request)
        allowed = self._allowed(request)
        varied = request.diversity > 0 or request.near is not None
        pool = max(request.k, _POOL) if varied else request.k
        rows = self._candidates.candidates(person.folded.vector, pool, excluded, allowed)
        before: Sequence[int | None] = [None] * len(rows)
        if varied:
            chosen = diversify(
                rows,
                self.model.factors[rows] @ person.folded.vector,
                self.model.factors[rows],
                request.k,
                request.diversity,
                request.near,
            )
            rows, before = chosen.rows, [int(b) for b in chosen.before]
        titles = self._titles([self.model.item_ids[row] for row in rows])
        exact = self.model.factors[rows].astype(np.float64) @ person.folded.vector
        items = [
            RecommendedItem(
                item_id=self.model.item_ids[row], title=titles[self.model.item_ids[row]], rank=rank,
                score=float(score), diversity=was,
            )
            for rank, (row, score, was) in enumerate(zip(rows, exact, before, strict=True), 1)
        ]  # fmt: skip
        notes = self._notes(person)
        if len(items) < request.k:
            notes.append(f"There are only {len(items)} such items.")
        return Recommendations(
            user_id=user_id, items=items, basis=basis(person), model_id=str(self.model_id), notes=notes
        )

    def why(
        self, user_id: str, item_id: str, request: Request = PLAIN, shown: int = 8, *, counterfactuals: bool = True
    ) -> Explanation:
        """Explain the score and the rank of an item for a user.

        Args:
            user_id: The user.
            item_id: The item; one that the user has seen already is explained as if it were not.
            request: What the rank refers to; diversity does not change a score.
            shown: How many parts are listed one by one.
            counterfactuals: Whether to search for what it would take for the item to drop out of the top `k`.

        Raises:
            NotFoundError: There is no such user.
            UnknownItemError: There is no such item.
        """
        person = self.person(user_id)
        row = self.model.row_of.get(item_id)
        if row is None:
            raise UnknownItemError(
                f"There is no item {item_id} that the model can place. Is it ingested? See `limner ingest items`."
            )
        notes = self._notes(person)
        excluded = self._excluded(person, request)
        if row in excluded:
            excluded = excluded[excluded != row]
            notes.append("The user has had to do with this item already: it would not be recommended.")
        allowed = self._allowed(request)
        if allowed is not None and not allowed[row]:
            allowed[row] = True
            notes.append("The filters leave this item out.")
        reasons = explaining.explain(
            person.folded, person.history, person.events, self.model.factors[row], person.claims_of_event
        )
        score = person.folded.score(self.model.factors[row].astype(np.float64))
        rank = rank_of(person.scores, row, excluded, allowed)
        removal = None
        claims: list[ClaimCounterfactual] = []
        if counterfactuals and rank <= request.k:
            removal = self._counterfactual(person, row, request.k, excluded, allowed)
            claims = self._without_claims(person, reasons, row, request.k, excluded, allowed)
        titles = self._titles([item_id, *(self.model.item_ids[r] for r in np.unique(person.events.rows))])
        parts = wording.parts(person, reasons, titles, shown, self.language)
        total = sum(part.contribution for part in parts)
        made = Explanation(
            user_id=user_id, item_id=item_id, title=titles[item_id], score=score, rank=rank, parts=parts,
            total=total, error=total - score, counterfactual=removal, claim_counterfactuals=claims, text="",
            notes=notes,
        )  # fmt: skip
        return made.model_copy(update={"text": wording.sentences(made, self.language)})

    def person(self, user_id: str) -> Person:
        """Read a user.

        Raises:
            NotFoundError: There is no such user.
        """
        with self.database.session() as session:
            found = logs.read_logs(session, [user_id])
            if not found and not logs.exists(session, user_id):
                raise NotFoundError(f"There is no user {user_id}. `limner doctor` says what is in the store.")
            log = found[0] if found else None
            claims = self._claims(session, user_id) if log else None
            live = corrections.live(session, user_id) if log else []
        return self._person(user_id, log, claims, live)

    @staticmethod
    def _claims(session: Any, user_id: str) -> list[Claim] | None:
        try:
            profile = archive.from_rows(profiles.load(session, user_id))
        except NotFoundError:
            return None
        return [claim for claim in profile.claims if claim.kind != "intent"]

    def _person(self, user_id: str, log: Log | None, claims: list[Claim] | None, live: Sequence[Any]) -> Person:
        events = log.events if log else ()
        times = np.array([e.ts.timestamp() for e in events], dtype=np.float64)
        weights = weigh(
            [e.type for e in events], [e.value for e in events], times, float(times.max(initial=0.0)), self.settings
        )
        ids = [e.event_id for e in events]
        corrected = correct(live, claims or [], ids)
        usable = to_events(ids, [e.item_id for e in events], weights.undecayed, self.model.row_of, corrected.scale)
        stored = claim_vectors(self.database, self.embedder.name, [user_id])
        vector_of = dict(zip(stored.claim_ids, stored.vectors, strict=True))
        known = [KnownClaim.of(claim) for claim in corrected.claims if claim.claim_id in vector_of]
        vectors = [vector_of[claim.claim_id] for claim in known]
        if corrected.added:
            embedded = self.embedder.embed([added.text for added in corrected.added])
            for added, vector in zip(corrected.added, embedded, strict=True):
                pseudo = added.pseudo_events(catalogue.nearest(self.database, self.embedder.name, vector, NEAREST))
                placed = [p for p in pseudo if p.item_id in self.model.row_of]
                cited = frozenset(p.event_id for p in placed)
                known.append(KnownClaim(added.claim_id, added.name, added.sign * added.strength, {}, cited))
                vectors.append(vector)
                usable = Events(
                    [*usable.ids, *(p.event_id for p in placed)],
                    np.append(usable.rows, [self.model.row_of[p.item_id] for p in placed]).astype(np.int64),
                    np.append(usable.weights, [p.target for p in placed]),
                    np.append(usable.scale, [p.confidence for p in placed]),
                    np.append(usable.given, [p.target for p in placed]),
                )
        stacked = np.stack(vectors) if vectors else np.zeros((0, self.embedder.dimension), dtype=np.float32)
        return Person(
            user_id=user_id,
            model=self.model,
            events=usable,
            told={e.event_id: e for e in events},
            decayed=dict(zip(ids, weights.decayed.tolist(), strict=True)),
            explicit=frozenset(i for i, said in zip(ids, weights.explicit, strict=True) if said),
            claims=known,
            texts=self.model.claim_factors(stacked, np.ones(len(known))),
            settings=self.settings,
            has_profile=claims is not None,
        )

    def _excluded(self, person: Person, request: Request) -> npt.NDArray[np.int64]:
        return np.zeros(0, dtype=np.int64) if request.seen else person.seen

    def _allowed(self, request: Request) -> Bools | None:
        if not request.categories and not request.attributes:
            return None
        mask = np.zeros(len(self.model.item_ids), dtype=np.bool_)
        with self.database.session() as session:
            for item_id in catalogue.matching(session, request.categories, request.attributes):
                if item_id in self.model.row_of:
                    mask[self.model.row_of[item_id]] = True
        return mask

    def _titles(self, item_ids: Sequence[str]) -> dict[str, str]:
        with self.database.session() as session:
            items = logs.read_items(session, item_ids)
        return {i: wording.title(items[i]) if i in items else i for i in item_ids}

    def _notes(self, person: Person) -> list[str]:
        notes = []
        if basis(person) == "popularity":
            notes.append("Nothing is known of this user: these items are what most users like.")
        watermark = self.model.card.watermark
        if any(person.told[i].ts > watermark for i in person.events.ids if i in person.told):
            notes.append(f"The model has learned from events up to {_day(watermark)}; later ones count as they are.")
        return notes

    def _counterfactual(
        self, person: Person, row: int, k: int, excluded: npt.NDArray[np.int64], allowed: Bools | None
    ) -> Counterfactual | None:
        found = explaining.counterfactual(
            self.model.fold_in, person.events, person.claim_factors, row, k, excluded,
            allowed=allowed, removable=person.removable, claims_without=person.claims_without,
        )  # fmt: skip
        if found is None:
            return None
        ids = self.model.item_ids
        items = [ids[person.events.rows[place]] for place in found.removed]
        replaced = None if found.replaced_by is None else ids[found.replaced_by]
        titles = self._titles([*items, *([replaced] if replaced else [])])
        return Counterfactual(
            k=k,
            removed=[
                RemovedEvent(event_id=person.events.ids[place], item_id=item, title=titles[item])
                for place, item in zip(found.removed, items, strict=True)
            ],
            new_rank=found.rank,
            replaced_by=NamedItem(item_id=replaced, title=titles[replaced]) if replaced else None,
        )

    def _without_claims(
        self,
        person: Person,
        reasons: explaining.Reasons,
        row: int,
        k: int,
        excluded: npt.NDArray[np.int64],
        allowed: Bools | None,
    ) -> list[ClaimCounterfactual]:
        """Say where the item would stand without each of the three claims that add most."""
        worth = reasons.evidence + reasons.texts
        places = [int(p) for p in np.argsort(-worth, kind="stable")[:3] if worth[p] > 0]
        found = explaining.claim_counterfactuals(
            self.model.fold_in, person.events, person.claim_factors, person.claims_of_event, places, row, k, excluded,
            allowed=allowed,
        )  # fmt: skip
        titles = self._titles([self.model.item_ids[other] for _, other in found if other is not None])
        made = []
        for place, (rank, other) in zip(places, found, strict=True):
            item_id = None if other is None else self.model.item_ids[other]
            replaced = NamedItem(item_id=item_id, title=titles[item_id]) if item_id else None
            claim = person.claims[place]
            made.append(
                ClaimCounterfactual(k=k, claim_id=claim.claim_id, name=claim.name, new_rank=rank, replaced_by=replaced)
            )
        return made


def basis(person: Person) -> Basis:
    """Say what a user's scores rest on."""
    events, claims = bool(len(person.history.rows)), bool(len(person.claims))
    if events:
        return "events and profile" if claims else "events"
    return "profile" if claims else "popularity"


def _day(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%-d %b %Y")
