"""A chat model whose calls are in the traces; neither prompts nor answers are."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.outputs import LLMResult
from langchain_openai import ChatOpenAI

from agent.chat import Answer, ChatClient, Message
from agent.errors import ChatError, Usage
from agent.slots import INTERACTIVE
from api import tracing
from api.tracing import Note


class TracedChat:
    """Has a span over each call of a chat model, in the terms of OpenTelemetry's conventions for generative AI."""

    def __init__(self, chat: ChatClient) -> None:
        self.name = chat.name
        self._chat = chat

    async def ask(
        self, messages: Sequence[Message], schema: type[Answer], max_tokens: int, *, priority: int = INTERACTIVE
    ) -> tuple[Answer, Usage]:
        """Ask as `PrioritizedChat.ask` does; the wait for a free place at the server is in the span."""
        with tracing.span(f"chat {self.name}", "CLIENT", _attributes(self.name)) as note:
            try:
                found, usage = await self._chat.ask(messages, schema, max_tokens, priority=priority)
            except ChatError as error:
                _end(note, error.outcome, error.usage)
                raise
            _end(note, "ok", usage)
            return found, usage

    def client(self, max_tokens: int) -> ChatOpenAI:
        """Return LangChain's client, which has a span over each call too."""
        return self._chat.client(max_tokens).model_copy(update={"callbacks": [_Calls(self.name)]})

    async def aclose(self) -> None:
        """Close the connections."""
        await self._chat.aclose()


class _Calls(AsyncCallbackHandler):
    """Traces the calls of LangChain's client."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._open: dict[UUID, Note] = {}

    async def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **more: Any) -> None:
        del serialized, messages, more
        self._open[run_id] = tracing.begin(f"chat {self._model}", "CLIENT", _attributes(self._model))

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **more: Any) -> None:
        del more
        used = getattr(getattr(response.generations[0][0], "message", None), "usage_metadata", None)
        note = self._open.pop(run_id)
        _end(note, "ok", Usage(used["input_tokens"], used["output_tokens"], 0.0) if used else None)
        note.end()

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        del more
        note = self._open.pop(run_id)
        _end(note, "failed", None)
        note.fail(type(error).__name__)
        note.end()


def _attributes(model: str) -> tracing.Attributes:
    return {"gen_ai.operation.name": "chat", "gen_ai.request.model": model}


def _end(note: Note, outcome: str, usage: Usage | None) -> None:
    note.add({"limner.outcome": outcome})
    if usage is not None:
        note.add({"gen_ai.usage.input_tokens": usage.tokens_in, "gen_ai.usage.output_tokens": usage.tokens_out})
