"""`pg_dump` and `pg_restore`: found, given the password without showing it, and heard when they fail.

Those of the embedded server's wheel will do, and those on PATH; a program must be as new as the servers it deals with.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from store.database import Database
from store.errors import StoreError
from store.postgres import program

_CHUNK = 1 << 20


def major(version: str) -> int:
    """Return the major number of PostgreSQL's version.

    >>> major("18.4")
    18
    """
    found = re.match(r"\d+", version)
    return int(found.group()) if found else 0


def find(name: str, at_least: int) -> tuple[str, int]:
    """Return a program's path and its major version: of those that are new enough, the oldest.

    Args:
        name: `pg_dump` or `pg_restore`.
        at_least: The major version of the server, or of the dump.

    Raises:
        StoreError: None is here, or none is new enough.
    """
    here = {str(path) for path in (program(name), shutil.which(name)) if path is not None}
    versions = sorted((_major_of(path), path) for path in here)
    fitting = [(path, version) for version, path in versions if version >= at_least]
    if not fitting:
        found = f"the newest here is {versions[-1][0]}" if versions else "none is here"
        raise StoreError(
            f"{name} of PostgreSQL {at_least} or newer is needed, and {found}. Install it (on Debian and Ubuntu: the "
            f"package postgresql-client-{at_least}), so that it is on PATH."
        )
    return fitting[0]


def _major_of(path: str) -> int:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return major(said.split()[2]) if len(said.split()) > 2 else 0  # noqa: PLR2004 - "pg_dump (PostgreSQL) 18.4"


@contextmanager
def dumping(database: Database, pg_dump: str, snapshot: str) -> Iterator[IO[bytes]]:
    """Give a dump in PostgreSQL's custom format, as a stream.

    Args:
        database: To dump.
        pg_dump: The program.
        snapshot: That an open transaction has exported: so the dump is of that moment.

    Raises:
        StoreError: The program has failed.
    """
    options = ["--format=custom", f"--snapshot={snapshot}"]
    with _running(database, [pg_dump, *options], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        yield process.stdout


def load(database: Database, pg_restore: str, dump: IO[bytes]) -> None:
    """Restore a dump into a database without tables: all of it or nothing.

    Owners, rights and comments stay behind: another user may restore it, who need not own the extension.

    Raises:
        StoreError: The program has failed.
    """
    options = ["--single-transaction", "--exit-on-error", "--no-comments"]
    with _running(database, [pg_restore, *options], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        try:
            with process.stdin as sink:
                shutil.copyfileobj(dump, sink, _CHUNK)
        except BrokenPipeError:
            pass  # it has failed, and says why


@contextmanager
def _running(
    database: Database, command: list[str], *, stdin: int | None = None, stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program on a database; the password goes by the environment, which others cannot read."""
    with database.raw() as connection:
        place, password = connection.info.dsn, connection.info.password
    options = ["--no-owner", "--no-privileges", "--no-password", f"--dbname={place}"]
    environment = {**os.environ, **({"PGPASSWORD": password} if password else {})}
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen([*command, *options], env=environment, stdin=stdin, stdout=stdout, stderr=said)
        except OSError as error:
            raise StoreError(f"{command[0]} cannot be run: {error.strerror}.") from error
        with process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise StoreError(f"{command[0]} has failed: {lines[0] if lines else f'exit code {process.returncode}'}")
