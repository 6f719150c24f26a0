"""The contract of recommendations: what is recommended, why, and what would have to be otherwise."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.contract import SignedShare

Rank = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Basis = Literal["events and profile", "events", "profile", "popularity"]
FactKind = Literal["claim", "event", "item", "profile"]
Tool = Literal["profile", "profile_changes", "search_events", "explanation", "recommendations"]
By = Literal["model", "rule"]


class Wire(BaseModel):
    """Base of what is handed out."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RecommendedItem(Wire):
    """An item in its place.

    Attributes:
        rank: From 1.
        diversity: The rank that it would have without control of diversity; None where there was none.
    """

    item_id: str
    title: str
    rank: Rank
    score: float
    diversity: Rank | None = None


class Recommendations(Wire):
    """The best items for a user.

    Attributes:
        basis: What is known of the user, and so what the scores rest on.
        model_id: None where there is no model.
        notes: What the reader should know, such as that the model is older than the data.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "user_id": "405",
                "items": [{"item_id": "641", "title": "The Lantern Road (1957)", "rank": 1, "score": 0.612}],
                "basis": "events and profile",
                "model_id": "3",
                "notes": [],
            }
        }
    )
    user_id: str
    items: list[RecommendedItem]
    basis: Basis
    model_id: str | None
    notes: list[str] = []


class EventPart(Wire):
    """What one of the user's events adds to the score.

    Attributes:
        type: Of the event; None for an event that stands for a claim the user has added.
        ts: When, in UTC; None likewise.
    """

    kind: Literal["event"] = "event"
    contribution: float
    text: str
    event_id: str
    item_id: str
    title: str
    type: str | None = None
    value: float | None = None
    ts: datetime | None = None


class ClaimPart(Wire):
    """What a claim adds: the parts of its own evidence, and the part of its text.

    Attributes:
        contribution: `events_part + text_part`.
        strength: Of the claim, signed.
        evidence: Ids of the events whose parts are counted here, and nowhere else.
    """

    kind: Literal["claim"] = "claim"
    contribution: float
    text: str
    claim_id: str
    name: str
    strength: SignedShare
    evidence: tuple[str, ...]
    events_part: float
    text_part: float


class CrowdPart(Wire):
    """What the taste of all users adds; it fades as a user's own history grows."""

    kind: Literal["crowd"] = "crowd"
    contribution: float
    text: str


class RestPart(Wire):
    """All parts that are not listed, as one.

    Attributes:
        count: Number of the parts.
        events: Number of the events in them.
    """

    kind: Literal["rest"] = "rest"
    contribution: float
    text: str
    count: Count
    events: Count


Part = Annotated[EventPart | ClaimPart | CrowdPart | RestPart, Field(discriminator="kind")]


class NamedItem(Wire):
    """An item by id and title."""

    item_id: str
    title: str


class RemovedEvent(NamedItem):
    """An event that is thought away."""

    event_id: str


class Counterfactual(Wire):
    """The user's own events without which the item would drop out of the top `k`.

    No event of them can be spared. Where nothing was found within the limit, `new_rank` and `replaced_by` are None,
    and `removed` are the events that were tried.
    """

    k: Rank
    removed: list[RemovedEvent]
    new_rank: Rank | None
    replaced_by: NamedItem | None


class ClaimCounterfactual(Wire):
    """What would be without a claim: without its text, and without the events that no other claim cites.

    Attributes:
        replaced_by: What would enter the top `k` in the item's place; None where the item stays in it.
    """

    k: Rank
    claim_id: str
    name: str
    new_rank: Rank
    replaced_by: NamedItem | None


class Explanation(Wire):
    """Why an item has its score and its rank.

    Attributes:
        score: As served.
        parts: Listed parts from the highest to the lowest, then the rest.
        total: Sum of the parts.
        error: `total - score`.
        counterfactual: None where the item is not among the top `k`.
        text: The same in a few words.
        narrated: Whether a language model wrote `text`, checked against the parts; else a template did.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "user_id": "405",
                "item_id": "641",
                "title": "The Lantern Road (1957)",
                "score": 0.612,
                "rank": 1,
                "parts": [
                    {
                        "kind": "claim", "contribution": 0.431, "text": "your interest in war dramas (1 event)",
                        "claim_id": "i1", "name": "War dramas", "strength": 0.41, "evidence": ["c0ffee"],
                        "events_part": 0.404, "text_part": 0.027,
                    },
                    {"kind": "crowd", "contribution": 0.09, "text": "many like it"},
                    {"kind": "rest", "contribution": 0.091, "text": "8 more of your events", "count": 8, "events": 8},
                ],
                "total": 0.612,
                "error": 0.0,
                "text": "You are recommended The Lantern Road (1957) because of your interest in war dramas.",
            }
        }
    )  # fmt: skip
    user_id: str
    item_id: str
    title: str
    score: float
    rank: Rank
    parts: list[Part]
    total: float
    error: float
    counterfactual: Counterfactual | None = None
    claim_counterfactuals: list[ClaimCounterfactual] = []
    text: str
    narrated: bool = False
    notes: list[str] = []


class MovedItem(RecommendedItem):
    """An item of a list as it would be.

    Attributes:
        was: The rank that it has as things are.
    """

    was: Rank


class WhatIf(Wire):
    """Where an item would stand if events had never happened, and without claims; folded in anew, as what is served.

    Attributes:
        without_events: Ids of the events that are thought away.
        without_claims: Ids of the claims that are.
        score: As it would be.
        rank: As it would be, among the items that are new to the user as things are.
        was_score: As it is.
        was_rank: As it is.
        items: The best items as they would be.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "user_id": "405",
                "item_id": "641",
                "title": "The Lantern Road (1957)",
                "without_events": ["c0ffee"],
                "without_claims": [],
                "score": 0.208,
                "rank": 57,
                "was_score": 0.612,
                "was_rank": 1,
                "items": [{"item_id": "12", "title": "Paper Moons", "rank": 1, "score": 0.431, "was": 2}],
            }
        }
    )
    user_id: str
    item_id: str
    title: str
    without_events: list[str]
    without_claims: list[str]
    score: float
    rank: Rank
    was_score: float
    was_rank: Rank
    items: list[MovedItem]


class Source(Wire):
    """What a sentence of an answer rests on.

    Attributes:
        n: The number under which the text cites it.
        id: A claim's id in its profile, an event's, an item's, or the version of the profile.
        what: What it says.
    """

    n: Annotated[int, Field(ge=1)]
    kind: FactKind
    id: str
    what: str


class ToolCall(Wire):
    """A tool that was called.

    Attributes:
        by: Who chose it.
    """

    name: Tool
    arguments: dict[str, str | int]
    by: By


class Answer(Wire):
    """The answer to a question.

    Attributes:
        text: Cites its sources as [1], [2].
        sources: Those that the text cites. There are none only where there is nothing to say; then the text says
            what can be asked.
        by: Who worded the text: a `model`, checked, or a template (`rule`).
        notes: What the reader should know, such as that the model's words did not hold.
    """

    user_id: str
    question: str
    text: str
    sources: list[Source]
    tool_calls: list[ToolCall]
    by: By
    notes: list[str] = Field(default_factory=list)
