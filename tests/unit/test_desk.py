"""The model that is started when it is asked first."""

import asyncio

import pytest
from pydantic import BaseModel

from agent.chat import ChatModel
from agent.errors import ChatError, ModelError, Usage
from api.desk import WhenAsked


class _Words(BaseModel):
    text: str


class _Model:
    name = "small"

    async def ask(self, messages: object, schema: type, max_tokens: int) -> tuple[object, Usage]:
        return schema(text=f"{messages} {max_tokens}"), Usage(1, 2, 0.0)

    async def aclose(self) -> None:
        """Nothing is open."""


def _starter(starts: list[int], error: Exception | None = None):
    async def start() -> ChatModel:
        starts.append(1)
        await asyncio.sleep(0.01)
        if error is not None:
            raise error
        return _Model()

    return start


async def test_all_who_ask_at_once_share_one_start():
    starts: list[int] = []
    model = WhenAsked("small", _starter(starts))
    assert (model.name, starts) == ("small", [])
    answers = await asyncio.gather(*(model.ask([("user", str(n))], _Words, n) for n in range(8)))
    assert [answer.text for answer, _ in answers] == [f"[('user', '{n}')] {n}" for n in range(8)]
    assert len(starts) == 1


async def test_a_model_that_cannot_be_started_is_out_of_reach_for_all_and_tried_once():
    starts: list[int] = []
    model = WhenAsked("small", _starter(starts, ModelError("vLLM has ended: no memory")))
    errors = await asyncio.gather(*(model.ask([], _Words, 1) for _ in range(8)), return_exceptions=True)
    assert {(type(error), getattr(error, "outcome", ""), str(error)) for error in errors} == {
        (ChatError, "unreachable", "vLLM has ended: no memory")
    }
    assert len(starts) == 1


async def test_an_error_in_the_code_is_no_error_of_the_model():
    with pytest.raises(ZeroDivisionError):
        await WhenAsked("small", _starter([], ZeroDivisionError())).ask([], _Words, 1)
