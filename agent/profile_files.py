"""Profiles as files for warehouses: JSON Lines, a profile of the contract a line, and Parquet, with typed columns.

A Parquet file says in its metadata what it is. The numbers and words of a profile have columns of their own; what has
no fixed fields (attributes, values of habits, provenance) is JSON text. `created_at`, `writer`, `model`, `key` and
`tokens` repeat what `provenance` says, so that a query need not read JSON. Both formats hold all of a profile.
"""

import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from agent.contract import Profile
from agent.errors import AgentError
from store.ingest.rejects import Reject

Format = Literal["parquet", "jsonl"]

FORMAT_KEY, VERSION_KEY = b"limner.format", b"limner.version"
METADATA = {FORMAT_KEY: b"limner-profiles", VERSION_KEY: b"1"}

_CODECS = {".gz": "gzip", ".zst": "zstd"}
_BATCH = 200
_ROW_GROUP = 2_000
_LONGEST_LINE = 64 << 20  # bytes
_BUFFER = 1 << 20
_SHOWN = 200


def _struct(*fields: tuple[str, Any]) -> Any:
    return pa.struct(list(fields))


_TEXT, _INT, _REAL, _YES, _TIME = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us", tz="UTC")
_EVIDENCE = pa.list_(_struct(("event_id", _TEXT), ("weight", _REAL)))
_CLAIM = _struct(
    ("claim_id", _TEXT), ("kind", _TEXT), ("name", _TEXT), ("statement", _TEXT), ("strength", _REAL),
    ("confidence", _REAL), ("trend", _TEXT), ("origin", _TEXT), ("wording", _TEXT), ("locked", _YES),
    ("correction_id", _INT), ("goal", _TEXT), ("stage", _TEXT), ("evidence", _EVIDENCE),
    ("counter_evidence", _EVIDENCE), ("interpretive", pa.list_(_TEXT)), ("attributes", _TEXT),
)  # fmt: skip
SCHEMA: Any = pa.schema(
    [
        ("user_id", _TEXT), ("version", _INT), ("active", _YES), ("language", _TEXT), ("created_at", _TIME),
        ("writer", _TEXT), ("model", _TEXT), ("key", _TEXT), ("tokens", _INT),
        ("summary", pa.list_(_struct(("text", _TEXT), ("claim_ids", pa.list_(_TEXT)), ("wording", _TEXT)))),
        ("claims", pa.list_(_CLAIM)),
        ("habits", pa.list_(_struct(("name", _TEXT), ("statement", _TEXT), ("values", _TEXT)))),
        ("tags", pa.list_(
            _struct(("name", _TEXT), ("field", _TEXT), ("events", _INT), ("share", _REAL), ("lift", _REAL))
        )),
        ("log", _struct(
            ("first", _TIME), ("last", _TIME), ("as_of", _TIME), ("events_read", _INT), ("revision", _INT)
        )),
        ("quality", _struct(("first_try", _INT), ("repaired", _INT), ("fallback", _INT), ("interpretive", _REAL))),
        ("provenance", _TEXT),
    ],
    metadata=METADATA,
)  # fmt: skip
"""The columns of a Parquet file. `claims` holds interests, intents and dislikes, in this order."""

_LISTS = {"intent": "intents", "dislike": "dislikes"}


class ProfileFileError(AgentError):
    """A file of profiles cannot be read or written."""


class Exported(NamedTuple):
    """A profile, and whether it is the user's active one."""

    profile: Profile
    active: bool


class Row(NamedTuple):
    """A row of a file.

    Attributes:
        number: Of the line or row, from 1.
        content: The profile, or what is wrong with the row.
        done: How far the file is read, of `total`: bytes of JSON Lines, rows of Parquet.
        total: Of the same.
    """

    number: int
    content: Profile | Reject
    done: int
    total: int


def format_of(path: Path) -> Format:
    """Tell a file's format by its name.

    Raises:
        ProfileFileError: The name does not tell.
    """
    suffixes = path.suffixes
    if suffixes and suffixes[-1] == ".parquet":
        return "parquet"
    if (suffixes[:-1] if suffixes and suffixes[-1] in _CODECS else suffixes)[-1:] == [".jsonl"]:
        return "jsonl"
    raise ProfileFileError(
        f"The format of {path} is not known: its name must end in .parquet, .jsonl, .jsonl.gz or .jsonl.zst, or say "
        "--format parquet or --format jsonl."
    )


def write(path: Path, form: Format, profiles: Iterable[Exported]) -> None:
    """Write profiles to a file, which its owner alone can read: it is there when it is complete, or not at all.

    Args:
        path: What is there before is replaced at the end. JSON Lines are packed if it ends in .gz or .zst.
        form: Its format.
        profiles: Read one by one; what they raise is passed on.

    Raises:
        ProfileFileError: The file cannot be written.
    """
    with _whole(path) as draft:
        if form == "parquet":
            _write_parquet(draft, profiles)
            return
        with pa.output_stream(str(draft), compression=_CODECS.get(path.suffix), buffer_size=_BUFFER) as stream:
            write_lines(stream, profiles)


def write_lines(stream: BinaryIO, profiles: Iterable[Exported]) -> None:
    """Write profiles as JSON Lines, in UTF-8."""
    stream.writelines(profile.model_dump_json().encode() + b"\n" for profile, _ in profiles)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Give a file beside `path` that takes its place once it is complete, and goes if something fails."""
    path = path.resolve()
    draft: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        draft = Path(name)
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise ProfileFileError(
            f"{path} cannot be written: {error.strerror or error}. Nothing of it is left."
        ) from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def _write_parquet(draft: Path, profiles: Iterable[Exported]) -> None:
    with pq.ParquetWriter(str(draft), SCHEMA, compression="zstd") as writer:
        batches: list[Any] = []  # packed by Arrow at once: as Python objects a row group would be ten times as large
        for records in _chunks(profiles):
            batches.append(pa.RecordBatch.from_pylist(records, SCHEMA))
            if sum(batch.num_rows for batch in batches) >= _ROW_GROUP:
                writer.write_table(pa.Table.from_batches(batches))
                batches.clear()
        writer.write_table(pa.Table.from_batches(batches, SCHEMA))


def _chunks(profiles: Iterable[Exported]) -> Iterator[list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []
    for profile, active in profiles:
        records.append(_record(profile, active=active))
        if len(records) == _BATCH:
            yield records
            records = []
    yield records


def _record(profile: Profile, *, active: bool) -> dict[str, Any]:
    told = profile.model_dump()
    claims = [*told["interests"], *told["intents"], *told["dislikes"]]
    for claim in claims:
        claim["attributes"] = to_json(claim["attributes"]).decode()
    for habit in told["habits"]:
        habit["values"] = to_json(habit["values"]).decode()
    provenance = to_json(told["provenance"]).decode()
    return told | _repeated(profile) | {"active": active, "claims": claims, "provenance": provenance}


def _repeated(profile: Profile) -> dict[str, Any]:
    made = profile.provenance
    return {
        "created_at": made.created_at,
        "writer": made.writer,
        "model": made.model,
        "key": made.key,
        "tokens": made.tokens_in + made.tokens_out,
    }


def read(path: Path, form: Format) -> Iterator[Row]:
    """Read the profiles of a file one by one; each is validated.

    Raises:
        ProfileFileError: The file is empty, damaged, or has other columns. Rows before a damaged place come first.
    """
    row: Row | None = None
    try:
        for row in _records(path) if form == "parquet" else _lines(path):
            yield row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        place = f"after row {row.number}" if row else "at its beginning"
        raise ProfileFileError(
            f"{path} is damaged, cut off or not of this format, {place}: {str(error).splitlines()[0]}. Fetch it again; "
            "profiles that have been taken in are not taken in twice."
        ) from error
    if row is None:
        raise ProfileFileError(f"{path} is empty: it holds no profile.")


def _lines(path: Path) -> Iterator[Row]:
    codec = _CODECS.get(path.suffix)
    with pa.OSFile(str(path)) as file:
        size = file.size()
        stream = pa.CompressedInputStream(file, codec) if codec and size else file
        with io.BufferedReader(stream, _BUFFER) as lines:
            number = 0
            while line := lines.readline(_LONGEST_LINE):
                number += 1
                if len(line) == _LONGEST_LINE:
                    raise OSError(f"line {number} is longer than {_LONGEST_LINE >> 20} MB")
                if not line.isspace():
                    done = size if stream.closed else file.tell()
                    yield Row(number, _from_line(number, line), done, size)


def _from_line(number: int, line: bytes) -> Profile | Reject:
    try:
        return Profile.model_validate_json(line)
    except ValidationError as error:
        return _invalid(number, line[:_SHOWN].decode("utf-8", "backslashreplace"), error)


def _records(path: Path) -> Iterator[Row]:
    if not path.stat().st_size:
        return
    with pq.ParquetFile(str(path), buffer_size=_BUFFER) as file:
        _require_schema(path, file.schema_arrow)
        number, total = 0, file.metadata.num_rows
        for batch in file.iter_batches(_BATCH, use_threads=False):
            for record in pa.Table.from_batches([batch]).select(SCHEMA.names).cast(SCHEMA).to_pylist():
                number += 1
                yield Row(number, _from_record(number, record), number, total)


def _require_schema(path: Path, schema: Any) -> None:
    said = schema.metadata or {}
    if said.get(VERSION_KEY, METADATA[VERSION_KEY]) != METADATA[VERSION_KEY]:
        raise ProfileFileError(f"{path} was written by a newer version of Limner. Use that one.")
    found, known = set(_names(schema)), set(_names(SCHEMA))
    faults = [
        f"{', '.join(sorted(names))} {what}"
        for names, what in ((known - found, "missing"), (found - known, "unknown"))
        if names
    ]
    if faults:
        raise ProfileFileError(f"{path} is no file of profiles: columns {'; '.join(faults)}. See docs/batch.md.")
    try:
        schema.empty_table().select(SCHEMA.names).cast(SCHEMA)
    except pa.ArrowException as error:
        raise ProfileFileError(f"{path} has a column of the wrong type: {str(error).splitlines()[0]}.") from error


def _names(fields: Any, prefix: str = "") -> Iterator[str]:
    """Name columns and the fields within them."""
    for field in fields:
        yield prefix + field.name
        kind = field.type
        while hasattr(kind, "value_type"):
            kind = kind.value_type
        if pa.types.is_struct(kind):
            yield from _names(kind, f"{prefix}{field.name}.")


def _from_record(number: int, record: dict[str, Any]) -> Profile | Reject:
    user_id = str(record["user_id"])
    try:
        profile = Profile.model_validate(_document(record))
    except ValidationError as error:
        return _invalid(number, user_id, error)
    except (ValueError, TypeError) as error:
        return Reject(
            number, "", user_id, f"a column of JSON text holds none: {error}", "a column of JSON text holds none"
        )
    for name, value in _repeated(profile).items():
        if record[name] != value:
            return Reject(number, name, user_id, "is not what provenance says")
    return profile


def _document(record: dict[str, Any]) -> dict[str, Any]:
    """Return the profile of a record, as the contract has it."""
    told = {name: record[name] for name in record if name in Profile.model_fields}
    told["provenance"] = from_json(record["provenance"])
    told["habits"] = [habit | {"values": from_json(habit["values"])} for habit in record["habits"]]
    told |= {"interests": [], "intents": [], "dislikes": []}
    for claim in record["claims"]:
        absent = {name for name in ("goal", "stage") if claim[name] is None}  # all but intents have none
        fields = {name: value for name, value in claim.items() if name not in absent}
        told[_LISTS.get(claim["kind"], "interests")].append(fields | {"attributes": from_json(claim["attributes"])})
    return told


def _invalid(number: int, value: str, error: ValidationError) -> Reject:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    column = ".".join(map(str, first["loc"]))
    kind = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
    return Reject(number, column, value, first["msg"], f"{kind}: {first['type']}".removeprefix(": "))
