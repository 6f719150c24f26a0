"""Of which claims a model is asked at all."""

import asyncio
from collections.abc import Sequence
from typing import cast

import numpy as np

from agent.catalogue import Attribute, BaseRates, Telling
from agent.chat import ChatModel, Message
from agent.errors import ChatError, Usage
from agent.verify import Grounds, Repetition, Vocabulary
from agent.words import ThemesWords, Worded
from agent.writer import Account, ClaimTask, LlmWriter, WriterSettings
from store.records import Item

WRITTEN = Worded("Template", "Written by code.", "template")


def trait(value: str, share: float = 0.9) -> Telling:
    return Telling(Attribute("category", value), round(10 * share), share, 3.0)


CRIME, DRAMA, WAR = trait("Crime"), trait("Drama"), trait("War")
SOME_CRIME, SOME_WAR = trait("Crime", 0.4), trait("War", 0.3)


class Asked:
    """A model that notes what it is asked of, and is cut off each time."""

    name = "noting"

    def __init__(self) -> None:
        self.tasks: list[str] = []

    async def ask(self, messages: Sequence[Message], _schema: object, _max_tokens: int) -> tuple[object, Usage]:
        self.tasks.append(messages[-1][1].strip())
        raise ChatError("cut_off", "too long")

    async def aclose(self) -> None: ...


def task(name: str, *telling: Telling, liked: bool = True) -> ClaimTask:
    items = [(Item(item_id="a", title="Title"), 3)]
    rates = BaseRates(1, {})
    grounds = Grounds("positive" if liked else "negative", items, 0, 1, rates, Vocabulary.of(rates))
    return ClaimTask(name, telling, 1.0, grounds, WRITTEN, ("Title",))


def asked_of(tasks: Sequence[ClaimTask], settled: Sequence[ClaimTask] = (), *, taught: bool) -> list[str]:
    model = Asked()
    repetition = Repetition(lambda texts: np.ones((len(texts), 1), dtype=np.float32))
    how = WriterSettings(examples=not taught, max_repairs=0)
    writer = LlmWriter(cast("ChatModel", model), repetition, "en", how)
    words = asyncio.run(writer.claims(tasks, Account(), [(one, WRITTEN) for one in settled]))
    assert [w.wording for w in words] == ["template"] * len(tasks)
    assert [w.tries for w in words] == [int(one.described in " ".join(model.tasks)) for one in tasks]
    return sorted(one.described for one in tasks if one.described in " ".join(model.tasks))


def test_a_mix_is_left_to_code() -> None:
    tasks = [task("alpha", SOME_CRIME, SOME_WAR), task("beta", DRAMA, SOME_WAR), task("gamma")]
    assert asked_of(tasks, taught=False) == ["beta"]
    assert asked_of(tasks, taught=True) == ["beta"]


def test_a_taught_model_cannot_tell_apart_what_has_the_same_traits() -> None:
    tasks = [
        task("alpha", CRIME, DRAMA),
        task("beta", DRAMA, CRIME),
        task("gamma", CRIME),
        task("delta", CRIME, WAR),
        task("epsilon", CRIME, DRAMA, liked=False),
    ]
    assert asked_of(tasks, taught=True) == ["alpha", "delta", "epsilon"]
    assert len(asked_of(tasks, taught=False)) == 5  # another finds words of the titles
    assert asked_of(tasks, [task("zeta", CRIME, DRAMA, WAR)], taught=True) == ["epsilon"]


class Says:
    """A model that always gives the same theme."""

    name = "saying"

    async def ask(self, _messages: object, schema: type[ThemesWords], _max_tokens: int) -> tuple[ThemesWords, Usage]:
        words = {"name": "Crime films from the 1990s", "statement": "Enjoys crime films from the 1990s."}
        return schema.model_validate({"groups": [words | {"examples": [1]}]}), Usage(1, 1, 0.0)


def test_a_claim_is_put_right_before_it_is_checked() -> None:
    def crime(n: int, year: int) -> Item:
        attributes = {"noun": "films", "year": year}
        return Item(item_id=str(n), title=f"Title {n}", categories=("Crime",), attributes=attributes)

    items = [(crime(n, 1990 if n < 4 else 1950), 1) for n in range(10)]
    rates = BaseRates(100, {CRIME.attribute: 20, Attribute("decade", "1990s"): 5})
    grounds = Grounds("positive", items, 0, 1, rates, Vocabulary.of(rates))
    few = Telling(Attribute("decade", "1990s"), 4, 0.4, 3.0)
    claim = ClaimTask("described", (CRIME, few), 1.0, grounds, WRITTEN, ("Title 0",))
    repetition = Repetition(lambda texts: np.ones((len(texts), 1), dtype=np.float32))
    (words,) = asyncio.run(LlmWriter(cast("ChatModel", Says()), repetition, "en").claims([claim], Account()))
    assert words.name == "Crime, partly from the 1990s"
    assert words.statement == "Enjoys crime films, partly from the 1990s, such as [1]."
