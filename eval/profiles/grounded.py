"""Is what a profile says true of the log, and does it say all that is? After GISTBench's Interest Groundedness.

GISTBench (arXiv 2603.29112; formulas only): of the interests that a profile names, precision is the share that the
log verifies, `IG_P = |verified & named| / |named|`; recall is the share of verifiable interests that it names,
`IG_R = |verified & named| / |verifiable|`; `F1 = 2 P R / (P + R)`. Here they are taken twice:

- of *claims*: a claim is verified if all it cites are events of this user, if these meet the support rule
  (`agent.evidence.Support.holds`), and if name and statement pass every check of `agent.verify` on the items of these
  events, also that it does not repeat a claim before it. Verifiable are the supported themes of the log; a verified
  claim names a theme if it has its sign, cites at least half of its weight, and says one of its telling attributes.
- of *categories*, as in GISTBench: named are the categories in the words of the interests, whatever these cite;
  verified is a category that meets the support rule over all of the user's events with its items. All such categories
  of the log are verifiable.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from agent.catalogue import Attribute, ItemSet
from agent.contract import Claim, Kind
from agent.evidence import EvidenceSettings, Weights, support, weigh
from agent.themes import Theme, informative
from agent.verify import Grounds, Repetition, Vocabulary, attributes_named, verify_claim
from agent.words import clean
from eval.interactions import Floats
from eval.profiles.writing import Metric, Written

HALF = 0.5
NAME_TITLE = 40
"""Length to which a title within a name is cut (`agent.words.named_after`)."""
FOREIGN, UNSUPPORTED = "foreign evidence", "support"

METRICS = {
    "interest precision": Metric("Share of a user's claims whose events are theirs and meet the support rule, and "
                                 "whose words pass every check of the verifier."),
    "interest recall": Metric("Share of a user's supported themes that a verified claim names."),
    "interest F1": Metric("Harmonic mean of interest precision and interest recall."),
    "category precision": Metric("Share of the categories named by a user's interests that their log supports."),
    "category recall": Metric("Share of the categories supported by a user's log that their interests name."),
    "category F1": Metric("Harmonic mean of category precision and category recall."),
}  # fmt: skip


class Judged(NamedTuple):
    """A claim, what is wrong with it (kinds of violation, each once), and the attributes that its words name."""

    claim: Claim
    wrong: tuple[str, ...]
    named: frozenset[Attribute]

    @property
    def verified(self) -> bool:
        """Whether it holds."""
        return not self.wrong


class Judge(NamedTuple):
    """Judges claims by a user's log.

    Attributes:
        items: Of the log.
        settings: Of the evidence.
        vocabulary: Of the catalogue.
        repetition: Tells whether a claim repeats another.
    """

    items: ItemSet
    settings: EvidenceSettings
    vocabulary: Vocabulary
    repetition: Repetition

    def claims(self, written: Written) -> list[Judged]:
        """Judge the claims of one profile, intents too."""
        found: list[Judged] = []
        said: dict[Kind, list[str]] = {}
        weights = self.weights(written)
        for claim in written.profile.claims:
            others = said.setdefault(claim.kind, [])
            found.append(self._claim(claim, written, weights, tuple(others)))
            others.append(written.statement(claim))
        return found

    def weights(self, written: Written) -> Weights:
        """Weigh the log at the time that the profile is decayed to."""
        log, as_of = written.log, written.profile.log.as_of.timestamp()
        return weigh(log.types, log.values, log.times, as_of, self.settings)

    def _claim(self, claim: Claim, written: Written, weights: Weights, said: tuple[str, ...]) -> Judged:
        log = written.log
        row = {event_id: n for n, event_id in enumerate(log.event_ids)}
        cited = [piece.event_id for piece in (*claim.evidence, *claim.counter_evidence)]
        rows = np.array([row[event_id] for event_id in cited if event_id in row], dtype=np.int64)
        wrong = [FOREIGN] if len(rows) < len(cited) else []
        sign = -1.0 if claim.kind == "dislike" else 1.0
        found = support(sign * weights.decayed[rows], weights.explicit[rows])
        if not found.holds(self.settings.max_negative_share):
            wrong.append(UNSUPPORTED)
        grounds = self._grounds(claim, [row[e.event_id] for e in claim.evidence if e.event_id in row], written)
        titles = written.titles(claim)
        verdict = verify_claim(_cited(claim.name, titles), _cited(claim.statement, titles), grounds)
        wrong += [violation.kind for violation in verdict.violations]
        if self.repetition.of(written.statement(claim), said, self.vocabulary, grounds.known) is not None:
            wrong.append("repeats")
        named = attributes_named(f"{claim.name}. {claim.statement}", grounds)
        return Judged(claim, tuple(dict.fromkeys(wrong)), frozenset(named))

    def _grounds(self, claim: Claim, rows: Sequence[int], written: Written) -> Grounds:
        """Return what a claim may say, from the events that it cites and from nothing else of its making."""
        counted: dict[str, int] = {}
        for row in rows:
            if (key := written.log.items[row]) is not None:
                counted[key] = counted.get(key, 0) + 1
        return Grounds(
            polarity="negative" if claim.kind == "dislike" else "positive",
            items=[(self.items.items[key], n) for key, n in counted.items()],
            counter_events=len(claim.counter_evidence),
            shown=len(written.titles(claim)),
            base_rates=self.items.base_rates,
            vocabulary=self.vocabulary,
            language=written.profile.language,
            user_id=written.profile.user_id,
        )

    def categories(self, written: Written, weights: Weights) -> set[Attribute]:
        """Return the categories that the log supports as liked."""
        rows: dict[Attribute, list[int]] = {}
        for n, key in enumerate(written.log.items):
            for attribute in self.items.attributes[key] if key is not None else ():
                if attribute.field == "category":
                    rows.setdefault(attribute, []).append(n)
        bound = self.settings.max_negative_share
        return {a for a, mine in rows.items() if support(weights.decayed[mine], weights.explicit[mine]).holds(bound)}

    def measure(self, written: Written, found: Sequence[Judged]) -> dict[str, float]:
        """Return the metrics of one profile whose claims were judged; nan where there is nothing to take a share of."""
        themes = [*written.draft.themes.interests, *written.draft.themes.dislikes]
        weights = self.weights(written)
        covered = sum(any(_names(one, theme, written, weights) for one in found) for theme in themes)
        named = {a for j in found if j.claim.kind == "interest" for a in j.named if a.field == "category"}
        held = self.categories(written, weights)
        of_claims = ratio(sum(j.verified for j in found), len(found)), ratio(covered, len(themes))
        of_categories = ratio(len(named & held), len(named)), ratio(len(named & held), len(held))
        return {
            "interest precision": of_claims[0],
            "interest recall": of_claims[1],
            "interest F1": f1(*of_claims),
            "category precision": of_categories[0],
            "category recall": of_categories[1],
            "category F1": f1(*of_categories),
        }


def judge_all(written: Sequence[Written], judge: Judge) -> list[list[Judged]]:
    """Judge the claims of all profiles."""
    return [judge.claims(one) for one in written]


def measure(
    written: Sequence[Written], judged: Sequence[Sequence[Judged]], judge: Judge, users: int
) -> dict[str, Floats]:
    """Measure profiles, `(users,)` for each metric, nan where there is none; `users` is how many codes there are."""
    found = {name: np.full(users, np.nan) for name in METRICS}
    for one, claims in zip(written, judged, strict=True):
        for name, value in judge.measure(one, claims).items():
            found[name][one.code] = value
    return found


def reasons(judged: Iterable[Sequence[Judged]]) -> Counter[str]:
    """Count the claims that are not verified, by kind of reason; a claim may have several."""
    return Counter(kind for claims in judged for one in claims for kind in one.wrong)


def _cited(text: str, titles: Sequence[str]) -> str:
    """Put numbers for the titles that code has put in the place of numbers: the verifier is for the words around.

    >>> _cited("Often likes comedy, such as L.A. Story and Brazil.", ["Brazil", "L.A. Story"])
    'Often likes comedy, such as [2] and [1].'
    """
    for number, title in sorted(enumerate(titles, 1), key=lambda pair: -len(pair[1])):
        for shown in (title, clean(title, NAME_TITLE)):
            text = text.replace(shown, f"[{number}]")
    return text


def _names(judged: Judged, theme: Theme, written: Written, weights: Weights) -> bool:
    """Tell whether a verified claim names a theme."""
    claim, log = judged.claim, written.log
    if not judged.verified or (claim.kind == "dislike") != (theme.polarity == "negative"):
        return False
    cited = {e.event_id for e in claim.evidence}
    mine = np.abs(weights.decayed[theme.events])
    shared = sum(w for row, w in zip(theme.events, mine, strict=True) if log.event_ids[row] in cited)
    if shared < HALF * mine.sum():
        return False
    text = f"{written.words(claim)}".casefold()
    telling = [t.attribute for t in informative(theme.telling)]
    return any(a in judged.named or a.value.casefold() in text for a in telling)


def ratio(part: int, whole: int) -> float:
    """Return a share, nan of nothing.

    >>> ratio(1, 4), ratio(0, 0)
    (0.25, nan)
    """
    return part / whole if whole else float("nan")


def f1(precision: float, recall: float) -> float:
    """Return `2 P R / (P + R)`: 0 if one of the two is 0 or does not exist, nan if neither exists.

    >>> f1(1.0, 0.5), f1(float("nan"), 0.0)
    (0.6666666666666666, 0.0)
    """
    if np.isnan(precision) and np.isnan(recall):
        return float("nan")
    if np.isnan(precision) or np.isnan(recall) or precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)
