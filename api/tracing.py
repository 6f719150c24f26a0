"""Traces by OpenTelemetry, as an option: of requests, of calls of language models, of what workers do.

What a span says is chosen here, attribute by attribute: templates of routes and never paths, ids of jobs and never of
users, the types of errors and never their words. That is why OpenTelemetry's own instrumentation of ASGI is not used:
it tells path, query and the client's address.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.settings import SettingsError, TelemetrySettings

if TYPE_CHECKING:  # an extra
    from opentelemetry.trace import Span, Tracer

Attributes = Mapping[str, str | int | float]
Kind = Literal["INTERNAL", "SERVER", "CLIENT", "CONSUMER"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PROBES = frozenset({"/livez", "/readyz", "/v1/health", "/v1/ready", "/metrics"})
_PATIENCE_S = 3.0
"""With a collector that is away: a process that ends waits so long for a batch or two."""
_tracers: "list[Tracer]" = []
"""The one that is in use, if any."""


@contextmanager
def tracing(settings: TelemetrySettings, service: str, version: str) -> Iterator[None]:
    """Send traces while this block runs, if the settings say where to; what is left is sent at its end.

    Raises:
        SettingsError: The packages for it are missing.
    """
    if settings.otlp_endpoint is None:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError(
            "LIMNER_TELEMETRY__OTLP_ENDPOINT is set, but the packages that send traces are missing. Install them with "
            "`pip install 'limner[otel]'`, or unset it."
        ) from error
    provider = TracerProvider(
        ParentBasedTraceIdRatio(settings.sample),
        Resource.create({"service.name": service, "service.version": version}),
    )
    exporter = OTLPSpanExporter(f"{settings.otlp_endpoint.rstrip('/')}/v1/traces", timeout=_PATIENCE_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracers.append(provider.get_tracer("limner", version))
    try:
        yield
    finally:
        _tracers.pop()
        provider.shutdown()


def is_on() -> bool:
    """Tell whether traces are sent."""
    return bool(_tracers)


class Note:
    """Adds to a span; where no traces are sent, to none."""

    def __init__(self, span: "Span | None") -> None:
        self._span = span

    def add(self, attributes: Attributes, name: str | None = None) -> None:
        """Add attributes, and give the span another name."""
        if self._span is not None:
            self._span.set_attributes(attributes)
            if name is not None:
                self._span.update_name(name)

    def fail(self, kind: str) -> None:
        """Mark the span as failed, with the kind of error."""
        if self._span is not None:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415 - an extra

            self._span.set_attribute("error.type", kind)
            self._span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        """End a span that `begin` has begun."""
        if self._span is not None:
            self._span.end()


def begin(name: str, kind: Kind, attributes: Attributes) -> Note:
    """Begin a span that is ended by hand, below the present one."""
    if not _tracers:
        return Note(None)
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - an extra

    return Note(_tracers[-1].start_span(name, kind=SpanKind[kind], attributes=attributes))


@contextmanager
def span(name: str, kind: Kind, attributes: Attributes, carrier: Mapping[str, str] | None = None) -> Iterator[Note]:
    """Have a span over this block, which fails with it.

    Args:
        name: Of few values: what is done, never to whom.
        kind: OpenTelemetry's.
        attributes: Known from the beginning.
        carrier: Headers that may name the trace that this belongs to (`traceparent`).
    """
    if not _tracers:
        yield Note(None)
        return
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - an extra
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    parent = None if carrier is None else TraceContextTextMapPropagator().extract(carrier)
    with _tracers[-1].start_as_current_span(
        name, parent, SpanKind[kind], attributes, record_exception=False, set_status_on_exception=False
    ) as begun:
        note = Note(begun)
        try:
            yield note
        except BaseException as error:
            note.fail(type(error).__name__)
            raise


def trace_id() -> dict[str, str]:
    """Return the id of the present trace, for a line of the log."""
    if not _tracers:
        return {}
    from opentelemetry.trace import format_trace_id, get_current_span  # noqa: PLC0415 - an extra

    return {"trace_id": format_trace_id(get_current_span().get_span_context().trace_id)}


class Traces:
    """Has a span over each request, but for probes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with span(method, "SERVER", {"http.request.method": method}, Headers(scope=scope)) as note:
            try:
                await self._app(scope, receive, answer)
            finally:
                if route := getattr(scope.get("route"), "path", None):
                    note.add({"http.route": route}, f"{method} {route}")
                note.add({"http.response.status_code": status})
                if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    note.fail(str(status))
