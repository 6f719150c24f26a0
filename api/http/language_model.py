"""The language model of a server: the one that the settings name, or a vLLM that is kept until the server ends."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import structlog

from agent.chat import ChatClient
from agent.endpoints import Servers
from agent.errors import AgentError, ModelError
from agent.models import resolve
from agent.serving import Serving, serve, served
from api import runtime
from api.http.problems import Problem
from api.logs import without_content
from api.settings import Settings

MOST = 16
"""Requests that may wait for the model at once: each holds one of the server's 40 threads."""
_PATIENCE_S = 2.0  # a vLLM that another process runs already is joined in less


class LanguageModel:
    """Gives the chat model to requests. A vLLM is started by the first one that needs it, in the background."""

    def __init__(self, settings: Settings, most: int = MOST) -> None:
        self._settings = settings
        self._slots = threading.BoundedSemaphore(min(most, settings.llm.concurrency))
        self._lock = threading.Lock()
        self._starter = ThreadPoolExecutor(1, "language-model")
        self._serving: Future[Serving] | None = None
        self._known = Servers(runtime.servers(settings))  # a request leaves out what another has found dead
        self._closing = False

    @contextmanager
    def chat(self) -> Iterator[ChatClient]:
        """Give a client for one request, which closes it.

        Raises:
            Problem: Too many requests wait for the model, or it is being started (503).
            ModelError: It cannot be started; the next request tries again.
        """
        if not self._slots.acquire(blocking=False):
            raise Problem(
                503, "busy", "Too many requests wait for the language model. Try again later.", {"Retry-After": "5"}
            )
        try:
            yield self._client()
        finally:
            self._slots.release()

    @contextmanager
    def chat_if_any(self) -> Iterator[ChatClient | None]:
        """Give a client as `chat` does, or None where there is none just now."""
        with ExitStack() as stack:
            chat = None
            with suppress(Problem, AgentError):
                chat = stack.enter_context(self.chat())
            yield chat

    def close(self) -> None:
        """Give our vLLM back; one that is being started is stopped."""
        self._closing = True
        self._starter.shutdown()
        if self._serving is not None and self._serving.exception() is None:
            self._serving.result().close()

    def _client(self) -> ChatClient:
        llm = self._settings.llm
        if llm.base_url:
            return runtime.chat_at(self._settings, llm.base_url, llm.model, self._known)
        with self._lock:
            if self._serving is None or self._is_over(self._serving):
                self._serving = self._starter.submit(self._start)
            serving = self._serving
        try:
            found = serving.result(_PATIENCE_S)
        except TimeoutError as error:
            raise Problem(
                503, "llm-starting", "The language model is being started. Try again later.", {"Retry-After": "10"}
            ) from error
        except ModelError:
            with self._lock:
                self._serving = None if self._serving is serving else self._serving
            raise
        return runtime.chat_at(self._settings, found.base_url, found.model)

    def _is_over(self, serving: Future[Serving]) -> bool:
        """Tell whether a vLLM that we have started has ended by itself."""
        if not serving.done() or serving.exception() is not None:
            return False
        if served(resolve(self._settings.llm.model, self._settings.home), self._settings.home) is not None:
            return False
        serving.result().close()
        return True

    def _start(self) -> Serving:
        def go_on(_seconds: float) -> None:
            if self._closing:
                raise ModelError("The server ends.")

        home = self._settings.home
        try:
            return serve(resolve(self._settings.llm.model, home), home, waiting=go_on)
        except ModelError as error:
            if not self._closing:
                structlog.get_logger("limner.http").warning("the model cannot be started", **without_content(error))
            raise
