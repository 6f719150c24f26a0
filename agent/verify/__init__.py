"""The verifier: every word of a text is checked against the log, by code.

`verify` returns what is wrong with a claim's name and statement, and which of its words are interpretation: words
that no text behind the claim supports and that no check forbids.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from agent.catalogue import Attribute
from agent.verify import checks
from agent.verify.checks import Kind, Seen, Violation
from agent.verify.grounds import Grounds, Vocabulary
from agent.verify.repetition import Repetition
from agent.verify.text import FILLER, NEUTRAL, STEM, content, lemmas

__all__ = [
    "VERSION",
    "Grounds",
    "Kind",
    "Repetition",
    "Verdict",
    "Violation",
    "Vocabulary",
    "run_checks",
    "verify",
    "verify_claim",
]

VERSION = "6"
"""Raised with every change of what passes; it goes into the key of a profile."""

MAX_NAME_WORDS = 10
MIN_WORDS, MAX_WORDS = 2, 45

Check = Callable[[Seen, Grounds], Iterator[Violation]]
_CHECKS: tuple[Check, ...] = (
    checks.citations,
    checks.instruction,
    checks.personal_data,
    checks.sensitive,
    checks.language,
    checks.decades,
    checks.attributes,
    checks.nouns,
    checks.counts,
    checks.names,
)


class Verdict(NamedTuple):
    """What the verifier says of a text.

    Attributes:
        violations: What is wrong; a text passes if there are none.
        interpretive: Words that the texts behind the claim do not contain, as written.
        words: Number of words that say something.
    """

    violations: tuple[Violation, ...]
    interpretive: tuple[str, ...]
    words: int

    @property
    def passes(self) -> bool:
        """Whether the text may be shown."""
        return not self.violations


def run_checks(text: str, grounds: Grounds, *which: Check) -> list[Violation]:
    """Check one text by some of `agent.verify.checks` alone."""
    return _run(Seen.of(text, grounds), grounds, which)


def verify(text: str, grounds: Grounds, repetition: Repetition | None = None, others: Sequence[str] = ()) -> Verdict:
    """Check one sentence against its grounds, and whether it repeats one of these others."""
    seen = Seen.of(text, grounds)
    found = _run(seen, grounds, _CHECKS)
    found += checks.polarity(seen, grounds)
    if not MIN_WORDS <= len(text.split()) <= MAX_WORDS and grounds.language == "en":
        found.append(Violation("length", f"write {MIN_WORDS} to {MAX_WORDS} words"))
    interpretive, said = _interpretation(seen, grounds)
    if grounds.language == "en" and not _rests_on_something(seen, grounds):
        found.append(Violation("ungrounded", "say what the items have in common, in the words of their traits"))
    if repetition is not None and (other := repetition.of(text, others, grounds.vocabulary, grounds.known)):
        found.append(Violation("repeats", f'this was said already: "{other}"'))
    return Verdict(tuple(dict.fromkeys(found)), interpretive, said)


def verify_claim(
    name: str, statement: str, grounds: Grounds, repetition: Repetition | None = None, others: Sequence[str] = ()
) -> Verdict:
    """Check a claim's statement, as `verify` does, and its name, which need not say whether the items are liked."""
    whole = verify(statement, grounds, repetition, others)
    found = run_checks(name, grounds, *_CHECKS, checks.coordination)
    if len(name.split()) > MAX_NAME_WORDS:
        found.append(Violation("length", f"a name has at most {MAX_NAME_WORDS} words"))
    return Verdict(tuple(dict.fromkeys((*whole.violations, *found))), whole.interpretive, whole.words)


def attributes_named(text: str, grounds: Grounds) -> set[Attribute]:
    """Return the catalogue's attributes that a text names, in any of their forms."""
    return {a for *_, called in checks.mentions(Seen.of(text, grounds), grounds) for a in called}


def _run(seen: Seen, grounds: Grounds, which: Sequence[Check]) -> list[Violation]:
    return [violation for check in which for violation in check(seen, grounds)]


def _interpretation(seen: Seen, grounds: Grounds) -> tuple[tuple[str, ...], int]:
    if grounds.language != "en":
        return (), 0
    said = content(seen.words)
    named = {i for first, last, _ in checks.mentions(seen, grounds) for i in range(first, last + 1)}
    positions = {w.start for i, w in enumerate(seen.words) if i in named}
    known = grounds.known.union(lemmas(grounds.noun or ""))
    free = [w.text for w in said if w.start not in positions and w.lemma not in known]
    return tuple(dict.fromkeys(free)), len(said)


def _rests_on_something(seen: Seen, grounds: Grounds) -> bool:
    """Tell whether a text names one thing of the theme: an item, an attribute, a decade, a word of its texts."""
    known = any(
        w.lemma not in FILLER and w.lemma not in NEUTRAL and w.lemma[:STEM] in grounds.stems for w in seen.words
    ) or any(w.lemma in grounds.known and w.lemma not in FILLER for w in seen.words)
    return (
        seen.plain != seen.text
        or known
        or any(True for _ in checks.mentions(seen, grounds))
        or checks.names_a_decade(seen)
    )
