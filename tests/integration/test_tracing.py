"""Traces: what a server and a worker send to a collector, and that it says nothing of whose data it was."""

import asyncio
import json
import re
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.errors import ChatError
from agent.openai_chat import OpenAIChat
from api.client import ApiError, Client
from api.settings import SettingsError, TelemetrySettings
from api.traced_chat import TracedChat
from api.tracing import begin, is_on, span, trace_id, tracing
from recommend.asking import AskWords
from tests import command_line
from tests.scripted_llm import MODEL, Reply, Request, ScriptedLLM, completion, honest, status, then
from tests.small_world import items, ratings

WHO = "zoe.miller+films@example.org"
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Sent(NamedTuple):
    """A span as a collector gets it."""

    service: str
    name: str
    kind: int
    attributes: dict[str, Any]
    trace: str
    span: str
    parent: str
    failed: bool


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.bodies: list[bytes] = []
        self.paths: set[str] = set()

    @property
    def url(self) -> str:
        """For the settings."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def spans(self) -> list[Sent]:
        """All that came."""
        return [
            Sent(
                _values(resource.resource.attributes)["service.name"],
                one.name,
                one.kind,
                _values(one.attributes),
                one.trace_id.hex(),
                one.span_id.hex(),
                one.parent_span_id.hex(),
                one.status.code == 2,
            )
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for one in scope.spans
        ]


class _Taking(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.paths.add(self.path)
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        pass


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_traces_tell_what_was_done_and_never_for_whom(
    collector: Collector, database_url: str, scripted: ScriptedLLM, tmp_path: Path
) -> None:
    scripted.reset(_answers)
    given = {
        "DATABASE_URL": database_url, "LLM__BASE_URL": scripted.url, "LLM__MODEL": MODEL,
        "TELEMETRY__OTLP_ENDPOINT": collector.url,
    }  # fmt: skip
    with (tmp_path / "worker.log").open("w") as log:
        server = command_line.start(["serve", "--port", "0"], tmp_path, **given)
        worker = command_line.start(["worker"], tmp_path, log, **given)
        try:
            said = (re.search(r"listens at (http://\S+),", line) for line in server.stderr or ())
            url = next(found[1] for found in said if found)
            with Client(url) as client:
                client.add_items(row.model_dump(include={"item_id", "title", "categories"}) for row in items())
                client.declare_user(WHO, consent=True)
                client.add_events(
                    {"user_id": WHO, "item_id": e.item_id, "type": e.type, "ts": e.ts, "value": e.value}
                    for e in ratings("ann")
                )
                job = client.wait_job(client.create_job([WHO], writer="llm").job_id, 120, 0.1)
                assert job.counts.written == 1
                assert client.ask(WHO, f"What do you know about me, {WHO}?").user_id == WHO
                with pytest.raises(ApiError):
                    client.recommendations(WHO, exclude=[WHO])  # there is no model: a 503
            parent = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "User-Agent": WHO}
            httpx.get(f"{url}/v1/users/{WHO}/nothing", params={"q": WHO}, headers=parent)
            httpx.get(f"{url}/livez")
        finally:
            for process in (server, worker):
                process.send_signal(signal.SIGTERM)
            out = command_line.ended(server).out
            worker.wait(60)
    found = collector.spans
    _tells_nothing_of_who(collector)
    assert collector.paths == {"/v1/traces"}
    assert {one.service for one in found} == {"limner-serve", "limner-worker"}

    requests = {one.name: one for one in found if one.kind == 2}
    read = requests["POST /v1/users/{user_id}/ask"]
    assert read.attributes == {
        "http.request.method": "POST", "http.route": "/v1/users/{user_id}/ask", "http.response.status_code": 200,
    }  # fmt: skip
    refused = requests["GET /v1/users/{user_id}/recommendations"]
    assert (refused.failed, refused.attributes["error.type"]) == (True, "503")
    assert requests["GET"].trace == TRACE  # without a route
    assert not any("livez" in name for name in requests)

    calls = [one for one in found if one.name == f"chat {MODEL}"]
    assert {one.service for one in calls} == {"limner-serve", "limner-worker"}
    for call in calls:
        assert call.attributes["limner.outcome"] == "ok"
        assert call.attributes["gen_ai.usage.input_tokens"] > 0
        assert call.attributes["gen_ai.usage.output_tokens"] > 0
    assert {call.trace for call in calls if call.service == "limner-serve"} == {read.trace}

    [chunk] = [one for one in found if one.name == "profiles"]
    [unit] = [one for one in found if one.name == "write profile"]
    assert chunk.attributes == {"limner.job_id": job.job_id, "limner.chunk": 0, "limner.left": 0}
    assert unit.attributes == {"limner.job_id": job.job_id, "limner.writer": "llm"}
    assert unit.parent == chunk.span
    assert {call.parent for call in calls if call.service == "limner-worker"} == {unit.span}

    lines = [json.loads(line) for line in out.splitlines()]
    assert read.trace in [line.get("trace_id") for line in lines if line["event"] == "request"]


def _answers(request: Request, n: int) -> Reply:
    """Write profiles as a good model does, call no tool, and answer questions."""
    if request.schema == "AskWords":
        return completion(request, json.dumps({"text": "Your profile was written from 37 events [1]."}))
    return honest(request, n) if request.schema else completion(request, "Hm.")


def _tells_nothing_of_who(collector: Collector) -> None:
    """Hold everything that was sent against the user's id, in any spelling, and the client's address."""
    sent = b"".join(collector.bodies).lower()
    assert sent
    for part in ("zoe", "miller", "example.org", "127.0.0.1"):
        assert part.encode() not in sent


def _fail() -> None:
    with span("outer", "INTERNAL", {}):
        note = begin("inner", "CLIENT", {"n": 1})
        note.end()
        raise ValueError(f"{WHO} is unknown")


def test_a_span_tells_the_kind_of_an_error_and_not_its_words(collector: Collector) -> None:
    with tracing(TelemetrySettings(otlp_endpoint=collector.url + "/"), "test", "0"):
        assert is_on()
        with pytest.raises(ValueError, match="zoe"):
            _fail()
    assert not is_on()
    inner, outer = sorted(collector.spans, key=lambda one: one.name)
    assert (inner.parent, inner.attributes) == (outer.span, {"n": 1})
    assert (outer.failed, outer.attributes) == (True, {"error.type": "ValueError"})
    _tells_nothing_of_who(collector)


def test_calls_that_fail_are_told(collector: Collector, scripted: ScriptedLLM) -> None:
    scripted.reset(then(lambda request, n: completion(request, "{", "length"), status(400)))
    question = f"Who is {WHO}?"

    async def ask() -> None:
        chat = TracedChat(OpenAIChat(scripted.url, MODEL, attempts=1))
        with pytest.raises(ChatError):
            await chat.ask([("user", question)], AskWords, 10)
        with pytest.raises(openai.BadRequestError):
            await chat.client(10).ainvoke(question)
        await chat.aclose()

    with tracing(TelemetrySettings(otlp_endpoint=collector.url), "test", "0"):
        asyncio.run(ask())
    cut, wrong = collector.spans
    assert (cut.failed, cut.attributes["limner.outcome"]) == (True, "cut_off")
    assert cut.attributes["error.type"] == "ChatError"
    assert cut.attributes["gen_ai.usage.input_tokens"] == len(question.split())
    assert (wrong.failed, wrong.attributes["limner.outcome"]) == (True, "failed")
    assert wrong.attributes["error.type"].endswith("Error")
    _tells_nothing_of_who(collector)


def test_nothing_is_traced_unless_it_is_asked_for(collector: Collector) -> None:
    with tracing(TelemetrySettings(), "test", "0"), span("outer", "INTERNAL", {}) as note:
        note.add({"n": 1}, "other")
        note.fail("never")
        assert trace_id() == {}
    with (
        tracing(TelemetrySettings(otlp_endpoint=collector.url, sample=0.0), "test", "0"),
        span("outer", "INTERNAL", {}),
    ):
        pass
    assert collector.bodies == []


def test_missing_packages_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with (
        pytest.raises(SettingsError, match=r"pip install 'limner\[otel\]'"),
        tracing(TelemetrySettings(otlp_endpoint="http://127.0.0.1:1"), "test", "0"),
    ):
        pass
