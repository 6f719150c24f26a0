"""One chat model at several servers: the least busy is asked, and one that fails is left out for a while."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from agent.chat import OUT_OF_REACH, Answer, ChatClient, Message
from agent.errors import ChatError, Usage
from agent.slots import INTERACTIVE, Slots

if TYPE_CHECKING:  # its import takes a second
    from langchain_openai import ChatOpenAI

_SERVERS_FAULT = OUT_OF_REACH | {"refused"}


@dataclass
class _State:
    """Of a server.

    Attributes:
        busy: Calls under way there.
        failures: In a row, each followed by a pause; 0 while it is well.
        failed_at: When it failed last.
        back_at: When it may be tried again.
    """

    busy: int = 0
    failures: int = 0
    failed_at: float = 0.0
    back_at: float = 0.0


class Turn(NamedTuple):
    """A call at a server: the server's number, and when it began."""

    server: int
    began: float


class Servers:
    """What is known of a model's servers: how busy they are, and which are left out. Clients of any thread share it.

    A server that fails is left out for a pause, which doubles with each failure in a row. Then one call tries it;
    more go there once that call has gone well.

    Args:
        count: How many there are.
        pause_s: How long a server is left out after its first failure.
        longest_pause_s: The bound of that.
        clock: Monotonic, in seconds.
        jitter: Tells which of equally busy ones is next.
    """

    def __init__(
        self,
        count: int,
        *,
        pause_s: float = 1.0,
        longest_pause_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._states = [_State() for _ in range(count)]
        self._pause_s, self._longest_pause_s, self._clock, self._jitter = pause_s, longest_pause_s, clock, jitter
        self._lock = threading.Lock()

    @property
    def well(self) -> int:
        """How many are well; one of them at least may be tried."""
        return max(1, sum(not state.failures for state in self._states))

    def take(self, tried: Collection[int]) -> Turn | None:
        """Begin a call at the least busy of those that may be asked, but for these; None if there is none."""
        with self._lock:
            server = self._least_busy(tried)
            if server is None:
                return None
            self._states[server].busy += 1
            return Turn(server, self._clock())

    def give_back(self, turn: Turn, *, failed: bool | None) -> None:
        """End a call, and note whether the server has failed it; None is not known."""
        with self._lock:
            state = self._states[turn.server]
            state.busy -= 1
            if failed:
                self._leave_out(state, turn.began)
            elif failed is not None:
                state.failures = 0

    def best(self) -> int:
        """Return the least busy, or the one that is back first."""
        with self._lock:
            server = self._least_busy(())
            return min(range(len(self._states)), key=lambda n: self._states[n].back_at) if server is None else server

    def _least_busy(self, tried: Collection[int]) -> int | None:
        """Choose among those that are well, or whose pause is over and where no call is."""
        now, states = self._clock(), self._states
        open_ = [n for n, s in enumerate(states) if not s.failures or (now >= s.back_at and not s.busy)]
        free = [n for n in open_ if n not in tried]
        return min(free, key=lambda n: (states[n].busy, self._jitter()), default=None)

    def _leave_out(self, state: _State, began: float) -> None:
        """Leave a server out; of the calls that were there when it failed, one counts."""
        if state.failures and began <= state.failed_at:
            return
        now = self._clock()
        pause = min(self._pause_s * 2**state.failures, self._longest_pause_s)
        state.failures, state.failed_at, state.back_at = state.failures + 1, now, now + pause


class Endpoints:
    """A chat model at several servers; it is out of reach only when all of them are.

    A call that failed because of its server is repeated at another.

    Args:
        chats: The same model at each of the servers; they should not try again by themselves.
        servers: What is known of them; shared with other clients of the same servers.
        concurrency: Calls under way at once, for each server that is well.
        attempts: Rounds of tries while all servers fail; waits double from `wait_s`, with jitter.
    """

    def __init__(
        self,
        chats: Sequence[ChatClient],
        servers: Servers | None = None,
        *,
        concurrency: int = 16,
        attempts: int = 3,
        wait_s: float = 0.5,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = chats[0].name
        self._chats, self._servers = chats, servers or Servers(len(chats))
        self._concurrency, self._attempts, self._wait_s, self._jitter = concurrency, attempts, wait_s, jitter
        self._open: tuple[asyncio.AbstractEventLoop, Slots] | None = None
        self._granted = 0

    async def ask(
        self, messages: Sequence[Message], schema: type[Answer], max_tokens: int, *, priority: int = INTERACTIVE
    ) -> tuple[Answer, Usage]:
        """Ask the least busy server, where it fails another; all of them again after a wait."""
        failure = ChatError("unreachable", "all of the model's servers are left out, since they failed just now")
        for attempt in range(self._attempts):
            if attempt:
                await asyncio.sleep(self._wait_s * 2 ** (attempt - 1) * (1 + self._jitter()))
            tried: set[int] = set()
            while True:
                async with self._slots().taken(priority):
                    turn = self._servers.take(tried)
                    if turn is None:
                        break
                    tried.add(turn.server)
                    try:
                        return await self._at(turn, messages, schema, max_tokens, priority)
                    except ChatError as error:
                        if error.outcome not in _SERVERS_FAULT:
                            raise
                        failure = error
            if failure.outcome not in OUT_OF_REACH:
                break
        raise failure

    async def _at(
        self, turn: Turn, messages: Sequence[Message], schema: type[Answer], max_tokens: int, priority: int
    ) -> tuple[Answer, Usage]:
        failed: bool | None = None
        try:
            found = await self._chats[turn.server].ask(messages, schema, max_tokens, priority=priority)
            failed = False
        except ChatError as error:
            failed = error.outcome in _SERVERS_FAULT
            raise
        finally:
            self._servers.give_back(turn, failed=failed)
            self._slots()  # as many as go with the servers that are well now
        return found

    def client(self, max_tokens: int) -> "ChatOpenAI":
        """Return LangChain's client of the least busy server."""
        return self._chats[self._servers.best()].client(max_tokens)

    async def aclose(self) -> None:
        """Close the connections to all servers."""
        for chat in self._chats:
            await chat.aclose()

    def _slots(self) -> Slots:
        """Return the slots of this event loop, so many as go with the servers that are well."""
        loop, wanted = asyncio.get_running_loop(), self._concurrency * self._servers.well
        if self._open is None or self._open[0] is not loop:
            self._open, self._granted = (loop, Slots(wanted)), wanted
        if wanted != self._granted:
            self._open[1].grow(wanted - self._granted)
            self._granted = wanted
        return self._open[1]
