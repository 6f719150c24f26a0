"""The app: state, routes, and what happens to every request."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from threading import Thread

from anyio.to_thread import run_sync
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_fastapi_instrumentator import Instrumentator

from api import runtime, tracing
from api.http import openapi, problems
from api.http.idempotency import Idempotency
from api.http.metrics import DatabaseFigures
from api.http.middleware import Bodies, Gate, Problems, RequestLog
from api.http.routes import (
    ask,
    claims,
    events,
    items,
    jobs,
    meta,
    models,
    privacy,
    profiles,
    recommendations,
    search,
    users,
)
from api.http.routing import add_routes
from api.http.state import State
from api.pages import routes as pages
from api.settings import Settings
from api.tracing import Traces
from store import erasure
from store.database import Database

_V1 = (
    search,  # before users: `search` is no id
    users,
    events,
    items,
    profiles,
    claims,
    recommendations,
    ask,
    privacy,
    jobs,
    models,
)


def create_app(settings: Settings, opened: Database | None = None) -> FastAPI:
    """Make the app.

    Args:
        settings: All settings.
        opened: The database; None is that of the settings, opened when the server starts and closed when it ends.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as stack:
            if opened is None:
                app.state.limner = await run_sync(_open, settings, stack)
                Thread(target=app.state.limner.warm_up, name="warm up", daemon=True).start()
            try:
                yield
            finally:
                await run_sync(app.state.limner.close)

    app = FastAPI(
        title="Limner",
        version=openapi.VERSION,
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url="/openapi.json",
        redoc_url=None,
    )
    if opened is not None:
        app.state.limner = State(settings, opened)
    problems.install(app)
    app.state.metrics = CollectorRegistry()
    app.state.metrics.register(DatabaseFigures(lambda: app.state.limner.database))
    for layer in (Idempotency, Bodies, Gate, Problems):  # from the inside out
        app.add_middleware(layer)
    Instrumentator(registry=app.state.metrics, should_group_status_codes=False).instrument(app).expose(
        app, include_in_schema=False
    )
    app.add_middleware(RequestLog)
    if tracing.is_on():
        app.add_middleware(Traces)
    for module in (meta, *_V1):
        add_routes(app, module.router)
    pages.install(app)
    openapi.install(app)
    return app


def replay_erasures(state: State) -> None:
    """Erase again who was erased and has come back with a restored backup."""
    erasure.replay(state.database, state.hasher, state.settings.home, runtime.now())


def _open(settings: Settings, stack: ExitStack) -> State:
    state = State(settings, stack.enter_context(runtime.database(settings)))
    replay_erasures(state)
    return state
