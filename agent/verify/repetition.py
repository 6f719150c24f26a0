"""Does a text say again what another claim says?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.verify.grounds import Vocabulary
from agent.verify.text import CITATION, cjk_share, content, starts_sentence, words

Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Repetition:
    """Compares by what the texts name and by the embedding of the whole text.

    Two texts of which the first names nothing that the second does not (no attribute, decade, proper name or word of
    its theme's texts) say the same from a moderate cosine on; otherwise only if they are nearly identical. Nearly
    identical texts have words in common: those without are not embedded, which a batch would pay dear for.

    Attributes:
        embed: Texts to unit vectors `(n, d)`.
        near: Cosine from which two texts say the same, whatever they name.
        nearish: Cosine from which they do if the first names nothing of its own.
        common: Share of the words of the text with fewer of them (of those that say something) that nearly identical
            texts have in common, at least. Of 2,894 sentences by hand and by models, 175 pairs reach `near` by
            all-MiniLM-L6-v2, and all have two thirds.
        letters: Share of pairs of letters in common from which two Chinese texts do.
    """

    embed: Embed
    near: float = 0.94
    nearish: float = 0.42
    common: float = 0.5
    letters: float = 0.7

    def of(
        self, text: str, others: Sequence[str], vocabulary: Vocabulary, known: frozenset[str] = frozenset()
    ) -> str | None:
        """Return the first of `others` that the text repeats, or None."""
        if not others:
            return None
        plain, *compared = [CITATION.sub("", t) for t in (text, *others)]
        if cjk_share(plain) > 0:  # embedders for English put all Chinese sentences together
            return next((o for o, p in zip(others, compared, strict=True) if overlap(plain, p) >= self.letters), None)
        named, said = _named(plain, vocabulary), _said(plain)
        suspects = []
        for other, words_of_other in zip(others, compared, strict=True):
            said_by_other = _said(words_of_other)
            own = (named - _named(words_of_other, vocabulary)) | ((said & known) - said_by_other)
            if said and said == said_by_other:
                suspects.append((other, words_of_other, -np.inf))  # whatever the cosine
            elif not own:
                suspects.append((other, words_of_other, self.nearish))
            elif len(said & said_by_other) >= self.common * min(len(said), len(said_by_other)):
                suspects.append((other, words_of_other, self.near))
        if not suspects:
            return None
        vectors = self.embed([plain, *(words_of_other for _, words_of_other, _ in suspects)])
        cosines = vectors[1:] @ vectors[0]
        return next((o for (o, _, bound), cosine in zip(suspects, cosines, strict=True) if cosine >= bound), None)


def overlap(first: str, second: str) -> float:
    """Return the Jaccard similarity of two texts' pairs of neighbouring letters."""
    a, b = ({text[i : i + 2] for i in range(len(text) - 1)} for text in (first, second))
    return len(a & b) / max(len(a | b), 1)


def _said(text: str) -> frozenset[str]:
    return frozenset(w.lemma for w in content(words(text)))


def _named(text: str, vocabulary: Vocabulary) -> frozenset[str]:
    """Return the categories, decades, numbers and capitalised words of a text."""
    found = words(text)
    forms = [w.lemma for w in found]
    phrases = {
        " ".join(forms[i : i + n])
        for n in range(1, vocabulary.longest + 1)
        for i in range(len(forms))
        if tuple(forms[i : i + n]) in vocabulary.phrases
    }
    capitals = {w.lemma for w in found if w.capital and not starts_sentence(text, w.start)}
    digits = {w.text for w in found if w.text[0].isdigit()}
    return frozenset(phrases | capitals | digits | {w.lemma for w in found if w.lemma.endswith("ties")})
