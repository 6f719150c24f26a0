"""Which profiles are to be written anew, why, and what it will cost: before anything is written.

Nobody's log is read but of users whose log has changed, and of these only sums; the events since are read of those
for whom it comes to their drift.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from agent.costs import UNPRICED, Estimate, Prices, estimate
from agent.drift import drifts
from agent.evidence import EvidenceSettings
from agent.keys import Recipe
from store import selection as selections
from store import since
from store.database import Database
from store.selection import Selection
from store.since import Look, Weighing

Reason = Literal["new", "recipe", "corrected", "declared", "evidence", "drift", "age", "items"]
"""Why a profile is written: there is none; prompt, model or settings are others; the user has corrected it, or declared
something else; there is much new evidence; the log has drifted; it is old and something has changed; an item has."""
Left = Literal["unchanged", "little new", "recipe", "items"]
"""Why none is written: nothing has changed; too little has; only the recipe or items have, and the policy waits."""

_DAY = timedelta(days=1)
_WHOLE: frozenset[Reason] = frozenset({"new", "recipe"})


class Policy(BaseModel):
    """When a profile is written anew.

    A user without a profile gets one; who has corrected theirs, or declared something else, gets it anew.

    Attributes:
        new_evidence: When the weight of the events (without sign, scale or decay) has grown by more than this share.
        max_drift: When the drift is more than this (see `agent.drift`); 1 is never.
        drift_events: But not before so many events have come since that show a liking.
        max_age_days: When it is older, and anything that it rests on has changed.
        on_recipe: When prompt, model, or anything else that all profiles are made by has changed.
        on_items: When an item of the log has changed; else that waits for another reason.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    new_evidence: float = Field(default=0.2, ge=0)
    max_drift: float = Field(default=0.5, ge=0, le=1)
    drift_events: int = Field(default=10, ge=1)
    max_age_days: float = Field(default=90.0, gt=0)
    on_recipe: bool = True
    on_items: bool = False


class Verdict(NamedTuple):
    """Why a user's profile is written, or why it is left as it is: one of the two is None."""

    user_id: str
    reason: Reason | None
    left: Left | None = None


class Plan(BaseModel):
    """What a run would do.

    Attributes:
        selected: Users that were looked at.
        write: How many profiles are to be written, by reason; the first that holds counts.
        leave: How many are left as they are, by reason.
        missing: Listed users who are not in the store, have no log or do not consent.
        estimate: What it will cost.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    selected: int
    write: dict[Reason, int]
    leave: dict[Left, int]
    missing: int
    estimate: Estimate


def plan(
    database: Database, selection: Selection, policy: Policy, recipe: Recipe, now: datetime, prices: Prices = UNPRICED
) -> Plan:
    """Say whose profiles a run would write, why, and what it would cost.

    Memory does not grow with the number of users.

    Args:
        database: To read from.
        selection: Whom to look at.
        policy: When a profile is written anew.
        recipe: How profiles would be made.
        now: The time.
        prices: Of the tokens.
    """
    write: Counter[Reason] = Counter()
    leave: Counter[Left] = Counter()
    for page in verdicts(database, selection, policy, recipe, now):
        write.update(v.reason for v in page if v.reason is not None)
        leave.update(v.left for v in page if v.left is not None)
    absent = 0
    if selection.users is not None:
        with database.session() as session:
            absent, _ = selections.missing(session, selection.users)
    whole = sum(count for reason, count in write.items() if reason in _WHOLE)
    accounts = since.accounts(database, recipe.writer, recipe.model)
    return Plan(
        selected=write.total() + leave.total(),
        write=dict(write.most_common()),
        leave=dict(leave.most_common()),
        missing=absent,
        estimate=estimate(whole, write.total() - whole, accounts, recipe.writer, prices),
    )


def chosen(
    database: Database, selection: Selection, policy: Policy, recipe: Recipe, now: datetime
) -> Iterator[list[str]]:
    """Yield the ids of the users whose profiles are to be written, in order, page by page."""
    for page in verdicts(database, selection, policy, recipe, now):
        if ids := [verdict.user_id for verdict in page if verdict.reason is not None]:
            yield ids


def verdicts(
    database: Database, selection: Selection, policy: Policy, recipe: Recipe, now: datetime
) -> Iterator[list[Verdict]]:
    """Yield what is to become of each selected user, in order, page by page; see `plan`.

    Of a selection of who has drifted, the others are left out, whatever else there is to say about them.
    """
    weighing = weighing_of(recipe.evidence)
    for page in since.looks(database, selection, recipe.hash):
        if selection.drifted:
            last = {look.user_id: look.last for look in page if look.last is not None}
            far = _far(database, last, policy, recipe.embedder, weighing)
            yield [Verdict(look.user_id, "drift") for look in page if look.user_id in far]
        else:
            yield _judged(database, page, policy, recipe.embedder, weighing, now)


def weighing_of(settings: EvidenceSettings) -> Weighing:
    """Return what events weigh, in the terms of SQL."""
    types = settings.types
    return Weighing(
        list(types), [t.weight for t in types.values()], [t.value for t in types.values()],
        settings.neutral, settings.best - settings.neutral,
    )  # fmt: skip


def _judged(
    database: Database, page: Sequence[Look], policy: Policy, embedder: str, weighing: Weighing, now: datetime
) -> list[Verdict]:
    sure = {look.user_id: _at_once(look, policy) for look in page}
    open_ = {look.user_id: look for look in page if sure[look.user_id] is None and look.log}
    much, far = _evidence_and_drift(database, open_, policy, embedder, weighing)

    def judge(look: Look) -> Verdict:
        reason = sure[look.user_id]
        if reason is None and look.user_id in much:
            reason = "evidence"
        if reason is None and look.user_id in far:
            reason = "drift"
        touched = look.log or look.items or look.other_recipe
        aged = look.written_at is not None and (now - look.written_at) / _DAY > policy.max_age_days
        if reason is None and touched and aged:
            reason = "age"
        if reason is None and look.items and policy.on_items:
            reason = "items"
        return Verdict(look.user_id, reason, None if reason else _left(look))

    return [judge(look) for look in page]


def _at_once(look: Look, policy: Policy) -> Reason | None:
    """Return the reason that needs no look at events."""
    if look.profile_id is None:
        return "new"
    if look.other_recipe and policy.on_recipe:
        return "recipe"
    if look.corrected:
        return "corrected"
    return "declared" if look.declared else None


def _left(look: Look) -> Left:
    if look.log:
        return "little new"
    if look.other_recipe:
        return "recipe"
    return "items" if look.items else "unchanged"


def _evidence_and_drift(
    database: Database, looks: Mapping[str, Look], policy: Policy, embedder: str, weighing: Weighing
) -> tuple[set[str], set[str]]:
    """Return the users with much new evidence, and of the others those who have drifted."""
    last = {user_id: look.last for user_id, look in looks.items() if look.last is not None}
    now = since.weighed(database, last, weighing) if last else {}
    much = {user_id for user_id in now if _grown(looks[user_id].weight, now[user_id].weight) > policy.new_evidence}
    rest = {user_id: at for user_id, at in last.items() if user_id in now and user_id not in much}
    ripe = {user_id: at for user_id, at in rest.items() if now[user_id].liked_since >= policy.drift_events}
    return much, _drifted(database, ripe, policy, embedder, weighing)


def _grown(then: float | None, now: float) -> float:
    """Return by which share the weight has grown; without bound where there was none, or it is not known."""
    if not then:
        return float("inf") if now > 0 else 0.0
    return (now - then) / then


def _far(
    database: Database, last: Mapping[str, datetime], policy: Policy, embedder: str, weighing: Weighing
) -> set[str]:
    now = since.weighed(database, last, weighing) if last else {}
    ripe = {user_id: last[user_id] for user_id in now if now[user_id].liked_since >= policy.drift_events}
    return _drifted(database, ripe, policy, embedder, weighing)


def _drifted(
    database: Database, last: Mapping[str, datetime], policy: Policy, embedder: str, weighing: Weighing
) -> set[str]:
    if policy.max_drift >= 1:
        return set()
    return {user_id for user_id, far in drifts(database, last, embedder, weighing).items() if far > policy.max_drift}
