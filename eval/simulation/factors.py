"""Collaborative factors of a simulated catalogue, from the logs of other users than those who are judged."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sps

from agent.catalogue import ItemSet, item_text, item_vectors
from agent.embedder import Embedder
from eval.simulation.logs import Batch
from eval.simulation.memory import Invented
from eval.simulation.plan import BATCH
from recommend.theme_factors import ThemeParameters, learn


def with_factors(invented: Invented, embedder: Embedder, crowd: int, noise: float) -> Invented:
    """Give a catalogue the item vectors that `limner themes learn` gives a store's.

    Args:
        invented: The catalogue.
        embedder: The one that it was made with.
        crowd: Number of other users, from whose events the factors are learned.
        noise: Share of noise in their logs.
    """
    texts = embedder.embed([item_text(item) for item in invented.items.items.values()])
    count = len(invented.catalogue.ids)
    learned = learn(_likes(invented, crowd, noise), ThemeParameters(), threads=1)
    factors = np.zeros((len(texts), learned.shape[1]))  # what is searched for has none
    factors[:count] = learned
    vectors = item_vectors(texts, texts[:count].mean(axis=0), factors)
    return replace(invented, items=ItemSet(invented.items.items, vectors, invented.items.base_rates))


def _likes(invented: Invented, crowd: int, noise: float) -> sps.csr_matrix:
    """Return how often each of the crowd met each item, `(crowd, items)`, as a logarithm."""
    wanted = replace(invented.wanted, users=crowd, noise=noise)
    log = Batch(wanted, invented.catalogue, BATCH, crowd).log  # the second batch: nobody of the first one
    met = log.phrase < 0
    shape = (crowd, len(invented.catalogue.ids))
    counts = sps.csr_matrix((np.ones(int(met.sum()), dtype=np.float32), (log.user[met], log.item[met])), shape=shape)
    counts.data = np.log1p(counts.data)
    return counts
