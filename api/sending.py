"""How the client sends requests: under an `Idempotency-Key`, again where that may help, with errors as exceptions."""

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote

import httpx
import orjson
from pydantic import BaseModel, ValidationError

from api.contract import BulkReport, Corrected, Page, ProblemDocument
from store.records import NO_IDS

Model = TypeVar("Model", bound=BaseModel)
Row = TypeVar("Row")

_PAGE = 200
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0
_WAITS = frozenset({HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_ROUTES = frozenset({"search", "import"})  # users of these names need another spelling in a path


class ApiError(Exception):
    """The service has refused, or could not do it.

    Attributes:
        status: The HTTP status.
        type: The kind of problem, such as `urn:limner:problem:stale`; `about:blank` where something in between
            answered.
        detail: What is wrong and what to do next.
        request_id: As in the service's log.
        problem: The whole document, with `errors` of wrong input.
    """

    def __init__(self, response: httpx.Response) -> None:
        try:
            self.problem = ProblemDocument.model_validate_json(response.content)
        except ValidationError:
            self.problem = ProblemDocument(
                type="about:blank",
                title=response.reason_phrase,
                status=response.status_code,
                detail=response.text[:300] or response.reason_phrase,
                instance="",
            )
        self.status, self.type, self.detail = response.status_code, self.problem.type, self.problem.detail
        self.request_id: str | None = response.headers.get("x-request-id")
        super().__init__(f"{self.status}: {self.detail}")


@dataclass(frozen=True)
class Tagged(Generic[Model]):
    """An answer and its ETag, for `if_match=` and `known=`; there is none where a user has no profile."""

    value: Model
    etag: str | None


class Sender:
    """Sends requests to one service; the arguments are those of `api.client.Client`."""

    def __init__(
        self,
        base_url: str,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        patience: float = 40.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=timeout, transport=transport)
        self._timeout, self._patience = timeout, patience

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _get(self, model: type[Model], path: str, **params: Any) -> Model:
        return read(model, self._send("GET", path, **params))

    def _tagged(self, model: type[Model], path: str, known: Tagged[Model] | None) -> Tagged[Model]:
        response = self._send("GET", path, if_none_match=known.etag if known else None)
        if known and response.status_code == HTTPStatus.NOT_MODIFIED:
            return known
        return tagged(model, response)

    def _pages(self, page: type[Page[Row]], path: str, **params: Any) -> Iterator[Row]:
        after = None
        while True:
            found = self._get(page, path, limit=_PAGE, after=after, **params)
            yield from found.items
            if (after := found.next) is None:
                return

    def _bulk(self, path: str, rows: Iterable[Mapping[str, Any]], source: str) -> BulkReport:
        body = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        return read(BulkReport, self._send("POST", path, body, "application/x-ndjson", source=source))

    def _correct(
        self, method: str, path: str, if_match: str | None, said: Mapping[str, Any] | None = None, **params: Any
    ) -> Tagged[Corrected]:
        return tagged(Corrected, self._send(method, path, said, if_match=if_match, **params))

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None = None,
        media_type: str = "application/json",
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        idempotency_key: str | None = None,
        **params: Any,
    ) -> httpx.Response:
        headers = {"If-Match": if_match, "If-None-Match": if_none_match}
        if method != "GET":
            headers["Idempotency-Key"] = idempotency_key or uuid.uuid4().hex
        if body is not None:
            headers["Content-Type"] = media_type
        request = self._http.build_request(
            method,
            "/v1" + path,
            headers={name: value for name, value in headers.items() if value is not None},
            params={name: value for name, value in params.items() if value is not None},
            content=body if isinstance(body, bytes) or body is None else orjson.dumps(body),
        )
        response = self._sent(request)
        if response.is_error:
            raise ApiError(response)
        return response

    def _sent(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and again as long as that may help."""
        deadline: float | None = None
        for attempt in count():
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.send(request)
            except httpx.TransportError as error:
                outcome = error
            pause, now = _pause(outcome, attempt), time.monotonic()
            deadline = now + self._patience if deadline is None else deadline
            if pause is None or now + pause >= deadline:
                if isinstance(outcome, httpx.TransportError):
                    raise outcome
                return outcome
            time.sleep(pause)
        raise AssertionError("unreachable: the loop returns or raises")


def _pause(outcome: httpx.Response | httpx.TransportError, attempt: int) -> float | None:
    """Return how long to wait before a request is sent again; None: it is not, since that would not help."""
    if isinstance(outcome, httpx.TransportError):
        return float(min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S))
    after: str = outcome.headers.get("retry-after", "")  # of a 409: the same request is still under way
    return float(after) if outcome.status_code in _WAITS and after.isdecimal() else None


def read(model: type[Model], response: httpx.Response) -> Model:
    """Read an answer; what a newer service says more is left out."""
    return model.model_validate_json(response.content, extra="ignore")


def tagged(model: type[Model], response: httpx.Response) -> Tagged[Model]:
    """Read an answer and its ETag."""
    return Tagged(read(model, response), response.headers.get("etag"))


def path_of(template: str, *ids: str | int) -> str:
    """Fill ids into a path.

    >>> path_of("/users/{}/claims/{}/pin", "a/b", "i1")
    '/users/a%2Fb/claims/i1/pin'
    >>> path_of("/users/{}", "search")
    '/users/%73earch'

    Raises:
        ValueError: No path can hold an id.
    """
    return template.format(*map(_segment, ids))


def _segment(of: str | int) -> str:
    text = str(of)
    if not text or text in NO_IDS:
        raise ValueError(f"{text!r} is no id that an address can hold.")
    return f"%{ord(text[0]):02x}{text[1:]}" if text in _ROUTES else quote(text, safe="")
