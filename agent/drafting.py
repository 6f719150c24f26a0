"""A draft: everything about a profile that arithmetic decides, and the tasks of putting it into words."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.catalogue import ItemSet, Telling
from agent.continuing import Before, group, number
from agent.contract import Clustering, Habit, Kind, Language, Stage, Tag
from agent.evidence import EvidenceSettings
from agent.habits import find_habits, find_tags
from agent.intents import find_intents
from agent.template import word_goal, word_theme
from agent.themes import Theme, Themes, UserLog, informative, is_informative
from agent.verify import Grounds, Vocabulary
from agent.words import HALF, Worded, cite, example_line, named_after, theme_lines, title_of, traits
from agent.writer import ClaimTask


@dataclass(frozen=True)
class DraftClaim:
    """A claim without words.

    Attributes:
        titles: Of the numbered examples, as they are shown.
        task: What a writer needs.
        stage: Of an intent.
    """

    claim_id: str
    kind: Kind
    theme: Theme
    titles: tuple[str, ...]
    task: ClaimTask
    stage: Stage | None = None


@dataclass(frozen=True)
class Draft:
    """A profile before the writer.

    Attributes:
        clustering: When its themes were formed.
        anew: Why they were formed anew, though there were some before.
    """

    log: UserLog
    language: Language
    themes: Themes
    claims: tuple[DraftClaim, ...]
    habits: tuple[Habit, ...]
    tags: tuple[Tag, ...]
    clustering: Clustering
    anew: str | None = None


@dataclass(frozen=True)
class Drafter:
    """Makes drafts from logs.

    Attributes:
        settings: Of the evidence.
        vocabulary: Of the catalogue.
        language: To write in.
    """

    settings: EvidenceSettings
    vocabulary: Vocabulary
    language: Language

    def draft(
        self,
        log: UserLog,
        items: ItemSet,
        tz: str | None = None,
        as_of: float | None = None,
        before: Before | None = None,
    ) -> Draft:
        """Find the themes, intents, habits and tags of one user, going on from the profile before, if there is one."""
        grouped = group(log, items, self.settings, as_of, before)
        themes = grouped.themes
        liked = {t.attribute for theme in themes.interests for t in informative(theme.telling)}
        claims = [
            self._claim(claim_id, "interest", theme, theme.telling, log, items)
            for claim_id, theme in zip(grouped.interest_ids, themes.interests, strict=True)
        ]
        needs = find_intents(log, items, themes.weights, self.settings)
        known = before.known if before else []
        need_ids = number([need.theme for need in needs], "intent", log, themes.weights, known)
        claims += [
            self._intent(claim_id, need.theme, need.stage, log, items)
            for claim_id, need in zip(need_ids, needs, strict=True)
        ]
        for claim_id, theme in zip(grouped.dislike_ids, themes.dislikes, strict=True):
            # What is liked elsewhere, or what few of its items have, cannot be what sets a dislike apart.
            own = tuple(t for t in theme.telling if t.attribute not in liked)
            common = any(is_informative(t) and t.share >= HALF for t in own)
            telling = own if common else ()
            claims.append(self._claim(claim_id, "dislike", theme, telling, log, items))
        attributes = [items.attributes[key] if key is not None else () for key in log.items]
        positive = [a for a, w in zip(attributes, themes.weights.decayed, strict=True) if w > 0]
        categories = [[a.value for a in event if a.field == "category"] for event in attributes]
        habits = find_habits(log, categories, tz, self.settings.session_gap_minutes, self.language)
        tags = find_tags(positive, items.base_rates)
        distinct = self._distinct(claims)
        return Draft(log, self.language, themes, distinct, habits, tags, grouped.clustering, grouped.anew)

    def _claim(
        self,
        claim_id: str,
        kind: Kind,
        theme: Theme,
        telling: Sequence[Telling],
        log: UserLog,
        items: ItemSet,
    ) -> DraftClaim:
        shown = [items.items[key] for key in theme.examples]
        titles = tuple(title_of(item) for item in shown)
        grounds = self._grounds(theme, log, items)
        fallback = word_theme(theme, telling, self.language)
        if not informative(telling):  # then only the titles tell them apart
            fallback = replace(fallback, name=named_after(fallback.name, titles, self.language))
        task = ClaimTask(
            described=theme_lines(theme, shown, telling, grounds.noun),
            telling=tuple(telling),
            strength=theme.strength,
            grounds=grounds,
            fallback=fallback,
            titles=titles,
        )
        return DraftClaim(claim_id, kind, theme, titles, task)

    def _intent(self, claim_id: str, theme: Theme, stage: Stage, log: UserLog, items: ItemSet) -> DraftClaim:
        shown = [items.items[key] for key in theme.examples]
        first_row = {key: row for row, key in reversed(list(enumerate(log.items))) if key is not None}
        verbs = [log.types[first_row[key]].replace("_", " ") for key in theme.examples]
        lines = [
            line.replace("] ", f"] {verb} ", 1)
            for line, verb in zip(
                (example_line(n, item, theme.telling) for n, item in enumerate(shown, 1)), verbs, strict=True
            )
        ]
        titles = tuple(title_of(item) for item in shown)
        grounds = self._grounds(theme, log, items)
        name, goal = word_goal(theme.telling, stage, self.language)
        task = ClaimTask(
            described="\n".join([*lines, f"Traits: {traits(theme.telling)}"]),
            telling=theme.telling,
            strength=theme.strength,
            grounds=grounds,
            fallback=Worded(name, cite(goal, [1], self.language), "template"),
            titles=titles,
            intent=True,
        )
        return DraftClaim(claim_id, "intent", theme, titles, task, stage)

    def _grounds(self, theme: Theme, log: UserLog, items: ItemSet) -> Grounds:
        counted: dict[str, int] = {}
        for row in theme.events:
            key = log.items[row]
            if key is not None:
                counted[key] = counted.get(key, 0) + 1
        return Grounds(
            polarity=theme.polarity,
            items=[(items.items[key], n) for key, n in counted.items()],
            counter_events=len(theme.counter),
            shown=len(theme.examples),
            base_rates=items.base_rates,
            vocabulary=self.vocabulary,
            language=self.language,
            user_id=log.user_id,
        )

    def _distinct(self, claims: Sequence[DraftClaim]) -> tuple[DraftClaim, ...]:
        """Let no two claims of a kind have the same template name: a later one is named by its first example too."""
        taken: set[tuple[Kind, str]] = set()
        done = []
        for claim in claims:
            words = claim.task.fallback
            if (claim.kind, words.name) in taken:
                words = replace(words, name=named_after(words.name, claim.titles, self.language))
                claim = replace(claim, task=claim.task._replace(fallback=words))  # noqa: PLW2901
            taken.add((claim.kind, words.name))
            done.append(claim)
        return tuple(done)
