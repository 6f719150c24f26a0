"""Models: what recommendations are made with; one is active."""

from datetime import UTC
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import ConfigDict, Field

from api import training
from api.contract import JobProgress, Page, TrainedModel, Wire
from api.http import paging
from api.http.auth import Admin, Reader
from api.http.paging import After, Limit
from api.http.problems import responses
from api.http.routes.jobs import read_progress
from api.http.state import StateDep
from api.queue import enqueue_training
from recommend.model import Card
from store import models
from store.tables import ModelRow

router = APIRouter(prefix="/v1", tags=["models"])
_MOST = (1 << 31) - 1

ModelId = Annotated[int, Path(ge=1, le=_MOST, description="The id of a model.", examples=[3])]


class Training(Wire):
    """How to train."""

    model_config = ConfigDict(json_schema_extra={"example": {"defaults": False}})
    defaults: bool = Field(
        default=False, strict=True, description="With the default parameters, not those of the active model."
    )


@router.get("/models", summary="List models", responses=responses())
def list_models(state: StateDep, _caller: Reader, limit: Limit = 50, after: After = None) -> Page[TrainedModel]:
    """All models, the newest first."""
    key = paging.decode(after, int)
    with state.database.session() as session:
        rows = models.page(session, limit + 1, None if key is None else min(int(key[0]), _MOST))
    shown = [_shown(row) for row in rows[:limit]]
    return Page(items=shown, next=paging.encode((shown[-1].model_id,)) if len(rows) > limit else None)


@router.post("/models", status_code=202, summary="Train a model", responses=responses())
def train_model(asked: Training, state: StateDep, caller: Admin, response: Response) -> JobProgress:
    """Have a model trained by a worker, on everyone who consents; once it is there, it is the active one."""
    with state.database.session() as session:
        job_id = enqueue_training(session, defaults=asked.defaults, created_by=caller.key_id)
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    return read_progress(state, job_id)


@router.post("/models/{model_id}/activate", summary="Activate a model", responses=responses(404, 409))
def activate_model(model_id: ModelId, state: StateDep, _caller: Admin) -> TrainedModel:
    """Recommend with this model from now on. The answer comes when its factors are in the store."""
    return _shown(training.activate_model(state.database, model_id, state.embedder.name))


def _shown(row: ModelRow) -> TrainedModel:
    card = Card.model_validate(row.card)
    return TrainedModel(
        model_id=row.model_id or 0,
        active=row.active,
        created_at=row.created_at.astimezone(UTC),
        watermark=card.watermark.astimezone(UTC),
        **card.model_dump(exclude={"trained_at", "watermark", "parameters"}),
        parameters=card.parameters,
    )
