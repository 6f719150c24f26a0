"""Write profiles to be judged, by the code that serves, from what is given and nothing else; nothing is stored."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple

import numpy as np

from agent.continuing import Before
from agent.contract import Claim, Language, Profile
from agent.drafting import Draft, Drafter
from agent.embedder import Embedder
from agent.errors import ChatError, ProfileError
from agent.loading import Catalogue
from agent.themes import UserLog
from agent.unit import Clock, ModelInfo, Unit
from agent.verify import Vocabulary
from agent.words import without_listing
from agent.writer import Account, LlmWriter
from eval.findings import Better
from eval.interactions import Floats, Ints
from eval.world import Claims, World
from store.corrections import InForce

Llm = tuple[LlmWriter, ModelInfo]
AT_ONCE = 8
_KEY = "evaluation"


class Metric(NamedTuple):
    """What a figure says, in a sentence, which way is better, and its unit."""

    says: str
    better: Better = "higher"
    unit: str = ""


class Drafted(NamedTuple):
    """A profile before the writer: the user's code, the draft, and the seconds that it took."""

    code: int
    draft: Draft
    seconds: float


@dataclass(frozen=True)
class Written:
    """A profile to be judged.

    Attributes:
        code: Of the user.
        draft: That it was made of.
        account: The calls of the model that it took.
        seconds: From the log to the profile; those of several profiles overlap where a model writes.
    """

    code: int
    draft: Draft
    profile: Profile
    account: Account = field(default_factory=Account)
    seconds: float = 0.0

    @property
    def log(self) -> UserLog:
        """What it was made from."""
        return self.draft.log

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The likes and dislikes; intents are for the moment."""
        return (*self.profile.interests, *self.profile.dislikes)

    def titles(self, claim: Claim) -> tuple[str, ...]:
        """Return the titles of the examples that code adds to a claim's statement."""
        return next((c.titles for c in self.draft.claims if c.claim_id == claim.claim_id), ())

    def statement(self, claim: Claim) -> str:
        """Return a claim's statement without the titles that code adds to it."""
        return without_listing(claim.statement, self.titles(claim))

    def words(self, claim: Claim) -> str:
        """Return what a claim says by itself: its name, and its statement without titles."""
        return f"{claim.name}. {self.statement(claim)}"

    @property
    def text(self) -> str:
        """All that a reader sees: the summary, and each claim's name and statement."""
        return "\n".join([*(s.text for s in self.profile.summary), *(f"{c.name}. {c.statement}" for c in self.claims)])


@dataclass(frozen=True)
class Writing:
    """Writes profiles of a world's users.

    Attributes:
        world: Of which everything may be known: that of the past.
        embedder: Of claims.
        language: To write in.
        llm: Who writes; None for the template.
        at_once: Users whose words are being written at the same time.
        clock: Tells the time.
    """

    world: World
    embedder: Embedder
    language: Language = "en"
    llm: Llm | None = None
    at_once: int = AT_ONCE
    clock: Clock = lambda: datetime.now(UTC)
    failed: dict[int, str] = field(default_factory=dict)
    """Why a user has no profile, by code."""

    def drafts(self, codes: Sequence[int] | Ints) -> list[Drafted]:
        """Draft the profiles of these users; those without any event are left out."""
        drafter = Drafter(self.world.settings, self._vocabulary, self.language)
        found = []
        for code in map(int, codes):
            started = time.perf_counter()
            if len((log := self.world.logs[code]).event_ids):
                draft = drafter.draft(log, self.world.item_set)
                found.append(Drafted(code, draft, time.perf_counter() - started))
        return found

    def write(self, drafted: Sequence[Drafted], tell: Callable[[int], None] | None = None) -> list[Written]:
        """Put drafts into words; who has no profile in the end is in `failed`.

        Args:
            drafted: From `drafts`.
            tell: Called with the number of profiles done, after each.

        Raises:
            ChatError: The model is out of reach.
        """
        return asyncio.run(self._write(drafted, tell or (lambda _: None)))

    @property
    def unit(self) -> Unit:
        """The production code that writes."""
        rates, mean = self.world.item_set.base_rates, self.world.texts.mean(axis=0)
        return Unit(
            self.embedder, Catalogue(rates, mean), self._vocabulary, self.world.settings, self.language, self.clock,
            self.llm,
        )  # fmt: skip

    def go_on(self, code: int, log: UserLog, before: Profile | None = None) -> Written:
        """Write one profile of a log, going on from the one before it."""
        started = time.perf_counter()
        since = Before(before) if before is not None else None
        drafter = Drafter(self.world.settings, self._vocabulary, self.language)
        draft = drafter.draft(log, self.world.item_set, before=since)
        account = Account()
        profile = asyncio.run(self.unit.profile(draft, InForce(0), _KEY, account, since))
        return Written(code, draft, profile, account, time.perf_counter() - started)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary.of(self.world.item_set.base_rates)

    async def _write(self, drafted: Sequence[Drafted], tell: Callable[[int], None]) -> list[Written]:
        unit, free = self.unit, asyncio.Semaphore(self.at_once)
        done: list[Written | None] = []

        async def one(given: Drafted) -> Written | None:
            async with free:
                written = await self._one(unit, given)
            done.append(written)
            tell(len(done))
            return written

        tasks = [asyncio.ensure_future(one(given)) for given in drafted]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self.llm is not None:
                await self.llm[0].aclose()
        return [written for written in found if written is not None]

    async def _one(self, unit: Unit, given: Drafted) -> Written | None:
        account, started = Account(), time.perf_counter()
        try:
            profile = await unit.profile(given.draft, InForce(0), _KEY, account)
        except ProfileError as error:
            self.failed[given.code] = str(error)
            return None
        except ChatError as error:
            if error.outcome in {"unreachable", "timeout", "refused"}:
                raise
            self.failed[given.code] = str(error)
            return None
        seconds = given.seconds + time.perf_counter() - started
        return Written(given.code, given.draft, profile, account, seconds)


def embedded(claim: Claim) -> str:
    """Return the text of a claim that production embeds: a template's statement adds nothing to its name."""
    return claim.name if claim.wording == "template" else f"{claim.name}. {claim.statement}"


def claim_vectors(written: Sequence[Written], embedder: Embedder) -> Claims:
    """Embed the likes and dislikes of all profiles in one batch."""
    claims = [(w.code, claim) for w in written for claim in w.claims]
    return Claims(
        np.array([code for code, _ in claims], dtype=np.int64),
        np.array([claim.strength for _, claim in claims], dtype=np.float64),
        embedder.embed([embedded(claim) for _, claim in claims]),
    )


def profile_vectors(claims: Claims, mean: Floats, users: int) -> Floats:
    """Return each user's claims as one direction, `(users, d)`: the sum of `strength * (e(claim) - mean)`, of length 1.

    It is zero for a user without claims.

    Args:
        claims: Of all users.
        mean: `(d,)`, of the items' embeddings.
        users: How many codes there are.
    """
    found = np.zeros((users, claims.vectors.shape[1]))
    np.add.at(found, claims.owner, claims.strengths[:, None] * (claims.vectors - mean))
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.where(lengths > 0, lengths, 1.0))
