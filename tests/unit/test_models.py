"""Models: found by name, Hub id or folder; pulled whole or not at all. No network, no real weights."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent import convert as conversion
from agent import models
from agent.contract import Language
from agent.convert import GGUF, convert
from agent.errors import ModelError
from agent.models import (
    CARD,
    CATALOGUE,
    ModelEntry,
    Resolved,
    default_chat,
    hash_weights,
    is_intact,
    pull,
    read_adapter,
    resolve,
)
from store.errors import DownloadError
from store.packages import WheelFiles

ROOT = Path(__file__).parents[2]
WEIGHTS = b"weights"
WEIGHTS_HASH = hashlib.sha256(WEIGHTS).hexdigest()
TOY = ModelEntry(
    name="toy",
    kind="embedder",
    title="Toy",
    licence="Apache-2.0",
    source=WheelFiles(("toy==1",), ("*",), {"model.safetensors": WEIGHTS_HASH}),
)

KILLED_PULL = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from agent import models
from tests.unit.test_models import TOY
def fetch(files, to, progress):
    to.mkdir(parents=True)
    (to / "model.safetensors").write_bytes(b"weig")
    print("half", flush=True)
    time.sleep(300)
models.CATALOGUE, models.fetch = (TOY,), fetch
models.pull("toy", Path(sys.argv[2]))
"""


class Source:
    """Stands in for the download; counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: BaseException | None = None

    def __call__(self, _files: WheelFiles, to: Path, _progress: object) -> float:
        self.calls += 1
        to.mkdir(parents=True)
        (to / "model.safetensors").write_bytes(WEIGHTS)
        if self.error:
            raise self.error
        return 0.0


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    source = Source()
    monkeypatch.setattr(models, "fetch", source)
    monkeypatch.setattr(models, "CATALOGUE", (TOY,))
    return source


def left(home: Path) -> list[str]:
    """What lies in the folder of models, locks aside."""
    return sorted(path.name for path in (home / "models").iterdir() if path.suffix != ".lock")


def make_folder(path: Path, weights: bytes = WEIGHTS) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    return path


# The catalogue


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_every_entry_is_pinned(entry: ModelEntry):
    assert all("==" in package for package in entry.source.packages)
    assert all(len(bytes.fromhex(digest)) == 32 for digest in entry.source.sha256.values())
    assert entry.licence == "Apache-2.0"
    assert entry.kind == "embedder" or entry.source.joined == GGUF


def test_names_are_unique_and_the_defaults_are_there():
    kinds = {entry.name: entry.kind for entry in CATALOGUE}
    assert len(kinds) == len(CATALOGUE)
    assert kinds[models.DEFAULT_CHAT] == "chat"
    assert kinds[models.DEFAULT_EMBEDDER] == "embedder"


# Resolving


def test_a_name_of_the_catalogue_that_is_not_pulled(tmp_path: Path):
    found = resolve("smollm2-135m", tmp_path)
    path = tmp_path / "models" / "smollm2-135m"
    assert found == Resolved("smollm2-135m", path, None, found.entry, pulled=False, key="smollm2-135m")
    assert found.entry is not None
    assert found.entry.kind == "chat"
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_card_is_not_pulled(tmp_path: Path):
    make_folder(tmp_path / "models" / "smollm2-135m")
    assert not resolve("smollm2-135m", tmp_path).pulled


def test_a_hub_id_gets_a_folder_of_its_own(tmp_path: Path):
    found = resolve("owner/some.Name-1", tmp_path)
    assert (found.name, found.path) == ("owner/some.Name-1", tmp_path / "models" / "owner--some.Name-1")
    assert (found.pulled, found.entry) == (False, None)


@pytest.mark.parametrize("name", ["qwen", "a/b/c", "../up", "owner/", "/nowhere/at/all", ""])
def test_an_unknown_name_is_answered_with_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        resolve(name, tmp_path)
    assert all(entry.name in str(caught.value) for entry in CATALOGUE)
    assert "owner/name" in str(caught.value)


def test_a_local_folder_is_used_in_place(tmp_path: Path):
    folder = make_folder(tmp_path / "mine")
    found = resolve(str(folder), tmp_path / "home")
    assert (found.name, found.path, found.pulled) == ("mine", folder, True)
    assert found.weights_hash == WEIGHTS_HASH
    assert pull(str(folder), tmp_path / "home") == found


def test_a_local_folder_without_a_configuration_is_refused(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve(str(tmp_path / "empty"), tmp_path)


def test_folders_of_one_name_have_keys_of_their_own(tmp_path: Path):
    one, other = make_folder(tmp_path / "a" / "mine"), make_folder(tmp_path / "b" / "mine")
    keys = {resolve(str(folder), tmp_path).key for folder in (one, other)}
    assert len(keys) == 2


def test_the_hash_of_local_weights_is_remembered_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = make_folder(tmp_path / "mine")
    first = resolve(str(folder), tmp_path).weights_hash
    with monkeypatch.context() as patch:
        patch.setattr(models, "hash_weights", lambda _folder: pytest.fail("hashed again"))
        assert resolve(str(folder), tmp_path).weights_hash == first
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert resolve(str(folder), tmp_path).weights_hash == hashlib.sha256(b"other weights").hexdigest()


def test_several_files_are_hashed_as_sha256sum_lists_them(tmp_path: Path):
    for name in ("b.safetensors", "a.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    lines = [f"{hashlib.sha256(n.encode()).hexdigest()}  {n}\n" for n in ("a.safetensors", "b.safetensors")]
    assert hash_weights(tmp_path) == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_damaged_card_says_what_to_do(tmp_path: Path):
    folder = make_folder(tmp_path / "models" / "smollm2-135m")
    (folder / CARD).write_text("{")
    with pytest.raises(ModelError, match=r"Delete .* and pull the model again"):
        resolve("smollm2-135m", tmp_path)


# Pulling


def test_a_pull_leaves_the_model_with_its_card(tmp_path: Path, source: Source):
    told: list[str] = []
    found = pull("toy", tmp_path, lambda what, _done, _total: told.append(what))
    assert found.pulled
    assert found.weights_hash == WEIGHTS_HASH
    card = json.loads((found.path / CARD).read_text())
    assert (card["name"], card["source"], card["licence"]) == ("toy", "toy==1", "Apache-2.0")
    assert card["transformers"]
    assert left(tmp_path) == ["toy"]
    assert told[-1] == "done"


def test_a_second_pull_does_nothing(tmp_path: Path, source: Source):
    assert pull("toy", tmp_path) == pull("toy", tmp_path)
    assert source.calls == 1


def test_changed_weights_are_noticed(tmp_path: Path, source: Source):
    found = pull("toy", tmp_path)
    assert is_intact(found)
    (found.path / "model.safetensors").write_bytes(b"weightz")
    assert not is_intact(found)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (DownloadError("x has SHA-256 1, but 2 is pinned"), ModelError),
        (OSError(28, "No space left on device"), ModelError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_pull_that_fails_leaves_nothing(
    tmp_path: Path, source: Source, error: BaseException, raised: type[BaseException]
):
    source.error = error
    with pytest.raises(raised, match=str(error.args[-1]) if error.args else None):
        pull("toy", tmp_path)
    assert left(tmp_path) == []
    source.error = None
    assert pull("toy", tmp_path).pulled  # and its lock is free


def test_a_pull_that_is_killed_leaves_no_model_and_the_next_one_clears_up(tmp_path: Path, source: Source):
    command = [sys.executable, "-c", KILLED_PULL, str(ROOT), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        os.kill(process.pid, signal.SIGKILL)
    assert not resolve("toy", tmp_path).pulled
    assert not (tmp_path / "models" / "toy").exists()
    assert pull("toy", tmp_path).weights_hash == WEIGHTS_HASH
    assert left(tmp_path) == ["toy"]


def test_two_pulls_at_once_download_once(tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch):
    found: list[Resolved] = []
    waits = threading.Event()

    def second() -> None:
        found.append(pull("toy", tmp_path, lambda what, *_: waits.set() if "waiting" in what else None))

    thread = threading.Thread(target=second)

    def slow(files: WheelFiles, to: Path, progress: object) -> float:
        thread.start()
        assert waits.wait(20)
        return source(files, to, progress)

    monkeypatch.setattr(models, "fetch", slow)
    found.append(pull("toy", tmp_path))
    thread.join(20)
    assert source.calls == 1
    assert len(found) == 2
    assert found[0] == found[1]


def test_a_joined_model_is_converted_and_its_gguf_deleted(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
):
    wheels = WheelFiles(("toy-1==1", "toy-2==1"), ("*",), {GGUF: "ab" * 32}, joined=GGUF)
    monkeypatch.setattr(models, "CATALOGUE", (replace(TOY, kind="chat", source=wheels),))

    def fake(downloads: Path, out: Path, _log: Path, keep_open: tuple[int, ...], adapter: Path | None) -> None:
        assert adapter is None
        assert (downloads / "model.safetensors").is_file()
        assert all(os.fstat(descriptor) for descriptor in keep_open)
        make_folder(out)

    monkeypatch.setattr(models, "convert", fake)
    found = pull("toy", tmp_path)
    card = json.loads((found.path / CARD).read_text())
    assert (card["gguf_sha256"], card["weights_sha256"]) == ("ab" * 32, WEIGHTS_HASH)
    assert card["source"] == "toy-1==1 … toy-2==1"
    assert sorted(path.name for path in found.path.iterdir()) == ["config.json", CARD, "model.safetensors"]
    assert left(tmp_path) == ["toy"]


def test_a_taught_model_is_made_of_its_base_and_an_adapter(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
):
    wheels = WheelFiles(("toy-1==1",), ("*",), {GGUF: "ab" * 32}, joined=GGUF)
    monkeypatch.setattr(
        models, "CATALOGUE", (replace(TOY, kind="chat", source=wheels, adapter=str(tmp_path / "adapter")),)
    )

    def fake(_downloads: Path, out: Path, _log: Path, _keep: tuple[int, ...], adapter: Path | None) -> None:
        assert adapter == tmp_path / "adapter"
        make_folder(out)

    monkeypatch.setattr(models, "convert", fake)
    with pytest.raises(ModelError, match="does not say what was taught"):
        pull("toy", tmp_path / "home")
    (tmp_path / "adapter").mkdir()
    card = {"lessons": {"theme": 12, "why": 3}, "weights_sha256": "cd" * 32}
    (tmp_path / "adapter" / CARD).write_text(json.dumps(card))
    assert pull("toy", tmp_path / "home").taught == {"theme", "why"}
    assert resolve("toy", tmp_path / "home").pulled
    (tmp_path / "adapter" / CARD).write_text(json.dumps(card | {"weights_sha256": "ef" * 32}))  # of the next release
    assert not resolve("toy", tmp_path / "home").pulled
    calls = source.calls
    assert pull("toy", tmp_path / "home").pulled
    assert source.calls == calls + 1


def test_the_adapters_that_come_with_us_are_those_of_their_cards():
    folders = [ROOT / "agent" / entry.adapter for entry in CATALOGUE if entry.adapter]
    assert folders
    for folder in folders:
        assert read_adapter(folder).weights_sha256 == hash_weights(folder)
        card = json.loads((folder / CARD).read_text())
        assert card["base"] in {entry.name for entry in CATALOGUE}
        assert "ml-100k" not in card["domains"]  # its licence
        assert sum(file.stat().st_size for file in folder.iterdir()) < 10 * 2**20


@pytest.mark.parametrize(("language", "model"), [("en", "limner-135m"), ("zh", "qwen2.5-coder-1.5b")])
def test_a_model_that_knows_the_language_writes_if_none_is_named(language: Language, model: str):
    assert default_chat(language) == model


# The Hub, played by a fake: its library's two calls as their documentation has them


def test_a_model_of_the_hub_is_pinned_to_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub  # noqa: PLC0415

    def snapshot(model: str, *, revision: str, local_dir: Path, ignore_patterns: list[str]) -> None:
        assert (model, revision) == ("owner/name", "c0ffee")
        (make_folder(local_dir) / ".cache").mkdir()

    info = SimpleNamespace(sha="c0ffee", card_data={"license": "mit"})
    api = SimpleNamespace(model_info=lambda _model: info)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    found = pull("owner/name", tmp_path)
    card = json.loads((found.path / CARD).read_text())
    assert (card["source"], card["licence"]) == ("hub:owner/name@c0ffee", "mit")
    assert not (found.path / ".cache").exists()
    assert resolve("owner/name", tmp_path) == found


def test_a_hub_that_is_out_of_reach_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub  # noqa: PLC0415
    from huggingface_hub.errors import OfflineModeIsEnabled  # noqa: PLC0415

    def refuse(_model: str) -> None:
        raise OfflineModeIsEnabled("no network")

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(model_info=refuse))
    with pytest.raises(ModelError, match=r"could not be downloaded from the Hub: no network\. Check"):
        pull("owner/name", tmp_path)
    assert left(tmp_path) == []


# Converting, with a program of our own in the place of Python


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo boom; exit 3", r"failed\. The end of .*\n  boom"),
        ("kill -9 $$", "was killed, most likely for want of memory"),
        ("exit 0", "left no weights"),
        ("touch ../out/model.safetensors", "no chat template"),
    ],
)
def test_a_conversion_that_goes_wrong_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: str
):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncd "$3"\n{script}\n')
    python.chmod(0o755)
    monkeypatch.setattr(conversion.sys, "executable", str(python))
    for name in ("gguf", "out"):
        (tmp_path / name).mkdir()
    with pytest.raises(ModelError, match=expected):
        convert(tmp_path / "gguf", tmp_path / "out", tmp_path / "logs" / "log")
