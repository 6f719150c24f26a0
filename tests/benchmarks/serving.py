"""What measures a running server needs: `limner serve` of its own, and a key that is gone at the end."""

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from sqlalchemy import delete
from sqlmodel import col

from api.runtime import now
from store import keys
from store.database import Database
from store.tables import ApiKeyRow, AuditRow


class Server(NamedTuple):
    """A running server."""

    process: subprocess.Popen[str]
    url: str

    def cpu_s(self) -> float:
        """CPU time of the process so far, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served() -> Iterator[Server]:
    """Run `limner serve` on a free port of this machine."""
    limner = str(Path(sys.executable).with_name("limner"))
    with tempfile.TemporaryFile("w") as log:
        command = [limner, "serve", "--host", "127.0.0.1", "--port", "0"]
        process = subprocess.Popen(
            command, env={**os.environ, "COLUMNS": "300"}, stdout=log, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        try:
            url = _url(process.stderr)
            threading.Thread(target=process.stderr.read, daemon=True).start()  # or it would wait for a full pipe
            yield Server(process, url)
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def own_key(opened: Database, scope: str) -> Iterator[str]:
    """Make a key without a limit; it is gone at the end, with what was noted in the audit under it."""
    with opened.session() as session:
        token = keys.create(session, "benchmark", [scope], now(), requests_per_minute=0)
    try:
        yield token
    finally:
        key_id = token.split("_")[1]
        with opened.session() as session:
            session.execute(delete(AuditRow).where(col(AuditRow.key_id) == key_id))
            session.execute(delete(ApiKeyRow).where(col(ApiKeyRow.key_id) == key_id))


def _url(said: IO[str]) -> str:
    lines = []
    for line in said:
        lines.append(line)
        if found := re.search(r"listens at (http://\S+),", line):
            return found[1]
    raise RuntimeError(f"the server has not started: {''.join(lines)}")
