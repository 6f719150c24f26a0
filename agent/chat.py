"""The language model as those see it who ask it: protocols, calls, and how an answer is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from agent.errors import ChatError, Usage
from agent.slots import INTERACTIVE

if TYPE_CHECKING:  # its import takes a second
    from langchain_openai import ChatOpenAI

Message = tuple[Literal["system", "user", "assistant"], str]
Answer = TypeVar("Answer", bound=BaseModel)

OUT_OF_REACH = frozenset({"unreachable", "timeout"})
"""Outcomes that another try, or another server, may better."""


@dataclass(frozen=True)
class Call:
    """One call of the model, as the accounts keep it.

    Attributes:
        role: What it was for: theme, summary or intent.
        prompt: Label of the prompt.
        outcome: `ok`, or the outcome of a `ChatError`, or `violations` once the verifier has refused the answer.
        detail: Why, where it did not go well.
    """

    role: str
    prompt: str
    usage: Usage
    outcome: str
    detail: str | None = None


class ChatModel(Protocol):
    """A language model that answers in a given schema.

    Attributes:
        name: The model's name at its server.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    async def ask(self, messages: Sequence[Message], schema: type[Answer], max_tokens: int) -> tuple[Answer, Usage]:
        """Return the answer and what it cost.

        Raises:
            ChatError: There is no usable answer; `usage` is set on it as far as known.
        """
        ...

    async def aclose(self) -> None:
        """Give back what belongs to the running event loop."""
        ...


class PrioritizedChat(ChatModel, Protocol):
    """A chat model whose calls may overtake each other."""

    async def ask(
        self, messages: Sequence[Message], schema: type[Answer], max_tokens: int, *, priority: int = INTERACTIVE
    ) -> tuple[Answer, Usage]:
        """Ask as `ChatModel.ask` does; of the calls that wait, that with the lowest priority number is next."""
        ...


class ChatClient(PrioritizedChat, Protocol):
    """A chat model behind one or many servers, which LangChain's agents can use as well."""

    def client(self, max_tokens: int) -> "ChatOpenAI":
        """Return LangChain's client for what `ask` does not do, such as tools; it ends with `aclose`."""
        ...


def cut_off(max_tokens: int, text: str, usage: Usage) -> ChatError:
    """Return the error of an answer that did not end."""
    return ChatError("cut_off", f"the answer was cut off after {max_tokens} tokens", text, usage)


def parsed(text: str, schema: type[Answer], usage: Usage) -> Answer:
    """Read an answer.

    Raises:
        ChatError: It does not fit the schema.
    """
    try:
        return schema.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the answer"
        raise ChatError(
            "malformed", f"the answer does not fit the schema: {where}: {first['msg']}", text, usage
        ) from error
