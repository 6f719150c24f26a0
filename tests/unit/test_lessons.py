"""Lessons for a small writer: read, thinned, split."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agent.errors import LessonError
from agent.lessons import MOST_ALIKE, Lesson, Rehearsal, digest, read, reopen, split, thin
from agent.words import ThemesWords

GROUP = 'The person likes:\n[1] "Quiet Harbour" (1958) drama, war\nTraits: mainly drama, war'


def lesson(name: str, statement: str = "Enjoys war dramas.") -> Lesson:
    words = ThemesWords.model_validate({"groups": [{"name": name, "statement": statement, "examples": [1]}]})
    return Lesson(role="theme", variables={"groups": GROUP, "language": "English"}, answer=words.model_dump_json())


def rehearsal(user: str, domain: str = "films", *lessons: Lesson) -> Rehearsal:
    return Rehearsal(
        domain=domain, user=user, model="m", weights_hash=None, asked=3, first_try=2, repaired=0,
        lessons=lessons or (lesson(f"War dramas {user}"),),
    )  # fmt: skip


def by_letter(texts: Sequence[str]) -> np.ndarray:
    """A vector for each text, by the letter that its name ends with."""
    letters = [ThemesWords.model_validate_json(text).groups[0].name[-1] for text in texts]
    return np.eye(26, dtype=np.float32)[[ord(letter) - ord("a") for letter in letters]]


def test_a_lesson_is_a_prompt_in_brief_and_its_answer() -> None:
    messages = lesson("War dramas").messages
    assert [role for role, _ in messages] == ["system", "user"]
    assert messages[1][1] == GROUP
    assert "English" in messages[0][1]


def test_whole_users_and_whole_domains_are_held_out() -> None:
    everyone = [rehearsal(f"u{n}") for n in range(300)] + [rehearsal(f"v{n}", "news") for n in range(20)]
    parts = split(everyone, ["news"])
    assert len(parts.unseen) == 20
    assert len(parts.taught) + len(parts.held_out) == 300
    assert len(parts.held_out) == pytest.approx(30, abs=20)
    assert split(reversed(everyone), ["news"]).held_out == parts.held_out[::-1]


def test_near_copies_are_thinned() -> None:
    many = [lesson(f"War dramas {n} a") for n in range(9)] + [lesson("Noir b")]
    kept = thin(many, by_letter, seed=0)
    assert sum('a"' in one.answer for one in kept) == MOST_ALIKE
    assert sum('b"' in one.answer for one in kept) == 1
    assert thin(many, by_letter, seed=0) == kept
    assert thin(many, by_letter, seed=1) != kept


def test_the_digest_is_of_the_lessons_and_not_of_their_order() -> None:
    one, two = lesson("War"), lesson("Noir")
    assert digest([one, two]) == digest([two, one]) != digest([one])


def test_a_file_that_was_cut_off_goes_on_after_its_last_whole_line(tmp_path: Path) -> None:
    file = tmp_path / "lessons.jsonl"
    assert reopen(file) == []
    lines = [rehearsal(name).model_dump_json() for name in ("ann", "bob")]
    file.write_text(f"{lines[0]}\n{lines[1][:40]}")
    assert [(one.domain, one.user) for one in reopen(file)] == [("films", "ann")]
    with file.open("a") as more:
        more.write(lines[1] + "\n")
    assert [one.user for one in read([file])] == ["ann", "bob"]


def test_what_is_no_lesson_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "lessons.jsonl"
    file.write_text(rehearsal("ann").model_dump_json() + '\n{"domain": 3}\n')
    with pytest.raises(LessonError, match=r"lessons\.jsonl, line 2: "):
        list(read([file]))
    with pytest.raises(LessonError, match="limner writer distill"):
        list(read([tmp_path / "none.jsonl"]))
