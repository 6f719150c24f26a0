"""Write the lock file of this environment: what the project needs, with what that needs, pinned as installed.

`python requirements/freeze.py > requirements/cpu.lock`

The lock is installed with `--no-deps`: vLLM's CPU build asks for torchvision, torchaudio, torchcodec, triton and
opencv, whose builds on the index do not match a CPU torch, and which nothing here uses.
"""

import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton", "opencv-python-headless", "torch-c-dlpack-ext"}


def needed() -> list[str]:
    """Return the requirements of the project, of its extra `cpu` and of its development group."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    lists = [
        project["project"]["dependencies"],
        project["project"]["optional-dependencies"]["cpu"],
        project["dependency-groups"]["dev"],
        project["build-system"]["requires"],
    ]
    return [requirement for some in lists for requirement in some]


def closure(roots: list[str]) -> dict[str, str]:
    """Return the versions of all that the roots need, by name, as far as it is installed."""
    found: dict[str, str] = {}
    visited: set[tuple[str, str]] = set()
    queue = [(Requirement(root), "") for root in roots]
    while queue:
        requirement, _ = queue.pop()
        name = requirement.name.lower().replace("_", "-").replace(".", "-")
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name not in LEFT_OUT:
                print(f"# not installed: {requirement}", file=sys.stderr)
            continue
        for extra in {"", *requirement.extras}:
            if (name, extra) in visited:
                continue
            visited.add((name, extra))
            found[distribution.metadata["Name"]] = distribution.version
            for text in distribution.requires or []:
                child = Requirement(text)
                if child.marker is None or child.marker.evaluate({"extra": extra}):
                    queue.append((child, name))
    return found


if __name__ == "__main__":
    print("# Made by `make lock`; installed with --no-deps (requirements/freeze.py says why).")
    for name, version in sorted(closure(needed()).items(), key=lambda pair: pair[0].lower()):
        print(f"{name}=={version.split('+')[0]}")
