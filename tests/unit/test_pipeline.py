"""Steps that work side by side: look-ahead within bounds, errors where they belong, nothing left behind."""

import asyncio
import threading
from collections.abc import AsyncGenerator

import pytest

from agent.pipeline import ahead, in_thread, side_by_side


class Source:
    """Counts up; keeps how far it is and whether it was closed."""

    def __init__(self, n: int, fails_at: int | None = None) -> None:
        self.n, self.fails_at, self.made, self.closed = n, fails_at, 0, False

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self.n):
                if number == self.fails_at:
                    raise ValueError(f"no {number}")
                self.made += 1
                yield number
        finally:
            self.closed = True


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_source_runs_ahead_within_its_bound():
    source = Source(10)
    async with ahead(source.items(), 3) as items:
        await settle()
        assert source.made == 4  # three lie ready, the next is in hand
        assert await anext(items) == 0
        await settle()
        assert source.made == 5
        assert [item async for item in items] == list(range(1, 10))
    assert source.closed


async def test_a_source_that_nobody_wants_any_more_is_closed():
    source = Source(10)
    async with ahead(source.items(), 2) as items:
        assert await anext(items) == 0
    assert source.closed
    assert source.made < 10


async def test_the_error_of_a_source_comes_after_its_items():
    source, seen = Source(10, fails_at=3), list[int]()

    async def take() -> None:
        async with ahead(source.items(), 5) as items:
            async for item in items:
                seen.append(item)

    with pytest.raises(ValueError, match="no 3"):
        await take()
    assert seen == [0, 1, 2]
    assert source.closed


async def test_work_is_done_side_by_side_as_soon_as_there_is_room():
    under_way, most, gates = 0, 0, [asyncio.Event() for _ in range(6)]

    async def work(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await gates[number].wait()
        under_way -= 1
        return number * number

    source, done = Source(6), list[int]()

    async def take() -> None:
        async with ahead(side_by_side(source.items(), 2, work), 10) as results:
            async for result in results:
                done.append(result)

    taking = asyncio.create_task(take())
    await settle()
    assert (source.made, done) == (2, [])
    gates[1].set()
    await settle()
    assert (source.made, done) == (3, [1])  # the third does not wait for the first
    for gate in gates:
        gate.set()
    await taking
    assert sorted(done) == [0, 1, 4, 9, 16, 25]
    assert most == 2


async def test_an_error_of_the_work_stops_what_is_under_way():
    stopped: list[int] = []

    async def work(number: int) -> int:
        if number == 1:
            raise ValueError("no")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.append(number)
            raise
        return number

    source = Source(10)

    async def take() -> None:
        async with ahead(source.items(), 1) as items, ahead(side_by_side(items, 3, work), 1) as results:
            async for _ in results:
                pass

    with pytest.raises(ValueError, match="no"):
        await asyncio.wait_for(take(), 5.0)
    assert sorted(stopped) == [0, 2]
    assert source.closed


async def test_who_is_cancelled_waits_for_the_end_of_their_thread():
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(5)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    await settle()
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
