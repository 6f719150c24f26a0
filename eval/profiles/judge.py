"""A language model as a judge of claims, and the check whether it is one: it must tell true claims from planted ones.

It is asked through the chat protocol that writers use (`agent.chat.ChatModel`). It is told up to 12 of the items that a
claim cites, with their categories, and the claim's words, and says whether the items bear them out. Planted false
claims are words of another claim of the same kind that name categories none of which this claim's items have.
*Sensitivity* is the share of these that it refuses, *specificity* the share of verified claims (`grounded`) that it
accepts; the mean of the two is its balanced accuracy, .5 for one who guesses.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from agent.catalogue import ItemSet
from agent.chat import ChatModel
from agent.errors import ChatError
from agent.words import title_of
from agent.writer import together
from eval.interactions import Floats
from eval.profiles.grounded import Judged
from eval.profiles.specific import by_user
from eval.profiles.writing import AT_ONCE, Metric, Written
from prompts.loader import load

SHOWN = 12
MAX_TOKENS = 20
VERSION = 1
TRUSTED = 0.75

METRICS = {
    "accepted by the judge": Metric("Share of a user's claims that a language model finds borne out by their items."),
    "judge's sensitivity": Metric("Share of planted false claims that the judge refuses."),
    "judge's specificity": Metric("Share of verified claims that the judge accepts."),
}  # fmt: skip


class Opinion(BaseModel):
    """What the judge says."""

    model_config = ConfigDict(extra="forbid")
    supported: bool


class Case(NamedTuple):
    """A statement to be judged, and what it is to be judged by.

    Attributes:
        code: Of the user.
        items: Lines of titles and categories.
        statement: The words.
        liked: Whether it is about likes.
        planted: Whether the words are another claim's.
        verified: Whether the verifier passes them.
    """

    code: int
    items: str
    statement: str
    liked: bool
    planted: bool
    verified: bool


def cases(
    written: Sequence[Written], judged: Sequence[Sequence[Judged]], items: ItemSet, rng: np.random.Generator
) -> list[Case]:
    """Return each claim as a case, and beside it, where there are such words, a planted false one.

    Args:
        written: The profiles.
        judged: Their claims (`grounded.judge_all`).
        items: That they cite.
        rng: Of the words that are planted.
    """
    own = [(one, j) for one, claims in zip(written, judged, strict=True) for j in claims if j.claim.kind != "intent"]
    found = []
    for one, j in own:
        rows = {e.event_id for e in j.claim.evidence}
        keys = [k for i, k in zip(one.log.event_ids, one.log.items, strict=True) if i in rows and k is not None]
        lines = "\n".join(_line(key, items) for key in dict.fromkeys(keys[:SHOWN]))
        liked = j.claim.kind == "interest"
        case = Case(one.code, lines, one.statement(j.claim), liked, planted=False, verified=j.verified)
        found.append(case)
        borne = {a for key in keys for a in items.attributes[key]}
        false = [
            w.statement(other.claim)
            for w, other in own
            if other.claim.kind == j.claim.kind and _categories(other) and not _categories(other) & borne
        ]
        if false:
            planted = false[int(rng.integers(len(false)))]
            found.append(case._replace(statement=planted, planted=True, verified=False))
    return found


def ask_all(chat: ChatModel, given: Sequence[Case]) -> list[bool | None]:
    """Ask the judge about each case, several at once; None where it gave no usable answer.

    Raises:
        ChatError: It is out of reach.
    """
    return asyncio.run(_ask_all(chat, given))


async def _ask_all(chat: ChatModel, given: Sequence[Case]) -> list[bool | None]:
    free, prompt = asyncio.Semaphore(AT_ONCE), load("judge", VERSION)

    async def one(case: Case) -> bool | None:
        verb = "likes" if case.liked else "dislikes"
        messages = prompt.render({"items": case.items, "statement": case.statement, "verb": verb})
        async with free:
            try:
                return (await chat.ask(messages, Opinion, MAX_TOKENS))[0].supported
            except ChatError as error:
                if error.outcome in {"unreachable", "timeout", "refused"}:
                    raise
                return None

    try:
        return await together([one(case) for case in given])
    finally:
        await chat.aclose()


class Opinions(NamedTuple):
    """What came of it.

    Attributes:
        accepted: `(users,)`, share of the claims accepted; nan where there is none.
        sensitivity: Of each planted claim, whether it was refused.
        specificity: Of each verified claim, whether it was accepted.
    """

    accepted: Floats
    sensitivity: Floats
    specificity: Floats

    @property
    def accuracy(self) -> float:
        """The mean of sensitivity and specificity; nan where one of the two is of nothing."""
        if not len(self.sensitivity) or not len(self.specificity):
            return float("nan")
        return float(self.sensitivity.mean() + self.specificity.mean()) / 2

    @property
    def trusted(self) -> bool:
        """Whether the balanced accuracy is .75 or more: else what the judge says means nothing."""
        return self.accuracy >= TRUSTED


def sum_up(given: Sequence[Case], said: Sequence[bool | None], users: int) -> Opinions:
    """Sum up what the judge has said; cases without an answer are left out."""
    answered = [(case, answer) for case, answer in zip(given, said, strict=True) if answer is not None]
    own = [(case.code, float(answer)) for case, answer in answered if not case.planted]
    owners, accepted = (np.array([pair[n] for pair in own]) for n in (0, 1))
    return Opinions(
        by_user(accepted.astype(np.float64), owners.astype(np.int64), users),
        np.array([float(not answer) for case, answer in answered if case.planted]),
        np.array([float(answer) for case, answer in answered if case.verified]),
    )


def _categories(judged: Judged) -> set[object]:
    return {a for a in judged.named if a.field == "category"}


def _line(key: str, items: ItemSet) -> str:
    title = title_of(items.items[key]).replace('"', "'")
    return f'"{title}" {", ".join(c.lower() for c in items.items[key].categories)}'
