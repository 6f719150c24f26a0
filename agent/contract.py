"""The profile contract: what Limner says about a user, and what each statement rests on.

A profile is made of claims. The numbers of a claim (strength, confidence, trend) are computed from the events
that it cites and can be computed again; its words come from a language model or a template and have passed
the verifier.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["interest", "intent", "dislike"]
Trend = Literal["rising", "steady", "fading", "new"]
Stage = Literal["exploring", "comparing", "deciding", "returning"]
Wording = Literal["llm", "template", "user"]
Writer = Literal["llm", "template"]
Language = Literal["en", "zh"]

Share = Annotated[float, Field(ge=0, le=1)]
SignedShare = Annotated[float, Field(ge=-1, le=1)]
Words = Annotated[str, Field(min_length=1, max_length=600)]


class Part(BaseModel):
    """Base of all parts of a profile."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Evidence(Part):
    """An event and its signed weight, in [-1, 1], at the profile's `as_of`."""

    event_id: str
    weight: SignedShare


class Claim(Part):
    """One statement about the user.

    Attributes:
        strength: Share of the user's positive weight in [0, 1]; for a dislike the share of the negative weight,
            negated.
        confidence: Lower 5 % quantile of the share of evidence that speaks for the claim.
        trend: None when the log is too short to tell.
        evidence: The events that the claim rests on, heaviest first.
        counter_evidence: The events that speak against it.
        attributes: The most telling attributes, each with its share among the evidence and its lift over the
            catalogue.
        interpretive: Words of the statement that the texts behind it do not contain.
        origin: `user` for what the user has said: it cites a correction, and need not cite events.
        wording: Who wrote the words.
        locked: Whether the user has fixed the words: no later summary changes them.
        correction_id: The correction that did so, or that added the claim.
    """

    claim_id: str
    kind: Kind
    name: Words
    statement: Words
    strength: SignedShare
    confidence: Share
    trend: Trend | None = None
    evidence: tuple[Evidence, ...] = ()
    counter_evidence: tuple[Evidence, ...] = ()
    attributes: dict[str, Any] = Field(default_factory=dict)
    interpretive: tuple[str, ...] = ()
    origin: Literal["model", "user"] = "model"
    wording: Wording
    locked: bool = False
    correction_id: int | None = None

    @model_validator(mode="after")
    def _claims_rest_on_events_or_corrections(self) -> "Claim":
        if self.origin == "model" and not self.evidence:
            raise ValueError(f"claim {self.claim_id} of origin 'model' cites no event")
        if (self.origin == "user" or self.locked) and self.correction_id is None:
            raise ValueError(f"claim {self.claim_id} is the user's own and cites no correction")
        cited = [e.event_id for e in (*self.evidence, *self.counter_evidence)]
        if len(cited) != len(set(cited)):
            raise ValueError(f"claim {self.claim_id} cites an event twice")
        return self


class Intent(Claim):
    """What the user seems to be after just now, from the most recent sessions only."""

    kind: Kind = "intent"
    goal: Words
    stage: Stage


class SummarySentence(Part):
    """A sentence of the summary and the claims that it rests on."""

    text: Words
    claim_ids: Annotated[tuple[str, ...], Field(min_length=1)]
    wording: Writer


class Habit(Part):
    """A computed regularity: `hours`, `weekdays`, `sessions` or `diversity`, with the numbers behind it."""

    name: Literal["hours", "weekdays", "sessions", "diversity"]
    statement: Words
    values: dict[str, Any]


class Tag(Part):
    """An attribute value that the user's liked items bear more often than the catalogue does."""

    name: str
    field: str
    events: int
    share: Share
    lift: float


class LogSpan(Part):
    """The log that the profile was read from. `as_of` is the time that weights are decayed to."""

    first: datetime
    last: datetime
    as_of: datetime
    events_read: int
    revision: int


class Clustering(Part):
    """When the themes were last formed anew: after how many events, and which share of the likes each one had.

    Attributes:
        shares: By claim id; what is left of 1 lay outside of all themes.
    """

    events: int
    shares: dict[str, Share]


class Continuation(Part):
    """How a version went on from the one before it.

    Attributes:
        version: The version before.
        clustered: Why themes were formed anew; None if they were kept.
        reworded: Why claims that were there before have new words, by claim id: their most telling `attributes` have
            changed, the old `words` do not hold any more, or the `writer` is another.
    """

    version: int
    clustered: str | None = None
    reworded: dict[str, Literal["attributes", "words", "writer"]] = Field(default_factory=dict)


class Provenance(Part):
    """Who wrote the words, with what, and what it cost.

    Attributes:
        key: SHA-256 of everything that the profile depends on; the same key means the same profile.
        evidence_settings: The settings that the numbers were computed with, for computing them again.
        corrections_revision: That of the user's corrections which the profile follows.
        clustering: When the themes were last formed anew.
        continues: How it went on from the version before; None for the first.
        put_back: Whether the run that wrote it was stopped for its quality, and the version before made active again.
    """

    key: str

    writer: Writer
    model: str | None = None
    weights_hash: str | None = None
    prompts: dict[str, str] = Field(default_factory=dict)
    sampling: dict[str, float] = Field(default_factory=dict)
    embedder: str
    evidence_settings: dict[str, Any]
    corrections_revision: int = 0
    clustering: Clustering | None = None
    continues: Continuation | None = None
    put_back: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    created_at: datetime


class Quality(Part):
    """How the wording of the claims came about (counts of texts), and how much of it is interpretation."""

    first_try: int = 0
    repaired: int = 0
    fallback: int = 0
    interpretive: Share = 0.0


class Profile(Part):
    """Everything that Limner says about one user, in one version."""

    user_id: str
    version: int = Field(ge=1)
    language: Language
    summary: tuple[SummarySentence, ...] = ()
    interests: tuple[Claim, ...] = ()
    intents: tuple[Intent, ...] = ()
    dislikes: tuple[Claim, ...] = ()
    habits: tuple[Habit, ...] = ()
    tags: tuple[Tag, ...] = ()
    log: LogSpan
    provenance: Provenance
    quality: Quality

    @property
    def claims(self) -> tuple[Claim, ...]:
        """All claims, in the order in which they are shown."""
        return (*self.interests, *self.intents, *self.dislikes)

    @model_validator(mode="after")
    def _names_hold_together(self) -> "Profile":
        ids = [claim.claim_id for claim in self.claims]
        if len(ids) != len(set(ids)):
            raise ValueError("two claims have the same claim_id")
        for sentence in self.summary:
            if unknown := set(sentence.claim_ids) - set(ids):
                raise ValueError(f"a summary sentence names claims that do not exist: {sorted(unknown)}")
        return self
