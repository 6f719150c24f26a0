"""Lessons for a small writer: answers of a larger one that passed every check, as JSON Lines; thinned, and split.

A line of the file is a user (a keyed hash stands for the id): who is in it is not asked of again.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.catalogue import Vectors
from agent.chat import Message
from agent.errors import LessonError
from prompts.loader import load

Role = Literal["theme", "intent", "summary", "why"]
Embed = Callable[[Sequence[str]], Vectors]

BRIEF: dict[Role, int] = {"theme": 1, "intent": 1, "summary": 1, "why": 1}
"""Versions of the prompts `<role>-brief`, to which a taught writer answers."""
ALIKE, MOST_ALIKE = 0.95, 2
_HELD_OUT = 10  # one user in so many


class Lesson(BaseModel):
    """An answer that passed every check.

    Attributes:
        role: Of the prompt.
        variables: What the prompt was filled with.
        answer: JSON in the schema of the prompt.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    role: Role
    variables: dict[str, str]
    answer: str

    @property
    def messages(self) -> list[Message]:
        """The prompt in brief."""
        return load(f"{self.role}-brief", BRIEF[self.role]).render(self.variables)


class Rehearsal(BaseModel):
    """What a model wrote of one user.

    Attributes:
        domain: What the items are, as its owner calls it.
        user: A keyed hash of the user's id.
        model: The model.
        weights_hash: Of its weights, where it is known.
        asked: How many texts it was asked for.
        first_try: How many of these passed every check at the first try.
        repaired: How many did at a later one.
        lessons: What passed.
        refused: Of each answer that did not, the prompt and why, as `theme: attribute: …`; no part of a file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    domain: str
    user: str
    model: str
    weights_hash: str | None
    asked: int
    first_try: int
    repaired: int
    lessons: tuple[Lesson, ...]
    refused: tuple[str, ...] = Field(default=(), exclude=True)


class Split(NamedTuple):
    """Lessons to teach by, of other users of the same domains, and of domains that are never taught."""

    taught: list[Lesson]
    held_out: list[Lesson]
    unseen: list[Lesson]


def read(files: Iterable[Path]) -> Iterator[Rehearsal]:
    """Read rehearsals.

    Raises:
        LessonError: A file is missing, or a line of it is not one of ours; a last line that was cut off is left out.
    """
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        except OSError as error:
            raise LessonError(f"{file} cannot be read: {error.strerror}. `limner writer distill` makes it.") from error
        for n, line in enumerate(lines, 1):
            try:
                yield Rehearsal.model_validate_json(line)
            except ValidationError as error:
                if n == len(lines) and not line.endswith("\n"):
                    return
                where = error.errors(include_url=False)[0]
                raise LessonError(
                    f"{file}, line {n}: {where['msg']}. Take the line out, or make the file anew."
                ) from error


def reopen(file: Path) -> list[Rehearsal]:
    """Return what a file has already; a last line that was cut off is taken out of it.

    Raises:
        LessonError: A line is not one of ours.
    """
    if not file.exists():
        return []
    known = list(read([file]))
    whole = file.read_bytes()
    if not whole.endswith(b"\n"):
        file.write_bytes(whole[: whole.rfind(b"\n") + 1])
    return known


def split(rehearsals: Iterable[Rehearsal], unseen: Iterable[str] = ()) -> Split:
    """Split by user and by domain: a tenth of the users, and whole domains, are held out."""
    never, parts = frozenset(unseen), Split([], [], [])
    for one in rehearsals:
        tenth = int.from_bytes(hashlib.sha256(one.user.encode()).digest()[:4]) % _HELD_OUT == 0
        part = parts.unseen if one.domain in never else parts.held_out if tenth else parts.taught
        part.extend(one.lessons)
    return parts


def thin(lessons: Sequence[Lesson], embed: Embed, seed: int) -> list[Lesson]:
    """Thin out near-copies: of answers of a role that are alike (cosine ≥ .95), two are kept, in a random order."""
    kept: list[Lesson] = []
    for role in BRIEF:
        own = [lesson for lesson in lessons if lesson.role == role]
        random.Random(seed).shuffle(own)  # noqa: S311
        vectors = embed([lesson.answer for lesson in own]) if own else np.zeros((0, 1), dtype=np.float32)
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        stay: list[int] = []
        for n in range(len(own)):
            if int((vectors[stay] @ vectors[n] >= ALIKE).sum()) < MOST_ALIKE:
                stay.append(n)
        kept += [own[n] for n in stay]
    random.Random(seed).shuffle(kept)  # noqa: S311
    return kept


def digest(lessons: Iterable[Lesson]) -> str:
    """Return the SHA-256 of lessons, whatever their order."""
    return hashlib.sha256("\n".join(sorted(lesson.model_dump_json() for lesson in lessons)).encode()).hexdigest()
