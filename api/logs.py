"""Logs as JSON, a line each, on standard output; what people are told goes to standard error."""

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import structlog
from structlog.types import EventDict, WrappedLogger


def log_json() -> None:
    """Let this process log as JSON, the libraries' warnings too."""
    common: list[structlog.types.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render = structlog.processors.JSONRenderer(serializer=lambda event, **_: orjson.dumps(event, default=str).decode())
    structlog.configure(
        processors=[*common, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
    )
    handler = logging.StreamHandler(sys.stdout)
    keep: list[structlog.types.Processor] = [
        _without_words,
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        render,
    ]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=keep, foreign_pre_chain=common))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


@contextmanager
def errors_only() -> Iterator[None]:
    """Keep what workers log off a terminal but for errors, which go to standard error; afterwards all is as before."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _without_words(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Of an exception, keep its type: its words may hold a person's data."""
    if found := event.pop("exc_info", None):
        event["error"] = found[0].__name__ if isinstance(found, tuple) and found[0] else "an exception"
    return event


def without_content(error: BaseException) -> dict[str, Any]:
    """Say where an error came from; its own words may hold a person's data, and are left out."""
    frames = traceback.extract_tb(error.__traceback__)
    causes = [type(error).__name__]
    while (cause := error.__cause__ or error.__context__) is not None and len(causes) < 10:  # noqa: PLR2004
        error = cause
        causes.append(type(error).__name__)
    return {"error": causes, "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-20:]]}
