"""Events: what users did, taken in bulk."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from api.contract import BulkReport
from api.http import bulk
from api.http.auth import Writer
from api.http.bulk import Source
from api.http.problems import responses
from api.http.state import StateDep

router = APIRouter(prefix="/v1", tags=["events"])
Id = Annotated[str, Field(min_length=1, max_length=512)]


class NewEvent(BaseModel):
    """A row of a bulk request. Without an `event_id` it gets one from its content and the `source`."""

    model_config = ConfigDict(extra="ignore")
    event_id: Id | None = None
    user_id: Id
    item_id: Id | None = None
    type: Id = Field(description="view, click, like, purchase, rating, …: a declared event type")
    ts: datetime | float = Field(description="ISO 8601 with an offset, or seconds since 1970")
    value: float | None = None
    text: str | None = None
    context: dict[str, Any] | None = None


_EXAMPLE = {"user_id": "405", "item_id": "50", "type": "rating", "ts": "2025-03-01T18:00:00Z", "value": 5}


@router.post("/events", summary="Store events", responses=responses(), openapi_extra=bulk.body(NewEvent, _EXAMPLE))
async def add_events(request: Request, state: StateDep, caller: Writer, source: Source = "api") -> BulkReport:
    """Store events, as `limner ingest events` does: what is known is not stored twice; bad rows are told."""
    return await bulk.store(state, request, "events", source, caller)
