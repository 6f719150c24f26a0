"""Measure the verifier on labelled sentences: recall for each kind of error, and false alarms.

`python tests/verifier/measure.py tests/verifier/heldout .limner/models/all-minilm-l6-v2 [--rows]`; the second
folder is the embedder, as `limner model pull all-minilm-l6-v2` leaves it.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agent.catalogue import count_attributes
from agent.embedder import SentenceEmbedder
from agent.verify import Grounds, Repetition, Verdict, Vocabulary, verify_claim
from store.records import Item


class Row(NamedTuple):
    domain: str
    sentence: dict[str, Any]
    verdict: Verdict

    @property
    def label(self) -> str:
        return str(self.sentence["label"])


def judge(folder: Path, repetition: Repetition) -> Iterator[Row]:
    """Run the verifier over every sentence of every file."""
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
                others=tuple(theme.get("other_claims", [])),
            )
            verdict = verify_claim(sentence["name"], sentence["statement"], grounds, repetition)
            yield Row(data["domain"], sentence, verdict)


def main(argv: list[str]) -> None:
    """Print the table."""
    rows = list(judge(Path(argv[0]), Repetition(SentenceEmbedder(argv[1]).embed)))
    total, caught = Counter(r.label for r in rows), Counter(r.label for r in rows if not r.verdict.passes)
    for label in sorted(total, key=lambda k: (k == "ok", k)):
        what = "false alarms" if label == "ok" else "recall"
        print(f"{label:22} {total[label]:4}  {what} {caught[label] / total[label]:.3f}")
    wrong = [r for r in rows if r.label != "ok"]
    print(f"{'all errors':22} {len(wrong):4}  recall {np.mean([not r.verdict.passes for r in wrong]):.3f}")
    for domain in dict.fromkeys(r.domain for r in rows):
        bad = [not r.verdict.passes for r in wrong if r.domain == domain]
        ok = [not r.verdict.passes for r in rows if r.domain == domain and r.label == "ok"]
        print(f"{domain:22} recall {np.mean(bad):.3f}  false alarms {np.mean(ok):.3f}")
    if "--rows" in argv:
        for r in rows:
            if r.verdict.passes != (r.label == "ok"):
                print(r.label, r.sentence["id"], "|", r.sentence["name"], "|", r.sentence["statement"])
                print("     ", *r.verdict.violations, r.verdict.interpretive)


if __name__ == "__main__":
    main(sys.argv[1:])
