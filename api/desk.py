"""What profiles are written with: the embedder, the catalogue, and the language model once it is needed."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from copy import copy
from functools import partial
from typing import Any, NamedTuple

from agent.chat import Answer, ChatModel, Message
from agent.contract import Writer
from agent.embedder import Embedder
from agent.errors import ChatError, ModelError, Usage
from agent.loading import index_claims, prepare_catalogue
from agent.profiling import Profiler
from agent.unit import Clock
from agent.verify import Repetition
from agent.writer import LlmWriter
from api import runtime
from api.settings import Settings
from store import revisions
from store.database import Database

_REFRESH_SHARE = 0.1  # of the time goes into reading the catalogue anew, at most


class _Model(NamedTuple):
    """The language model for those who wait, and for batches: these share one lane, and go last."""

    chat: ChatModel
    lane: ChatModel


class WhenAsked:
    """A model that is started when it is asked first: where nothing has changed, nothing is started.

    Args:
        name: Of the model.
        start: Starts it.
    """

    def __init__(self, name: str, start: Callable[[], Coroutine[Any, Any, ChatModel]]) -> None:
        self.name = name
        self._start = start
        self._started: asyncio.Future[ChatModel] | None = None

    async def ask(self, messages: Sequence[Message], schema: type[Answer], max_tokens: int) -> tuple[Answer, Usage]:
        """Ask the model, once it is there.

        Raises:
            ChatError: There is no usable answer, or the model cannot be started (`unreachable`).
        """
        if self._started is None:  # one start for all who ask, also if it fails
            self._started = asyncio.ensure_future(self._start())
        try:
            chat = await asyncio.shield(self._started)
        except ModelError as error:
            raise ChatError("unreachable", str(error)) from error
        return await chat.ask(messages, schema, max_tokens)

    async def aclose(self) -> None:
        """Do nothing: the model belongs to the desk."""


class Desk:
    """What profiles are written with. All of it belongs to the event loop that writes.

    Args:
        settings: All settings.
        opened: The database.
        clock: Tells the time.
    """

    embedder: Embedder

    def __init__(self, settings: Settings, opened: Database, clock: Clock) -> None:
        self._settings = settings
        self._opened = opened
        self._clock = clock
        self._model: _Model | None = None
        self._serving = ExitStack()
        self._starting = asyncio.Lock()

    def prepare(self) -> None:
        """Load the embedder, read the catalogue, and give claims the vectors that they lack.

        Raises:
            ModelError: The embedder cannot be loaded.
        """
        self.embedder = runtime.embedder(self._settings)
        self._read_catalogue(self._revision())
        index_claims(self._opened, self.embedder)  # what killed workers have left out

    def _revision(self) -> int:
        with self._opened.session() as session:
            return revisions.value(session, "catalogue")

    def _read_catalogue(self, revision: int) -> None:
        started = time.monotonic()
        self._base = Profiler(
            database=self._opened,
            embedder=self.embedder,
            catalogue=prepare_catalogue(self._opened, self.embedder),
            evidence=self._settings.evidence_settings,
            language=self._settings.language,
            clock=self._clock,
            users_at_once=runtime.users_at_once(self._settings),
        )
        now = time.monotonic()
        self._read, self._fresh_until = revision, now + (now - started) / _REFRESH_SHARE

    async def profiler(self, writer: Writer, *, force: bool, batch: bool) -> Profiler:
        """Return a profiler over the catalogue as it is now, or was a while ago if it is large and changes often.

        Args:
            writer: Who puts profiles into words.
            force: Write also where nothing has changed.
            batch: Whether nobody waits for it: then its calls have their own bound, and others go first.

        Raises:
            ModelError: The language model's weights cannot be fetched.
        """
        revision = self._revision()
        if revision != self._read and time.monotonic() >= self._fresh_until:
            self._read_catalogue(revision)
        made = copy(self._base)
        made.force = force
        if writer == "llm":
            info = await asyncio.to_thread(runtime.fetch_model, self._settings)
            chat = WhenAsked(info.name, partial(self._chat, batch=batch))
            asked = runtime.asked(self._settings)
            made.llm = (LlmWriter(chat, Repetition(self.embedder.embed), made.language, asked), info)
        return made

    async def _chat(self, *, batch: bool) -> ChatModel:
        model = await self._language_model()
        return model.lane if batch else model.chat

    async def _language_model(self) -> _Model:
        async with self._starting:
            if self._model is None and self._settings.llm.engine == "offline":
                engine, _ = self._serving.enter_context(runtime.batch_model(self._settings))
                self._model = _Model(engine, engine)
            if self._model is None:
                started = runtime.language_model(self._settings)
                client, _ = await asyncio.to_thread(self._serving.enter_context, started)
                self._model = _Model(client, runtime.in_batch_lane(self._settings, client))
            return self._model

    async def give_up_model(self) -> None:
        """Give a model back that we have started ourselves and that does not answer: the next try starts it anew."""
        if not self._settings.llm.base_url:
            await self.close()

    async def close(self) -> None:
        """Close the connections to the model, and give its server back."""
        async with self._starting:
            if self._model is not None:
                await self._model.chat.aclose()
                self._model = None
            await asyncio.to_thread(self._serving.close)
