"""An embedder that embeds each text once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from agent.embedder import Embedder, Vectors


@dataclass
class Remembering:
    """Embeds each text once: users share most of their claims' names, and cuts of one log share more.

    Attributes:
        inner: That embeds.
        known: What it has embedded.
    """

    inner: Embedder
    known: dict[str, Vectors] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As of the inner one."""
        return self.inner.name

    @property
    def dimension(self) -> int:
        """As of the inner one."""
        return self.inner.dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, `(len(texts), dimension)`."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            self.known |= dict(zip(new, self.inner.embed(new), strict=True))
        if not len(texts):
            return np.zeros((0, self.dimension), dtype=np.float32)
        return np.stack([self.known[text] for text in texts])
