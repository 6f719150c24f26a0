"""Bytes of a file, plain or gzipped, and their cutting into blocks of whole lines."""

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from store.errors import IngestError
from store.ingest.rejects import VALUE_SHOWN, Reject

BLOCK_BYTES = 4 << 20
MAX_RECORD_BYTES = 16 << 20  # a text of MAX_TEXT characters, escaped in JSON at its longest, is 12 MB
_GZIP_MAGIC = b"\x1f\x8b"
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


class ByteStream:
    """The bytes of a file, unpacked if it is gzipped (told by its first bytes, not by its name)."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise IngestError(f"cannot read {path}: {error.strerror}") from error
        self.gzipped = self._file.read(2) == _GZIP_MAGIC
        self._file.seek(0)
        self._bytes = cast("BinaryIO", gzip.GzipFile(fileobj=self._file)) if self.gzipped else self._file

    @property
    def done(self) -> int:
        """How many bytes of the file (as it lies on the disk) have been read."""
        return self._file.tell()

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end.

        Raises:
            IngestError: the gzip stream is cut off or damaged, or the disk cannot be read.
        """
        try:
            return self._bytes.read(size)
        except EOFError as error:
            raise IngestError(
                "the gzip file is cut off: it ends before its end marker. Nothing was stored; fetch it again."
            ) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise IngestError(f"the gzip file is damaged ({error}); nothing was stored") from error
        except OSError as error:
            raise IngestError(f"reading failed: {error.strerror}") from error

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):
            self._bytes.close()
        self._file.close()


class Block(NamedTuple):
    """Whole lines of a file: the number of the first one (from 1), the bytes, and what was skipped before."""

    first_line: int
    data: bytes
    rejects: tuple[Reject, ...]
    last: bool


def line_blocks(stream: ByteStream, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """Cuts a stream into blocks that end with a line; only the last may lack the final newline.

    A byte order mark is dropped. A line above `MAX_RECORD_BYTES` is skipped and reported as rejected.

    Raises:
        IngestError: the file is empty or in UTF-16.
    """
    rest = stream.read(size)
    if rest.startswith(_UTF16_BOMS):
        raise IngestError("the file is in UTF-16; convert it to UTF-8 first")
    rest = rest.removeprefix(_UTF8_BOM)
    if not rest:
        raise IngestError("the file is empty")
    line = 1
    rejects: list[Reject] = []
    ended = False
    while not ended:
        more = stream.read(size)
        ended = not more
        if not ended and b"\n" not in rest and b"\n" not in more and len(rest) + len(more) > MAX_RECORD_BYTES:
            rejects.append(_too_long(line, rest))
            rest, ended = _skip_line(stream, size)
            line += 1
            continue
        rest += more
        end = len(rest) if ended else rest.rfind(b"\n") + 1
        if end:
            yield Block(line, rest[:end], tuple(rejects), ended)
            line += rest.count(b"\n", 0, end)
            rest, rejects = rest[end:], []
    if rejects or rest:
        yield Block(line, rest, tuple(rejects), last=True)


def _skip_line(stream: ByteStream, size: int) -> tuple[bytes, bool]:
    """Reads to behind the next newline; what follows it, and whether the file ended first."""
    while more := stream.read(size):
        _, newline, rest = more.partition(b"\n")
        if newline:
            return rest, False
    return b"", True


def _too_long(line: int, start: bytes) -> Reject:
    shown = start[:VALUE_SHOWN].decode("utf-8", "backslashreplace")
    return Reject(line, "", shown, f"line longer than {MAX_RECORD_BYTES >> 20} MB")
