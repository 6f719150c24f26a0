"""Run `limner` as a process of its own, with the fake embedder in the place of the real one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).parents[1]
PROGRAM = """
import api.runtime
from tests.small_world import FakeEmbedder
api.runtime.embedder = lambda settings: FakeEmbedder()
from api.cli import main
main()
"""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def environment(home: Path, **settings: str) -> dict[str, str]:
    """The environment of a command: no settings but these (`LLM__MODEL="x"`), and a wide terminal."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LIMNER_")}
    ours = {f"LIMNER_{name}": value for name, value in settings.items()}
    return kept | ours | {"LIMNER_HOME": str(home), "COLUMNS": "300", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}


def start(args: list[str], home: Path, out: int | IO[str] = subprocess.PIPE, **settings: str) -> subprocess.Popen[str]:
    """Start a command; it runs in the data directory, where there is no `limner.toml`. `out` takes all that it says."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *args],
        env=environment(home, **settings),
        cwd=home,
        text=True,
        stdout=out,
        stderr=out,
    )


def ended(process: subprocess.Popen[str], timeout_s: float = 120.0) -> Ended:
    """Wait for a command."""
    out, err = process.communicate(timeout=timeout_s)
    return Ended(process.returncode, out, err)
