"""What profiles are written with: the embedder, the catalogue, and the language model once it is needed."""

import asyncio
import time
from contextlib import ExitStack
from copy import copy
from typing import NamedTuple

from agent.chat import ChatModel
from agent.contract import Writer
from agent.embedder import SentenceEmbedder
from agent.loading import index_claims, prepare_catalogue
from agent.profiling import Profiler
from agent.unit import Clock, ModelInfo
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
    info: ModelInfo


class Desk:
    """What profiles are written with. All of it belongs to the event loop that writes.

    Args:
        settings: All settings.
        opened: The database.
        clock: Tells the time.
    """

    embedder: SentenceEmbedder

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
            ModelError: The language model cannot be started.
        """
        revision = self._revision()
        if revision != self._read and time.monotonic() >= self._fresh_until:
            self._read_catalogue(revision)
        made = copy(self._base)
        made.force = force
        if writer == "llm":
            model, asked = await self._language_model(), self._settings.llm.writer
            chat = model.lane if batch else model.chat
            made.llm = (LlmWriter(chat, Repetition(self.embedder.embed), made.language, asked), model.info)
        return made

    async def _language_model(self) -> _Model:
        async with self._starting:
            if self._model is None and self._settings.llm.engine == "offline":
                engine, info = self._serving.enter_context(runtime.batch_model(self._settings))
                self._model = _Model(engine, engine, info)
            if self._model is None:
                started = runtime.language_model(self._settings)
                client, info = await asyncio.to_thread(self._serving.enter_context, started)
                self._model = _Model(client, runtime.in_batch_lane(self._settings, client), info)
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
