"""Make `.venv` from the lock file; needs Python 3.11 and a package index, nothing else.

Downloading and installing are timed apart: `.venv/setup.json` says what this call spent on each. An environment
that is up to date is left alone.
"""

import hashlib
import json
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
WHEELS = ROOT / ".cache" / "wheels"
LOCK = ROOT / "requirements" / "cpu.lock"
STAMP = VENV / "lock.sha256"
REPORT = VENV / "setup.json"


def pip(*arguments: str) -> None:
    """Run the environment's pip; what fails is shown by pip itself."""
    command = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *arguments]
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(f"pip failed with {code}. Check the package index, then run the same command again.")


def main() -> None:
    """Set up, or see that there is nothing to do."""
    if sys.version_info[:2] != (3, 11):
        sys.exit(f"Python 3.11 is needed, this is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11 ...")
    wanted = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        REPORT.write_text(json.dumps({"downloading": 0.0, "installing": 0.0}))
        return
    started = time.perf_counter()
    print("Setting up .venv (about 3 GB; a few minutes) ...", flush=True)
    venv.create(VENV, with_pip=True, clear=False)
    made = time.perf_counter()
    pip("download", "--no-deps", "--progress-bar=off", "-q", "-d", str(WHEELS), "-r", str(LOCK))
    downloaded = time.perf_counter()
    print(f"Downloaded in {downloaded - made:.0f} s; installing ...", flush=True)
    # A local build tag (torch==2.13.0+cpu) satisfies the pin; nothing is looked up on the index any more.
    pip("install", "-q", "--no-deps", "--no-index", "--no-compile", "-f", str(WHEELS), "-r", str(LOCK))
    pip("install", "-q", "--no-deps", "--no-index", "--no-build-isolation", "-e", str(ROOT))
    for wheel in WHEELS.iterdir():
        wheel.unlink()
    finished = time.perf_counter()
    seconds = {"downloading": downloaded - made, "installing": finished - downloaded + made - started}
    REPORT.write_text(json.dumps(seconds))
    STAMP.write_text(wanted)
    print(f"Installed in {seconds['installing']:.0f} s.", flush=True)


if __name__ == "__main__":
    main()
