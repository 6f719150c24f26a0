"""Steps that work side by side, each a few items ahead of the next: no one waits, and memory stays flat."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Generic, NamedTuple, ParamSpec, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Given = ParamSpec("Given")


class _End(NamedTuple):
    error: Exception | None


class _Ready(Generic[Item]):
    """Takes items as they get ready."""

    def __init__(self, queue: asyncio.Queue[Item | _End]) -> None:
        self._queue = queue

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        item = await self._queue.get()
        if isinstance(item, _End):
            raise item.error or StopAsyncIteration
        return item


@asynccontextmanager
async def ahead(source: AsyncGenerator[Item, None], most: int) -> AsyncIterator[AsyncIterator[Item]]:
    """Run a generator in a task of its own, so many items ahead of whoever takes them; it ends with the block."""
    ready: asyncio.Queue[Item | _End] = asyncio.Queue(most)

    async def fill() -> None:
        end = _End(None)
        async with aclosing(source):
            try:
                async for item in source:
                    await ready.put(item)
            except Exception as error:  # noqa: BLE001 - it is raised where the items are taken
                end = _End(error)
            await ready.put(end)

    filling = asyncio.create_task(fill())
    try:
        yield _Ready(ready)
    finally:
        filling.cancel()
        await asyncio.wait({filling})


async def side_by_side(
    source: AsyncIterator[Item], most: int, work: Callable[[Item], Awaitable[Result]]
) -> AsyncGenerator[Result, None]:
    """Work on so many items at once; gives what comes of them in the order in which they are done."""
    under_way: set[asyncio.Future[Result]] = set()
    try:
        async for item in source:
            under_way.add(asyncio.ensure_future(work(item)))
            if len(under_way) == most:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        while under_way:
            done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def in_thread(work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
    """Run in a thread; who is cancelled meanwhile waits for its end, so that nothing goes on behind their back."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
