"""A bound on calls under way, and who is next where calls wait."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

INTERACTIVE = 0
"""Priority of calls that someone waits for; the lower the number, the earlier, as vLLM has it."""
BATCH = 10


class Slots:
    """A bound on what is under way at once; of those who wait, the one with the lowest number is next.

    It belongs to one event loop.

    Args:
        free: How many there are.
    """

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    @asynccontextmanager
    async def taken(self, priority: int) -> AsyncIterator[None]:
        """Hold one for the length of the block."""
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._count), turn))
        self._hand_out()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():  # or it was never ours
                self.grow(1)

    def grow(self, by: int) -> None:
        """Have more of them, or fewer: then those in use go as they are given back."""
        self._free += by
        self._hand_out()

    def _hand_out(self) -> None:
        while self._free > 0 and self._waiting:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._free -= 1
                turn.set_result(None)
