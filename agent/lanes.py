"""The lane of a batch: its calls take only their share of a model, and people go first."""

import asyncio
from collections.abc import Sequence

from agent.chat import Answer, Message, PrioritizedChat
from agent.errors import Usage
from agent.slots import Slots


class Lane:
    """A chat model's lane: its calls have one priority, and a bound of their own.

    Args:
        chat: Whose calls they are.
        priority: Of all of them.
        concurrency: How many may be under way or wait at the model.
    """

    def __init__(self, chat: PrioritizedChat, priority: int, concurrency: int) -> None:
        self._chat, self._priority, self._concurrency = chat, priority, concurrency
        self._open: tuple[asyncio.AbstractEventLoop, Slots] | None = None

    @property
    def name(self) -> str:
        """The model's name at its server."""
        return self._chat.name

    async def ask(self, messages: Sequence[Message], schema: type[Answer], max_tokens: int) -> tuple[Answer, Usage]:
        """Ask the model, after those that are before us in the lane."""
        loop = asyncio.get_running_loop()
        if self._open is None or self._open[0] is not loop:
            self._open = loop, Slots(self._concurrency)
        async with self._open[1].taken(self._priority):
            return await self._chat.ask(messages, schema, max_tokens, priority=self._priority)

    async def aclose(self) -> None:
        """Close the model's connections."""
        await self._chat.aclose()
