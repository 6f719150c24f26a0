"""Write profiles of many users: read logs, draft, put into words, store; a failed one leaves the old as it is.

What a user has corrected stays corrected: see `agent.corrections`.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson
from sqlmodel import Session

from agent import archive
from agent.contract import Language, Profile
from agent.embedder import Embedder
from agent.errors import ChatError, ProfileError
from agent.evidence import EvidenceSettings
from agent.loading import Catalogue, Loaded, index_claims, load_users
from agent.unit import Clock, ModelInfo, Unit
from agent.verify import VERSION, Vocabulary
from agent.writer import Account, LlmWriter
from store import corrections, profiles
from store.corrections import InForce
from store.database import Database
from store.errors import ConflictError, StoreError
from store.tables import LlmCallRow

CODE = "5"
"""Raised with every change of what a profile is made of (evidence, themes, template); it goes into the key."""

_CHUNK = 64
_ROUNDS = 3


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

    @property
    def _unit(self) -> Unit:
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
            attempt = profiles.start_attempt(session, user_id, self._unit.writer, self.clock())
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
        unit, user_id = self._unit, loaded.logs[n][0].user.user_id
        draft = unit.draft(loaded, n)
        for _ in range(_ROUNDS):
            key = self._key(loaded, n, in_force.revision)
            profile = await unit.profile(draft, in_force, key, account)
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
            "writer": self._unit.writer,
            "model": [llm[1].name, llm[1].weights_hash] if llm else None,
            "prompts": llm[0].prompts if llm else None,
            "sampling": self._unit.sampling,
        }
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()
