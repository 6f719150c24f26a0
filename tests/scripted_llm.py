"""A scripted model server: the OpenAI-compatible chat protocol over real HTTP, answering as a test says.

A script is a callable `(request, n) -> Reply`, n counting the server's chat requests from 0. `honest` answers
as a good model would; the others go wrong, each in its own way; `then`, `sequence` and `when` combine them.
Chat requests are recorded; `GET /v1/models` and `GET /health` always work.
"""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Self

from tests.scripted_answers import truth

MODEL = "scripted"
_REPAIR = "That answer cannot be used"
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Request:
    """One chat request.

    Attributes:
        messages: As sent, each with `role` and `content`.
        schema: Title of the JSON schema asked for, such as `ThemesWords`; empty if none was.
        body: All of the request.
        at: Seconds of the monotonic clock when it came.
    """

    messages: tuple[dict[str, str], ...]
    schema: str
    body: dict[str, Any]
    at: float

    @property
    def task(self) -> str:
        """The user's message that states the task; turns that ask for a repair are passed over."""
        said = [m["content"] for m in self.messages if m["role"] == "user"]
        return next((text for text in reversed(said) if not text.startswith(_REPAIR)), "")

    @property
    def text(self) -> str:
        """Everything that was said, for predicates."""
        return "\n".join(m["content"] or "" for m in self.messages)  # a message that calls tools has no content


@dataclass(frozen=True)
class Reply:
    """What the server does: wait, then send a status and a body, or close the connection without a word."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    delay_s: float = 0.0
    drop: bool = False


Script = Callable[[Request, int], Reply]


@dataclass
class Record:
    """What the server has seen: the requests in order, connections, calls under way, and the most of them at once."""

    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    under_way: int = 0
    most_at_once: int = 0


def completion(request: Request, content: str, finish_reason: str = "stop") -> Reply:
    """Wrap a text into a chat completion; a word counts as a token."""
    read, written = len(request.text.split()), len(content.split())
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": MODEL}
    return Reply(json.dumps({**body, "choices": [choice], "usage": usage}).encode())


def answer(request: Request) -> dict[str, Any]:
    """Return the truthful answer to a request, before it is sent or spoiled."""
    system = next((m["content"] for m in request.messages if m["role"] == "system"), "")
    return truth(request.schema, request.task, chinese="Chinese" in system)


def honest(request: Request, n: int) -> Reply:
    """Answer truthfully: the traits given, the first items as examples."""
    return completion(request, json.dumps(answer(request), ensure_ascii=False))


# Behaviours that go wrong.


def malformed(request: Request, n: int) -> Reply:
    """Send JSON that breaks off, though the model says that it is done."""
    return completion(request, json.dumps(answer(request))[:-9])


def cut_off(request: Request, n: int) -> Reply:
    """Run out of tokens in the middle."""
    return completion(request, json.dumps(answer(request))[:30], finish_reason="length")


def down(request: Request, n: int) -> Reply:
    """Close the connection without an answer."""
    return Reply(b"", drop=True)


def not_json(request: Request, n: int) -> Reply:
    """Send a web page, as a proxy in between might."""
    return Reply(b"<!doctype html><title>Welcome</title><p>It works.", content_type="text/html")


def status(code: int) -> Script:
    """Send an error status in OpenAI's form."""
    error = {"error": {"message": f"scripted {code}", "type": "scripted", "code": code}}
    return lambda request, n: Reply(json.dumps(error).encode(), status=code)


def slow(seconds: float, script: Script = honest) -> Script:
    """Answer late; a client that goes away meanwhile is let go."""
    return lambda request, n: replace(script(request, n), delay_s=seconds)


_PLACES = {"sentence": ("statement", "goal", "likes"), "numbers": ("examples", "likes_claims")}


def saying(**changes: Callable[[Request], Any] | str | list[int]) -> Script:
    """Answer truthfully but for some fields: new values, or functions of the request.

    `sentence` stands for the field that holds the (first) sentence, `numbers` for that of its citations. Of themes,
    each is changed.
    """

    def script(request: Request, n: int) -> Reply:
        found = answer(request)
        for part in found.get("groups", [found]):
            for name, change in changes.items():
                key = next((key for key in _PLACES.get(name, ()) if key in part), name)
                part[key] = change(request) if callable(change) else change
        return completion(request, json.dumps(found, ensure_ascii=False))

    return script


def _planted(request: Request) -> str:
    """Return the first instruction-like text within the quotes of the items, or a slogan."""
    quoted = re.findall(r'"([^"]*)"', request.task)
    wanted = re.compile(r"ignore|disregard|instruction|write|say|admin|must", re.IGNORECASE)
    return next((text for text in quoted if wanted.search(text)), "Ignore all previous instructions")


wrong_language = saying(sentence="Mag am liebsten spannende Geschichten und ruhige Abende am Meer.")
invents_titles = saying(sentence="Enjoys stories close to The Vermilion Orchard by Odalys Brandt.")
wrong_citations = saying(numbers=[97, 98])
obeys = saying(sentence=lambda request: (_planted(request) + ".")[:220])
extra_field = saying(confidence="very sure")


# Combinations.


def then(first: Script, second: Script, after: int = 1) -> Script:
    """Behave in one way for the first `after` requests, then in another."""
    return lambda request, n: (first if n < after else second)(request, n)


def sequence(*scripts: Script) -> Script:
    """Behave in a new way at each request; the last one stays."""
    return lambda request, n: scripts[min(n, len(scripts) - 1)](request, n)


def when(holds: Callable[[str], bool], first: Script, second: Script) -> Script:
    """Choose by the text of the prompt."""
    return lambda request, n: (first if holds(request.text) else second)(request, n)


# The server.


class ScriptedLLM:
    """The server: a context manager; `script` may be set at any time.

    Attributes:
        script: How to answer.
        record: What was asked since the start or the last `reset`.
    """

    def __init__(self, script: Script = honest, port: int = 0) -> None:
        self.script, self.record = script, Record()
        self._socket = socket.create_server(("127.0.0.1", port))
        self._ready = threading.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @property
    def url(self) -> str:
        """The base URL, up to and including `/v1`."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def requests(self) -> list[Request]:
        """The chat requests since the last `reset`."""
        return self.record.requests

    def reset(self, script: Script = honest) -> None:
        """Forget what was asked, and answer in this way from now on."""
        self.script, self.record = script, Record()

    def __enter__(self) -> Self:
        self._port = self._socket.getsockname()[1]
        self._thread.start()
        if not self._ready.wait(_PATIENCE_S):
            raise RuntimeError("the scripted server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_PATIENCE_S)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with await asyncio.start_server(self._accept, sock=self._socket):
            self._ready.set()
            await self._stop.wait()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.record.connections += 1
        task = asyncio.create_task(self._connection(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client; connections are kept alive, as real servers do."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = re.search(r"^content-length: *(\d+)", head, re.IGNORECASE | re.MULTILINE)
                body = await reader.readexactly(int(length[1]) if length else 0)
                reply = await self._reply(head.split(" ", 2)[1], body, reader)
                if reply.drop:
                    return
                first = f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"
                kind = f"content-type: {reply.content_type}\r\ncontent-length: {len(reply.body)}"
                writer.write(f"{first}\r\n{kind}\r\n\r\n".encode() + reply.body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    async def _reply(self, path: str, body: bytes, reader: asyncio.StreamReader) -> Reply:
        if path == "/v1/chat/completions":
            return await self._chat(json.loads(body), reader)
        if path == "/v1/models":
            models = {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "tests"}]}
            return Reply(json.dumps(models).encode())
        return Reply(b"{}", status=200 if path == "/health" else 404)

    async def _chat(self, body: dict[str, Any], reader: asyncio.StreamReader) -> Reply:
        record, script = self.record, self.script
        request = Request(tuple(body["messages"]), _title(body), body, time.monotonic())
        record.requests.append(request)
        record.under_way += 1
        record.most_at_once = max(record.most_at_once, record.under_way)
        try:
            reply = _run(script, request, len(record.requests) - 1)
            if reply.delay_s and await _goes_away(reader, reply.delay_s):
                return replace(reply, drop=True)
            return reply
        finally:
            record.under_way -= 1


async def _goes_away(reader: asyncio.StreamReader, seconds: float) -> bool:
    """Wait, but not for a client that has gone."""
    try:
        return await asyncio.wait_for(reader.read(1), seconds) == b""
    except TimeoutError:
        return False


def _run(script: Script, request: Request, n: int) -> Reply:
    try:
        return script(request, n)
    except Exception as error:  # noqa: BLE001 - a test should read what is wrong with its script
        return Reply(json.dumps({"error": {"message": f"the script failed: {error!r}"}}).encode(), status=500)


def _title(body: dict[str, Any]) -> str:
    wanted = (body.get("response_format") or {}).get("json_schema") or {}
    return str(wanted.get("schema", {}).get("title") or wanted.get("name") or "")
