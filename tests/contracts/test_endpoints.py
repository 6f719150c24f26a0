"""One model at several servers: the least busy is asked, one that fails is left out and comes back."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from agent.endpoints import Endpoints, Servers, _State
from agent.errors import ChatError
from agent.openai_chat import OpenAIChat
from agent.words import ThemesWords
from tests import scripted_llm as llm
from tests.contracts.test_chat_model import THEME
from tests.scripted_llm import Reply, Request, Script, ScriptedLLM


class Clock:
    """Shows the time that a test wants."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def servers() -> Iterator[list[ScriptedLLM]]:
    """Three servers."""
    with ExitStack() as stack:
        yield [stack.enter_context(ScriptedLLM()) for _ in range(3)]


MADE: list[Endpoints] = []


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    yield
    while MADE:
        await MADE.pop().aclose()


def endpoints(servers: list[ScriptedLLM], known: Servers | None = None, **options: Any) -> Endpoints:
    """Ask these; of servers that are equally busy the first is next."""
    timeout_s = options.pop("timeout_s", 30.0)
    chats = [OpenAIChat(s.url, llm.MODEL, timeout_s=timeout_s, attempts=1) for s in servers]
    asking: dict[str, Any] = {"attempts": 2, "wait_s": 0.01, "jitter": lambda: 0.0}
    knowing: dict[str, Any] = {"pause_s": 10.0, "jitter": lambda: 0.0}
    for name, value in options.items():
        (knowing if name in {"pause_s", "longest_pause_s", "clock"} else asking)[name] = value
    MADE.append(Endpoints(chats, known or Servers(len(chats), **knowing), **asking))
    return MADE[-1]


async def ask(model: Endpoints) -> list[int]:
    answer, _ = await model.ask(THEME, ThemesWords, 100)
    return answer.groups[0].examples


async def many(model: Endpoints, n: int) -> list[list[int] | BaseException]:
    return await asyncio.gather(*(ask(model) for _ in range(n)), return_exceptions=True)


def counts(servers: list[ScriptedLLM]) -> list[int]:
    return [len(server.requests) for server in servers]


def test_the_least_busy_is_next():
    known = Servers(3, jitter=lambda: 0.0)
    turns = [known.take(set()) for _ in range(4)]
    assert [turn and turn.server for turn in turns] == [0, 1, 2, 0]
    assert turns[2] is not None
    known.give_back(turns[2], failed=False)
    assert [(turn := known.take(set())) and turn.server for _ in range(2)] == [2, 1]
    assert [(turn := known.take({0, 1})) and turn.server for _ in range(2)] == [2, 2]
    assert known.take({0, 1, 2}) is None


async def test_no_server_has_more_calls_than_its_share(servers: list[ScriptedLLM]):
    for server in servers:
        server.reset(llm.slow(0.02))
    model = endpoints(servers, concurrency=2)
    assert await many(model, 24) == [[1, 2]] * 24
    assert sum(counts(servers)) == 24
    assert all(server.record.most_at_once <= 2 for server in servers)


@pytest.mark.parametrize(
    "script", [llm.down, llm.status(503), llm.slow(60.0), llm.status(500)], ids=["down", "503", "slow", "500"]
)
async def test_what_one_server_fails_is_asked_of_another(servers: list[ScriptedLLM], script: Script):
    servers[0].reset(script)
    model = endpoints(servers, timeout_s=2.0, pause_s=1_000.0)
    assert await many(model, 6) == [[1, 2]] * 6
    before = len(servers[0].requests)
    assert await many(model, 6) == [[1, 2]] * 6
    assert len(servers[0].requests) == before  # it is left out


async def test_a_server_that_is_killed_in_the_middle_costs_no_call():
    busy = threading.Event()

    def answer(request: Request, n: int) -> Reply:
        if n == 5:
            busy.set()
        return llm.slow(0.05)(request, n)

    with ScriptedLLM(llm.slow(0.05)) as stays, ExitStack() as stack:
        dies = stack.enter_context(ScriptedLLM(answer))
        model = endpoints([dies, stays], concurrency=3)
        calls = asyncio.create_task(many(model, 40))
        await asyncio.to_thread(busy.wait, 10)
        await asyncio.to_thread(stack.close)  # with calls under way
        assert await calls == [[1, 2]] * 40
        assert len(dies.requests) < 20
        assert stays.record.most_at_once <= 3  # it is not flooded with the other's share


async def test_a_server_comes_back_after_a_pause_that_doubles_up_to_a_bound(servers: list[ScriptedLLM]):
    clock = Clock()
    servers[0].reset(llm.status(503))
    model = endpoints(servers[:2], pause_s=10.0, longest_pause_s=30.0, clock=clock)
    tried = []
    for second in range(120):
        clock.now = 1000.0 + second
        await ask(model)
        tried.append(len(servers[0].requests))
    assert [n for n in range(1, 120) if tried[n] > tried[n - 1]] == [10, 30, 60, 90]
    servers[0].reset()
    clock.now = 1130.0
    await many(model, 8)
    assert counts(servers[:1])[0] >= 1
    before = counts(servers[:1])[0]
    await many(model, 8)
    assert counts(servers[:1])[0] == before + 4  # it has its half again


async def test_only_one_call_tries_a_server_that_was_left_out(servers: list[ScriptedLLM]):
    clock = Clock()
    servers[0].reset(llm.status(503))
    model = endpoints(servers[:2], clock=clock)
    await ask(model)
    servers[0].reset(llm.slow(0.1, llm.status(503)))
    clock.now += 11
    assert await many(model, 10) == [[1, 2]] * 10
    assert len(servers[0].requests) == 1


async def test_calls_that_fail_together_are_one_failure(servers: list[ScriptedLLM]):
    clock = Clock()
    servers[0].reset(llm.slow(0.05, llm.status(503)))
    model = endpoints(servers[:2], clock=clock)
    await many(model, 10)
    assert len(servers[0].requests) == 5
    clock.now += 10.5  # one pause, not five times as long
    servers[0].reset()
    await ask(model)
    assert len(servers[0].requests) == 1


async def test_the_model_is_out_of_reach_only_when_all_servers_are(servers: list[ScriptedLLM]):
    for server in servers:
        server.reset(llm.down)
    model = endpoints(servers)
    with pytest.raises(ChatError) as caught:
        await ask(model)
    assert caught.value.outcome == "unreachable"
    assert counts(servers) == [1, 1, 1]
    with pytest.raises(ChatError) as caught:
        await ask(model)
    assert caught.value.outcome == "unreachable"
    assert counts(servers) == [1, 1, 1]  # nobody is asked within the pause


async def test_a_blip_of_all_servers_is_waited_out(servers: list[ScriptedLLM]):
    for server in servers:
        server.reset(llm.then(llm.down, llm.honest))
    model = endpoints(servers, pause_s=0.01, wait_s=0.05)
    assert await ask(model) == [1, 2]


@pytest.mark.parametrize(
    ("script", "outcome"),
    [(llm.status(400), "rejected"), (llm.malformed, "malformed"), (llm.cut_off, "cut_off")],
    ids=["400", "malformed", "cut off"],
)
async def test_what_is_not_the_servers_fault_is_not_asked_of_another(
    servers: list[ScriptedLLM], script: Script, outcome: str
):
    servers[0].reset(script)
    model = endpoints(servers)
    with pytest.raises(ChatError) as caught:
        await ask(model)
    assert caught.value.outcome == outcome
    assert counts(servers) == [1, 0, 0]
    servers[0].reset()
    assert await ask(model) == [1, 2]
    assert counts(servers) == [1, 0, 0]  # and it is not left out


async def test_langchains_client_is_that_of_a_server_that_is_well(servers: list[ScriptedLLM]):
    servers[0].reset(llm.down)
    model = endpoints(servers[:2])
    await ask(model)
    assert str(model.client(50).openai_api_base) == servers[1].url


def test_several_event_loops_one_after_another(servers: list[ScriptedLLM]):
    servers[0].reset(llm.down)
    model = endpoints(servers[:2], concurrency=1)

    async def run() -> list[list[int] | BaseException]:
        found = await many(model, 4)
        await model.aclose()
        return found

    assert asyncio.run(run()) == [[1, 2]] * 4
    assert asyncio.run(run()) == [[1, 2]] * 4


async def test_clients_of_the_same_servers_share_what_they_know_in_any_thread(servers: list[ScriptedLLM]):
    clock = Clock()
    known = Servers(2, clock=clock, pause_s=10.0, jitter=lambda: 0.0)
    servers[0].reset(llm.down)

    async def ask_and_close() -> list[int]:
        model = endpoints(servers[:2], known=known)
        try:
            return await ask(model)
        finally:
            await model.aclose()

    async def one_request() -> list[int]:
        return await asyncio.to_thread(asyncio.run, ask_and_close())

    assert [await one_request() for _ in range(3)] == [[1, 2]] * 3
    assert counts(servers[:2]) == [1, 3]
    servers[0].reset()
    clock.now += 11
    assert [await one_request() for _ in range(2)] == [[1, 2]] * 2
    assert counts(servers[:1]) == [2]  # it is well again, for all


async def test_a_call_that_is_given_up_leaves_its_server_as_it_was(servers: list[ScriptedLLM]):
    servers[0].reset(llm.slow(60.0))
    known = Servers(1, jitter=lambda: 0.0)
    chat = OpenAIChat(servers[0].url, llm.MODEL, timeout_s=60.0, attempts=1)
    MADE.append(Endpoints([chat], known))
    call = asyncio.create_task(ask(MADE[-1]))
    async with asyncio.timeout(30):
        while not servers[0].record.under_way:  # noqa: ASYNC110 - the server is in another thread
            await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert known._states == [_State()]
