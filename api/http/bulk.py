"""Rows in bulk: a body becomes a file of JSON Lines, and is ingested as any file is, with the same ids and checks."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import SpooledTemporaryFile, TemporaryDirectory
from typing import Annotated, Any, Literal

import orjson
import polars as pl
from anyio.to_thread import run_sync
from fastapi import Query, Request
from pydantic import AfterValidator, BaseModel

from api import runtime
from api.contract import MOST_TOLD, BulkReport, RejectedRow
from api.http.auth import Caller, note
from api.http.ids import storable
from api.http.middleware import NDJSON, check_json
from api.http.problems import Problem
from api.http.state import State
from store.errors import IngestError
from store.ingest import ingest

Kind = Literal["events", "items"]
Source = Annotated[
    str,
    AfterValidator(storable),
    Query(
        min_length=1,
        max_length=200,
        description="A stable name of where the rows come from: part of the identity of events without an id.",
    ),
]
_PATIENCE_S = 30.0
_GZIP = b"\x1f\x8b"
_UNKNOWN_TYPE = re.compile(r"unknown event type .*; known:", re.DOTALL)


def body(row: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """Document the body of a bulk route, for `openapi_extra=`."""
    schema = row.model_json_schema()
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"type": "array", "items": schema, "minItems": 1}, "example": [example]},
                NDJSON: {"schema": {"type": "string"}, "example": orjson.dumps(example).decode() + "\n"},
            },
        }
    }


async def store(state: State, request: Request, kind: Kind, source: str, caller: Caller) -> BulkReport:
    """Store the rows of a request; those that wait for their turn hold neither a thread nor a connection.

    Raises:
        Problem: No row can be stored (422), or others take too long (503).
    """
    try:
        await asyncio.wait_for(state.ingesting.acquire(), _PATIENCE_S)
    except TimeoutError as error:
        raise Problem(
            503, "busy", "Other rows are being stored. Send these again later.", {"Retry-After": "5"}
        ) from error
    ndjson = request.headers.get("content-type", "").lower().startswith(NDJSON)
    try:
        return await run_sync(_store, state, request.scope["body"], kind, source, caller, ndjson)
    finally:
        state.ingesting.release()


def _store(
    state: State,
    given: SpooledTemporaryFile[bytes],
    kind: Kind,
    source: str,
    caller: Caller,
    ndjson: bool,  # noqa: FBT001
) -> BulkReport:
    with TemporaryDirectory(prefix="limner-") as folder:
        path, rejects = Path(folder) / f"{kind}.jsonl", Path(folder) / "rejects.csv"
        _write(given, path, ndjson=ndjson)
        try:
            report = ingest(
                state.database,
                kind,
                path,
                source=source,
                known_types=set(state.settings.evidence_settings.types),
                now=runtime.now(),
                hasher=state.hasher,
                rejects_path=rejects,
                reject_limit=1.0,
            )
        except IngestError as error:
            if told := _rejected(rejects):
                raise Problem(
                    422,
                    "rejected",
                    "None of the rows can be stored: `rejected` says why.",
                    rejected=[row.model_dump() for row in told],
                ) from error
            raise
        if kind == "events":
            note(state, caller, "add_events", sorted(_users(path)))
        return BulkReport(
            rows_read=report.rows_read,
            rows_stored=report.rows_stored,
            rows_known=report.rows_known,
            rows_rejected=report.rows_rejected,
            rows_dropped=report.rows_dropped,
            stubs_made=report.stubs_made,
            users_made=report.users_made,
            rejected=_rejected(rejects),
        )


def _write(given: SpooledTemporaryFile[bytes], path: Path, *, ndjson: bool) -> None:
    """Write the body as JSON Lines.

    Raises:
        Problem: It holds no rows (422).
    """
    given.seek(0)
    with path.open("wb") as file:
        if ndjson:
            if given.read(2) == _GZIP:
                raise Problem(415, "media-type", "Send the body as it is, not compressed.")
            given.seek(0)
            while data := given.read(1 << 20):
                file.write(data)
        else:
            rows = check_json(given.read())
            if not isinstance(rows, list):
                raise Problem(422, "json", "The body is not an array of rows.")
            file.writelines(orjson.dumps(row) + b"\n" for row in rows)
    if not path.stat().st_size:
        raise Problem(422, "json", "The body holds no rows.")


def _rejected(path: Path) -> list[RejectedRow]:
    if not path.exists():
        return []
    frame = pl.read_csv(path, infer_schema=False, n_rows=MOST_TOLD)
    return [
        RejectedRow(row=int(line), reason=_UNKNOWN_TYPE.sub("unknown event type; known:", reason))
        for line, reason in frame.select("line", "reason").iter_rows()
    ]


def _users(path: Path) -> set[str]:
    """The ids of the users that the rows name, as the ingest reads them."""
    return {name if isinstance(name, str) else repr(name) for name in _named(path) if name is not None}


def _named(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for line in file:
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if isinstance(row, dict) and isinstance(name := row.get("user_id"), str | int | float):
                yield name
