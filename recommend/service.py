"""Recommendations and their reasons for users of the store: read the user, fold in, rank, explain.

A user who has been read is kept for as long as nothing of theirs changes (`store.standing`), titles and filters
for as long as the `Recommender` lives: make a new one when the catalogue or the active model has changed.
"""

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from agent import archive
from agent.catalogue import unit
from agent.contract import Claim, Language
from agent.embedder import Embedder
from agent.evidence import EvidenceSettings, weigh
from recommend import explaining, wording
from recommend.contract import (
    ClaimCounterfactual,
    Counterfactual,
    Explanation,
    MovedItem,
    NamedItem,
    Recommendations,
    RecommendedItem,
    RemovedEvent,
    WhatIf,
)
from recommend.corrections import NEAREST, PseudoEvent, correct, denied_items
from recommend.errors import UnknownItemError
from recommend.history import Events, to_events
from recommend.index import Candidates
from recommend.model import Model
from recommend.people import KnownClaim, Person
from recommend.ranking import diversify, rank_of
from recommend.supposing import suppose
from store import catalogue, corrections, factors, logs, profiles
from store.database import Database
from store.errors import NotFoundError
from store.logs import Log
from store.standing import Standing, standing
from store.vectors import claim_vectors

Bools = npt.NDArray[np.bool_]
_POOL = 200
OF_CLAIM = 200
"""Items nearest to a claim among which those for it are chosen."""
_PEOPLE_BYTES = 256 << 20
_TITLES = 200_000
_FILTERS = 64
_EVENT_BYTES, _USER_BYTES = 1_500, 20_000
"""What a kept event takes, and a user besides."""


class Request(NamedTuple):
    """What is asked for.

    Attributes:
        k: How many items.
        seen: Whether items that the user has had to do with may be recommended again.
        categories: Only items of any of these.
        attributes: Only items that have all of these.
        exclude: Ids of items that are left out.
        claim: Only the items nearest to this claim of the user's profile.
        diversity: Weight of diversity (MMR), in [0, 1]; 0 is off.
        near: Cosine of two items from which one is a near-duplicate of the other; None is off.
    """

    k: int = 10
    seen: bool = False
    categories: tuple[str, ...] = ()
    attributes: Mapping[str, str] = {}
    exclude: tuple[str, ...] = ()
    claim: str | None = None
    diversity: float = 0.0
    near: float | None = None


PLAIN = Request()


class _Kept(NamedTuple):
    """A user who has been read, what the data stood at then, and about how much memory it takes."""

    standing: Standing
    person: Person
    bytes: int


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
        self._lock = threading.Lock()
        self._people: LRUCache[str, _Kept] = LRUCache(_PEOPLE_BYTES, getsizeof=lambda kept: kept.bytes)
        self._known_titles: LRUCache[str, str] = LRUCache(_TITLES)
        self._filters: LRUCache[tuple[Any, ...], Bools] = LRUCache(_FILTERS)

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
        allowed = self._allowed(person, request)
        rows, before = self._list(person, request, excluded, allowed)
        titles = self._titles([self.model.item_ids[row] for row in rows])
        # One by one, as an explanation does: a product with all rows at once may differ in the last digit.
        exact = [person.folded.score(self.model.factors[row].astype(np.float64)) for row in rows]
        items = [
            RecommendedItem(
                item_id=self.model.item_ids[row], title=titles[self.model.item_ids[row]], rank=rank,
                score=score, diversity=was,
            )
            for rank, (row, score, was) in enumerate(zip(rows, exact, before, strict=True), 1)
        ]  # fmt: skip
        notes = self._notes(person)
        if len(items) < request.k:
            notes.append(f"There are only {len(items)} such items.")
        return Recommendations(
            user_id=user_id, items=items, basis=person.basis, model_id=str(self.model_id), notes=notes
        )

    def _list(
        self, person: Person, request: Request, excluded: npt.NDArray[np.int64], allowed: Bools | None
    ) -> tuple[npt.NDArray[np.int64], Sequence[int | None]]:
        """Return the rows of the best items, and their ranks without control of diversity, where there is any."""
        varied = request.diversity > 0 or request.near is not None
        pool = max(request.k, _POOL) if varied else request.k
        rows = self._candidates.candidates(person.folded.vector, pool, excluded, allowed)
        if not varied:
            exact = self.model.factors[rows].astype(np.float64) @ person.folded.vector
            return rows[np.argsort(-exact, kind="stable")], [None] * len(rows)
        scores = self.model.factors[rows] @ person.folded.vector
        tastes = self.model.factors[rows, :-1]  # that both are popular does not make two items alike
        chosen = diversify(rows, scores, tastes, request.k, request.diversity, request.near)
        return chosen.rows, [int(rank) for rank in chosen.before]

    def why(
        self, user_id: str, item_id: str, request: Request = PLAIN, shown: int = 8, *, counterfactuals: bool = True
    ) -> Explanation:
        """Explain the score and the rank of an item for a user.

        Args:
            user_id: The user.
            item_id: The item; one that the user has seen already is explained as if it were not.
            request: What the rank refers to; what control of diversity does to the item is a note.
            shown: How many parts are listed one by one.
            counterfactuals: Whether to search for what it would take for the item to drop out of the top `k`.

        Raises:
            NotFoundError: There is no such user.
            UnknownItemError: There is no such item.
        """
        person = self.person(user_id)
        row = self._row(item_id)
        notes = self._notes(person)
        excluded = self._excluded(person, request)
        if row in excluded:
            excluded = excluded[excluded != row]
            notes.append("The user has had to do with this item already: it would not be recommended.")
        allowed = self._allowed(person, request)
        if allowed is not None and not allowed[row]:
            allowed[row] = True
            notes.append("The filters leave this item out.")
        notes += self._diversity(person, request, row, excluded, allowed)
        reasons = explaining.explain(
            person.folded, person.history, person.events, self.model.factors[row], person.claims_of_event
        )
        score = person.folded.score(self.model.factors[row].astype(np.float64))
        rank = rank_of(person.scores(row), row, excluded, allowed)
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

    def what_if(
        self, user_id: str, item_id: str, events: Collection[str], claims: Collection[str], request: Request = PLAIN
    ) -> WhatIf:
        """Say where an item would stand if some events had never happened, and without some claims.

        Args:
            user_id: The user.
            item_id: The item; one that the user has seen already is ranked as if it were not.
            events: Ids of events that the explanation can list.
            claims: Ids of claims likewise.
            request: What the rank refers to; control of diversity is left aside.

        Raises:
            NotFoundError: There is no such user, or they have no such event or claim.
            UnknownItemError: There is no such item.
        """
        person, row = self.person(user_id), self._row(item_id)
        excluded, allowed = self._excluded(person, request), self._allowed(person, request)
        if allowed is not None:
            allowed[row] = True
        found = suppose(person, events, claims, row, request.k, excluded[excluded != row], allowed)
        ids = [self.model.item_ids[other] for other in found.best]
        titles = self._titles([item_id, *ids])
        moved = zip(ids, found.best, found.best_was, strict=True)
        return WhatIf(
            user_id=user_id, item_id=item_id, title=titles[item_id],
            without_events=sorted(events), without_claims=sorted(claims),
            score=float(found.after[row]), rank=found.rank,
            was_score=float(found.before[row]), was_rank=found.was_rank,
            items=[
                MovedItem(item_id=i, title=titles[i], rank=rank, score=float(found.after[other]), was=was)
                for rank, (i, other, was) in enumerate(moved, 1)
            ],
        )  # fmt: skip

    def _row(self, item_id: str) -> int:
        row = self.model.row_of.get(item_id)
        if row is None:
            raise UnknownItemError(
                f"There is no item {item_id} that the model can place. Is it ingested? See `limner ingest items`."
            )
        return row

    def _diversity(
        self, person: Person, request: Request, row: int, excluded: npt.NDArray[np.int64], allowed: Bools | None
    ) -> list[str]:
        """Say what the control of diversity does to an item."""
        if not request.diversity and request.near is None:
            return []
        rows, before = self._list(person, request, excluded, allowed)
        place = next((n for n, found in enumerate(rows) if found == row), None)
        if place is None:
            return [wording.varied_out(request.k, self.language)]
        note = wording.diversity_note(place + 1, before[place] or place + 1, self.language)
        return [note] if note else []

    def person(self, user_id: str) -> Person:
        """Read a user.

        Raises:
            NotFoundError: There is no such user.
        """
        present = standing(self.database, user_id)
        if present is None:
            raise NotFoundError(f"There is no user {user_id}. `limner doctor` says what is in the store.")
        with self._lock:
            kept = self._people.get(user_id)
        if kept is not None and kept.standing == present:
            return kept.person
        with self.database.session() as session:
            found = logs.read_logs(session, [user_id])
            log = found[0] if found else None
            claims = self._claims(session, user_id) if log else None
            live = corrections.live(session, user_id) if log else []
        person, complete = self._person(user_id, log, claims, live)
        if complete:
            size = len(person.told) * _EVENT_BYTES + self.model.factors.shape[1] ** 2 * 8 + _USER_BYTES
            with self._lock:
                self._people.pop(user_id, None)
                if size <= self._people.maxsize:
                    self._people[user_id] = _Kept(present, person, size)
        return person

    @staticmethod
    def _claims(session: Any, user_id: str) -> list[Claim] | None:
        try:
            profile = archive.from_rows(profiles.load(session, user_id))
        except NotFoundError:
            return None
        return [claim for claim in profile.claims if claim.kind != "intent"]

    def _person(
        self, user_id: str, log: Log | None, claims: list[Claim] | None, live: Sequence[Any]
    ) -> tuple[Person, bool]:
        """Put a user together, and tell whether all claims have vectors: a profile is stored a moment before these."""
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
        complete = len(known) == len(corrected.claims)
        vectors = [vector_of[claim.claim_id] for claim in known]
        if corrected.added:
            embedded = self.embedder.embed([added.text for added in corrected.added])
            for added, vector in zip(corrected.added, embedded, strict=True):
                near = catalogue.nearest(self.database, self.embedder.name, vector, NEAREST)
                usable, cited = self._with(usable, added.pseudo_events(near))
                known.append(KnownClaim(added.claim_id, added.name, added.sign * added.strength, {}, cited))
                vectors.append(vector)
        item_of = {e.event_id: e.item_id for e in events if e.item_id is not None}
        for denied in corrected.denied:
            cited_items = sorted({item_of[i] for i in denied.evidence if i in item_of})
            usable, cited = self._with(usable, denied.pseudo_events(self._like(cited_items, set(item_of.values()))))
            known.append(KnownClaim(denied.claim_id, denied.name, 0.0, {}, cited))
            vectors.append(np.zeros(self.embedder.dimension, dtype=np.float32))
        stacked = np.stack(vectors) if vectors else np.zeros((0, self.embedder.dimension), dtype=np.float32)
        person = Person(
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
        return person, complete

    def _with(self, events: Events, pseudo: Sequence[PseudoEvent]) -> tuple[Events, frozenset[str]]:
        """Add events that stand for a correction, and return their ids."""
        placed = [p for p in pseudo if p.item_id in self.model.row_of]
        targets = [p.target for p in placed]
        joined = Events(
            [*events.ids, *(p.event_id for p in placed)],
            np.append(events.rows, self._rows(p.item_id for p in placed)),
            np.append(events.weights, targets),
            np.append(events.scale, [p.confidence for p in placed]),
            np.append(events.given, targets),
        )
        return joined, frozenset(p.event_id for p in placed)

    def _like(self, item_ids: Sequence[str], besides: Collection[str]) -> list[str]:
        """Return the items whose texts are nearest to the mean of some items' texts, besides those that are known."""
        if not item_ids:
            return []
        mean = self.model.projection.mean
        found = logs.read_vectors(self.database, "item", self.embedder.name, item_ids)
        centred = unit(np.stack([v.vector for v in found.values()]) - mean) if found else np.zeros((0, len(mean)))
        if not len(centred):
            return []
        direction = np.asarray(centred.mean(axis=0), dtype=np.float32)
        count = denied_items(len(self.model.item_ids))
        return catalogue.nearest(
            self.database, self.embedder.name, direction, count, centre=mean, besides=sorted(besides)
        )

    def _excluded(self, person: Person, request: Request) -> npt.NDArray[np.int64]:
        seen = np.zeros(0, dtype=np.int64) if request.seen else person.seen
        return np.union1d(seen, self._rows(request.exclude)) if request.exclude else seen

    def _allowed(self, person: Person, request: Request) -> Bools | None:
        """Return which rows the filters let pass, `(m,)`, the caller's own; None where there is no filter."""
        allowed = None
        if request.categories or request.attributes:
            wanted = (request.categories, *sorted(request.attributes.items()))
            with self._lock:
                kept = self._filters.get(wanted)
            if kept is None:
                with self.database.session() as session:
                    kept = self._mask(catalogue.matching(session, request.categories, request.attributes))
                with self._lock:
                    self._filters[wanted] = kept
            allowed = kept.copy()
        if request.claim is not None:
            if request.claim not in {claim.claim_id for claim in person.claims}:
                raise NotFoundError(
                    f"User {person.user_id} has no claim {request.claim} that recommendations can go by. "
                    f"`limner profile show {person.user_id} --json` lists the claims."
                )
            near = self._mask(
                factors.items_for_claim(self.database, self.model_id, person.user_id, request.claim, OF_CLAIM)
            )
            allowed = near if allowed is None else allowed & near
        return allowed

    def _rows(self, item_ids: Iterable[str]) -> npt.NDArray[np.int64]:
        return np.array([self.model.row_of[i] for i in item_ids if i in self.model.row_of], dtype=np.int64)

    def _mask(self, item_ids: Iterable[str]) -> Bools:
        mask = np.zeros(len(self.model.item_ids), dtype=np.bool_)
        mask[self._rows(item_ids)] = True
        return mask

    def _titles(self, item_ids: Sequence[str]) -> dict[str, str]:
        with self._lock:
            found = {i: self._known_titles[i] for i in item_ids if i in self._known_titles}
        if missing := [i for i in item_ids if i not in found]:
            with self.database.session() as session:
                items = logs.read_items(session, missing)
            new = {i: wording.title(item) for i, item in items.items()}
            with self._lock:
                self._known_titles.update(new)
            found |= {i: new.get(i, i) for i in missing}
        return found

    def _notes(self, person: Person) -> list[str]:
        notes = []
        if person.basis == "popularity":
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


def _day(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%-d %b %Y")
