"""Have a language model write about users without storing a profile: to see how well it does, and to teach by it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from agent.drafting import Draft
from agent.errors import ChatError, ProfileError
from agent.lessons import Lesson, Rehearsal
from agent.loading import load_users
from agent.pipeline import ahead, in_thread, side_by_side
from agent.profiling import Profiler
from agent.unit import ModelInfo, Unit
from agent.writer import Account, LlmWriter, Passed
from recommend import narrating
from recommend.errors import RecommendError
from recommend.service import Recommender, Request
from store.corrections import InForce
from store.database import Database
from store.privacy import Hasher

_CHUNK = 64
_NO_KEY = "0" * 64  # nothing is stored under it
_REASONS = 1  # items for each user of which it is said why
_LIST, _SHOWN = 10, 8  # as of `limner why`


@dataclass(frozen=True)
class Rehearsals:
    """A model at work on the very tasks of the writer; nothing of it goes into the store.

    Attributes:
        database: Where the logs are.
        made: Writes with the model; every refused wording counts, none ends a profile.
        domain: What the items are.
        hasher: Of users' ids.
        recommender: Whose reasons are put into words; None: none are.
    """

    database: Database
    made: Profiler
    domain: str
    hasher: Hasher
    recommender: Recommender | None = None

    async def of(self, users: Sequence[str]) -> AsyncGenerator[Rehearsal, None]:
        """Write about users, in the order in which they are done; those without anything to say are left out.

        Raises:
            ChatError: The model is out of reach.
        """
        async with ahead(self._drafts(users), self.made.users_at_once) as drafts:
            async for one in side_by_side(drafts, self.made.users_at_once, self._rehearse):
                yield one

    async def aclose(self) -> None:
        """Close the model's connections."""
        await self._llm[0].aclose()

    @cached_property
    def _unit(self) -> Unit:
        return replace(self.made.unit, max_fallback=1.0)

    @cached_property
    def _llm(self) -> tuple[LlmWriter, ModelInfo]:
        if self.made.llm is None:
            raise ValueError("there is no model to rehearse")
        return self.made.llm

    async def _drafts(self, users: Sequence[str]) -> AsyncGenerator[Draft, None]:
        for start in range(0, len(users), _CHUNK):
            loaded = await in_thread(
                load_users, self.database, users[start : start + _CHUNK], self.made.catalogue, self.made.embedder
            )
            for n in range(len(loaded.logs)):
                try:
                    yield await in_thread(self._unit.draft, loaded, n)
                except ProfileError:  # an empty log
                    continue

    async def _rehearse(self, draft: Draft) -> Rehearsal:
        account, user_id = Account(), draft.log.user_id
        profile = await self._unit.profile(draft, InForce(0), _NO_KEY, account)
        quality = profile.quality
        reasons = await self._reasons(user_id)
        told = [passed for passed in reasons if passed is not None]
        return Rehearsal(
            domain=self.domain,
            user=self.hasher.subject(user_id),
            model=self._llm[1].name,
            weights_hash=self._llm[1].weights_hash,
            asked=quality.first_try + quality.repaired + quality.fallback + len(reasons),
            first_try=quality.first_try + len(told),
            repaired=quality.repaired,
            refused=tuple(f"{call.role}: {call.detail}" for call in account.calls if call.detail),
            lessons=tuple(
                Lesson(role=one.role, variables=dict(one.variables), answer=one.answer)
                for one in (*account.passed, *told)
            ),
        )

    async def _reasons(self, user_id: str) -> list[Passed | None]:
        """Say why the best items are recommended; None for what does not hold."""
        if self.recommender is None:
            return []
        writer, language = self._llm[0], self.made.language
        said: list[Passed | None] = []
        try:
            top = await in_thread(self.recommender.top, user_id, _REASONS)
        except RecommendError:
            return []
        for item in top.items:
            found = await in_thread(self.recommender.why, user_id, item.item_id, Request(k=_LIST), _SHOWN)
            text = await narrating.narrate(writer.chat, found, language, examples=writer.settings.examples)
            answer = narrating.WhyWords(text=text).model_dump_json() if text else None
            said.append(Passed("why", narrating.variables(found, language), answer) if answer else None)
        return said


def rehearse(rehearsals: Rehearsals, users: Sequence[str], done: Callable[[Rehearsal], None]) -> str | None:
    """Write about users, and pass on what comes of each.

    Returns:
        Why it ended early: the model is out of reach; None if it did not.
    """

    async def go() -> None:
        try:
            async for one in rehearsals.of(users):
                done(one)
        finally:
            await rehearsals.aclose()

    try:
        asyncio.run(go())
    except ChatError as error:
        return str(error)
    return None
