"""SASRec, the sequential peer: what comes next, by self-attention over the order of a user's items.

The network is that of torch-rechub (Kang and McAuley 2018, arXiv 1808.09781), trained on the cross-entropy over the
whole catalogue, which makes it much stronger than its first loss with sampled negatives (Klenitskiy and Vasilev
2023, arXiv 2309.07602).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch_rechub.basic.features import SequenceFeature  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch_rechub.models.matching import SASRec  # type: ignore[import-not-found,import-untyped,unused-ignore]

from eval.interactions import Floats, Interactions, Ints


class SequentialSettings(BaseModel):
    """How SASRec is built and trained.

    Attributes:
        width: Of an item's embedding.
        length: Number of a user's latest items that are read.
        blocks: Number of attention blocks.
        dropout: Share of activations that training sets to zero.
        epochs: Number of passes over the users.
        batch: Users in a step.
        rate: Learning rate of Adam.
        spread: Standard deviation of the first embeddings.
        seed: Of the training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = Field(default=64, ge=1)
    length: int = Field(default=100, ge=2)
    blocks: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    epochs: int = Field(default=60, ge=1)
    batch: int = Field(default=64, ge=2)
    rate: float = Field(default=1e-3, gt=0)
    spread: float = Field(default=0.02, gt=0)
    seed: int = 0


@dataclass(frozen=True)
class Sequential:
    """A trained SASRec.

    Attributes:
        network: Of torch-rechub; item code `i` is its token `i + 1`, 0 is padding.
        settings: It was trained with.
    """

    network: Any
    settings: SequentialSettings

    def __call__(self, histories: Interactions) -> Floats:
        """Score all items as what comes next in each user's history.

        Returns:
            `(n_users, n_items)`; a user without history has 0 for all.
        """
        tokens = sequences(histories, self.settings.length)
        scores = np.zeros((histories.n_users, histories.n_items))
        known = np.flatnonzero(tokens[:, 0])
        self.network.eval()
        with torch.no_grad():
            for users in np.array_split(known, max(1, -(-len(known) // self.settings.batch))):
                read = torch.from_numpy(tokens[users])
                last = (read != 0).sum(dim=1) - 1
                states = _states(self.network, read)[torch.arange(len(read)), last]
                scores[users] = (states @ _items(self.network).T)[:, 1:].double().numpy()
        return scores


def train_sequential(train: Interactions, settings: SequentialSettings) -> Sequential:
    """Train on each user's items in the order of time; users with a single one teach nothing.

    The seed is set for all of torch.
    """
    s = settings
    torch.manual_seed(s.seed)
    names = {"seq": None, "pos": "seq", "neg": "seq"}  # the network asks for three, and reads the first
    features = [
        SequenceFeature(n, train.n_items + 1, s.width, pooling="concat", shared_with=owner)
        for n, owner in names.items()
    ]
    network = SASRec(features, max_len=s.length, dropout_rate=s.dropout, num_blocks=s.blocks)
    torch.nn.init.normal_(_items(network), std=s.spread)
    optimizer = torch.optim.Adam(network.parameters(), lr=s.rate)
    tokens = torch.from_numpy(sequences(train, s.length + 1))
    tokens = tokens[tokens[:, 1] != 0]
    network.train()
    for _ in range(s.epochs):
        order = torch.randperm(len(tokens))
        for start in range(0, len(order), s.batch):
            users = order[start : start + s.batch]
            read, answers = tokens[users, :-1], tokens[users, 1:]
            asked = answers != 0
            logits = _states(network, read)[asked] @ _items(network).T
            loss = torch.nn.functional.cross_entropy(logits[:, 1:], answers[asked] - 1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return Sequential(network, settings)


def sequences(interactions: Interactions, length: int) -> Ints:
    """Return each user's latest items as tokens (item code + 1) in order of time, padded with 0 on the right.

    Returns:
        `(n_users, length)`.
    """
    starts = interactions.starts()
    back = starts[interactions.user + 1] - np.arange(len(interactions))  # the last event of a user is 1 back
    events = np.flatnonzero(back <= length)
    users = interactions.user[events]
    first = np.maximum(starts[:-1], starts[1:] - length)
    tokens = np.zeros((interactions.n_users, length), dtype=np.int64)
    tokens[users, events - first[users]] = interactions.item[events] + 1
    return tokens


def _states(network: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Return the state after each token, `(b, length, width)`."""
    # A batch of one would lose its first axis inside the network.
    doubled = tokens.repeat(2, 1) if len(tokens) == 1 else tokens
    embedded = network.item_emb({"seq": doubled}, network.features[:1])[:, 0]
    states: torch.Tensor = network.seq_forward({"seq": doubled}, embedded)
    return states[: len(tokens)]


def _items(network: Any) -> torch.Tensor:
    """Return the items' embeddings, `(n_items + 1, width)`; the first is of padding."""
    weights: torch.Tensor = network.item_emb.embed_dict["seq"].weight
    return weights
