"""Write profiles of many users: read logs, draft, put into words, store; a failed one leaves the old as it is.

What a user has corrected stays corrected: see `agent.corrections`.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import orjson
from sqlmodel import Session

from agent import archive
from agent.assembly import build_profile, cost
from agent.contract import Language, Profile, Provenance, Writer
from agent.corrections import Kept, keep
from agent.drafting import Draft, Drafter
from agent.embedder import Embedder
from agent.errors import ChatError, ProfileError
from agent.evidence import EvidenceSettings
from agent.loading import Catalogue, Loaded, index_claims, load_users
from agent.template import say_trends, sum_up
from agent.themes import UserLog
from agent.verify import VERSION, Grounds, Vocabulary
from agent.words import Worded
from agent.writer import Account, LlmWriter, SummaryLine, SummaryTask, together
from store import corrections, profiles
from store.corrections import InForce
from store.database import Database
from store.errors import ConflictError, StoreError
from store.logs import Log
from store.tables import LlmCallRow

CODE = "5"
"""Raised with every change of what a profile is made of (evidence, themes, template); it goes into the key."""

_CHUNK = 64
_ROUNDS = 3


class Clock(Protocol):
    """Tells the time, in UTC."""

    def __call__(self) -> datetime: ...  # noqa: D102


@dataclass(frozen=True)
class ModelInfo:
    """Which weights write: the model's name and, if known, the hash of its weights."""

    name: str
    weights_hash: str | None = None


@dataclass
class Report:
    """What a run did.

    Attributes:
        written: Ids of users with a new version.
        unchanged: Ids of users whose profile has the same key already.
        failed: Reasons by user id; their old profiles stay.
        stopped_by: Why the run ended early, with users left over: the model is out of reach.
    """

    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped_by: str | None = None
    claims: int = 0
    first_try: int = 0
    repaired: int = 0
    fallback: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0

    def add(self, profile: Profile) -> None:
        """Count a profile."""
        self.written.append(profile.user_id)
        self.claims += len(profile.claims)
        self.first_try += profile.quality.first_try
        self.repaired += profile.quality.repaired
        self.fallback += profile.quality.fallback
        self.tokens_in += profile.provenance.tokens_in
        self.tokens_out += profile.provenance.tokens_out


@dataclass
class Profiler:
    """Writes profiles.

    Attributes:
        database: Where logs are and profiles go.
        embedder: Of items and claims.
        catalogue: From `prepare_catalogue`.
        evidence: Settings of the arithmetic.
        language: To write in.
        clock: Tells the time.
        llm: The writer, and what it writes with; None for the template.
        users_at_once: Users whose words are being written at the same time.
        max_fallback: Share of refused wordings above which a profile of the model counts as failed.
        force: Write also where nothing has changed.
        fence: Called with the user and the version in the unit of work that stores it; a `ConflictError` that it
            raises keeps the version out.
    """

    database: Database
    embedder: Embedder
    catalogue: Catalogue
    evidence: EvidenceSettings
    language: Language
    clock: Clock
    llm: tuple[LlmWriter, ModelInfo] | None = None
    users_at_once: int = 6
    max_fallback: float = 0.5
    force: bool = False
    fence: Callable[[Session, str, int], None] | None = None

    def __post_init__(self) -> None:
        self._vocabulary = Vocabulary.of(self.catalogue.base_rates)
        self._drafter = Drafter(self.evidence, self._vocabulary, self.language)

    @property
    def _writer(self) -> Writer:
        return "template" if self.llm is None else "llm"

    @property
    def _sampling(self) -> dict[str, float]:
        return {"temperature": 0.0, **self.llm[0].settings.model_dump()} if self.llm else {}

    async def write(self, user_ids: Sequence[str], progress: Callable[[int], None] | None = None) -> Report:
        """Write the profiles of these users; calls `progress` with 1 for each user that is done.

        A user's failure does not touch the others; an unreachable model ends the run, since all would fail alike.
        """
        report, started = Report(), time.perf_counter()
        slots = asyncio.Semaphore(self.users_at_once)
        for start in range(0, len(user_ids), _CHUNK):
            ids = user_ids[start : start + _CHUNK]
            loaded = load_users(self.database, ids, self.catalogue, self.embedder)
            await self._chunk(loaded, report, slots, progress)
            index_claims(self.database, self.embedder, ids)
            if report.stopped_by:
                break
        report.seconds = time.perf_counter() - started
        return report

    async def _chunk(
        self, loaded: Loaded, report: Report, slots: asyncio.Semaphore, progress: Callable[[int], None] | None
    ) -> None:
        ids = [log.user.user_id for log, _ in loaded.logs]
        with self.database.session() as session:
            active = profiles.active_keys(session, ids)
            in_force = corrections.in_force(session, ids)

        async def one(n: int) -> None:
            user_id = loaded.logs[n][0].user.user_id
            async with slots:
                if report.stopped_by:
                    return
                theirs = in_force.get(user_id, InForce(0))  # a user who is gone by now is refused when it is stored
                if not self.force and active.get(user_id) == self._key(loaded, n, theirs.revision):
                    report.unchanged.append(user_id)
                else:
                    await self._user(loaded, n, theirs, report)
            if progress:
                progress(1)

        await asyncio.gather(*(one(n) for n in range(len(loaded.logs))))

    async def _user(self, loaded: Loaded, n: int, in_force: InForce, report: Report) -> None:
        user_id = loaded.logs[n][0].user.user_id
        account = Account()
        with self.database.session() as session:
            attempt = profiles.start_attempt(session, user_id, self._writer, self.clock())
        if attempt is None:
            report.failed[user_id] = "The user is gone, or has withdrawn consent."
            return
        try:
            report.add(await self._written_and_stored(loaded, n, in_force, attempt, account))
        except (ChatError, ProfileError, StoreError) as error:
            if isinstance(error, ChatError) and error.outcome in {"unreachable", "timeout", "refused"}:
                report.stopped_by = str(error)  # out of reach for one is out of reach for all
            report.failed[user_id] = str(error)
            with self.database.session() as session:
                if profiles.end_attempt(session, attempt, self.clock(), "failed", reason=str(error)):
                    profiles.add_calls(session, self._calls(attempt, account))

    async def _written_and_stored(
        self, loaded: Loaded, n: int, in_force: InForce, attempt: int, account: Account
    ) -> Profile:
        """Write a profile and store it; again, if the user makes a correction meanwhile."""
        log, user_log = loaded.logs[n]
        user_id = log.user.user_id
        draft = self._draft(log, user_log, loaded)
        for _ in range(_ROUNDS):
            key = self._key(loaded, n, in_force.revision)
            profile = await self._profile(draft, in_force, key, account)
            try:
                version = self._store(profile, attempt, account)
            except ConflictError:
                before = in_force.revision
                with self.database.session() as session:
                    in_force = corrections.in_force(session, [user_id]).get(user_id, in_force)
                if in_force.revision == before:
                    raise
            else:
                return profile.model_copy(update={"version": version})
        raise ProfileError(
            f"User {user_id} has made corrections {_ROUNDS} times while the profile was being written. Write it anew."
        )

    def _draft(self, log: Log, user_log: UserLog, loaded: Loaded) -> Draft:
        if not log.events:
            raise ProfileError(f"User {log.user.user_id} has no events: there is nothing to write a profile from.")
        return self._drafter.draft(user_log, loaded.items, log.user.tz)

    async def _profile(self, draft: Draft, in_force: InForce, key: str, account: Account) -> Profile:
        started = time.perf_counter()
        kept = keep(in_force, draft, self.embedder.embed)
        if self.llm is None:
            words = kept.named([task.fallback for task in kept.tasks])
            lines = self._template_summary(kept.draft, words)
        else:
            answers, summary = await self._written(self.llm[0], kept, account)
            if (fewer := kept.rejected_again(answers)) is not None:
                return await self._profile(fewer, in_force, key, account)
            words = kept.named(answers)
            lines = self._summary(self.llm[0], kept, words, summary)
        lines += self._trends(kept.draft, words)
        tokens_in, tokens_out, _ = cost(account.calls)
        model = self.llm[1] if self.llm else None
        provenance = Provenance(
            key=key,
            writer=self._writer,
            model=model.name if model else None,
            weights_hash=model.weights_hash if model else None,
            prompts=self.llm[0].prompts if self.llm else {},
            sampling=self._sampling,
            embedder=self.embedder.name,
            evidence_settings=self.evidence.model_dump(mode="json"),
            corrections_revision=in_force.revision,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            seconds=round(time.perf_counter() - started, 3),
            created_at=self.clock(),
        )
        return build_profile(kept.draft, words, lines, provenance, kept.own)

    async def _written(
        self, writer: LlmWriter, kept: Kept, account: Account
    ) -> tuple[list[Worded], list[SummaryLine] | None]:
        """Word claims and summary side by side: the summary is made of the claims' traits, so neither waits.

        Returns:
            The words of the claims that the user has not fixed, and the summary; None where the model's does not hold.
        """
        summed = self._summary_task(kept)
        words: list[Worded] = []
        summary: list[SummaryLine] | None = []

        async def claims() -> None:
            words.extend(await writer.claims(kept.tasks, account))

        async def sum_up_claims() -> None:
            nonlocal summary
            summary = await writer.summary(summed, account)

        await together([claims(), sum_up_claims()] if summed.order else [claims()])
        self._refuse_if_mostly_fallback(words, account)
        return words, summary

    def _summary(
        self, writer: LlmWriter, kept: Kept, words: Sequence[Worded], summary: list[SummaryLine] | None
    ) -> list[SummaryLine]:
        """Complete the model's summary by code: it is not told of words of the user's own."""
        if summary is None:
            return self._template_summary(kept.draft, words, tries=writer.settings.max_repairs + 1)
        return summary + (self._template_summary(kept.draft, words, kept.reworded) if kept.reworded else [])

    def _refuse_if_mostly_fallback(self, words: Sequence[Worded], account: Account) -> None:
        asked = [w for w in words if w.tries]  # what has no trait goes to the template without a question
        refused = sum(w.wording == "template" for w in asked)
        if refused > self.max_fallback * len(asked):
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
        order = [*liked[:4], *disliked[:2]]
        lines = [f'[{place}] "{words[n].name}"' for place, n in enumerate(order, 1)]
        if liked:
            lines[0] += " (strongest)"
        likes, dislikes = lines[: len(liked[:4])], lines[len(liked[:4]) :]
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
                vocabulary=self._vocabulary,
                language=self.language,
                user_id=draft.log.user_id,
            ),
        )

    def _store(self, profile: Profile, attempt: int, account: Account) -> int:
        """Store a profile and its accounts in one unit of work."""
        with self.database.session() as session:
            version = profiles.save(
                session,
                archive.to_rows(profile),
                log_revision=profile.log.revision,
                corrections_revision=profile.provenance.corrections_revision,
            )
            if self.fence is not None:
                self.fence(session, profile.user_id, version)
            profiles.add_calls(session, self._calls(attempt, account))
            profiles.end_attempt(session, attempt, self.clock(), "written", version=version)
        return version

    def _calls(self, attempt: int, account: Account) -> list[LlmCallRow]:
        model = self.llm[1].name if self.llm else ""
        return [
            LlmCallRow(
                attempt_id=attempt, role=c.role, prompt=c.prompt, model=model, tokens_in=c.usage.tokens_in,
                tokens_out=c.usage.tokens_out, seconds=c.usage.seconds, outcome=c.outcome, detail=c.detail,
                created_at=self.clock(),
            )
            for c in account.calls
        ]  # fmt: skip

    def _key(self, loaded: Loaded, n: int, corrections_revision: int) -> str:
        """Hash everything that a user's profile depends on."""
        log, user_log = loaded.logs[n]
        llm = self.llm
        parts = {
            "code": CODE,
            "verifier": VERSION,
            "user": log.user.model_dump(mode="json"),
            "log": log.revision,
            "events": len(log.events),
            "corrections": corrections_revision,
            "items": sorted({loaded.text_hashes[key] for key in user_log.items if key is not None}),
            "evidence": self.evidence.model_dump(mode="json"),
            "embedder": self.embedder.name,
            "language": self.language,
            "writer": self._writer,
            "model": [llm[1].name, llm[1].weights_hash] if llm else None,
            "prompts": llm[0].prompts if llm else None,
            "sampling": self._sampling,
        }
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()
