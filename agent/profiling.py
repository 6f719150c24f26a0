"""Write profiles of many users: read logs, draft, put into words, store; a failed one leaves the old as it is.

What a user has corrected stays corrected: see `agent.corrections`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlmodel import Session

from agent import archive
from agent.continuing import Before
from agent.contract import Language, Profile
from agent.drafting import Draft
from agent.embedder import Embedder
from agent.errors import ChatError, ProfileError
from agent.evidence import EvidenceSettings, total_weight
from agent.keys import Recipe, unit_key
from agent.loading import Catalogue, Loaded, index_claims, load_before, load_users
from agent.pipeline import ahead, in_thread, side_by_side
from agent.unit import Clock, ModelInfo, Unit
from agent.verify import Vocabulary
from agent.writer import Account, LlmWriter
from store import corrections, profiles, units
from store.corrections import InForce
from store.database import Database
from store.errors import ConflictError, StoreError
from store.tables import LlmCallRow
from store.units import Inputs, Standing

_CHUNK = 64
_LOOK = 5_000
_INDEXED = 64
_ROUNDS = 3


class _Chunk(NamedTuple):
    """Some users: their logs, and beside each what their profile will be made of; their corrections by user id."""

    loaded: Loaded
    standing: list[Standing]
    in_force: dict[str, InForce]


class _Due(NamedTuple):
    """A user whose profile is to be written: the draft of it, or why there is none."""

    inputs: Inputs
    in_force: InForce
    weight: float
    before: Before | None
    draft: Draft | ProfileError | StoreError


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
        wanted: Asked before a user is begun; one who is not wanted any more is left out of the report.
        around: Given the user, what is entered while their profile is written.
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
    wanted: Callable[[str], bool] | None = None
    around: Callable[[str], AbstractContextManager[object]] = nullcontext

    def __post_init__(self) -> None:
        self._vocabulary = Vocabulary.of(self.catalogue.base_rates)

    @property
    def unit(self) -> Unit:
        """What makes the profile of one user after another."""
        return Unit(
            self.embedder,
            self.catalogue,
            self._vocabulary,
            self.evidence,
            self.language,
            self.clock,
            self.llm,
            self.max_fallback,
        )

    @property
    def recipe(self) -> Recipe:
        """How the profiles are made."""
        asked, model = (self.llm[0].settings, self.llm[1]) if self.llm else (None, None)
        return Recipe.of(self.evidence, self.embedder.name, self.language, asked, model, self.catalogue.theme_factors)

    async def write(
        self, user_ids: Sequence[str], progress: Callable[[int], None] | None = None, report: Report | None = None
    ) -> Report:
        """Write the profiles of these users; calls `progress` with 1 for each user that is done.

        A user's failure does not touch the others; an unreachable model ends the run, since all would fail alike.
        Whoever wants to see how it goes gives the report, which grows with each user.
        """
        report, started = report or Report(), time.perf_counter()

        async def work(due: _Due) -> str | None:
            user_id = due.inputs.user_id
            if report.stopped_by or not self._is_wanted(user_id):
                return None
            with self.around(user_id):
                await self._user(due, report)
            if progress:
                progress(1)
            return user_id

        # While the model works on these users, the next are read and drafted, and the claims of the last are indexed.
        try:
            async with (
                ahead(self._chunks(user_ids, report, progress), 1) as chunks,
                ahead(self._drafted(chunks, report), self.users_at_once) as drafted,
                ahead(side_by_side(drafted, self.users_at_once, work), _CHUNK) as written,
            ):
                done: list[str] = []
                async for user_id in written:
                    done += [user_id] if user_id is not None else []
                    if len(done) == _INDEXED:
                        await in_thread(index_claims, self.database, self.embedder, done)
                        done = []
                await in_thread(index_claims, self.database, self.embedder, done)
        finally:
            report.seconds = time.perf_counter() - started
        return report

    async def _chunks(
        self, user_ids: Sequence[str], report: Report, progress: Callable[[int], None] | None
    ) -> AsyncGenerator[_Chunk, None]:
        """Read the logs of those who are due, some at a time; those in whom nothing has changed are done with that."""
        for start in range(0, len(user_ids), _LOOK):
            due, same = await in_thread(self._standing, user_ids[start : start + _LOOK])
            unchanged = [user_id for user_id in same if self._is_wanted(user_id)]
            report.unchanged += unchanged
            if progress and unchanged:
                progress(len(unchanged))
            for first in range(0, len(due), _CHUNK):
                if report.stopped_by:
                    return
                yield await in_thread(self._chunk, due[first : first + _CHUNK])

    def _standing(self, ids: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return those who are due, and those in whom nothing has changed; no log is read for that."""
        with self.database.session() as session:
            found = units.standings(session, ids)
        known, recipe = [user_id for user_id in ids if user_id in found], self.recipe
        same = {i for i in known if not self.force and found[i].key == unit_key(found[i].inputs, recipe)}
        unchanged = [user_id for user_id in known if user_id in same]
        index_claims(self.database, self.embedder, unchanged)  # what a run that was killed has left out
        return [user_id for user_id in known if user_id not in same], unchanged

    def _chunk(self, ids: Sequence[str]) -> _Chunk:
        with self.database.session() as session:  # before the logs: a key must not be of anything newer than these
            found = units.standings(session, ids)
        loaded = load_users(self.database, [i for i in ids if i in found], self.catalogue, self.embedder)
        return _Chunk(loaded, [found[log.user.user_id] for log, _ in loaded.logs], self._in_force(ids))

    async def _drafted(self, chunks: AsyncIterator[_Chunk], report: Report) -> AsyncGenerator[_Due, None]:
        """Draft the profiles of those who are due."""
        async for chunk in chunks:
            for n in range(len(chunk.standing)):
                if report.stopped_by:
                    return
                yield await in_thread(self._due, chunk, n)

    def _due(self, chunk: _Chunk, n: int) -> _Due:
        (inputs, has_profile, _), log = chunk.standing[n], chunk.loaded.logs[n][1]
        in_force = chunk.in_force.get(inputs.user_id, InForce(0))  # who is gone by now is refused when it is stored
        weight = total_weight(log.types, log.values, self.evidence)
        try:
            before = load_before(self.database, inputs.user_id, afresh=self.force) if has_profile else None
            draft = self.unit.draft(chunk.loaded, n, before)
        except (ProfileError, StoreError) as error:
            return _Due(inputs, in_force, weight, None, error)
        return _Due(inputs, in_force, weight, before, draft)

    def _is_wanted(self, user_id: str) -> bool:
        return self.wanted is None or self.wanted(user_id)

    async def _user(self, due: _Due, report: Report) -> None:
        user_id, account = due.inputs.user_id, Account()
        attempt: int | None = None
        starting = asyncio.ensure_future(in_thread(self._start, user_id))
        try:
            attempt = await asyncio.shield(starting)
            if attempt is None:
                report.failed[user_id] = "The user is gone, or has withdrawn consent."
                return
            report.add(await self._written_and_stored(due, attempt, account))
        except (ChatError, ProfileError, StoreError) as error:
            if isinstance(error, ChatError) and error.outcome in {"unreachable", "timeout", "refused"}:
                report.stopped_by = report.stopped_by or str(error)  # out of reach for one is out of reach for all
            report.failed[user_id] = str(error)
            if attempt is not None:
                await in_thread(self._end, attempt, "failed", str(error), account)
        except asyncio.CancelledError:
            if (attempt := await starting) is not None:
                self._end(attempt, "interrupted", "The run was stopped.", account)
            raise

    def _start(self, user_id: str) -> int | None:
        with self.database.session() as session:
            return profiles.start_attempt(session, user_id, self.unit.writer, self.clock())

    def _end(self, attempt: int, outcome: str, reason: str, account: Account) -> None:
        with self.database.session() as session:
            if profiles.end_attempt(session, attempt, self.clock(), outcome, reason=reason):
                profiles.add_calls(session, self._calls(attempt, account))

    async def _written_and_stored(self, due: _Due, attempt: int, account: Account) -> Profile:
        """Write a profile and store it; again, if the user makes a correction meanwhile."""
        inputs, in_force, weight, before, draft = due
        if isinstance(draft, Exception):
            raise draft
        for _ in range(_ROUNDS):
            inputs = inputs._replace(corrections_revision=in_force.revision)
            profile = await self.unit.profile(draft, in_force, unit_key(inputs, self.recipe), account, before)
            try:
                version = await in_thread(self._store, profile, inputs, weight, attempt, account)
            except ConflictError:
                revision = in_force.revision
                in_force = (await in_thread(self._in_force, [inputs.user_id])).get(inputs.user_id, in_force)
                if in_force.revision == revision:
                    raise
            else:
                return profile.model_copy(update={"version": version})
        raise ProfileError(
            f"User {inputs.user_id} has made corrections {_ROUNDS} times while the profile was being written. "
            "Write it anew."
        )

    def _in_force(self, ids: Sequence[str]) -> dict[str, InForce]:
        with self.database.session() as session:
            return corrections.in_force(session, ids)

    def _store(self, profile: Profile, inputs: Inputs, weight: float, attempt: int, account: Account) -> int:
        """Store a profile and its accounts in one unit of work."""
        rows = archive.to_rows(profile)
        units.stamp(rows.row, profile.provenance.key, inputs, self.recipe.hash, weight)
        with self.database.session() as session:
            version = profiles.save(
                session,
                rows,
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
