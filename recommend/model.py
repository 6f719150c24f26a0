"""A trained model: item factors, feature weights, the crowd's mean; one safetensors file with its card inside.

No pickle: the file holds arrays and one JSON text, and is checked against its SHA-256 before it is used.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from recommend.errors import NoModelError
from recommend.foldin import FoldIn
from recommend.parameters import Parameters

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


class Card(BaseModel):
    """What a model says of itself.

    Attributes:
        parameters: It was trained with.
        embedder: Name of the model that made the texts' vectors.
        watermark: Time of the latest event in its data.
        events: In its data.
        users: In its data.
        trained_at: When.
        seconds: That the training took.
        metrics: Measured on held-out data, if it was.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    parameters: Parameters
    embedder: str
    watermark: datetime
    events: int
    users: int
    trained_at: datetime
    seconds: float
    metrics: dict[str, float] = {}


@dataclass(frozen=True)
class Projection:
    """Text embeddings, centred and projected: `P (e - mean)`.

    Attributes:
        mean: `(d,)`, of the items' embeddings.
        components: `(d, p)`.
    """

    mean: Matrix
    components: Matrix

    @classmethod
    def learn(cls, vectors: Matrix, size: int) -> "Projection":
        """Learn it from the items' embeddings `(m, d)` by PCA, scaled so that a projected item has length 1 or so."""
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        _, values, basis = np.linalg.svd(centred, full_matrices=False)
        kept = min(size, int(np.count_nonzero(values > 1e-6)))  # noqa: PLR2004
        components = basis[:kept].T
        scale = float(np.linalg.norm(centred @ components, axis=1).mean()) if kept else 1.0
        return cls(mean.astype(np.float32), (components / max(scale, 1e-9)).astype(np.float32))

    def __call__(self, vectors: Matrix) -> Matrix:
        """Project embeddings `(n, d)` to `(n, p)`.

        Raises:
            NoModelError: They have another length than those that it was learned from.
        """
        self.check(vectors.shape[1])
        return np.asarray((vectors - self.mean) @ self.components, dtype=np.float32)

    def check(self, dimension: int) -> None:
        """Refuse embeddings of another length than those that it was learned from.

        Raises:
            NoModelError: They have one.
        """
        if dimension != len(self.mean):
            raise NoModelError(
                f"The model was trained on embeddings of length {len(self.mean)}, these have {dimension}. "
                "Train one for this embedder with `limner train`."
            )


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
        card: What it says of itself.
        item_ids: `m` ids, one for each row of `factors`.
        factors: `(m, k)`; the last coordinate is the item's popularity, as a share of the most popular one's.
        popularity: `(m,)`, users who liked the item.
        crowd: `(k,)`, mean of what training users are beyond their claims.
        precision: `(k, k)`, of the prior.
        user_weights: `(p, k)`, from projected claims to factor space; no rows if claims are left out.
        item_weights: `(p, k)`, from projected item texts to factor space; no rows if texts are left out.
        projection: Of embeddings.
    """

    card: Card
    item_ids: tuple[str, ...]
    factors: Matrix
    popularity: Matrix
    crowd: Floats
    precision: Floats
    user_weights: Matrix
    item_weights: Matrix
    projection: Projection
    row_of: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "row_of", {item_id: row for row, item_id in enumerate(self.item_ids)})

    @cached_property
    def fold_in(self) -> FoldIn:
        """Fold users in by this model."""
        return FoldIn(self.factors, self.crowd, self.precision, self.card.parameters, self.popularity > 0)

    def claim_factors(self, vectors: Matrix, strengths: Floats) -> Floats:
        """Map claims into factor space.

        Args:
            vectors: `(q, d)`, embeddings of the claims' texts.
            strengths: `(q,)`, signed.

        Returns:
            `(q, k)`: `s_c A' P (e(c) - mean)`; zero where the model leaves claims out.
        """
        if not len(vectors) or not len(self.user_weights):
            return np.zeros((len(vectors), self.factors.shape[1]))
        mapped = self.projection(vectors).astype(np.float64) @ self.user_weights.astype(np.float64)
        return np.asarray(strengths, dtype=np.float64)[:, None] * mapped

    def text_factors(self, vectors: Matrix) -> Matrix:
        """Map items that the model has not seen into factor space by their texts, `(n, d)` to `(n, k)`."""
        if not len(vectors) or not len(self.item_weights):
            return np.zeros((len(vectors), self.factors.shape[1]), dtype=np.float32)
        return self.projection(vectors) @ self.item_weights

    def extended(self, item_ids: Sequence[str], vectors: Matrix) -> "Model":
        """Return the model with items that it has not seen, placed by their texts, `(n, d)`."""
        return replace(
            self,
            item_ids=(*self.item_ids, *item_ids),
            factors=np.concatenate([self.factors, self.text_factors(vectors)]),
            popularity=np.concatenate([self.popularity, np.zeros(len(item_ids), dtype=np.float32)]),
        )

    def save(self, path: Path) -> str:
        """Write the file; it appears complete or not at all.

        Returns:
            Its SHA-256, hex.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {
            "factors": self.factors, "popularity": self.popularity, "crowd": self.crowd.astype(np.float64),
            "precision": self.precision, "user_weights": self.user_weights, "item_weights": self.item_weights,
            "mean": self.projection.mean, "components": self.projection.components,
        }  # fmt: skip
        metadata = {"card": self.card.model_dump_json(), "items": json.dumps(self.item_ids)}
        unfinished = path.with_suffix(".partial")
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, unfinished, metadata)
        digest = hashlib.sha256(unfinished.read_bytes()).hexdigest()
        unfinished.replace(path)
        return digest


def load(path: Path, sha256: str | None = None) -> Model:
    """Read a model.

    Args:
        path: Of its file.
        sha256: That the file must have.

    Raises:
        NoModelError: There is no such file, or it is damaged.
    """
    try:
        if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise NoModelError(f"The model {path} is not the file that was trained. Train again with `limner train`.")
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            a = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return Model(
            card=Card.model_validate_json(metadata["card"]),
            item_ids=tuple(json.loads(metadata["items"])),
            factors=a["factors"], popularity=a["popularity"], crowd=a["crowd"],
            precision=a["precision"],
            user_weights=a["user_weights"], item_weights=a["item_weights"],
            projection=Projection(a["mean"], a["components"]),
        )  # fmt: skip
    except FileNotFoundError as error:
        raise NoModelError(f"There is no model {path}. Train one with `limner train`.") from error
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise NoModelError(f"The model {path} cannot be read: {error}. Train again with `limner train`.") from error
