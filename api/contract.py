"""The contract of the HTTP interface: what the service answers, for its routes and for `api.client`.

Profiles are in `agent.contract`, recommendations, explanations and answers in `recommend.contract`. Nothing here needs
more than Pydantic, so that a program which only asks the service imports neither its database nor its models.
"""

from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from agent.contract import Claim, Language
from agent.contract import Writer as ProfileWriter
from recommend.parameters import Parameters
from store.records import CorrectedKind, CorrectionAction, ItemState, JobKind, JobState

Row = TypeVar("Row")

MOST_TOLD = 100
"""Rows of a bulk request that are named as wrong."""
EXAMPLE_JOB = "4c8d1f0e2b6a4d7f9e3c5a1b8d7e6f20"


class Wire(BaseModel):
    """Base of what comes in and goes out."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Wire, Generic[Row]):
    """Some rows, and the cursor of the page after; null on the last page."""

    items: list[Row]
    next: str | None = None


class FieldError(BaseModel):
    """What is wrong with one part of a request."""

    where: str = Field(examples=["body.user_id"])
    message: str = Field(examples=["Field required"])


class ProblemDocument(BaseModel):
    """Problem details, as in RFC 9457."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FieldError] | None = None


class RejectedRow(BaseModel):
    """A row that cannot be stored; its content is not repeated."""

    row: int = Field(description="Its place in the array, or its line; from 1.", examples=[3])
    reason: str = Field(examples=["ts is missing"])


class BulkReport(BaseModel):
    """What became of the rows; those stored, known, rejected and dropped make up those read."""

    rows_read: int = Field(examples=[1_000])
    rows_stored: int = Field(description="That made or changed something.", examples=[990])
    rows_known: int = Field(description="That said nothing new.", examples=[9])
    rows_rejected: int = Field(examples=[1])
    rows_dropped: int = Field(description="Whose users were erased.", examples=[0])
    stubs_made: int = Field(description="Items that are known only because an event named them.", examples=[0])
    users_made: int = Field(examples=[12])
    rejected: list[RejectedRow] = Field(description=f"At most {MOST_TOLD} of the rows that cannot be stored.")


class Item(BaseModel):
    """An item; a `stub` is known only because an event named it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "example": {
                "item_id": "50",
                "title": "Star Wars (1977)",
                "categories": ["Action", "Adventure", "Sci-Fi"],
                "attributes": {"year": 1977},
                "description": None,
                "price": None,
                "image_caption": None,
                "created_at": None,
                "stub": False,
            }
        },
    )
    item_id: str
    title: str
    categories: list[str]
    attributes: dict[str, Any]
    description: str | None
    price: float | None
    image_caption: str | None
    created_at: datetime | None
    stub: bool


class ListedUser(Wire):
    """A user in a list."""

    user_id: str = Field(examples=["405"])
    consent: bool
    profile_version: int | None = Field(description="Of the active profile; null: there is none.", examples=[3])


class DeclaredUser(Wire):
    """A user as declared."""

    user_id: str = Field(examples=["405"])
    attributes: dict[str, Any] = Field(examples=[{"occupation": "librarian"}])
    consent: bool
    language: str | None = Field(examples=["en"])
    tz: str | None = Field(examples=["Europe/Paris"])


class LoggedEvent(Wire):
    """Something that a user did."""

    event_id: str = Field(examples=["c0ffee…"])
    item_id: str | None = Field(examples=["50"])
    type: str = Field(examples=["rating"])
    ts: datetime = Field(description="In UTC.")
    ts_offset: int | None = Field(description="Minutes east of UTC that the time came with.", examples=[60])
    value: float | None = Field(examples=[4.0])
    text: str | None
    context: dict[str, Any] = Field(examples=[{"device": "phone"}])


class ProfileVersion(Wire):
    """A version of a profile in a list."""

    version: int = Field(examples=[3])
    active: bool
    created_at: datetime
    language: Language
    writer: ProfileWriter
    model: str | None = Field(description="That wrote the words.", examples=["qwen2.5-coder-1.5b"])
    events_read: int = Field(examples=[412])


class ClaimChange(Wire):
    """A claim before and after; null where it was not there."""

    before: Claim | None
    after: Claim | None
    what: list[str] = Field(description="`new`, `gone`, or what differs.", examples=[["strength +0.41 to +0.35"]])
    why: str | None = Field(description="Why it came, went or has other words; null where it was not noted.")


class ProfileDiff(Wire):
    """What changed between two versions."""

    user_id: str = Field(examples=["405"])
    from_version: int = Field(examples=[1])
    to_version: int = Field(examples=[3])
    changes: list[ClaimChange]


class Correction(Wire):
    """What the user has said about a claim; `name`, `statement` and `evidence` are those of the claim then."""

    correction_id: int = Field(examples=[7])
    created_at: datetime
    action: CorrectionAction = Field(examples=["reject"])
    kind: CorrectedKind
    claim_id: str | None = Field(description="In the version of the profile at that time.", examples=["i1"])
    name: str = Field(examples=["Crime and film noir"])
    statement: str | None = Field(examples=["Enjoys crime and film noir, such as Fargo."])
    new_name: str | None = Field(description="In the user's words (`rewrite`).")
    new_statement: str | None = Field(description="In the user's words (`rewrite`).")
    evidence: list[str] = Field(description="Ids of the events that the claim cited.", examples=[["4f1d0c6a"]])
    rho: float | None = Field(description="What is left of its weight (`less`).", examples=[0.3])
    undone_at: datetime | None


class RankChange(Wire):
    """An item whose rank changes; null where it is not in the top 10."""

    item_id: str = Field(examples=["50"])
    title: str = Field(examples=["Star Wars (1977)"])
    before: int | None = Field(examples=[4])
    after: int | None = Field(examples=[None])


class Corrected(Wire):
    """A correction, and what it changes in the user's top 10; or null, and `note` says why that is not known."""

    correction: Correction
    changes: list[RankChange] | None
    note: str | None


class ClaimFound(Wire):
    """A claim, and the cosine of its text and the text sought."""

    claim_id: str = Field(examples=["i1"])
    kind: str = Field(examples=["interest"])
    name: str = Field(examples=["1940s and 1950s war dramas"])
    statement: str = Field(examples=["Enjoys war dramas of the 1940s and 1950s, such as Casablanca."])
    similarity: float = Field(examples=[0.71])


class UserFound(Wire):
    """A user, and the nearest claims of the active profile, the nearest first."""

    user_id: str = Field(examples=["405"])
    similarity: float = Field(description="Of the nearest claim.", examples=[0.71])
    claims: list[ClaimFound]


class UsersFound(Wire):
    """Users, the nearest first."""

    items: list[UserFound]


class ImportedUser(Wire):
    """Who was taken in, and how much."""

    user_id: str = Field(examples=["405"])
    items: int = Field(description="That were not there yet.", examples=[3])
    events: int = Field(examples=[412])
    profiles: int = Field(description="Versions of the profile.", examples=[3])
    corrections: int = Field(examples=[1])


class Counts(Wire):
    """Items by state."""

    queued: int = 0
    running: int = 0
    written: int = Field(default=0, examples=[412])
    unchanged: int = 0
    failed: int = 0
    cancelled: int = 0


class Job(Wire):
    """A job."""

    job_id: str = Field(examples=[EXAMPLE_JOB])
    kind: JobKind
    state: JobState
    request: dict[str, Any] = Field(
        description="What was asked for; of listed users, how many.",
        examples=[{"users": "all", "writer": "llm", "force": False}],
    )
    total: int = Field(description="Users of a job of profiles.", examples=[943])
    created_at: datetime
    created_by: str | None = Field(description="Id of the key that asked for it.", examples=["5f0c6a9b3e4f"])
    started_at: datetime | None
    finished_at: datetime | None
    reason: str | None = Field(description="Why it failed.")
    model_id: int | None = Field(default=None, description="The model that a training made.")


class JobProgress(Job):
    """A job, and how far it is."""

    counts: Counts
    tokens: int = Field(description="That the language model has read and written for it.", examples=[81_234])
    eta: datetime | None = Field(description="When it ends, if it goes on as so far.")


class JobItem(Wire):
    """One user of a job of profiles."""

    user_id: str = Field(examples=["405"])
    state: ItemState
    reason: str | None = Field(description="Why it failed.", examples=["the model's server cannot be reached"])
    version: int | None = Field(description="Of the profile that was written.", examples=[3])
    tokens: int = Field(examples=[1_204])
    attempt: int = Field(description="How often it was taken up.", examples=[1])
    started_at: datetime | None
    finished_at: datetime | None


class TrainedModel(Wire):
    """A trained model."""

    model_id: int = Field(examples=[3])
    active: bool = Field(examples=[True])
    created_at: datetime
    embedder: str = Field(description="That its texts were embedded with.", examples=["all-minilm-l6-v2"])
    watermark: datetime = Field(description="Time of the latest event that it has learned from.")
    events: int = Field(description="That it has learned from.", examples=[100_000])
    users: int = Field(description="That it has learned from.", examples=[943])
    seconds: float = Field(description="That the training took.", examples=[3.2])
    metrics: dict[str, float] = Field(description="On held-out data, if it was measured.", examples=[{"ndcg@10": 0.2}])
    parameters: Parameters
