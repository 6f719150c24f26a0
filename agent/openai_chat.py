"""The language model behind an OpenAI-compatible server, through LangChain."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import aiohttp
import httpx2  # which openai's client is made of
import openai
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from agent.chat import OUT_OF_REACH, Answer, Message, cut_off, parsed
from agent.errors import ChatError, Usage
from agent.slots import INTERACTIVE, Slots


class _Client(ChatOpenAI):
    """LangChain's client, for which messages go round openai's request types.

    openai's client holds each message against each type that a message may have, which takes longer than all else.
    """

    def _get_request_payload(
        self, input_: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        payload = super()._get_request_payload(input_, stop=stop, **kwargs)
        extra = {**(payload.get("extra_body") or {}), "messages": payload["messages"]}
        return {**payload, "messages": [], "extra_body": extra}


_CONNECT_S = 10.0
_IDLE_S = 2.0
"""An idle connection is not used again: vLLM closes its side after five seconds, perhaps just as we send."""


class _Connection(NamedTuple):
    """A client with its sockets and its bound on calls, all of one event loop."""

    loop: asyncio.AbstractEventLoop
    http: httpx2.AsyncClient
    client: ChatOpenAI
    slots: Slots


class OpenAIChat:
    """A chat model at an OpenAI-compatible server, such as vLLM's.

    Args:
        base_url: Up to and including `/v1`.
        model: The model's name at that server.
        api_key: If the server wants one.
        timeout_s: For one call that someone waits for.
        batch_timeout_s: For one of a lower priority, with its wait at the server for those that go first.
        concurrency: Calls under way at once.
        attempts: Tries when the server cannot be reached or is too slow; waits double from 0.5 s, with jitter.
        priorities: Whether the server takes a priority, as vLLM does with `--scheduling-policy priority`.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str = "none",
        timeout_s: float = 120.0,
        batch_timeout_s: float = 600.0,
        concurrency: int = 16,
        attempts: int = 3,
        pause_s: float = 0.5,
        jitter: Callable[[], float] = random.random,
        priorities: bool = False,
    ) -> None:
        self.name = model
        self._base_url, self._api_key = base_url, SecretStr(api_key)
        self._timeout_s, self._batch_timeout_s = timeout_s, batch_timeout_s
        self._concurrency = concurrency
        self._open: _Connection | None = None
        self._attempts, self._pause_s, self._jitter = attempts, pause_s, jitter
        self._priorities = priorities

    async def ask(
        self, messages: Sequence[Message], schema: type[Answer], max_tokens: int, *, priority: int = INTERACTIVE
    ) -> tuple[Answer, Usage]:
        """Ask once, and again after a pause where the server was out of reach."""
        for attempt in range(self._attempts):
            try:
                async with self._connection().slots.taken(priority):
                    return await self._once(messages, schema, max_tokens, priority)
            except ChatError as error:
                if error.outcome not in OUT_OF_REACH or attempt + 1 == self._attempts:
                    raise
            await asyncio.sleep(self._pause_s * 2**attempt * (1 + self._jitter()))
        raise AssertionError("unreachable: the loop returns or raises")

    def _connection(self) -> "_Connection":
        """Return what belongs to the running event loop: sockets and locks cannot be taken to another."""
        loop = asyncio.get_running_loop()
        if self._open is None or self._open.loop is not loop:
            # Its own pool looks at every idle socket at every call, which took longer than the rest of a call.
            limits = httpx2.Limits(max_connections=self._concurrency, keepalive_expiry=_IDLE_S)
            http = openai.DefaultAioHttpClient(limits=limits)
            client = _Client(
                base_url=self._base_url,
                api_key=self._api_key,
                model=self.name,
                temperature=0.0,
                timeout=_timeout(self._timeout_s),
                max_retries=0,
                http_async_client=http,
            )
            self._open = _Connection(loop, http, client, Slots(self._concurrency))
        return self._open

    def client(self, max_tokens: int) -> ChatOpenAI:
        """Return LangChain's client for what `ask` does not do, such as tools; it ends with `aclose`."""
        return self._connection().client.model_copy(update={"max_tokens": max_tokens})

    async def aclose(self) -> None:
        """Close the sockets of the running event loop; a later call opens new ones."""
        if self._open is not None and self._open.loop is asyncio.get_running_loop():
            await self._open.http.aclose()
            self._open = None

    async def _once(
        self, messages: Sequence[Message], schema: type[Answer], max_tokens: int, priority: int
    ) -> tuple[Answer, Usage]:
        extra: dict[str, Any] = {"response_format": _response_format(schema)}
        if self._priorities and priority != INTERACTIVE:
            extra["priority"] = priority
        timeout = _timeout(self._timeout_s if priority == INTERACTIVE else self._batch_timeout_s)
        started = time.perf_counter()
        try:
            reply = await self._connection().client.ainvoke(
                list(messages), max_tokens=max_tokens, extra_body=extra, timeout=timeout
            )
        except openai.APIConnectionError as error:
            raise ChatError(*lost(error), usage=Usage(0, 0, _since(started))) from error
        except openai.APIStatusError as error:
            outcome = "refused"
            if error.status_code in {429, 502, 503, 504}:
                outcome = "unreachable"
            elif error.status_code in {400, 413, 422}:
                outcome = "rejected"
            message = f"the model's server answered {error.status_code}: {error.message[:300]}"
            raise ChatError(outcome, message, usage=Usage(0, 0, _since(started))) from error
        except (openai.OpenAIError, ValueError, LookupError, TypeError, AttributeError) as error:
            # Anything else that the client makes of a broken reply.
            message = f"the model's server sent what is no chat completion: {error}"
            raise ChatError("malformed", message, usage=Usage(0, 0, _since(started))) from error
        return _parse(reply, schema, max_tokens, _since(started))


@cache
def _response_format(schema: type[BaseModel]) -> dict[str, Any]:
    # It goes as it is: `with_structured_output` would parse the answer, and drop tokens and text on an error.
    return {"type": "json_schema", "json_schema": {"name": schema.__name__, "schema": schema.model_json_schema()}}


def lost(error: BaseException | None) -> tuple[Literal["timeout", "unreachable"], str]:
    """Say how a server was lost: it took too long, cannot be reached, or was at work and has gone.

    What aiohttp says is asked: the errors that stand around its own call a broken connection a timeout.
    """
    while error is not None and not isinstance(error, aiohttp.ClientError):
        error = error.__cause__
    if isinstance(error, TimeoutError):
        return "timeout", "the model did not answer in time"
    if error is None or isinstance(error, aiohttp.ClientConnectorError):
        return "unreachable", "the model's server cannot be reached"
    return "unreachable", f"the model's server has broken the connection off ({type(error).__name__})"


def _timeout(seconds: float) -> httpx2.Timeout:
    return httpx2.Timeout(seconds, connect=min(seconds, _CONNECT_S))


def _since(started: float) -> float:
    return time.perf_counter() - started


def _parse(message: AIMessage, schema: type[Answer], max_tokens: int, seconds: float) -> tuple[Answer, Usage]:
    metadata = message.usage_metadata
    usage = Usage(metadata["input_tokens"], metadata["output_tokens"], seconds) if metadata else Usage(0, 0, seconds)
    text = str(message.text)
    if message.response_metadata.get("finish_reason") == "length":
        raise cut_off(max_tokens, text, usage)
    return parsed(text, schema, usage), usage
