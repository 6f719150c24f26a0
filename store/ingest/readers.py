"""Opens a file of records in the format that its name or the caller gives."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from store.errors import IngestError
from store.ingest.csv_reader import CsvReader
from store.ingest.jsonl_reader import JsonLinesReader
from store.ingest.parquet_reader import ParquetReader
from store.ingest.raw import Reader
from store.ingest.streams import ByteStream

FileFormat = Literal["csv", "tsv", "jsonl", "parquet"]

_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def file_format_of(path: Path) -> FileFormat:
    """The format that a file's name tells, `.gz` aside.

    Raises:
        IngestError: the name tells none.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    if suffixes and suffixes[-1] in _SUFFIXES:
        return _SUFFIXES[suffixes[-1]]
    raise IngestError(
        f"cannot tell the format of {path.name}; its name should end in one of {', '.join(_SUFFIXES)} "
        f"(and .gz if you like), or give the format: {', '.join(get_args(FileFormat))}"
    )


@contextmanager
def open_reader(path: Path, file_format: FileFormat | None = None) -> Iterator[Reader]:
    """Opens a file for reading, plain or gzipped.

    Raises:
        IngestError: it cannot be read, or is not what it should be.
    """
    file_format = file_format or file_format_of(path)
    stream = ByteStream(path)
    try:
        if file_format == "parquet":
            reader = ParquetReader(stream, path)
            try:
                yield reader
            finally:
                reader.close()
        elif file_format == "jsonl":
            yield JsonLinesReader(stream)
        else:
            yield CsvReader(stream, "\t" if file_format == "tsv" else ",")
    finally:
        stream.close()
