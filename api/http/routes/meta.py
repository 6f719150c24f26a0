"""How the server is: alive, and ready for requests."""

from typing import Literal

import httpx
from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError

from agent.models import resolve
from api.http.openapi import VERSION
from api.http.problems import Problem, documented
from api.http.state import State, StateDep
from api.settings import Settings
from store import models, vectors
from store.errors import MigrationError, StoreError

router = APIRouter(tags=["service"])
_LLM_PATIENCE_S = 2.0


class Alive(BaseModel):
    """The server answers."""

    status: Literal["alive"] = "alive"
    version: str = Field(examples=["0.1.0"])


class Ready(BaseModel):
    """The server can do its work; each part says how it is."""

    status: Literal["ready"] = "ready"
    database: str = Field(examples=["at revision 0004"])
    embedder: str = Field(examples=["all-minilm-l6-v2"])
    model: str = Field(examples=["model 3"])
    llm: str = Field(examples=["qwen2.5-coder-1.5b, started on demand"])


@router.get("/v1/health", include_in_schema=False)
@router.get("/livez", summary="Is it alive?", responses={})
def alive() -> Alive:
    """The server answers."""
    return Alive(version=VERSION)


@router.get("/v1/ready", include_in_schema=False)
@router.get("/readyz", summary="Is it ready?", responses={503: documented(503)})
def ready(state: StateDep) -> Ready:
    """Ready is a server whose database is at the newest revision; of the rest it says what is known."""
    try:
        state.database.require_head()
        with state.database.session() as session:
            row = models.active_model(session)
            length = vectors.dimension(session, state.settings.embedder.model)
    except MigrationError as error:
        raise Problem(503, "not-ready", str(error)) from error
    except (StoreError, SQLAlchemyError) as error:
        raise Problem(503, "not-ready", "The database cannot be reached.") from error
    return Ready(
        database="at the newest revision",
        embedder=_embedder(state, length),
        model=f"model {row.model_id}" if row else "none yet: `limner train`",
        llm=_llm(state.settings),
    )


def _embedder(state: State, stored: int | None) -> str:
    name, loaded = state.settings.embedder.model, state.loaded_embedder
    if loaded is None:
        return f"{name}, not loaded yet" if resolve(name, state.settings.home).pulled else f"{name}, not fetched yet"
    if stored not in {None, loaded.dimension}:
        raise Problem(
            503,
            "not-ready",
            f"The embedder {name} makes vectors of {loaded.dimension} numbers, the stored ones have {stored}. "
            "Set LIMNER_EMBEDDER__MODEL back.",
        )
    return f"{name}, {loaded.dimension} numbers"


def _llm(settings: Settings) -> str:
    llm = settings.llm
    if not llm.base_url:
        return f"{llm.model}, started on demand"
    try:
        answer = httpx.get(
            f"{llm.base_url.rstrip('/')}/models",
            timeout=_LLM_PATIENCE_S,
            headers={"Authorization": f"Bearer {llm.api_key.get_secret_value()}"},
        )
        served = [model["id"] for model in answer.raise_for_status().json()["data"]]
    except (httpx.HTTPError, httpx.InvalidURL, KeyError, ValueError, TypeError):
        return f"{llm.model}, whose server gives no answer"
    return f"{llm.model}, served" if llm.model in served else f"{llm.model}, which its server does not have"
