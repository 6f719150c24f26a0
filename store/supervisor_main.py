"""The process that keeps one server alive for as long as somebody uses it.

`store.supervisor` runs this file as a script, with the job as JSON on standard input. Only the standard
library is imported, so that it starts in some 30 ms. Four files in the job's directory are locked (flock),
and a lock ends with the processes that hold it, so nothing goes stale when one of them is killed:

- `lease.lock`: shared by the users of the server. The supervisor tries it exclusively: when it gets it,
  nobody uses the server any more; it keeps it while it stops the server, so that new users wait.
- `supervisor.lock`: held by the supervisor while it lives.
- `server.lock`: inherited by the server and its children on purpose. It is free when they are all gone,
  also those of a supervisor that was killed.
- `start.lock`: held by whoever starts a server (see `store.supervisor`); not used here.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

START_LOCK = "start.lock"
LEASE_LOCK = "lease.lock"
SUPERVISOR_LOCK = "supervisor.lock"
SERVER_LOCK = "server.lock"
RECORD = "server.json"

POLL_S = 0.1
_PR_SET_PDEATHSIG = 1


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """Locks `path` if that is possible at once; the lock is freed by closing the descriptor returned."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def wait_lock(path: Path, seconds: float, *, shared: bool = False) -> int | None:
    """Locks `path`, waiting up to `seconds` for it; None when that was not enough."""
    deadline = time.monotonic() + seconds
    while (descriptor := try_lock(path, shared=shared)) is None:
        if time.monotonic() > deadline:
            return None
        time.sleep(0.02)
    return descriptor


def _say(message: str) -> None:
    sys.stderr.write(f"supervisor: {message}\n")
    sys.stderr.flush()


def _log_to(log: Path) -> None:
    """Sends our output and the server's to a new log; the log of the run before is kept as `.old`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(log.name + ".old"))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (descriptor, 1), (descriptor, 2)):
        os.dup2(source, target)
    os.close(descriptor)
    os.close(nothing)


def _write_record(directory: Path, job: dict[str, Any]) -> None:
    record = {key: job[key] for key in ("info", "log", "linger_s")}
    new = directory / (RECORD + ".new")
    new.touch(mode=0o600)  # the information may hold a key
    new.write_text(json.dumps(record), encoding="utf-8")
    new.replace(directory / RECORD)


def _die_with_parent(stop_signal: int) -> Callable[[], None]:
    """Makes the server stop by its stop signal when this process is killed.

    The stop signal rather than SIGKILL, so that a server with children of its own can end them.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    parent = os.getpid()

    def in_child() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, stop_signal)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def _start(directory: Path, job: dict[str, Any]) -> "subprocess.Popen[bytes] | None":
    held = wait_lock(directory / SERVER_LOCK, float(job["stop_timeout_s"]) + 5)
    if held is None:
        _say("a server of a killed supervisor is still running, and holds server.lock")
        return None
    try:
        process = subprocess.Popen(
            job["argv"],
            env={**os.environ, **job["env"]},
            stdin=subprocess.DEVNULL,
            process_group=0,
            pass_fds=(held,),
            preexec_fn=_die_with_parent(int(job["stop_signal"])),  # noqa: PLW1509 - we have no threads
        )
    except OSError as error:
        _say(f"cannot run {job['argv'][0]}: {error}")
        return None
    finally:
        os.close(held)
    _write_record(directory, job)
    return process


def _exited(process: "subprocess.Popen[bytes]") -> bool:
    """Whether the server has ended. It is not reaped, so that its process group keeps its number."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _stop(directory: Path, process: "subprocess.Popen[bytes]", stop_signal: int, timeout_s: float) -> int:
    """Stops the server politely, then kills what is left of its group; returns its exit code."""
    deadline = time.monotonic() + timeout_s
    if not _exited(process):
        os.kill(process.pid, stop_signal)
    while not _exited(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: a group of zombies only
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    gone = wait_lock(directory / SERVER_LOCK, 5.0)
    if gone is not None:
        os.close(gone)
    return code


class _Watch:
    """Says when the server is to be stopped: nobody uses it, or we are asked to end."""

    def __init__(self, lease_lock: Path, linger_s: float) -> None:
        self._lease_lock = lease_lock
        self._linger_s = linger_s
        self._unused_since: float | None = None
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def is_over(self) -> bool:
        """Keeps the lease lock when it says yes for want of users: new ones must wait until we are gone."""
        if self._asked:
            return True
        descriptor = try_lock(self._lease_lock)
        if descriptor is None:
            self._unused_since = None
            return False
        now = time.monotonic()
        self._unused_since = now if self._unused_since is None else self._unused_since
        if now - self._unused_since >= self._linger_s:
            return True
        os.close(descriptor)
        return False


def _supervise(directory: Path, job: dict[str, Any]) -> int:
    watch = _Watch(directory / LEASE_LOCK, float(job["linger_s"]))
    process = _start(directory, job)
    if process is None:
        return 1
    while not _exited(process) and not watch.is_over():
        time.sleep(POLL_S)
    ended_by_itself = _exited(process)
    code = _stop(directory, process, int(job["stop_signal"]), float(job["stop_timeout_s"]))
    _say(f"the server {'ended by itself' if ended_by_itself else 'was stopped'}, exit code {code}")
    return code if code >= 0 else 128 - code


def main() -> int:
    """Reads the job and supervises the server to its end.

    The caller reads our output until we turn it over to the log: no output means that we hold the lock.
    """
    job: dict[str, Any] = json.load(sys.stdin)
    directory = Path(job["directory"])
    alive = wait_lock(directory / SUPERVISOR_LOCK, 2.0)  # a look by `is_running` may hold it for a moment
    if alive is None:
        _say(f"another supervisor holds {directory / SUPERVISOR_LOCK}")
        return 1
    (directory / RECORD).unlink(missing_ok=True)
    _log_to(Path(job["log"]))
    try:
        return _supervise(directory, job)
    finally:
        (directory / RECORD).unlink(missing_ok=True)
        os.close(alive)  # before the lease lock, which is freed as we end


if __name__ == "__main__":
    sys.exit(main())
