"""What a suite is asked for."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from agent.contract import Language
from eval.interactions import Ints

WriterName = Literal["template", "llm"]


@dataclass(frozen=True)
class Options:
    """How much a suite measures.

    Attributes:
        users: Size of the random sample of users; None takes all. Everyone is trained on, the sample is measured.
        seeds: How often it measures, each time with a seed of its own.
        seed: The first of them; also of the sample of users.
        trials: Points tried for each model that is tuned; 0 takes fixed ones, without a search.
        writers: Whose profiles are judged.
        llm_users: Users whose profiles the language model writes, of the sample.
        language: That profiles are written in.
        sequential: Whether a sequential recommender is measured as well, which takes minutes to learn.
    """

    users: int | None = None
    seeds: int = 5
    seed: int = 0
    trials: int = 0
    writers: tuple[WriterName, ...] = ("template",)
    llm_users: int = 50
    language: Language = "en"
    sequential: bool = False

    def sample(self, codes: Ints) -> Ints:
        """Return the users to measure, in ascending order, out of those who can be.

        >>> len(Options(users=2).sample(np.array([8, 5, 3]))), Options().sample(np.array([8, 5, 3])).tolist()
        (2, [3, 5, 8])
        """
        if self.users is None or self.users >= len(codes):
            return np.sort(codes)
        return np.sort(np.random.default_rng(self.seed).choice(codes, self.users, replace=False))
