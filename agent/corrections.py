"""A user's corrections in the next summary: what was rejected stays out, and the words that they have fixed stay.

Pure functions of the corrections in force and of a draft: one that is undone leaves no trace.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np

from agent.assembly import cite_events
from agent.contract import Claim, Intent, Kind, Wording
from agent.drafting import Draft, DraftClaim
from agent.evidence import Floats, confidence, support, trend
from agent.verify.repetition import Embed, overlap
from agent.verify.text import cjk_share
from agent.words import Worded, named_after
from agent.writer import ClaimTask
from store.corrections import InForce
from store.tables import CorrectionRow

SAME_EVIDENCE = 0.5
SAME_MEANING = 0.8
SAME_MEANING_OF_SHARED = 0.5
ALONE_STRENGTH = 0.2
_WORDINGS: dict[str | None, Wording] = {"llm": "llm", "template": "template"}


def is_about(row: CorrectionRow, kind: Kind, name: str, evidence: frozenset[str], meaning: float = 0.0) -> bool:
    """Tell whether a correction is about a claim, which need not be in the profile that was corrected.

    It is if the claim has the same name (whatever the case), or if half of the claim's evidence is among the
    correction's, or if the names mean the same: a cosine of .8, or of .5 if the claim has taken over half of the
    correction's evidence. A correction of a dislike is about dislikes alone.

    Measured on MovieLens-100K with all-MiniLM-L6-v2. Claims of 300 users from the first 40 and 70 % of their logs,
    looked for among the themes of the whole log, the right one being that which holds most of the evidence: of 2,694,
    name and evidence find 57 %, with a cosine of .8 68 %, with both bounds 90 %; of 10,098 other themes of these users
    they take 3.9, 5.5 and 6.0 %. Names by a language model against the template's of the same evidence (236 claims):
    a cosine of .8 finds 74 % and takes none of 911 others (.75: 83 and .4 %; .85: 67 and 0 %). With the statements
    besides the names, .7 finds 67 % and takes .7 %: so names are compared alone.

    Args:
        row: The correction.
        kind: Of the claim.
        name: Of the claim.
        evidence: Ids of the events that the claim rests on.
        meaning: How much alike the names are, as `likeness` has it.
    """
    if (row.kind == "dislike") != (kind == "dislike"):
        return False
    if name.casefold() in _names(row):
        return True
    shared = len(evidence.intersection(row.evidence))
    if evidence and shared >= SAME_EVIDENCE * len(evidence):
        return True
    taken_over = bool(row.evidence) and shared >= SAME_EVIDENCE * len(row.evidence)
    return meaning >= (SAME_MEANING_OF_SHARED if taken_over else SAME_MEANING)


def _names(row: CorrectionRow) -> set[str]:
    return {row.name.casefold(), (row.new_name or row.name).casefold()}


def likeness(first: Sequence[str], second: Sequence[str], embed: Embed) -> Floats:
    """Return how much alike texts are, `(len(first), len(second))`: the cosine of their embeddings.

    Of Chinese texts it is the share of pairs of letters in common: embedders for English put all of them together.
    """
    vectors = embed([*first, *second])
    found = np.asarray(vectors[: len(first)] @ vectors[len(first) :].T, dtype=np.float64)
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            if cjk_share(one) > 0 or cjk_share(other) > 0:
                found[i, j] = overlap(one, other)
    return found


def usual_strength(strengths: Iterable[float]) -> float:
    """Return the strength of a claim that the user has added: the median of the others', without signs.

    Args:
        strengths: Of the likes and dislikes that follow from events.
    """
    return median([abs(s) for s in strengths] or [ALONE_STRENGTH])


@dataclass(frozen=True)
class Kept:
    """A draft as the user's corrections leave it.

    Attributes:
        draft: Without what the user has rejected.
        fixed: The words of claims of the draft, by place, that the user has pinned or rewritten.
        own: Claims that stand beside the draft: pinned or rewritten ones that no theme stands for any more, and added
            ones.
        rejects: The rejections in force.
        carried: The words that other claims of the draft have had before and keep, by place (`agent.unit`).
    """

    draft: Draft
    fixed: dict[int, Worded]
    own: tuple[Claim, ...]
    rejects: tuple[CorrectionRow, ...]
    carried: dict[int, Worded] = field(default_factory=dict)

    @property
    def settled(self) -> dict[int, Worded]:
        """All words that there are already, by place."""
        return self.carried | self.fixed

    @property
    def tasks(self) -> list[ClaimTask]:
        """What is left to be worded, in order."""
        return [claim.task for n, claim in enumerate(self.draft.claims) if n not in self.settled]

    @property
    def reworded(self) -> frozenset[int]:
        """The places of the claims that have words of the user's own."""
        return frozenset(n for n, words in self.fixed.items() if words.wording == "user")

    def named(self, answers: Sequence[Worded]) -> list[Worded]:
        """Return the words of all claims of the draft, given those of `tasks`; a name of the user's is not used twice.

        Args:
            answers: In the order of `tasks`.
        """
        claims, left, settled = self.draft.claims, iter(answers), self.settled
        taken = {(claim.kind, claim.name.casefold()) for claim in self.own}
        taken |= {(claims[n].kind, words.name.casefold()) for n, words in settled.items()}
        done = []
        for n, claim in enumerate(claims):
            words = settled[n] if n in settled else next(left)
            if n not in settled and (claim.kind, words.name.casefold()) in taken:
                words = replace(words, name=named_after(words.name, claim.titles, self.draft.language))
            done.append(words)
        return done

    def rejected_again(self, answers: Sequence[Worded]) -> Draft | None:
        """Return the draft without the claims that were given a rejected claim's name; None if there is none.

        Args:
            answers: In the order of `tasks`.
        """
        claims, left = self.draft.claims, iter(answers)
        carried = {n: words.name for n, words in self.carried.items()}
        names = {n: carried.get(n) or next(left).name for n in range(len(claims)) if n not in self.fixed}
        kept = tuple(
            claim
            for n, claim in enumerate(claims)
            if n not in names or not any(is_about(row, claim.kind, names[n], frozenset()) for row in self.rejects)
        )
        return replace(self.draft, claims=kept) if len(kept) < len(claims) else None


def keep(in_force: InForce, draft: Draft, embed: Embed) -> Kept:
    """Apply corrections to a draft.

    Words that the user has fixed go to the claim that the correction fits best, one to one; the latest words for a
    claim count. A rejection takes out all claims that it is about; but those whose words are fixed it takes out only by
    name and evidence, and meaning does not suffice. A fixed claim that was rejected itself is fixed no longer.

    Args:
        in_force: The user's corrections.
        draft: Of the user's log.
        embed: Texts to unit vectors.
    """
    rejects = tuple(row for row in in_force.rows if row.action == "reject")
    fixed_by = fixing(in_force.rows)
    claims = draft.claims
    evidence = [frozenset(draft.log.event_ids[r] for r in claim.theme.events) for claim in claims]
    told = [*rejects, *fixed_by]
    alike = _alike(told, claims, embed)

    def about(row: int, n: int, meaning: float) -> bool:
        return is_about(told[row], claims[n].kind, claims[n].task.fallback.name, evidence[n], meaning)

    open_to_words = [n for n in range(len(claims)) if not any(about(row, n, 0.0) for row in range(len(rejects)))]
    fits = {
        (row, n): (_jaccard(evidence[n], told[row].evidence), float(alike[row, n]))
        for row in range(len(rejects), len(told))
        for n in open_to_words
        if claims[n].kind == told[row].kind and about(row, n, float(alike[row, n]))
    }
    row_of: dict[int, int] = {}
    for row, n in sorted(fits, key=lambda pair: fits[pair], reverse=True):
        if n not in row_of and row not in row_of.values():
            row_of[n] = row
    places = [
        n
        for n in open_to_words
        if n in row_of or not any(about(row, n, float(alike[row, n])) for row in range(len(rejects)))
    ]
    words = [_words(row, in_force) for row in fixed_by]
    fixed = {place: words[row_of[n] - len(rejects)] for place, n in enumerate(places) if n in row_of}
    left = replace(draft, claims=tuple(claims[n] for n in places))
    tied = set(row_of.values())
    free = [pair for n, pair in enumerate(zip(fixed_by, words, strict=True), len(rejects)) if n not in tied]
    return Kept(left, fixed, _own(in_force, left, free), rejects)


def fixing(rows: Iterable[CorrectionRow]) -> list[CorrectionRow]:
    """Return the corrections that fix words, without those that later ones replace, or whose claim was rejected.

    Args:
        rows: In force, oldest first.
    """
    listed = list(rows)
    rejects = [row for row in listed if row.action == "reject"]
    fixed = [row for row in listed if row.action in {"pin", "rewrite"}]
    return [
        row for n, row in enumerate(fixed) if not any(_replaces(other, row) for other in (*rejects, *fixed[n + 1 :]))
    ]


def added(rows: Iterable[CorrectionRow]) -> list[CorrectionRow]:
    """Return the corrections that add a claim."""
    return [row for row in rows if row.action == "add"]


def _replaces(row: CorrectionRow, before: CorrectionRow) -> bool:
    if row.kind != before.kind:
        return False
    shared = len(set(row.evidence).intersection(before.evidence))
    return row.name.casefold() in _names(before) or (shared > 0 and shared >= SAME_EVIDENCE * len(row.evidence))


def _alike(rows: Sequence[CorrectionRow], claims: Sequence[DraftClaim], embed: Embed) -> Floats:
    """Compare names, `(r, c)`; a claim without a telling trait is named by an example, which is no meaning."""
    if not rows or not claims:
        return np.zeros((len(rows), len(claims)))
    found = likeness([row.name for row in rows], [claim.task.fallback.name for claim in claims], embed)
    found[:, [not claim.task.says_something for claim in claims]] = 0.0
    return found


def _jaccard(evidence: frozenset[str], others: Iterable[str]) -> float:
    listed = set(others)
    return len(evidence & listed) / max(len(evidence | listed), 1)


def words_of(row: CorrectionRow) -> tuple[str, str]:
    """Return the name and the statement that a correction fixes."""
    name = row.new_name or row.name
    return name, row.new_statement or row.statement or name


def _words(row: CorrectionRow, in_force: InForce) -> Worded:
    assert row.correction_id is not None  # noqa: S101 - it comes from the store
    name, statement = words_of(row)
    pinned = _WORDINGS.get(in_force.wordings.get(row.correction_id), "user")
    return Worded(
        name=name,
        statement=statement,
        wording=pinned if row.action == "pin" else "user",
        correction_id=row.correction_id,
    )


def _own(in_force: InForce, draft: Draft, free: Sequence[tuple[CorrectionRow, Worded]]) -> tuple[Claim, ...]:
    """Make the claims that no theme stands for."""
    untied = [_cited(row, draft) for row, _ in free]
    strengths = [claim.theme.strength for claim in draft.claims if claim.kind != "intent"]
    strengths += [n["strength"] for (row, _), n in zip(free, untied, strict=True) if n and row.kind != "intent"]
    usual = usual_strength(strengths)
    made = [
        _claim(f"p{row.correction_id}", row, words, numbers or _said(row, usual))
        for (row, words), numbers in zip(free, untied, strict=True)
    ]
    made += [
        _claim(f"+{row.correction_id}", row, _words(row, in_force), _said(row, usual)) for row in added(in_force.rows)
    ]
    return tuple(made)


def _cited(row: CorrectionRow, draft: Draft) -> dict[str, Any] | None:
    """Compute a claim's numbers from those of its events that are still there; None if none speaks for it."""
    log, weights, sign = draft.log, draft.themes.weights, -1 if row.kind == "dislike" else 1
    listed = set(row.evidence)
    rows = np.array([n for n, event_id in enumerate(log.event_ids) if event_id in listed], dtype=np.int64)
    signed, undecayed = sign * weights.decayed, sign * weights.undecayed
    events = rows[signed[rows] > 0]
    if not len(events):
        return None
    found = support(signed[rows], weights.explicit[rows])
    member = np.isin(np.arange(len(signed)), events)
    return {
        "strength": sign * found.positive / float(signed[signed > 0].sum()),
        "confidence": confidence(undecayed[rows]),
        "trend": None if row.kind == "intent" else trend(member, log.times),
        "evidence": cite_events(events, log, weights),
        "counter_evidence": cite_events(rows[signed[rows] < 0], log, weights),
    }


def _said(row: CorrectionRow, usual: float) -> dict[str, Any]:
    """Return the numbers of a claim that rests on the user's word: they are sure of it."""
    return {"strength": -usual if row.kind == "dislike" else usual, "confidence": 1.0, "origin": "user"}


def _claim(claim_id: str, row: CorrectionRow, words: Worded, numbers: dict[str, Any]) -> Claim:
    fields = {
        "claim_id": claim_id,
        "kind": row.kind,
        "name": words.name,
        "statement": words.statement,
        "wording": words.wording,
        "locked": True,
        "correction_id": words.correction_id,
    }
    if row.kind == "intent":  # how far the user has come with it cannot be told any more
        return Intent.model_validate(fields | numbers | {"goal": words.statement, "stage": "exploring"})
    return Claim.model_validate(fields | numbers)
