"""A chat model in the process that writes and judges truthfully, and remembers what it was told."""

from collections.abc import Callable, Sequence
from typing import Any

from agent.chat import Answer, Message
from agent.errors import Usage
from agent.unit import ModelInfo
from agent.verify import Repetition
from agent.writer import LlmWriter
from tests.scripted_answers import truth
from tests.small_world import FakeEmbedder

NAME = "witness"
REPAIR = "That answer cannot be used"
USAGE = Usage(100, 20, 0.25)


class Witness:
    """Answers prompts of writers by `tests.scripted_answers`, and those of the judge by a function of the task."""

    name = NAME

    def __init__(self, opinion: Callable[[str], bool] = lambda _: True) -> None:
        self.told: list[list[Message]] = []
        self._opinion = opinion

    async def ask(self, messages: Sequence[Message], schema: type[Answer], max_tokens: int) -> tuple[Answer, Usage]:
        """Answer, and remember."""
        self.told.append(list(messages))
        asked = [text for role, text in messages if role == "user"]
        task = next(text for text in reversed(asked) if not text.startswith(REPAIR))
        if schema.__name__ == "Opinion":
            found: dict[str, Any] = {"supported": self._opinion(task)}
        else:
            found = truth(schema.__name__, task, chinese=False)
        return schema.model_validate(found), USAGE

    async def aclose(self) -> None:
        """Nothing is open."""

    def writer(self) -> tuple[LlmWriter, ModelInfo]:
        """Return a writer that asks this model."""
        return LlmWriter(self, Repetition(FakeEmbedder().embed), "en"), ModelInfo(NAME)
