"""Is a profile good to read? Length, repetition, reading ease, the language asked for, and who worded it.

What is read are the summary and, of each claim, name and statement; the titles that code adds are left out where
sentences are judged, and counted in the length.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from eval.interactions import Floats
from eval.profiles.grounded import Judged
from eval.profiles.writing import Metric, Written

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*|\d+\w*")
_SENTENCE = re.compile(r"[.!?\u3002\uff01\uff1f]+(?=\s|$)")
_SYLLABLE = re.compile(r"[aeiouy]+")
_SILENT = re.compile(r"(?<=[^aeiouyl])e$|(?<=[^aeiouytd])ed$|(?<=[^aeiouycgszx])es$")

METRICS = {
    "words": Metric("Words of a profile: summary, names and statements.", "neither", "words"),
    "repetition": Metric("Share of the pairs of neighbouring words in names and statements that stood in the same "
                         "profile before.", "lower"),
    "names shared": Metric("Share of a user's claims whose name another user's claim has too.", "lower"),
    "reading ease": Metric("Flesch's reading ease (English): 60 to 70 is plain, below 30 hard."),
    "language": Metric("Share of claims that are in the language asked for, by the verifier."),
    "worded by the model": Metric("Share of claims whose words are the language model's.", "neither"),
}  # fmt: skip


def syllables(word: str) -> int:
    """Count the syllables of an English word: groups of vowels, less a silent ending; at least 1.

    >>> [syllables(w) for w in ("likes", "mostly", "comedy", "drama", "little", "crime", "the")]
    [1, 2, 3, 2, 2, 1, 1]
    """
    return max(1, len(_SYLLABLE.findall(_SILENT.sub("", word.lower()))))


def reading_ease(text: str) -> float:
    """Return Flesch's reading ease (1948): `206.835 - 1.015 words / sentences - 84.6 syllables / words`.

    Nan for a text without words.

    >>> round(reading_ease("The cat sat. The dog ran off."), 2)
    118.68
    """
    words = _WORD.findall(text)
    if not words:
        return float("nan")
    sentences = max(1, len(_SENTENCE.findall(text)))
    return 206.835 - 1.015 * len(words) / sentences - 84.6 * sum(map(syllables, words)) / len(words)


def repetition(texts: Sequence[str]) -> float:
    """Return `1 - distinct / all` over the pairs of neighbouring words within texts (Li et al. 2016, distinct-2).

    Nan if there is no pair.

    >>> repetition(["Often likes drama", "Often likes comedy"])
    0.25
    """
    split = [[word.casefold() for word in _WORD.findall(text)] for text in texts]
    pairs = [pair for words in split for pair in pairwise(words)]
    return 1.0 - len(set(pairs)) / len(pairs) if pairs else float("nan")


def measure(written: Sequence[Written], judged: Sequence[Sequence[Judged]], users: int) -> dict[str, Floats]:
    """Measure profiles whose claims were judged (`grounded.judge_all`), `(users,)` for each metric."""
    found = {name: np.full(users, np.nan) for name in METRICS}
    owners = Counter(name for one in written for name in {claim.name.casefold() for claim in one.claims})
    for one, claims in zip(written, judged, strict=True):
        texts = [one.words(claim) for claim in one.claims]
        english = one.profile.language == "en"
        values = {
            "words": float(len(_WORD.findall(one.text))),
            "repetition": repetition(texts),
            "names shared": _share([owners[claim.name.casefold()] > 1 for claim in one.claims]),
            "reading ease": reading_ease("\n".join(texts)) if english else float("nan"),
            "language": _share(["language" not in each.wrong for each in claims]),
            "worded by the model": _share([claim.wording == "llm" for claim in one.profile.claims]),
        }
        for name, value in values.items():
            found[name][one.code] = value
    return found


def _share(flags: Sequence[bool]) -> float:
    return float(np.mean(flags)) if flags else float("nan")
