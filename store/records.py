"""The records that go into the store: event, item, user.

They are the contract of ingest: what a row of a file must be, in canonical form.
Times are in UTC; `ts_offset` keeps the offset (minutes east of UTC) that a time came with, or None.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

MAX_ID = 512
MAX_TEXT = 1_000_000
NO_IDS = frozenset({".", ".."})
"""Users and items cannot be called so: browsers and clients take these for steps in a path, encoded ones too."""
NO_ID = "is . or .., which addresses cannot hold"

JobKind = Literal["profiles", "train"]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]
ItemState = Literal["queued", "running", "written", "unchanged", "failed", "cancelled"]
CorrectionAction = Literal["reject", "less", "add", "pin", "rewrite"]
CorrectedKind = Literal["interest", "dislike", "intent"]

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]


class Record(BaseModel):
    """Base of what comes from outside: nothing unknown gets in, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Event(Record):
    """One thing that a user did."""

    event_id: Identifier
    user_id: Identifier
    item_id: Identifier | None = None
    type: Identifier
    ts: datetime
    ts_offset: int | None = None
    value: float | None = None
    text: Text | None = None
    context: dict[str, JsonValue] = Field(default_factory=dict)


class Item(Record):
    """One thing that users act on. A stub (an item known only from events) has its id as title."""

    item_id: Identifier
    title: Text
    categories: tuple[str, ...] = ()
    attributes: dict[str, Any] = Field(default_factory=dict)
    description: Text | None = None
    price: float | None = None
    image_caption: Text | None = None
    created_at: datetime | None = None


class User(Record):
    """A person as declared (never inferred)."""

    user_id: Identifier
    attributes: dict[str, Any] = Field(default_factory=dict)
    consent: bool = True
    language: str | None = None
    tz: str | None = None
