"""Items: what users act on."""

from datetime import UTC
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from api.contract import BulkReport, Item, Page
from api.http import bulk, paging
from api.http.auth import Reader, Writer
from api.http.bulk import Source
from api.http.ids import ItemId
from api.http.paging import After, Limit
from api.http.problems import responses
from api.http.state import StateDep
from store import pages
from store.errors import NotFoundError
from store.tables import ItemRow

router = APIRouter(prefix="/v1", tags=["items"])


class NewItem(BaseModel):
    """A row of a bulk request; it replaces all that was stored of the item."""

    model_config = ConfigDict(extra="ignore")
    item_id: Annotated[str, Field(min_length=1, max_length=512)]
    title: Annotated[str, Field(min_length=1)]
    categories: list[str] = []
    attributes: dict[str, Any] = Field(
        default={}, description='Traits; `year` is read as a decade, and `noun` is what such items are called: "films"'
    )
    description: str | None = None
    price: float | None = None
    image_caption: str | None = None
    created_at: str | float | None = Field(default=None, description="ISO 8601, or seconds since 1970")


_EXAMPLE = {
    "item_id": "50",
    "title": "Star Wars (1977)",
    "categories": ["Action", "Adventure", "Sci-Fi"],
    "attributes": {"year": 1977, "noun": "films"},
}


@router.post("/items", summary="Store items", responses=responses(), openapi_extra=bulk.body(NewItem, _EXAMPLE))
async def add_items(request: Request, state: StateDep, caller: Writer, source: Source = "api") -> BulkReport:
    """Store items, as `limner ingest items` does: each row replaces what was stored; bad rows are told."""
    return await bulk.store(state, request, "items", source, caller)


@router.get("/items", summary="List items", responses=responses())
def list_items(state: StateDep, _caller: Reader, limit: Limit = 50, after: After = None) -> Page[Item]:
    """All items in order of id."""
    key = paging.decode(after)
    with state.database.session() as session:
        rows = pages.items(session, limit, None if key is None else str(key[0]))
    shown = [_shown(row) for row in rows[:limit]]
    return Page(items=shown, next=paging.encode((shown[-1].item_id,)) if len(rows) > limit else None)


@router.get("/items/{item_id}", summary="Read an item", responses=responses(404))
def read_item(item_id: ItemId, state: StateDep, _caller: Reader) -> Item:
    """One item."""
    with state.database.session() as session:
        row = session.get(ItemRow, item_id)
    if row is None:
        raise NotFoundError(f"There is no item {item_id}.")
    return _shown(row)


def _shown(row: ItemRow) -> Item:
    fields = {name: getattr(row, name) for name in Item.model_fields}
    return Item(**fields | {"created_at": row.created_at and row.created_at.astimezone(UTC)})
