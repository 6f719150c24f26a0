"""Finds one user's id in text, JSON and files, and takes it out.

An id such as `7` is also a number, and `ann` a syllable. So a short id counts only where the text speaks of a user just
before; a longer one counts wherever it stands as a word of its own. Each is sought in all the spellings that JSON, CSV,
URLs and Python give it.
"""

import csv
import html
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from store.ingest.rejects import VALUE_SHOWN

HIDDEN = "[erased]"
_SHORT, _SHORT_NUMBER = 5, 9
_PART, _OVERLAP = 1 << 20, 1 << 14  # bytes; the longest spelling of an id has 6 KB
_ABOUT_USERS = re.compile(rb"(?i)user\w*(?=([^\r\n]{0,80}))")


class Redaction:
    """Takes a user's id out of what names it.

    Attributes:
        spellings: The id as it may be written, the longest first.
        short: Whether the id counts only where the text speaks of a user.
    """

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        written = {
            user_id, json.dumps(user_id)[1:-1], json.dumps(user_id, ensure_ascii=False)[1:-1], repr(user_id)[1:-1],
            quote(user_id), quote(user_id, safe=""), user_id.replace('"', '""'),
            user_id.encode("ascii", "backslashreplace").decode(), _in_html(user_id),
        }  # fmt: skip
        self.spellings = sorted(written, key=lambda text: (-len(text), text))
        self.short = len(user_id) < (_SHORT_NUMBER if user_id.isdigit() else _SHORT)
        self._pattern = re.compile(b"|".join(map(_as_word, self.spellings)))

    def hide(self, text: str) -> str:
        """Return a text without the id."""
        data = text.encode("utf-8", "surrogatepass")
        for start, end in reversed(self._spans(data)):
            data = data[:start] + HIDDEN.encode() + data[end:]
        return data.decode("utf-8", "surrogatepass")

    def strip(self, value: Any) -> Any:
        """Return a JSON value without the id: left out of lists and objects, hidden in texts."""
        if isinstance(value, list):
            return [self.strip(inner) for inner in value if inner != self.user_id]
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if k != self.user_id and not (v == self.user_id and "user" in k)}
            return {self.hide(k): self.strip(v) for k, v in kept.items()}
        if not isinstance(value, str):
            return value
        return self.hide(value) if value != self.user_id or not self.short else value

    def clean(self, home: Path, event_ids: Collection[str]) -> None:
        """Take the id out of the files of a data directory: rejects, reports and logs.

        Args:
            home: The data directory.
            event_ids: Of the user's events; rows of rejects that quote one go as well.

        Raises:
            OSError: A file cannot be read or written.
        """
        for path in _files(home / "rejects"):
            if self._spans(path.name.encode("utf-8", "surrogateescape")):
                path.unlink()
            else:
                self._clean_rejects(path, event_ids)
        for path in _files(home / "reports"):
            if path.suffix != ".json" or not self._clean_json(path):
                self._overwrite(path)
        for path in (*_files(home / "logs"), *home.glob("postgres/postgres.log*")):
            self._overwrite(path)

    def _spans(self, data: bytes) -> list[tuple[int, int]]:
        if not self.short:
            return [found.span() for found in self._pattern.finditer(data)]
        near = (about.span(1) for about in _ABOUT_USERS.finditer(data))
        return sorted({found.span() for start, end in near for found in self._pattern.finditer(data, start, end)})

    def _clean_rejects(self, path: Path, event_ids: Collection[str]) -> None:
        """Write a file of rejects anew without the rows about the user; one that is left empty goes."""
        quoted = {text[:VALUE_SHOWN] for text in (*self.spellings, *event_ids)}
        draft = path.with_name(f"{path.name}.new")
        kept = dropped = 0
        csv.field_size_limit(1 << 30)
        with (
            path.open(encoding="utf-8", errors="surrogateescape", newline="") as old,
            draft.open("w", encoding="utf-8", errors="surrogateescape", newline="") as new,
        ):
            writer = csv.writer(new)
            for n, (line, *cells) in enumerate(row for row in csv.reader(old) if row):
                if n and any(cell in quoted or self.hide(cell) != cell for cell in cells):
                    dropped += 1
                else:
                    writer.writerow([line, *cells])
                    kept += bool(n)
        if dropped and kept:
            draft.replace(path)
            return
        draft.unlink()
        if dropped:
            path.unlink()

    def _clean_json(self, path: Path) -> bool:
        """Write a JSON file anew without the id; tell whether it is JSON."""
        try:
            told = orjson.loads(path.read_bytes())
        except ValueError:
            return False
        if (stripped := self.strip(told)) != told:
            draft = path.with_name(f"{path.name}.new")
            draft.write_bytes(orjson.dumps(stripped, option=orjson.OPT_INDENT_2))
            draft.replace(path)
        return True

    def _overwrite(self, path: Path) -> None:
        """Write stars over the id, byte for byte: another process may be adding to the file's end."""
        with path.open("r+b") as file:
            start, data = 0, file.read(_PART + _OVERLAP)
            while data:
                for begin, end in self._spans(data):
                    file.seek(start + begin)
                    file.write(b"*" * (end - begin))
                start += _PART
                file.seek(start)
                data = file.read(_PART + _OVERLAP)


def _in_html(text: str) -> str:
    return html.escape(text, quote=False).replace('"', "&#34;").replace("'", "&#39;")


def _as_word(spelling: str) -> bytes:
    data = spelling.encode("utf-8")
    before = rb"(?<!\w)" if re.match(rb"\w", data) else b""
    after = rb"(?!\w)" if re.search(rb"\w\Z", data) else b""
    return before + re.escape(data) + after


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
