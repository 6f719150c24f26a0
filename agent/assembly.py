"""A draft and its words make a profile."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from agent.chat import Call
from agent.contract import (
    Claim,
    Evidence,
    Intent,
    LogSpan,
    Profile,
    Provenance,
    Quality,
    SummarySentence,
)
from agent.drafting import Draft, DraftClaim
from agent.evidence import Weights
from agent.themes import Ints, UserLog
from agent.words import Worded, render
from agent.writer import SummaryLine


def build_claim(claim: DraftClaim, words: Worded, draft: Draft) -> Claim:
    """Put a claim's numbers, evidence and words together."""
    theme, weights = claim.theme, draft.themes.weights
    fixed = words.correction_id is not None
    shown = render(words.statement, claim.titles, claim.task.grounds.language)
    statement = words.statement if fixed or words.rendered else shown
    fields = {
        "claim_id": claim.claim_id,
        "kind": claim.kind,
        "name": words.name,
        "statement": statement,
        "strength": theme.strength,
        "confidence": theme.confidence,
        "trend": theme.trend,
        "evidence": cite_events(theme.events, draft.log, weights),
        "counter_evidence": cite_events(theme.counter, draft.log, weights),
        "attributes": {
            f"{t.attribute.field}:{t.attribute.value}": {"share": round(t.share, 4), "lift": round(t.lift, 3)}
            for t in claim.task.telling
        },
        "interpretive": words.interpretive,
        "wording": words.wording,
        "locked": fixed,
        "correction_id": words.correction_id,
    }
    if claim.stage is not None:
        return Intent.model_validate(fields | {"goal": statement, "stage": claim.stage})
    return Claim.model_validate(fields)


def cite_events(rows: Ints, log: UserLog, weights: Weights) -> tuple[Evidence, ...]:
    """Cite rows of a log, the heaviest first."""
    ordered = rows[np.argsort(-np.abs(weights.decayed[rows]), kind="stable")]
    return tuple(Evidence(event_id=log.event_ids[r], weight=float(weights.decayed[r])) for r in ordered)


def build_profile(
    draft: Draft,
    words: Sequence[Worded],
    summary: Sequence[SummaryLine],
    provenance: Provenance,
    own: Sequence[Claim] = (),
) -> Profile:
    """Put a whole profile together, as version 1 until it is stored.

    Args:
        draft: What arithmetic decides.
        words: Of the draft's claims.
        summary: Each line with the places of its claims in the draft.
        provenance: Who wrote the words.
        own: Claims beside those of the draft, which the user has made or kept.
    """
    drafted = [build_claim(c, w, draft) for c, w in zip(draft.claims, words, strict=True)]
    claims = [*drafted, *own]
    sentences = tuple(
        SummarySentence(
            text=line.text,
            claim_ids=tuple(drafted[n].claim_id for n in line.claims),
            wording="llm" if line.by_model else "template",
        )
        for line in summary
    )
    return Profile(
        user_id=draft.log.user_id,
        version=1,
        language=draft.language,
        summary=sentences,
        interests=tuple(c for c in claims if c.kind == "interest"),
        intents=tuple(c for c in claims if isinstance(c, Intent)),
        dislikes=tuple(c for c in claims if c.kind == "dislike"),
        habits=draft.habits,
        tags=draft.tags,
        log=span_of(draft),
        provenance=provenance,
        quality=_quality(words, summary),
    )


def span_of(draft: Draft) -> LogSpan:
    """Return the span of the log that a draft was read from."""
    times = draft.log.times
    first, last = (datetime.fromtimestamp(float(t), UTC) for t in (times[0], times[-1]))
    return LogSpan(first=first, last=last, as_of=last, events_read=len(times), revision=draft.log.revision)


def _quality(words: Sequence[Worded], summary: Sequence[SummaryLine]) -> Quality:
    texts = [(w.wording == "llm", w.tries) for w in words if w.tries]
    texts += [(line.by_model, line.tries) for line in summary[:1] if line.tries]
    said = sum(w.words for w in words)
    return Quality(
        first_try=sum(by_model and tries == 1 for by_model, tries in texts),
        repaired=sum(by_model and tries > 1 for by_model, tries in texts),
        fallback=sum(not by_model for by_model, _ in texts),
        interpretive=sum(len(w.interpretive) for w in words) / said if said else 0.0,
    )


def cost(calls: Sequence[Call]) -> tuple[int, int, float]:
    """Sum up calls: tokens in, tokens out, seconds of the model's time."""
    return (
        sum(c.usage.tokens_in for c in calls),
        sum(c.usage.tokens_out for c in calls),
        sum(c.usage.seconds for c in calls),
    )
