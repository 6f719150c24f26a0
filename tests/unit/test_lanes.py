"""Who is next where calls of a model wait, and how many are under way."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chat import Answer, Message
from agent.errors import Usage
from agent.lanes import Lane
from agent.slots import BATCH, INTERACTIVE, Slots
from agent.words import SummaryWords

NOTHING = SummaryWords(likes="", likes_claims=[], dislikes="", dislikes_claims=[])


class Model:
    """Answers when it is told to, and keeps the priorities of what it was asked, in order."""

    name = "model"

    def __init__(self, slots: int = 100) -> None:
        self.slots, self.go, self.asked = Slots(slots), asyncio.Event(), list[int]()
        self.under_way = self.most = 0

    async def ask(
        self, messages: Sequence[Message], schema: type[Answer], max_tokens: int, *, priority: int = INTERACTIVE
    ) -> tuple[Answer, Usage]:
        async with self.slots.taken(priority):
            self.asked.append(priority)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            await self.go.wait()
            self.under_way -= 1
        return NOTHING, Usage(0, 0, 0.0)  # type: ignore[return-value]

    async def aclose(self) -> None:
        self.asked.clear()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_person_goes_before_a_batch_that_fills_all_slots():
    model = Model(slots=2)
    lane = Lane(model, BATCH, concurrency=10)
    batch = [asyncio.create_task(lane.ask([], SummaryWords, 1)) for _ in range(6)]
    await settle()
    person = asyncio.create_task(model.ask([], SummaryWords, 1))
    await settle()
    assert model.asked == [BATCH, BATCH]
    model.go.set()
    await asyncio.gather(person, *batch)
    assert model.asked == [BATCH, BATCH, INTERACTIVE, BATCH, BATCH, BATCH, BATCH]


async def test_a_lane_takes_no_more_than_its_bound():
    model = Model()
    lane = Lane(model, BATCH, concurrency=3)
    batch = [asyncio.create_task(lane.ask([], SummaryWords, 1)) for _ in range(8)]
    await settle()
    assert model.under_way == 3
    person = asyncio.create_task(model.ask([], SummaryWords, 1))
    await settle()
    assert model.under_way == 4  # beside it there is room
    model.go.set()
    await asyncio.gather(person, *batch)
    assert (model.most, len(model.asked)) == (4, 9)


async def test_a_lane_is_the_model_under_its_name():
    model = Model()
    lane = Lane(model, BATCH, concurrency=1)
    model.go.set()
    assert (await lane.ask([], SummaryWords, 1))[0] == NOTHING
    await lane.aclose()
    assert (lane.name, model.asked) == ("model", [])


async def test_who_is_cancelled_while_waiting_keeps_no_slot():
    slots, entered = Slots(1), list[str]()

    async def hold(name: str, until: asyncio.Event) -> None:
        async with slots.taken(0):
            entered.append(name)
            await until.wait()

    go = asyncio.Event()
    first, second, third = (asyncio.create_task(hold(name, go)) for name in "abc")
    await settle()
    second.cancel()
    await settle()
    # The slot is handed to the third, which is cancelled before it notices.
    first.cancel()
    await asyncio.sleep(0)
    third.cancel()
    await asyncio.gather(first, second, third, return_exceptions=True)
    go.set()
    await asyncio.wait_for(hold("d", go), 1.0)
    assert entered == ["a", "d"]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30), st.integers(1, 4), st.integers(-3, 3))
def test_all_get_their_turn_whatever_happens(callers: list[tuple[int, bool]], free: int, more: int):
    """Some are cancelled, and the number of slots changes; at the end all are free again."""

    async def run() -> tuple[int, int]:
        slots, most, now = Slots(free), 0, 0

        async def call(priority: int) -> None:
            nonlocal most, now
            async with slots.taken(priority):
                now += 1
                most = max(most, now)
                try:
                    await asyncio.sleep(0)
                finally:
                    now -= 1

        tasks = [asyncio.create_task(call(priority)) for priority, _ in callers]
        await asyncio.sleep(0)
        slots.grow(max(more, 1 - free))
        for task, (_, cancelled) in zip(tasks, callers, strict=True):
            if cancelled:
                task.cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks, return_exceptions=True)
        return most, slots._free

    most, left = asyncio.run(run())
    assert left == free + max(more, 1 - free)
    assert most <= max(free, left)


@pytest.mark.parametrize("order", [[3, 1, 2], [1, 1, 0], [5, 5, 5]])
async def test_the_lowest_number_first_and_of_equals_the_first_come(order: list[int]):
    slots, entered = Slots(1), list[tuple[int, int]]()

    async def call(n: int, priority: int) -> None:
        async with slots.taken(priority):
            entered.append((priority, n))
            await asyncio.sleep(0)

    blocker = asyncio.Event()

    async def block() -> None:
        async with slots.taken(0):
            await blocker.wait()

    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(block())]
    await settle()
    tasks += [asyncio.create_task(call(n, priority)) for n, priority in enumerate(order)]
    await settle()
    blocker.set()
    await asyncio.gather(*tasks)
    assert entered == sorted((priority, n) for n, priority in enumerate(order))
