"""Make `.venv` from the lock file; needs Python 3.11 and a package index, nothing else.

Downloading and installing are timed apart: `.venv/setup.json` says what this call spent on each. An environment
that is up to date is left alone.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements" / "cpu.lock"
WHEELS = ROOT / ".cache" / f"wheels-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
STAMP = VENV / "lock.sha256"
REPORT = VENV / "setup.json"


def try_pip(*arguments: str, quiet: bool = False) -> int:
    """Run the environment's pip; returns its exit status."""
    command = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL if quiet else None).returncode


def pip(*arguments: str) -> None:
    """Run the environment's pip; what fails is shown by pip itself."""
    if code := try_pip(*arguments):
        sys.exit(f"pip failed with {code}. Check the package index, then run the same command again.")


def download() -> bool:
    """Download what the lock pins.

    The torch of the public index wants several GB of CUDA libraries, so its CPU build goes first: from wherever pip is
    told to look, else from PyTorch's own index. Only where neither has it, the public one comes, with its libraries.

    Returns:
        Whether torch comes with libraries that the lock does not name.
    """
    to = ("download", "--progress-bar=off", "-q", "-d", str(WHEELS))
    pinned = LOCK.read_text(encoding="utf-8").splitlines()
    torch = next(line for line in pinned if line.startswith("torch=="))
    cpu = (*to, "--no-deps", "--retries=1", f"{torch}+cpu")
    with_libraries = bool(try_pip(*cpu, quiet=True) and try_pip(*cpu, "--index-url", TORCH_INDEX, quiet=True))
    if with_libraries:
        print(f"No CPU build of {torch} is in reach; taking the one with CUDA libraries (3 GB more) ...", flush=True)
        pip(*to, torch)
    others = WHEELS.with_suffix(".txt")
    others.write_text("\n".join(line for line in pinned if line != torch), encoding="utf-8")
    pip(*to, "--no-deps", "-r", str(others))
    others.unlink()
    return with_libraries


def install(*, libraries: bool) -> None:
    """Install what has been downloaded; nothing is looked up on an index any more."""
    from_wheels = ("install", "-q", "--no-index", "--no-compile", "-f", str(WHEELS))
    if libraries:
        pip(*from_wheels, next(line for line in LOCK.read_text().splitlines() if line.startswith("torch==")))
    # A local build tag (torch==2.13.0+cpu) satisfies the pin.
    pip(*from_wheels, "--no-deps", "-r", str(LOCK))
    pip("install", "-q", "--no-deps", "--no-index", "--no-build-isolation", "-e", str(ROOT))
    shutil.rmtree(WHEELS)


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
    venv.create(VENV, with_pip=True, symlinks=True)
    made = time.perf_counter()
    libraries = download()
    downloaded = time.perf_counter()
    print(f"Downloaded in {downloaded - made:.0f} s; installing ...", flush=True)
    install(libraries=libraries)
    finished = time.perf_counter()
    seconds = {"downloading": downloaded - made, "installing": finished - downloaded + made - started}
    REPORT.write_text(json.dumps(seconds))
    STAMP.write_text(wanted)
    print(f"Installed in {seconds['installing']:.0f} s.", flush=True)


if __name__ == "__main__":
    main()
