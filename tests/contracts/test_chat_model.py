"""What every ChatModel promises, held against the OpenAI-compatible client over real HTTP."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from agent.errors import ChatError, Usage
from agent.openai_chat import OpenAIChat
from agent.words import IntentWords, SummaryWords, ThemesWords, ThemeWords
from prompts.loader import load
from tests import scripted_llm as llm
from tests.scripted_llm import Reply, Request, Script, ScriptedLLM

ITEMS = '[1] "Quiet Harbour" (1958) drama, war\n[2] "The Last Convoy" (1953) war, drama'
TRAITS = "mainly drama, war; partly 1950s"
THEME = load("theme", 1).render({"language": "English", "groups": f"The person likes:\n{ITEMS}\nTraits: {TRAITS}"})
INTENT = load("intent", 1).render({"language": "English", "events": f"{ITEMS}\nTraits: {TRAITS}"})
SUMMARY = load("summary", 1).render(
    {"language": "English", "likes": '[1] "War dramas" (strongest)', "dislikes": '[2] "Horror"'}
)
REPAIR = [("assistant", "{}"), *load("repair", 1).render({"violations": "- there is no item [9]"})]


MADE: list[OpenAIChat] = []


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    """Close the clients of a test, so that none leaves a socket behind."""
    yield
    while MADE:
        await MADE.pop().aclose()


def chat(url: str, **options: Any) -> OpenAIChat:
    """A client with short waits."""
    defaults: dict[str, Any] = {"timeout_s": 30.0, "attempts": 3, "pause_s": 0.01, "jitter": lambda: 0.0}
    MADE.append(OpenAIChat(url, llm.MODEL, **(defaults | options)))
    return MADE[-1]


async def failure(url: str, **options: Any) -> ChatError:
    """The error that the theme prompt ends in."""
    with pytest.raises(ChatError) as caught:
        await chat(url, **options).ask(THEME, ThemesWords, 100)
    return caught.value


def spoiled(**changes: Any) -> Script:
    """A true completion but for some fields of its body."""

    def script(request: Request, n: int) -> Reply:
        good = llm.honest(request, n)
        return replace(good, body=json.dumps(json.loads(good.body) | changes).encode())

    return script


def body(raw: bytes) -> Script:
    return lambda request, n: Reply(raw)


async def test_a_theme_comes_back_parsed_with_its_cost(scripted: ScriptedLLM) -> None:
    answer, usage = await chat(scripted.url).ask(THEME, ThemesWords, 100)
    said = "Enjoys drama and war, partly 1950s."
    theme = ThemeWords(name="Drama and war, partly 1950s", statement=said, examples=[1, 2])
    assert answer == ThemesWords(groups=[theme])
    words = sum(len(text.split()) for _, text in THEME)
    assert usage[:2] == (words, len(json.dumps(answer.model_dump()).split()))
    assert usage.seconds > 0


async def test_intent_and_summary(scripted: ScriptedLLM) -> None:
    model = chat(scripted.url)
    intent, _ = await model.ask(INTENT, IntentWords, 100)
    summary, _ = await model.ask(SUMMARY, SummaryWords, 100)
    assert intent.goal == "Seems to be looking for drama and war, partly 1950s."
    assert summary == SummaryWords(
        likes="Enjoys war dramas.",
        likes_claims=[1],
        dislikes="Does not care for horror.",
        dislikes_claims=[2],
    )


async def test_what_is_sent(scripted: ScriptedLLM) -> None:
    await chat(scripted.url).ask([*THEME, *REPAIR], ThemesWords, 77)
    (request,) = scripted.requests
    assert request.schema == "ThemesWords"
    assert [(m["role"], m["content"]) for m in request.messages] == [*THEME, *REPAIR]
    sent = request.body
    assert (sent["model"], sent["temperature"]) == (llm.MODEL, 0.0)
    assert sent.get("max_tokens", sent.get("max_completion_tokens")) == 77
    assert sent["response_format"]["json_schema"]["schema"]["additionalProperties"] is False
    assert "seed" not in sent  # a seed kills the CPU engine


@pytest.mark.parametrize(("priorities", "priority", "sent"), [(True, 10, 10), (True, 0, None), (False, 10, None)])
async def test_only_a_server_that_takes_priorities_is_told_of_one(
    scripted: ScriptedLLM, *, priorities: bool, priority: int, sent: int | None
) -> None:
    await chat(scripted.url, priorities=priorities).ask(THEME, ThemesWords, 77, priority=priority)
    assert scripted.requests[0].body.get("priority") == sent


async def test_with_slots_full_of_batch_calls_a_person_is_next(scripted: ScriptedLLM) -> None:
    scripted.reset(llm.slow(0.1))
    model = chat(scripted.url, concurrency=2)
    batch = [asyncio.create_task(model.ask(THEME, ThemesWords, 100, priority=10)) for _ in range(8)]
    await asyncio.sleep(0.02)
    await model.ask(INTENT, IntentWords, 100)
    assert [request.schema for request in scripted.requests].index("IntentWords") == 2
    assert not batch[-1].done()
    await asyncio.gather(*batch)


@pytest.mark.parametrize(
    ("script", "outcome", "raw"),
    [
        (llm.malformed, "malformed", '{"groups": [{"name": "Drama and war'),
        (llm.extra_field, "malformed", '"confidence": "very sure"'),
        (llm.saying(examples=[1, 2, 1, 2]), "malformed", "[1, 2, 1, 2]"),
        (llm.cut_off, "cut_off", '{"groups": [{"name": "Drama an'),
    ],
    ids=["malformed", "extra field", "too long a list", "cut off"],
)
async def test_a_bad_answer_keeps_what_was_said_and_what_it_cost(
    scripted: ScriptedLLM, script: Script, outcome: str, raw: str
) -> None:
    scripted.reset(script)
    error = await failure(scripted.url)
    assert error.outcome == outcome
    assert raw in error.raw
    assert error.usage.tokens_in > 100
    assert error.usage.tokens_out > 0
    assert len(scripted.requests) == 1


@pytest.mark.parametrize(
    "script",
    [
        llm.not_json,
        body(b""),
        body(b"{"),
        body(b"{}"),
        body(b"[]"),
        body(b"null"),
        body(b'{"error": {"message": "boom"}}'),
        spoiled(choices=[]),
        spoiled(choices=None),
        spoiled(choices=[None]),
    ],
    ids=[
        "page",
        "empty",
        "broken",
        "object",
        "list",
        "null",
        "error",
        "no-choices",
        "null-choices",
        "null-choice",
    ],
)
async def test_what_is_no_completion_is_malformed(scripted: ScriptedLLM, script: Script) -> None:
    scripted.reset(script)
    error = await failure(scripted.url)
    assert error.outcome == "malformed"
    assert str(error)
    assert len(scripted.requests) == 1


async def test_a_server_that_does_not_count_tokens(scripted: ScriptedLLM) -> None:
    scripted.reset(spoiled(usage=None))
    _, usage = await chat(scripted.url).ask(THEME, ThemesWords, 100)
    assert usage[:2] == (0, 0)


@pytest.mark.parametrize(
    ("script", "outcome", "calls"),
    [
        (llm.down, "unreachable", 3),
        (llm.status(429), "unreachable", 3),
        (llm.status(503), "unreachable", 3),
        (llm.slow(60.0), "timeout", 3),
        (llm.status(400), "rejected", 1),
        (llm.status(422), "rejected", 1),
        (llm.status(401), "refused", 1),
        (llm.status(404), "refused", 1),
        (llm.status(500), "refused", 1),
    ],
    ids=["down", "429", "503", "slow", "400", "422", "401", "404", "500"],
)
async def test_only_what_may_pass_is_tried_again(
    scripted: ScriptedLLM, script: Script, outcome: str, calls: int
) -> None:
    scripted.reset(script)
    error = await failure(scripted.url, timeout_s=0.5 if outcome == "timeout" else 30.0)
    assert (error.outcome, len(scripted.requests)) == (outcome, calls)
    assert error.usage.seconds > 0


@pytest.mark.parametrize(("priority", "outcome"), [(0, "timeout"), (10, None)])
async def test_a_call_of_a_batch_may_take_longer(scripted: ScriptedLLM, priority: int, outcome: str | None) -> None:
    scripted.reset(llm.slow(0.5))
    model = chat(scripted.url, timeout_s=0.1, batch_timeout_s=60.0, attempts=1)
    found = None
    try:
        await model.ask(THEME, ThemesWords, 100, priority=priority)
    except ChatError as error:
        found = error.outcome
    assert found == outcome


async def test_nothing_but_the_bound_on_calls_bounds_the_connections(scripted: ScriptedLLM) -> None:
    scripted.reset(llm.slow(60.0))
    model = chat(scripted.url, concurrency=150, timeout_s=60.0)
    calls = [asyncio.create_task(model.ask(THEME, ThemesWords, 100)) for _ in range(150)]
    async with asyncio.timeout(50):
        while scripted.record.under_way < len(calls):  # noqa: ASYNC110 - the server is in another thread
            await asyncio.sleep(0.02)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_connection_that_has_idled_is_not_used_again(
    scripted: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.openai_chat._IDLE_S", 0.05)
    model = chat(scripted.url)
    for pause in (0.0, 0.1):
        await asyncio.sleep(pause)
        await model.ask(THEME, ThemesWords, 100)
    assert scripted.record.connections == 2


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = await failure(f"http://127.0.0.1:{port}/v1")
    assert (error.outcome, str(error)) == ("unreachable", "the model's server cannot be reached")


@pytest.mark.parametrize("first", [llm.down, llm.status(503), llm.slow(60.0)], ids=["down", "503", "slow"])
async def test_a_server_that_comes_back_is_heard(scripted: ScriptedLLM, first: Script) -> None:
    scripted.reset(llm.then(first, llm.honest, after=2))
    answer, _ = await chat(scripted.url, timeout_s=2.0).ask(THEME, ThemesWords, 100)
    assert answer.groups[0].examples == [1, 2]
    assert len(scripted.requests) == 3


async def test_waits_double(scripted: ScriptedLLM) -> None:
    scripted.reset(llm.down)
    await failure(scripted.url, pause_s=0.05, attempts=3, jitter=lambda: 1.0)
    first, second, third = (request.at for request in scripted.requests)
    assert second - first >= 0.1
    assert third - second >= 0.2


async def many(url: str, n: int, **options: Any) -> list[tuple[ThemesWords, Usage] | BaseException]:
    model = chat(url, **options)
    return await asyncio.gather(*(model.ask(THEME, ThemesWords, 100) for _ in range(n)), return_exceptions=True)


async def test_calls_at_once_are_bounded(scripted: ScriptedLLM) -> None:
    scripted.reset(llm.slow(0.05))
    answers = await many(scripted.url, 12, concurrency=4)
    assert not [a for a in answers if isinstance(a, BaseException)]
    assert scripted.record.most_at_once == 4
    assert len(scripted.requests) == 12


async def test_no_storm_of_retries(scripted: ScriptedLLM) -> None:
    scripted.reset(llm.slow(0.02, llm.status(503)))
    answers = await many(scripted.url, 10, concurrency=3, attempts=2)
    assert {a.outcome for a in answers if isinstance(a, ChatError)} == {"unreachable"}
    assert len(scripted.requests) == 20
    assert scripted.record.most_at_once <= 3


async def test_a_call_that_waits_to_try_again_holds_no_slot(scripted: ScriptedLLM) -> None:
    scripted.reset(llm.when(lambda text: "Convoy" in text, llm.status(503), llm.honest))
    model = chat(scripted.url, concurrency=1, attempts=2, pause_s=3.0)
    other = [(role, text.replace("The Last Convoy", "Another")) for role, text in THEME]
    failing = asyncio.create_task(model.ask(THEME, ThemesWords, 100))
    await asyncio.sleep(0)  # it takes the only slot
    await asyncio.wait_for(model.ask(other, ThemesWords, 100), 2.0)
    assert not failing.done()
    failing.cancel()
    await asyncio.gather(failing, return_exceptions=True)


async def test_the_event_loop_stays_free(scripted: ScriptedLLM) -> None:
    scripted.reset(llm.slow(0.3))
    model = chat(scripted.url)
    await model.ask(INTENT, IntentWords, 100)  # the first call loads code
    call = asyncio.create_task(model.ask(THEME, ThemesWords, 100))
    ticks = 0
    while not call.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks >= 10  # of about 30


def test_one_client_serves_several_event_loops(scripted: ScriptedLLM) -> None:
    """A command may run one loop after another in a process."""

    client = chat(scripted.url)

    async def ask_and_close() -> list[int]:
        answer, _ = await client.ask(THEME, ThemesWords, 100)
        await client.aclose()
        return answer.groups[0].examples

    assert asyncio.run(ask_and_close()) == [1, 2]
    assert asyncio.run(ask_and_close()) == [1, 2]
