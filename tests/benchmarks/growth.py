"""How time and memory grow with the number of users: a run, a second run over unchanged data, and the plans of both.

    python -m tests.benchmarks.growth [--users 1000 10000 100000] [--events 20] [--llm] [--out FILE]

Users are simulated, and the template writes. With `--llm` the scripted model's server does, a process of its own that
answers each call after a fixed time, in words made of the traits that the prompt names. Each command is a process of
its own, and its time includes its start and, in the first run, that of embedding the items. Weights of the embedder are
those of the data directory of the settings. Memory is the command's peak, without the database server's. Users who
failed are named with the reason.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from api.batch import Ended
from api.run_report import FOLDER, FailedUser, RunReport
from api.settings import read_settings
from tests.benchmarks.kill import Model

_CONCURRENCY = 64
_COMMANDS = {
    "plan": ("batch", "plan", "--all"),
    "run": ("batch", "run", "--all"),
    "plan again": ("batch", "plan", "--all"),
    "run again": ("batch", "run", "--all"),
    "run again, every key compared": ("batch", "run", "--all", "--no-policy"),
}


class Command:
    """Runs `limner` in a data directory of its own."""

    def __init__(self, home: Path, model: Model) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LIMNER_")}
        self._env = kept | {
            "LIMNER_HOME": str(home),
            "LIMNER_LLM__BASE_URL": model.url,
            "LIMNER_LLM__MODEL": model.name,
            "LIMNER_BATCH__CONCURRENCY": str(_CONCURRENCY),
        }
        self._log = home / "commands.log"

    def __call__(self, *args: str) -> dict[str, Any]:
        """Run a command, and return its seconds, of these its own on a core, and its peak of memory in MB."""
        began = time.monotonic()
        with self._log.open("ab") as log:
            argv = [str(Path(sys.executable).with_name("limner")), *args]
            process = subprocess.Popen(argv, env=self._env, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status) not in {Ended.DONE, Ended.SOME_FAILED}:
            raise RuntimeError(f"limner {' '.join(args)} ended with {status}:\n{self._log.read_text()[-3_000:]}")
        cpu = usage.ru_utime + usage.ru_stime
        seconds = time.monotonic() - began
        return {"seconds": round(seconds, 1), "cpu": round(cpu, 1), "peak_mb": round(usage.ru_maxrss / 1024)}


def measure(users: int, events: float, writer: str) -> dict[str, Any]:
    """Measure all commands over this many users."""
    with tempfile.TemporaryDirectory(prefix="limner-growth-") as work:
        home = Path(work)
        (home / "models").symlink_to(read_settings().home.resolve() / "models")
        model = Model(home, None)
        model.start()
        try:
            limner = Command(home, model)
            limner("simulate", "--users", str(users), "--items", "1000", "--events", str(events), "--ingest")
            found: dict[str, Any] = {"users": users}
            for name, args in _COMMANDS.items():
                before = model.calls or 0
                found[name] = limner(*args, "--writer", writer) | {"calls": (model.calls or 0) - before}
                print(f"{users:>9,} users  {name:30} {shown(found[name])}", flush=True)
                if args[1] == "run":
                    failed = failed_users(home)
                    found[name] |= {"failed": {user.user_id: user.reason for user in failed}}
                    for user in failed:
                        print(f"{'':17} failed: {user.user_id}: {user.reason}", flush=True)
        finally:
            model.kill()
    return found


def failed_users(home: Path) -> Sequence[FailedUser]:
    """Return who failed in the last run."""
    last = max((home / FOLDER).glob("*.json"), key=lambda path: path.stat().st_mtime)
    return RunReport.model_validate_json(last.read_bytes()).failed


def shown(figures: Mapping[str, Any]) -> str:
    """Write figures in a line."""
    return (
        f"{figures['seconds']:8.1f} s  {figures['cpu']:8.1f} s of CPU  {figures['peak_mb']:6,.0f} MB  "
        f"{figures['calls']:8,} calls"
    )


def main() -> None:
    """Run it as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--events", type=float, default=20.0, help="of a user, in the mean")
    parser.add_argument("--llm", action="store_true", help="profiles by the scripted model")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = [measure(users, given.events, "llm" if given.llm else "template") for users in given.users]
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
