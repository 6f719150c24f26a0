"""Collaborative factors of a simulated catalogue, from the logs of other users than those who are judged."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sps
from irspack import IALSRecommender

from agent.catalogue import ItemSet, item_text, item_vectors, unit
from agent.embedder import Embedder
from eval.simulation.logs import Batch
from eval.simulation.memory import Invented
from eval.simulation.plan import BATCH, Floats

_FACTORS, _EPOCHS = 16, 16
_ALPHA0, _REG = 0.1, 0.01


def with_factors(invented: Invented, embedder: Embedder, crowd: int, noise: float) -> Invented:
    """Give a catalogue the item vectors of `agent.catalogue.item_vectors` with collaborative factors.

    Args:
        invented: The catalogue.
        embedder: The one that it was made with.
        crowd: Number of other users, from whose events iALS learns 16 factors.
        noise: Share of noise in their logs.
    """
    texts = embedder.embed([item_text(item) for item in invented.items.items.values()])
    count = len(invented.catalogue.ids)
    learned = _factors(invented, crowd, noise)
    factors = np.zeros((len(texts), learned.shape[1]))  # what is searched for has none
    factors[:count] = unit(learned - learned.mean(axis=0))
    vectors = item_vectors(texts, texts[:count].mean(axis=0), factors)
    return replace(invented, items=ItemSet(invented.items.items, vectors, invented.items.base_rates))


def _factors(invented: Invented, crowd: int, noise: float) -> Floats:
    wanted = replace(invented.wanted, users=crowd, noise=noise)
    log = Batch(wanted, invented.catalogue, BATCH, crowd).log  # the second batch: nobody of the first one
    met = log.phrase < 0
    shape = (crowd, len(invented.catalogue.ids))
    counts = sps.csr_matrix((np.ones(int(met.sum()), dtype=np.float32), (log.user[met], log.item[met])), shape=shape)
    counts.data = np.log1p(counts.data)
    trainer = IALSRecommender(
        counts, n_components=_FACTORS, alpha0=_ALPHA0, reg=_REG, train_epochs=_EPOCHS, random_seed=0, n_threads=1
    )
    trainer.start_learning()
    for _ in range(_EPOCHS):
        trainer.run_epoch()
    return np.asarray(trainer.get_item_embedding(), dtype=np.float64)
