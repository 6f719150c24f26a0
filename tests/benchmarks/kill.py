"""Kill everything at random moments: nothing is lost, and no more is done twice than was under way.

    python -m tests.benchmarks.kill [--rounds 10] [--users 300] [--seed 1] [--real MODEL] [--out FILE]

A run over many users is begun; in each round the command, a worker, the embedded database server or the model's server
gets SIGKILL, and `limner batch resume` goes on. The model's server is the scripted one, which writes down each call, or
vLLM with a model of the catalogue, whose weights must be there.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
from sqlalchemy import text

from agent.check import check_profiles
from agent.models import resolve
from agent.serving import ServeSettings, installed_build, usable_cores, vllm_argv, vllm_env
from api.batch import Ended
from api.settings import read_settings
from store import jobs, runs
from store.database import Database, open_database
from tests.command_line import ROOT, start
from tests.crowd import add_crowd
from tests.scripted_llm import MODEL, Reply, Request, ScriptedLLM, honest, slow

TARGETS = ("command", "worker", "database", "model")
CONCURRENCY = 8
_USERS_OF_A_ROUND = CONCURRENCY // 2 + 1  # at the least: those who are written at once, and one who is left over
_ANSWER_S = 0.25
_PATIENCE_S, _REAL_PATIENCE_S = 180.0, 6 * 3_600.0  # for anything to come about; a real model writes for hours
_START_S = 600.0  # of the model's server, on a machine with other work
_LOG_TAIL = 2_000
_LONGEST_WAIT_S, _REAL_LONGEST_WAIT_S = 2.0, 4.0  # from the first user written to the kill
_SETTINGS = {
    "WORKER__HEARTBEAT_S": "1", "WORKER__STALLED_S": "2.5", "WORKER__TRIES": "50",
    "BATCH__CONCURRENCY": str(CONCURRENCY), "LLM__USERS_AT_ONCE": str(CONCURRENCY // 2),
}  # fmt: skip
_REAL_SETTINGS = {"WORKER__HEARTBEAT_S": "5", "WORKER__STALLED_S": "30"}  # an engine on the CPU leaves others little

Say = Callable[[str], None]


class Round(NamedTuple):
    """A kill: what was killed, how many users were written by then, and how many were under way."""

    target: str
    written: int
    under_way: int


class Outcome(NamedTuple):
    """What came of it.

    Attributes:
        rounds: The kills.
        active: Users by their number of active profiles.
        versions: Users by their number of versions.
        checked: Active profiles that follow from the events that they cite.
        states: Of the run's items.
        attempts: To write a profile, by how they ended.
        after: Attempts that began after their user was written.
        calls: That the model's server got; None if it does not count.
        paid: Calls that stored profiles rest on.
        second: Attempts of a second run, over unchanged data.
    """

    rounds: list[Round]
    active: dict[int, int]
    versions: dict[int, int]
    checked: int
    states: dict[str, int]
    attempts: dict[str, int]
    after: int
    calls: int | None
    paid: int
    second: int

    @property
    def under_way(self) -> int:
        """Users who were under way at any of the kills."""
        return sum(done.under_way for done in self.rounds)

    def wrong(self, users: int) -> list[str]:
        """Say what does not hold."""
        per_user = self.paid / users
        wrong = {
            "not every user has exactly one active profile": self.active != {1: users},
            "a user has several versions": self.versions != {1: users},
            "a profile does not follow from its events": self.checked != users,
            "not all items were written": self.states != {"written": users},
            "users were begun again after they were written": self.after > 0,
            "more users were under way than may be": any(r.under_way > CONCURRENCY for r in self.rounds),
            "work was done twice that was not under way": self.calls is not None
            and not self.paid <= self.calls <= self.paid + per_user * self.under_way,
            "a second run has begun users": self.second > 0,
        }
        return [what for what, holds in wrong.items() if holds]


class Model:
    """The model's server, as a process that can be killed; it always has the same port."""

    def __init__(self, home: Path, real: str | None) -> None:
        self.calls_log = home / "calls.log"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._log = home / "model.log"
        self._process: subprocess.Popen[bytes] | None = None
        if real is None:
            self.name, self._counts = MODEL, True
            self._argv = [
                sys.executable,
                "-m",
                "tests.benchmarks.kill",
                "--answer",
                str(self.port),
                str(self.calls_log),
            ]
            self._env: dict[str, str] = {"PYTHONPATH": str(ROOT)}
        else:
            found, settings, build = resolve(real, read_settings().home), ServeSettings(), installed_build()
            self.name, self._counts = found.name, False
            self._argv = vllm_argv(found, settings, build, self.port)
            self._env = vllm_env(settings, build, usable_cores())

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: It has ended instead.
            TimeoutError: It takes too long.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, env=os.environ | self._env, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )
        process = self._process
        until(lambda: self._answers() or process.poll() is not None, "the model's server to answer", _START_S)
        if process.poll() is not None:
            raise RuntimeError(f"the model's server has ended:\n{self._log.read_text()[-_LOG_TAIL:]}")

    def _answers(self) -> bool:
        try:
            return httpx.get(self.url.removesuffix("/v1") + "/health", timeout=2).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """Kill it and the processes that it has started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def calls(self) -> int | None:
        """The calls that it got."""
        if not self._counts:
            return None
        return len(self.calls_log.read_bytes().splitlines()) if self.calls_log.exists() else 0


class Scene:
    """A data directory with its own database, a model's server, and what is to be killed."""

    def __init__(self, home: Path, real: str | None, seed: int, say: Say) -> None:
        self._home, self._say = home, say
        self._patience_s = _PATIENCE_S if real is None else _REAL_PATIENCE_S
        self._longest_wait_s = _LONGEST_WAIT_S if real is None else _REAL_LONGEST_WAIT_S
        self._rng = random.Random(seed)  # noqa: S311
        self.model = Model(home, real)
        where = {"LLM__BASE_URL": self.model.url, "LLM__MODEL": self.model.name}
        self._settings = _SETTINGS | (_REAL_SETTINGS if real else {}) | where
        self._holding = ExitStack()
        self._job_id = ""

    def __enter__(self) -> Self:
        try:
            self._open()
            self.model.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._holding.close()
        self.model.kill()

    def _open(self) -> None:
        self._holding.close()
        self.database: Database = self._holding.enter_context(open_database(None, self._home))
        self.database.upgrade()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with self.database.session() as session:
            return [tuple(row) for row in session.execute(text(query))]

    def written(self) -> int:
        """Return how many users are written."""
        return int(self.rows("select count(*) from job_items where state = 'written'")[0][0])

    def _begun(self) -> bool:
        return bool(self.rows("select 1 from jobs"))

    def _cut_off(self) -> int:
        return int(self.rows("select count(*) from attempts where outcome <> 'written'")[0][0])

    def _under_way(self) -> int:
        return int(self.rows("select count(*) from attempts where outcome = 'running'")[0][0])

    @contextmanager
    def _running(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        with (self._home / "commands.log").open("a") as log:
            process = start(list(args), self._home, log, **self._settings)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _said(self) -> str:
        """Return the end of what the commands have said."""
        return (self._home / "commands.log").read_text()[-_LOG_TAIL:]

    def _done(self, *args: str) -> int:
        with self._running(*args) as process:
            return process.wait(self._patience_s)

    def begin(self, users: int) -> None:
        """Store the users, and a run for them: the first command is killed as soon as the run is there."""
        add_crowd(self.database, users)
        with self._running("batch", "run", "--all", "--no-policy") as process:
            until(lambda: self._begun() or process.poll() is not None, "the run to begin", _PATIENCE_S)
        if not self._begun():
            raise RuntimeError(f"the run did not begin:\n{self._said()}")
        with self.database.session() as session:
            self._job_id = runs.latest(session)

    def round(self, target: str) -> Round:
        """Go on with the run, and kill something at a random moment."""
        before, cut_off = self.written(), self._cut_off()
        if target == "worker":
            self._until_done("batch", "resume", self._job_id, "--no-wait")
        args = ["worker", "--concurrency", "2"] if target == "worker" else ["batch", "resume", self._job_id]
        with self._running(*args) as process:
            until(lambda: self.written() > before or process.poll() is not None, "the run to go on", self._patience_s)
            time.sleep(self._rng.uniform(0.0, self._longest_wait_s))
            if process.poll() is not None:
                raise RuntimeError(f"{args} ended before anything was killed:\n{self._said()}")
            under_way = self._under_way()
            if target in {"command", "worker"}:
                process.kill()
            elif target == "model":
                self.model.kill()
            else:
                os.kill(self._postmaster(), signal.SIGKILL)
            code = process.wait(self._patience_s)
        if target in {"database", "model"} and code != Ended.OUT_OF_REACH:
            raise RuntimeError(
                f"the command ended with {code}, not with 5, as the {target} was killed:\n{self._said()}"
            )
        if target == "worker":
            time.sleep(float(self._settings["WORKER__STALLED_S"]))  # until then it is thought to live
        if target == "database":
            self._open()
        if target == "model":
            self.model.start()
        # Who was begun in the last moment before a server is killed may have left no trace in it.
        done = Round(target, self.written(), max(self._cut_off() - cut_off, under_way))
        self._say(f"{target:9} killed: {done.written:4} users written, {done.under_way:2} under way")
        return done

    def _postmaster(self) -> int:
        return int((self._home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])

    def _until_done(self, *args: str) -> None:
        """Run a command until it is not refused: workers that were killed are thought to live for a while."""
        until(lambda: self._done(*args) == 0, f"{' '.join(args)} to be done", self._patience_s, pause=1.0)

    def end(self) -> None:
        """Go on until nothing is left."""
        self._until_done("batch", "resume", self._job_id)

    def outcome(self, users: int, rounds: list[Round]) -> Outcome:
        """Look at what there is, and run once more over unchanged data."""

        def by(query: str) -> dict[Any, int]:
            return {key: int(count) for key, count in self.rows(query)}

        calls = self.model.calls
        per_user = "select {} as n from users u left join profiles p using (user_id) group by u.user_id"
        counted = "select n, count(*) from ({}) counted group by n"
        ids = [user_id for (user_id,) in self.rows("select user_id from profiles where active order by 1")]
        with self.database.session() as session:
            states = jobs.progress(session, self._job_id).counts
        found = Outcome(
            rounds=rounds,
            active=by(counted.format(per_user.format("count(*) filter (where p.active)"))),
            versions=by(counted.format(per_user.format("count(p.profile_id)"))),
            checked=[done.profiles for done in check_profiles(self.database, ids)][-1],
            states=states,
            attempts=by("select outcome, count(*) from attempts group by outcome"),
            after=int(self.rows(_AFTER)[0][0]),
            calls=calls,
            paid=int(self.rows(_PAID)[0][0]),
            second=0,
        )
        self._until_done("batch", "run", "--all", "--no-policy")
        return found._replace(second=int(self.rows(_ATTEMPTS)[0][0]) - sum(found.attempts.values()))


_AFTER = """
select count(*) from attempts a join attempts w using (user_id)
where w.outcome = 'written' and w.attempt_id < a.attempt_id
"""
_ATTEMPTS = "select count(*) from attempts"
_PAID = "select count(*) from llm_calls c join attempts a using (attempt_id) where a.outcome = 'written'"


def until(holds: Callable[[], bool], what: str, patience_s: float, pause: float = 0.05) -> None:
    """Wait until something holds."""
    end = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {patience_s:.0f} s for {what}")
        time.sleep(pause)


def kill_at_random(home: Path, rounds: int, users: int, seed: int, say: Say, real: str | None = None) -> Outcome:
    """Run it; each target is killed about equally often, in any order."""
    order = [TARGETS[n % len(TARGETS)] for n in range(rounds)]
    random.Random(seed).shuffle(order)  # noqa: S311
    with Scene(home, real, seed, say) as scene:
        scene.begin(users)
        done = [scene.round(target) for target in order]
        scene.end()
        return scene.outcome(users, done)


def answer(port: int, log: Path) -> None:
    """Answer as the scripted server does, and write each call down before."""
    with log.open("a") as file:

        def script(request: Request, n: int) -> Reply:
            file.write(f"{request.schema}\n")
            file.flush()
            return slow(_ANSWER_S, honest)(request, n)

        with ScriptedLLM(script, port):
            signal.pause()


def main() -> int:
    """Run it as a program; the exit status is 1 if something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--real", metavar="MODEL", help="a model of the catalogue, served by vLLM")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--answer", nargs=2, metavar=("PORT", "LOG"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.answer:
        answer(int(given.answer[0]), Path(given.answer[1]))
        return 0
    if given.users < (least := _USERS_OF_A_ROUND * given.rounds):
        parser.error(f"{given.users} users are written before {given.rounds} rounds are over: take {least} or more")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="limner-kill-") as home:
        found = kill_at_random(Path(home), given.rounds, given.users, given.seed, print, given.real)
    told = found._asdict() | {
        "rounds": [done._asdict() for done in found.rounds],
        "targets": Counter(done.target for done in found.rounds),
        "seconds": round(time.monotonic() - began, 1),
        "wrong": found.wrong(given.users),
    }
    print(json.dumps(told, indent=2))
    if given.out:
        given.out.write_text(json.dumps(told, indent=2) + "\n")
    return 1 if told["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
