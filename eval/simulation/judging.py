"""What drafts of simulated users get right: interests, dislikes, hours; and what bots get."""

from typing import NamedTuple

import numpy as np

from agent.catalogue import ItemSet
from agent.contract import Language
from agent.drafting import Draft, Drafter
from agent.evidence import EvidenceSettings, weigh
from agent.habits import PEAK_HOURS
from agent.verify import Vocabulary
from eval.interests import Cited, Matched, cited, groups_of, histogram, match, named_interest, supported
from eval.simulation.memory import Invented, Users

NEAR_HOURS = 2.0


class Judgement(NamedTuple):
    """Of one user.

    Attributes:
        interests: Claims of interests against those that the log supports.
        planted: How many of the planted interests there are, supported or not.
        named: Of the supported interests that the catalogue names: how many there are, and how many are found.
        latent: Likewise of the others.
        dislikes: Claims of dislikes against the planted one, where the log supports it.
        hour: Whether the middle of the busiest hours is within 2 hours of the planted one; None for a log too short.
        weekend: Whether the busiest day is one of the weekend if and only if the user comes at weekends, likewise.
    """

    interests: Matched
    planted: int
    named: tuple[int, int]
    latent: tuple[int, int]
    dislikes: Matched
    hour: bool | None
    weekend: bool | None


class Judge:
    """Drafts and judges users of one catalogue.

    Args:
        invented: The catalogue, with the vectors that themes are made of.
        settings: Of the evidence.
        language: Of the catalogue.
    """

    def __init__(self, invented: Invented, settings: EvidenceSettings, language: Language) -> None:
        self.invented, self.settings, self.groups = invented, settings, invented.theme_of
        self.drafter = Drafter(settings, Vocabulary.of(invented.items.base_rates), language)

    def draft(self, users: Users, n: int) -> Draft:
        """Draft a user's profile by the code that writes profiles."""
        return self.drafter.draft(users.logs[n], self.invented.items, users.zones[n])

    def judge(self, users: Users, n: int) -> Judgement:
        """Draft and judge a user."""
        draft, tastes = self.draft(users, n), users.tastes
        groups, weights = groups_of(draft.log, self.groups), draft.themes.weights
        liked = np.flatnonzero(tastes.liked[n]).tolist()
        wanted = supported(groups, weights, liked, self.settings)
        of_kind = {kind: [c.theme for c in draft.claims if c.kind == kind] for kind in ("interest", "dislike")}
        claims = cited(of_kind["interest"], groups, weights)
        found = wanted & {named_interest(*claim) for claim in claims}
        against = weights._replace(decayed=-weights.decayed)
        hated = supported(groups, against, {int(tastes.disliked[n])} - {-1}, self.settings)
        hour, weekend = _habits(draft, float(tastes.peak[n]), weekends=bool(tastes.weekend[n]))

        def split(named: bool) -> tuple[int, int]:  # noqa: FBT001 - of a closure
            mine = {group for group in wanted if self.invented.named[group] == named}
            return len(mine), len(mine & found)

        return Judgement(
            match(claims, wanted), len(liked), split(True), split(False),
            match(cited(of_kind["dislike"], groups, weights), hated), hour, weekend,
        )  # fmt: skip


def judge_histogram(
    invented: Invented, items: ItemSet, users: Users, n: int, settings: EvidenceSettings
) -> tuple[list[Cited], set[int]]:
    """Return the claims of the category histogram, the heaviest first, and the interests that the log supports."""
    log = users.logs[n]
    groups = groups_of(log, invented.theme_of)
    weights = weigh(log.types, log.values, log.times, float(log.times.max()), settings)
    wanted = supported(groups, weights, np.flatnonzero(users.tastes.liked[n]).tolist(), settings)
    return histogram(log, items, groups, weights, settings), wanted


def _habits(draft: Draft, peak: float, *, weekends: bool) -> tuple[bool | None, bool | None]:
    by_name = {habit.name: habit.values for habit in draft.habits}
    if "hours" not in by_name:
        return None, None
    middle = by_name["hours"]["peak"] + PEAK_HOURS / 2
    away = abs((middle - peak + 12) % 24 - 12)
    return away <= NEAR_HOURS, (by_name["weekdays"]["peak"] >= 5) == weekends  # noqa: PLR2004 - Saturday
