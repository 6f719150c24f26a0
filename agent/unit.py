"""One user's profile: drafted from the log, put into words, assembled. It neither reads nor writes the store."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from agent.assembly import build_profile, cost
from agent.carrying import SUMMED_UP, SUMMED_UP_DISLIKES, Reason, carry, kept_summary
from agent.continuing import Before
from agent.contract import Continuation, Language, Profile, Provenance, Writer
from agent.corrections import Kept, keep
from agent.drafting import Draft, Drafter
from agent.embedder import Embedder
from agent.errors import ProfileError
from agent.evidence import EvidenceSettings
from agent.loading import Catalogue, Loaded
from agent.pipeline import in_thread
from agent.template import say_trends, sum_up
from agent.verify import Grounds, Vocabulary
from agent.words import Worded
from agent.writer import Account, LlmWriter, SummaryLine, SummaryTask, WriterSettings, together
from store.corrections import InForce


class Clock(Protocol):
    """Tells the time, in UTC."""

    def __call__(self) -> datetime: ...  # noqa: D102


@dataclass(frozen=True)
class ModelInfo:
    """Which weights write: the model's name and, if known, the hash of its weights."""

    name: str
    weights_hash: str | None = None


def sampling(settings: WriterSettings) -> dict[str, float]:
    """Return how a model is asked, as it goes into a profile, beside the hashes of its prompts."""
    return {"temperature": 0.0, **settings.model_dump(exclude={"examples", "summary"})}


@dataclass(frozen=True)
class Unit:
    """Makes the profile of one user after another.

    Attributes:
        embedder: Of items and claims.
        catalogue: From `prepare_catalogue`.
        vocabulary: Of the catalogue.
        evidence: Settings of the arithmetic.
        language: To write in.
        clock: Tells the time.
        llm: The writer, and what it writes with; None for the template.
        max_fallback: Share of refused wordings above which a profile of the model counts as failed.
    """

    embedder: Embedder
    catalogue: Catalogue
    vocabulary: Vocabulary
    evidence: EvidenceSettings
    language: Language
    clock: Clock
    llm: tuple[LlmWriter, ModelInfo] | None = None
    max_fallback: float = 0.5

    @property
    def writer(self) -> Writer:
        """Who writes."""
        return "template" if self.llm is None else "llm"

    @property
    def sampling(self) -> dict[str, float]:
        """How the model is asked."""
        return sampling(self.llm[0].settings) if self.llm else {}

    def draft(self, loaded: Loaded, n: int, before: Before | None = None) -> Draft:
        """Draft the profile of the `n`th of the users that were loaded, going on from their active one.

        Raises:
            ProfileError: There is nothing to write it from.
        """
        log, user_log = loaded.logs[n]
        if not log.events:
            raise ProfileError(f"User {log.user.user_id} has no events: there is nothing to write a profile from.")
        drafter = Drafter(self.evidence, self.vocabulary, self.language)
        return drafter.draft(user_log, loaded.items, log.user.tz, before=before)

    async def profile(
        self, draft: Draft, in_force: InForce, key: str, account: Account, before: Before | None = None
    ) -> Profile:
        """Put a draft into words, as the user's corrections leave it.

        Args:
            draft: Of the user.
            in_force: Their corrections.
            key: Of all that the profile depends on.
            account: Where the calls of the model are kept.
            before: The active profile, that the draft goes on from.

        Raises:
            ChatError: The model is out of reach.
            ProfileError: Most of its words were refused.
        """
        started = time.perf_counter()
        kept, reworded = await in_thread(self._kept, in_force, draft, before)
        if self.llm is None:
            words = kept.named([task.fallback for task in kept.tasks])
            lines = self._template_summary(kept.draft, words)
        else:
            answers, summary = await self._written(self.llm[0], kept, account, before)
            if (fewer := kept.rejected_again(answers)) is not None:
                return await self.profile(fewer, in_force, key, account, before)
            words = kept.named(answers)
            lines = self._summary(self.llm[0], kept, words, summary)
        lines += self._trends(kept.draft, words)
        tokens_in, tokens_out, _ = cost(account.calls)
        provenance = Provenance(
            key=key,
            **self._written_by,
            embedder=self.embedder.name,
            evidence_settings=self.evidence.model_dump(mode="json"),
            corrections_revision=in_force.revision,
            clustering=draft.clustering,
            continues=(
                Continuation(version=before.profile.version, clustered=draft.anew, reworded=reworded)
                if before
                else None
            ),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            seconds=round(time.perf_counter() - started, 3),
            created_at=self.clock(),
        )
        return build_profile(kept.draft, words, lines, provenance, kept.own)

    @property
    def _written_by(self) -> dict[str, Any]:
        model = self.llm[1] if self.llm else None
        return {
            "writer": self.writer,
            "model": model.name if model else None,
            "weights_hash": model.weights_hash if model else None,
            "prompts": self.llm[0].prompts if self.llm else {},
            "sampling": self.sampling,
        }

    def _kept(self, in_force: InForce, draft: Draft, before: Before | None) -> tuple[Kept, dict[str, Reason]]:
        """Apply the user's corrections, and keep the words that stand."""
        kept = keep(in_force, draft, self.embedder.embed)
        if before is None or self.llm is None:
            return kept, {}
        carried = carry(before, kept, self._written_by)
        return replace(kept, carried=carried.words), carried.reworded

    async def _written(
        self, writer: LlmWriter, kept: Kept, account: Account, before: Before | None
    ) -> tuple[list[Worded], list[SummaryLine] | None]:
        """Word claims and summary side by side: the summary is made of the claims' traits, so neither waits.

        Of a single claim there is nothing to sum up: its name is enough, and that takes no call; nor does a summary by
        code, where the model is not asked for one.

        Returns:
            The words of the claims that have none yet, and the summary; None where the model's does not hold.
        """
        summed = self._summary_task(kept)
        settled = [(kept.draft.claims[n].task, words) for n, words in sorted(kept.carried.items())]
        words: list[Worded] = []
        summary: list[SummaryLine] | None = []

        async def claims() -> None:
            words.extend(await writer.claims(kept.tasks, account, settled))

        async def sum_up_claims() -> None:
            nonlocal summary
            summary = kept_summary(before, kept, summed, writer) if before else None
            if summary is None:
                summary = await writer.summary(summed, account)

        by_model = writer.settings.summary and len(summed.order) > 1
        await together([claims(), sum_up_claims()] if by_model else [claims()])
        self._refuse_if_mostly_fallback(words, len(kept.carried), account)
        return words, summary

    def _summary(
        self, writer: LlmWriter, kept: Kept, words: Sequence[Worded], summary: list[SummaryLine] | None
    ) -> list[SummaryLine]:
        """Complete the model's summary by code: it is not told of words of the user's own."""
        if not summary:
            tries = 0 if summary is not None else writer.settings.max_repairs + 1
            return self._template_summary(kept.draft, words, tries=tries)
        return summary + (self._template_summary(kept.draft, words, kept.reworded) if kept.reworded else [])

    def _refuse_if_mostly_fallback(self, words: Sequence[Worded], carried: int, account: Account) -> None:
        asked = [w for w in words if w.tries]  # what has no trait goes to the template without a question
        refused = sum(w.wording == "template" and not w.alike for w in asked)
        if refused > self.max_fallback * (len(asked) + carried):
            details = [c.detail for c in account.calls if c.detail]
            raise ProfileError(
                f"the model's wording was refused for {refused} of {len(asked)} claims; the last reason was: "
                f"{details[-1] if details else 'unknown'}"
            )

    @staticmethod
    def _order(draft: Draft) -> tuple[list[int], list[int]]:
        """Return the places of the likes and of the dislikes that a summary can name."""
        named = [n for n, c in enumerate(draft.claims) if c.task.says_something]
        liked = [n for n in named if draft.claims[n].kind == "interest"]
        return liked, [n for n in named if draft.claims[n].kind == "dislike"]

    def _template_summary(
        self, draft: Draft, words: Sequence[Worded], only: frozenset[int] | None = None, tries: int = 0
    ) -> list[SummaryLine]:
        """Sum up the claims by their names, or only those in these places."""
        liked, disliked = ([n for n in places if only is None or n in only] for places in self._order(draft))
        order = [*liked, *disliked]
        sentences = sum_up([words[n].name for n in liked], [words[n].name for n in disliked], self.language)
        return [
            SummaryLine(text, tuple(order[n] for n in claims), by_model=False, tries=tries)
            for text, claims in sentences
        ]

    def _trends(self, draft: Draft, words: Sequence[Worded]) -> list[SummaryLine]:
        """Say what has grown and what has faded; code does, since models make up times."""
        liked, _ = self._order(draft)
        more = [n for n in liked if draft.claims[n].theme.trend in {"rising", "new"}][:2]
        less = [n for n in liked if draft.claims[n].theme.trend == "fading"][:2]
        text = say_trends([words[n].name for n in more], [words[n].name for n in less], self.language)
        return [SummaryLine(text, (*more, *less), by_model=False, tries=0)] if text else []

    def _summary_task(self, kept: Kept) -> SummaryTask:
        draft = kept.draft
        words = [claim.task.fallback for claim in draft.claims]
        liked, disliked = ([n for n in places if n not in kept.reworded] for places in self._order(draft))
        order = [*liked[:SUMMED_UP], *disliked[:SUMMED_UP_DISLIKES]]
        lines = [f'[{place}] "{words[n].name}"' for place, n in enumerate(order, 1)]
        if liked:
            lines[0] += " (strongest)"
        likes, dislikes = lines[: len(liked[:SUMMED_UP])], lines[len(liked[:SUMMED_UP]) :]
        return SummaryTask(
            variables={"likes": "\n".join(likes) or "none", "dislikes": "\n".join(dislikes) or "none"},
            texts=tuple(f"{words[n].name}. {words[n].statement.split('[')[0]}" for n in order),
            liked=tuple(draft.claims[n].kind == "interest" for n in order),
            order=tuple(order),
            grounds=Grounds(
                polarity="positive",
                items=(),
                counter_events=0,
                shown=0,
                base_rates=self.catalogue.base_rates,
                vocabulary=self.vocabulary,
                language=self.language,
                user_id=draft.log.user_id,
            ),
        )
