"""One chat model at several servers: the least busy is asked, and one that fails is left out for a while."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.chat import OUT_OF_REACH, Answer, ChatClient, Message
from agent.errors import ChatError, Usage
from agent.slots import INTERACTIVE, Slots

if TYPE_CHECKING:  # its import takes a second
    from langchain_openai import ChatOpenAI

_SERVERS_FAULT = OUT_OF_REACH | {"refused"}


@dataclass(eq=False)
class _Endpoint:
    """A server.

    Attributes:
        busy: Calls under way there.
        failures: In a row, each followed by a pause; 0 while it is well.
        failed_at: When it failed last.
        back_at: When it may be tried again.
    """

    chat: ChatClient
    busy: int = 0
    failures: int = 0
    failed_at: float = 0.0
    back_at: float = 0.0


class Endpoints:
    """A chat model at several servers; it is out of reach only when all of them are.

    A server that fails is left out for a pause, which doubles with each failure in a row. Then one call tries it;
    more go there once that call has gone well. A call that failed because of its server is repeated at another.

    Args:
        chats: The same model at each of the servers; they should not try again by themselves.
        concurrency: Calls under way at once, for each server that is well.
        attempts: Rounds of tries while all servers fail; waits double from `wait_s`, with jitter.
        pause_s: How long a server is left out after its first failure.
        longest_pause_s: The bound of that.
        clock: Monotonic, in seconds.
    """

    def __init__(
        self,
        chats: Sequence[ChatClient],
        *,
        concurrency: int = 16,
        attempts: int = 3,
        wait_s: float = 0.5,
        pause_s: float = 1.0,
        longest_pause_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = chats[0].name
        self._endpoints = [_Endpoint(chat) for chat in chats]
        self._concurrency, self._attempts, self._wait_s, self._jitter = concurrency, attempts, wait_s, jitter
        self._pause_s, self._longest_pause_s, self._clock = pause_s, longest_pause_s, clock
        self._open: tuple[asyncio.AbstractEventLoop, Slots] | None = None

    async def ask(
        self, messages: Sequence[Message], schema: type[Answer], max_tokens: int, *, priority: int = INTERACTIVE
    ) -> tuple[Answer, Usage]:
        """Ask the least busy server, where it fails another; all of them again after a wait."""
        failure = ChatError("unreachable", "all of the model's servers are left out, since they failed just now")
        for attempt in range(self._attempts):
            if attempt:
                await asyncio.sleep(self._wait_s * 2 ** (attempt - 1) * (1 + self._jitter()))
            tried: set[_Endpoint] = set()
            while True:
                async with self._slots().taken(priority):
                    endpoint = self._next(tried)
                    if endpoint is None:
                        break
                    tried.add(endpoint)
                    try:
                        return await self._at(endpoint, messages, schema, max_tokens, priority)
                    except ChatError as error:
                        if error.outcome not in _SERVERS_FAULT:
                            raise
                        failure = error
            if failure.outcome not in OUT_OF_REACH:
                break
        raise failure

    async def _at(
        self, endpoint: _Endpoint, messages: Sequence[Message], schema: type[Answer], max_tokens: int, priority: int
    ) -> tuple[Answer, Usage]:
        began = self._clock()
        endpoint.busy += 1
        try:
            found = await endpoint.chat.ask(messages, schema, max_tokens, priority=priority)
        except ChatError as error:
            if error.outcome in _SERVERS_FAULT:
                self._has_failed(endpoint, began)
            else:
                self._is_well(endpoint)
            raise
        finally:
            endpoint.busy -= 1
        self._is_well(endpoint)
        return found

    def client(self, max_tokens: int) -> "ChatOpenAI":
        """Return LangChain's client of the least busy server."""
        endpoint = self._next(set()) or min(self._endpoints, key=lambda e: e.back_at)
        return endpoint.chat.client(max_tokens)

    async def aclose(self) -> None:
        """Close the connections to all servers."""
        for endpoint in self._endpoints:
            await endpoint.chat.aclose()

    def _slots(self) -> Slots:
        loop = asyncio.get_running_loop()
        if self._open is None or self._open[0] is not loop:
            self._open = loop, Slots(self._concurrency * self._well)
        return self._open[1]

    @property
    def _well(self) -> int:
        """How many servers are well; one of them at least may be tried."""
        return max(1, sum(not e.failures for e in self._endpoints))

    def _next(self, tried: set[_Endpoint]) -> _Endpoint | None:
        """Return the least busy of those that may be asked: they are well, or their pause is over and none is there."""
        now = self._clock()
        open_ = [e for e in self._endpoints if not e.failures or (now >= e.back_at and not e.busy)]
        return min((e for e in open_ if e not in tried), key=lambda e: (e.busy, self._jitter()), default=None)

    def _has_failed(self, endpoint: _Endpoint, began: float) -> None:
        """Leave a server out; of the calls that were there when it failed, one counts."""
        if endpoint.failures and began <= endpoint.failed_at:
            return
        well, now = self._well, self._clock()
        pause = min(self._pause_s * 2**endpoint.failures, self._longest_pause_s)
        endpoint.failures, endpoint.failed_at, endpoint.back_at = endpoint.failures + 1, now, now + pause
        self._slots().grow((self._well - well) * self._concurrency)

    def _is_well(self, endpoint: _Endpoint) -> None:
        well = self._well
        endpoint.failures = 0
        self._slots().grow((self._well - well) * self._concurrency)
