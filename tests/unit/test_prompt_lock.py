"""Released prompts never change: `prompts/lock.json` has the hash of every prompt file."""

import hashlib
import json
from pathlib import Path

import pytest

import prompts
from agent.writer import PROMPTS
from prompts.loader import load

FOLDER = Path(prompts.__file__).parent
LOCK: dict[str, str] = json.loads((FOLDER / "lock.json").read_text())
FILES = {f"{path.parent.name}/{path.stem}": path for path in sorted(FOLDER.glob("*/v*.md"))}


def test_every_prompt_file_is_locked_and_nothing_else() -> None:
    assert sorted(LOCK) == sorted(FILES), "a new version was added or one was removed: run `make prompts-lock`"


@pytest.mark.parametrize("name", sorted(LOCK))
def test_a_released_prompt_is_as_it_was(name: str) -> None:
    found = hashlib.sha256(FILES[name].read_bytes()).hexdigest()
    assert found == LOCK[name], f"prompts/{name}.md has changed: add a new version of it instead"


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_prompt_says_which_one_it_is(name: str) -> None:
    folder, version = name.split("/v")
    prompt = load(folder, int(version))
    assert prompt.label == f"{folder}@v{version}+{LOCK[name][:12]}"


def test_the_writer_uses_locked_prompts() -> None:
    assert {f"{name}/v{version}" for name, version in PROMPTS.items()} <= set(LOCK)
