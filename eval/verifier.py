"""Measure the verifier on labelled sentences: recall for each kind of error, and false alarms.

The format of the files is described in tests/verifier/FORMAT.md.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agent.catalogue import count_attributes
from agent.verify import Grounds, Repetition, Verdict, Vocabulary, verify_claim
from store.records import Item

OK = "ok"


class Row(NamedTuple):
    """A labelled sentence and what the verifier says of it."""

    domain: str
    sentence: dict[str, Any]
    verdict: Verdict

    @property
    def label(self) -> str:
        """The kind of the planted error, or `ok`."""
        return str(self.sentence["label"])


def judge(folder: Path, repetition: Repetition) -> Iterator[Row]:
    """Run the verifier over every sentence of every JSON file in a folder."""
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        items = {row["item_id"]: Item(**{**row, "categories": tuple(row["categories"])}) for row in data["catalogue"]}
        base_rates = count_attributes(list(items.values()))
        vocabulary = Vocabulary.of(base_rates)
        themes = {theme["theme_id"]: theme for theme in data["themes"]}
        for sentence in data["sentences"]:
            theme = themes[sentence["theme"]]
            grounds = Grounds(
                polarity=theme["polarity"],
                items=[(items[i], n) for i, n in theme["events"]],
                counter_events=sum(n for _, n in theme.get("counter", [])),
                shown=len(theme["shown"]),
                base_rates=base_rates,
                vocabulary=vocabulary,
                language=data["language"],
            )
            said = theme.get("other_claims", [])
            verdict = verify_claim(sentence["name"], sentence["statement"], grounds, repetition, said)
            yield Row(data["domain"], sentence, verdict)


def recall(rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
    """Return, for each label, how many sentences there are and how many were refused."""
    total = Counter(row.label for row in rows)
    refused = Counter(row.label for row in rows if not row.verdict.passes)
    return {label: (total[label], refused[label]) for label in sorted(total, key=lambda k: (k == OK, k))}


def overall(rows: Sequence[Row]) -> tuple[float, float]:
    """Return recall over all errors, and the share of true sentences that were refused (false alarms).

    Raises:
        ValueError: There are no errors or no true sentences among the rows.
    """
    wrong = [not row.verdict.passes for row in rows if row.label != OK]
    true = [not row.verdict.passes for row in rows if row.label == OK]
    if not wrong or not true:
        raise ValueError("both true sentences and planted errors are needed")
    return sum(wrong) / len(wrong), sum(true) / len(true)
