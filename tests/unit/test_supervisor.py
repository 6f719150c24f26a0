"""A shared server: started once, ended with its last user, whatever is killed."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store import supervisor
from store.errors import ServerError
from store.supervisor import Info, Lease, Server, acquire, is_running
from store.supervisor_main import LEASE_LOCK, SERVER_LOCK, START_LOCK, try_lock

ROOT = Path(__file__).parents[2]

# Writes its process id, one line a start, so that starts can be counted; takes a while to end if told to.
SERVER = """
import os, signal, sys, time
def end(*_):
    time.sleep(float(sys.argv[2]))
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
with open(sys.argv[1], "a") as starts:
    starts.write(f"{os.getpid()}\\n")
time.sleep(300)
"""

CLIENT = """
import sys
from pathlib import Path
from store.supervisor import Server, acquire
directory = Path(sys.argv[1])
starts = directory / "starts"
def make():
    argv = [sys.executable, "-c", sys.argv[2], str(starts), "0"]
    return Server(argv, {"by": sys.argv[3]}, directory / "log")
with acquire(directory, make, lambda info: starts.exists()) as lease:
    print(lease.info["by"], lease.started, flush=True)
    sys.stdin.readline()
"""


def make_server(directory: Path, ending: float = 0.0, **settings) -> Callable[[], Server]:
    argv = [sys.executable, "-c", SERVER, str(directory / "starts"), str(ending)]
    return lambda: Server(argv, {"by": "test"}, directory / "log", **settings)


def starts(directory: Path) -> list[int]:
    file = directory / "starts"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def begin(directory: Path, ending: float = 0.0, **settings) -> Lease:
    def ready(_info: Info) -> bool:
        return any(map(is_alive, starts(directory)[-1:]))

    return acquire(directory, make_server(directory, ending, **settings), ready)


def state(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_alive(pid: int) -> bool:
    return state(pid)[:1] not in ([], ["Z"])


def parent(pid: int) -> int:
    return int(state(pid)[1])


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def client(directory: Path, name: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(directory), SERVER, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_two_processes_share_a_server_and_the_last_one_stops_it(tmp_path):
    with client(tmp_path, "first") as first:
        assert first.stdout.readline() == "first True\n"
        with client(tmp_path, "second") as second:
            assert second.stdout.readline() == "first False\n"
            [pid] = starts(tmp_path)
            first.communicate("\n")
            assert first.returncode == 0
            time.sleep(0.3)  # three looks of the supervisor
            assert is_alive(pid)
            second.communicate("\n")  # returns when the process has ended
            assert not is_alive(pid)
            assert is_running(tmp_path) is None


def test_eight_processes_at_once_start_one_server(tmp_path):
    names = [str(number) for number in range(8)]
    command = [sys.executable, "-c", CLIENT, str(tmp_path), SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    clients = [subprocess.Popen([*command, name], env=environment, **pipes) for name in names]
    try:
        said = [process.stdout.readline().split() for process in clients]
    finally:
        for process in clients:
            process.communicate("\n")
    assert len(starts(tmp_path)) == 1
    assert sorted(started for _, started in said) == ["False"] * 7 + ["True"]
    assert len({by for by, _ in said}) == 1
    assert eventually(lambda: is_running(tmp_path) is None)


def test_killed_client_stops_the_server(tmp_path):
    with client(tmp_path, "only") as only:
        only.stdout.readline()
        [pid] = starts(tmp_path)
        assert is_alive(pid)
        only.kill()
        only.wait()
        assert eventually(lambda: not is_alive(pid))


def test_killed_client_leaves_the_server_to_the_other(tmp_path):
    with client(tmp_path, "first") as first, client(tmp_path, "second") as second:
        first.stdout.readline()
        second.stdout.readline()
        [pid] = starts(tmp_path)
        first.kill()
        first.wait()
        time.sleep(0.3)
        assert is_alive(pid)
        second.communicate("\n")
        assert not is_alive(pid)


def test_killed_supervisor_leaves_no_server_and_the_next_user_starts_one(tmp_path):
    with begin(tmp_path, ending=0.7) as lease:
        [old] = starts(tmp_path)
        os.kill(parent(old), signal.SIGKILL)
        assert eventually(lambda: is_running(tmp_path) is None)
        assert is_alive(old)  # on its way out
        with begin(tmp_path) as again:
            assert again.started
            assert not is_alive(old)  # the new one waited for it
            assert len(starts(tmp_path)) == 2
            new = starts(tmp_path)[-1]
            assert is_alive(new)
        assert is_alive(new)  # the first lease is on the directory, so it counts for the new server too
        lease.close()
        assert not is_alive(new)


def test_server_that_crashes_in_use_is_started_again(tmp_path):
    with begin(tmp_path):
        os.kill(starts(tmp_path)[0], signal.SIGKILL)
        assert eventually(lambda: is_running(tmp_path) is None)
        with begin(tmp_path) as again:
            assert again.started


def test_server_that_dies_at_start_gives_the_end_of_its_log(tmp_path):
    script = "for n in range(40): print('line', n)\nraise SystemExit('no such model')"
    server = Server([sys.executable, "-c", script], {}, tmp_path / "log")
    with pytest.raises(ServerError, match="ended while it was starting") as caught:
        acquire(tmp_path, lambda: server, lambda _: False)
    assert "no such model" in str(caught.value)
    assert "exit code 1" in str(caught.value)
    assert "line 39" in str(caught.value)
    assert "line 0\n" not in str(caught.value)
    assert is_running(tmp_path) is None


def test_missing_program_says_so(tmp_path):
    with pytest.raises(ServerError, match="cannot run /nowhere/postgres"):
        acquire(tmp_path, lambda: Server(["/nowhere/postgres"], {}, tmp_path / "log"), lambda _: True)


def test_server_that_is_never_ready_is_stopped(tmp_path):
    with pytest.raises(ServerError, match="did not answer within 1 s"):
        acquire(tmp_path, make_server(tmp_path), lambda _: False, start_timeout_s=1)
    assert is_running(tmp_path) is None
    assert not is_alive(starts(tmp_path)[0])


def test_exception_in_the_probe_leaves_nothing_behind(tmp_path):
    def broken(_):
        if starts(tmp_path):
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        acquire(tmp_path, make_server(tmp_path), broken)
    assert not is_alive(starts(tmp_path)[0])
    for lock in (START_LOCK, LEASE_LOCK):
        os.close(try_lock(tmp_path / lock))


def test_server_inherits_no_lock_but_its_own(tmp_path):
    with begin(tmp_path):
        files = [entry.readlink() for entry in Path(f"/proc/{starts(tmp_path)[0]}/fd").iterdir()]
    assert [file.name for file in files if file.suffix == ".lock"] == [SERVER_LOCK]


def test_stubborn_server_is_killed_with_its_children(tmp_path):
    script = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
with open(sys.argv[1], "a") as starts:
    starts.write(f"{os.getpid()}\\n")
time.sleep(300)
"""
    argv = [sys.executable, "-c", script, str(tmp_path / "starts")]
    server = Server(argv, {}, tmp_path / "log", stop_timeout_s=0.5)
    with acquire(tmp_path, lambda: server, lambda _: len(starts(tmp_path)) == 2):
        pids = starts(tmp_path)
        assert all(map(is_alive, pids))
    assert not any(map(is_alive, pids))


def test_orderly_end_is_waited_for(tmp_path):
    with begin(tmp_path, ending=0.5):
        pass
    assert "exit code 0" in (tmp_path / "log").read_text()  # -9 or -15 had it been killed


def test_new_user_waits_while_the_server_is_stopping(tmp_path):
    begin(tmp_path, ending=1.0).close(wait_s=0.0)
    assert eventually(lambda: try_and_free(tmp_path / LEASE_LOCK) is False)  # it is stopping
    [old] = starts(tmp_path)
    assert is_alive(old)
    with begin(tmp_path) as lease:
        assert lease.started
        assert not is_alive(old)


def try_and_free(lock: Path) -> bool:
    descriptor = try_lock(lock)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


def test_lingering_server_is_joined_and_ends_later(tmp_path):
    begin(tmp_path, linger_s=1.0).close()
    [pid] = starts(tmp_path)
    time.sleep(0.4)
    assert is_alive(pid)
    with begin(tmp_path) as lease:
        assert not lease.started
    assert eventually(lambda: not is_alive(pid), 5.0)
    assert starts(tmp_path) == [pid]


def test_asking_the_supervisor_to_end_stops_the_server(tmp_path):
    with begin(tmp_path):
        [pid] = starts(tmp_path)
        os.kill(parent(pid), signal.SIGTERM)
        assert eventually(lambda: not is_alive(pid))
        assert eventually(lambda: is_running(tmp_path) is None)


def test_what_is_running_is_told_to_its_owner_alone(tmp_path):
    assert is_running(tmp_path / "nothing") is None
    with begin(tmp_path):
        assert is_running(tmp_path) == {"by": "test"}
        assert stat.S_IMODE((tmp_path / "server.json").stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600
    assert is_running(tmp_path) is None
    assert not (tmp_path / "server.json").exists()


def test_information_of_a_killed_supervisor_is_not_believed(tmp_path):
    (tmp_path / "server.json").write_text('{"info": {"by": "ghost"}, "log": "/log", "linger_s": 0}')
    with begin(tmp_path) as lease:
        assert lease.info == {"by": "test"}


def test_log_of_the_run_before_is_kept(tmp_path):
    for _ in range(2):
        begin(tmp_path).close()
    assert (tmp_path / "log").exists()
    assert (tmp_path / "log.old").exists()


def test_starter_that_never_ends_gives_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "_PATIENCE_S", 0.2)
    held = try_lock(tmp_path / START_LOCK)
    try:
        with pytest.raises(ServerError, match="another process has been starting it") as caught:
            acquire(tmp_path, make_server(tmp_path), lambda _: True, start_timeout_s=0.2)
    finally:
        os.close(held)
    assert "start.lock" in str(caught.value)
    assert not starts(tmp_path)


def test_closing_twice_is_closing_once(tmp_path):
    lease = begin(tmp_path)
    lease.close()
    other = os.open(tmp_path / "other", os.O_CREAT)  # most likely the number that the lease had
    lease.close()
    os.close(other)
