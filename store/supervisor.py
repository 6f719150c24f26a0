"""A server process shared by all the processes that need it, which ends with the last of them.

    with acquire(directory, make, ready) as lease:
        connect_to(lease.info["url"])

The first user starts the server, later ones join it. A supervisor process (`store.supervisor_main`, which
explains the locks) watches it, and stops it when the last user has closed its lease or has died, however
it died. Nothing but flock says who is alive, so there is no pid to go stale.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pydantic import JsonValue

from store import supervisor_main
from store.errors import ServerError
from store.supervisor_main import LEASE_LOCK, RECORD, START_LOCK, SUPERVISOR_LOCK, try_lock, wait_lock

Info = Mapping[str, JsonValue]

_LOG_TAIL_LINES = 15
_PATIENCE_S = 10.0  # for another starter's preparations, beyond the time that its server may take

_children: dict[Path, "subprocess.Popen[bytes]"] = {}  # the supervisors that this process has started


@dataclass(frozen=True, slots=True)
class Server:
    """A server to start.

    Attributes:
        argv: The program (an absolute path) and its arguments; it must stay in the foreground.
        info: What its users need to know, such as a URL; kept in a file that only its owner can read.
        log: The file for its output; the log of the run before is kept as `.old`.
        env: Variables added to the environment of the process that starts it.
        stop_signal: The signal that asks it to end; also what it gets when the supervisor is killed.
        stop_timeout_s: How long it may take to end before its process group is killed.
        linger_s: How long it is kept when nobody uses it.
    """

    argv: Sequence[str]
    info: Info
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    linger_s: float = 0.0


class _Record(NamedTuple):
    info: dict[str, JsonValue] | None
    log: Path | None
    linger_s: float


class Lease:
    """The right to use a server; it lives at least until the lease is closed.

    Attributes:
        info: What the process that started the server said of it.
        started: Whether it was this call that started it.
    """

    def __init__(self, directory: Path, descriptor: int, record: _Record, *, started: bool) -> None:
        self.info: Info = record.info or {}
        self.started = started
        self._directory = directory
        self._descriptor: int | None = descriptor
        self._lingers = record.linger_s > 0

    def close(self, wait_s: float = 15.0) -> None:
        """Gives the server back; when we were its last user, waits up to `wait_s` until it is gone."""
        if self._descriptor is None:
            return
        os.close(self._descriptor)
        self._descriptor = None
        if not self._lingers:
            _wait_until_gone(self._directory, wait_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def acquire(
    directory: Path,
    make: Callable[[], Server],
    ready: Callable[[Info], bool],
    *,
    start_timeout_s: float = 60.0,
) -> Lease:
    """Joins the server of `directory`, or starts it.

    Args:
        directory: Where the locks are; made if missing. One directory, one server.
        make: Prepares the server; called only when it must be started, and by one process at a time.
        ready: Whether the server with this information answers; called until it says yes, before every
            use. It must not wait for long itself.
        start_timeout_s: How long the server may take until it is ready.

    Raises:
        ServerError: The server ended while starting, was not ready in time, or another process took too
            long to start it. A server that we started is gone when this is raised.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as starting:
        start = _lock(directory / START_LOCK, start_timeout_s + _PATIENCE_S, "another process has been starting it")
        starting.callback(os.close, start)
        use = _lock(directory / LEASE_LOCK, start_timeout_s, "it has been stopping", shared=True)
        try:
            record, started = _join_or_start(directory, make, ready, start_timeout_s)
        except BaseException:
            os.close(use)  # nobody uses the server now, so its supervisor stops it
            _wait_until_gone(directory, 15.0)
            raise
        return Lease(directory, use, record, started=started)


def is_running(directory: Path) -> dict[str, JsonValue] | None:
    """The information of the server of `directory`, or None when there is none (`doctor` asks this)."""
    if not (directory / SUPERVISOR_LOCK).exists():
        return None
    record = _running(directory)
    return None if record is None else record.info or {}


def _lock(path: Path, seconds: float, what: str, *, shared: bool = False) -> int:
    descriptor = wait_lock(path, seconds, shared=shared)
    if descriptor is None:
        raise ServerError(
            f"The server of {path.parent} cannot be used: {what} for {seconds:.0f} s. "
            f"Try again, or end the processes that hold {path} (`fuser {path}` lists them)."
        )
    return descriptor


def _is_free(path: Path, *, shared: bool) -> bool:
    descriptor = try_lock(path, shared=shared)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def _running(directory: Path) -> _Record | None:
    """What the living supervisor says of its server; None when no supervisor is alive."""
    if _is_free(directory / SUPERVISOR_LOCK, shared=True):  # shared, so that two looks do not meet
        return None
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        return _Record(record["info"], Path(record["log"]), record["linger_s"])
    except FileNotFoundError:  # it is about to write it, or is ending
        return _Record(None, None, 0.0)


def _join_or_start(
    directory: Path, make: Callable[[], Server], ready: Callable[[Info], bool], timeout_s: float
) -> tuple[_Record, bool]:
    server: Server | None = None
    deadline = time.monotonic() + timeout_s
    while True:
        record = _running(directory)
        if record is None:
            if server is not None:
                raise ServerError(f"{server.argv[0]} ended while it was starting.{_tail(server.log)}")
            server = make()
            _spawn(directory, server)
            deadline = time.monotonic() + timeout_s
            continue
        if record.info is not None and ready(record.info):
            return record, server is not None
        if time.monotonic() > deadline:
            name = server.argv[0] if server else f"The running server of {directory}"
            raise ServerError(f"{name} did not answer within {timeout_s:.0f} s.{_tail(record.log)}")
        time.sleep(0.02)


def _spawn(directory: Path, server: Server) -> None:
    job = {
        "directory": str(directory),
        "argv": list(server.argv),
        "env": dict(server.env),
        "info": dict(server.info),
        "log": str(server.log.resolve()),
        "stop_signal": int(server.stop_signal),
        "stop_timeout_s": server.stop_timeout_s,
        "linger_s": server.linger_s,
    }
    _reap(directory)  # our own one of an earlier time, if it was killed
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", supervisor_main.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C in our terminal is not meant for the server
        cwd="/",  # and nobody's directory is kept busy
    )
    _children[directory] = process
    with process.stdin as job_file, process.stdout as output:  # type: ignore[union-attr]
        job_file.write(json.dumps(job).encode())
        job_file.close()
        complaint = output.read().decode(errors="replace").strip()
    if complaint:
        raise ServerError(f"The supervisor of {server.argv[0]} did not start: {complaint}")


def _reap(directory: Path) -> None:
    """Collects the exit code of a supervisor that has freed its lock, so that no zombie stays."""
    child = _children.pop(directory, None)
    if child is not None:
        with suppress(subprocess.TimeoutExpired):
            child.wait(5.0)


def _wait_until_gone(directory: Path, seconds: float) -> None:
    """Waits, but not for ever, until no supervisor is alive or somebody else uses the server.

    The tries below hold locks for microseconds. At worst, two processes that close at the same moment
    take each other for a user, and one of them returns early.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if _is_free(directory / SUPERVISOR_LOCK, shared=True):
            _reap(directory)
            return
        unused = _is_free(directory / LEASE_LOCK, shared=False)
        if not unused and _is_free(directory / LEASE_LOCK, shared=True):
            return  # shared with other users; the supervisor would hold it for itself alone
        time.sleep(0.02)


def _tail(log: Path | None) -> str:
    if log is None or not log.exists():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    return f" The end of {log}:\n" + "\n".join(f"  {line}" for line in lines)
