"""What profiles will cost, judged by what the latest have cost."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from agent.contract import Writer
from store.since import Written

_ENOUGH = 20
_LLM = "measured: calls and tokens of logs of 50 events, time of a model of 1.5 billion weights on two CPU cores"
_TEMPLATE = "measured: logs of 100 events on one CPU core"


class Prices(NamedTuple):
    """What a million tokens cost, read and written; 0 is not known."""

    tokens_in: float = 0.0
    tokens_out: float = 0.0


UNPRICED = Prices()


class Estimate(BaseModel):
    """What a run will cost.

    Attributes:
        calls: Of the language model.
        seconds: From beginning to end, if it goes as it went before.
        cost: By the prices; None if these are not known.
        rests_on: What the numbers were taken from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    profiles: int
    calls: int
    tokens_in: int
    tokens_out: int
    seconds: float
    cost: float | None
    rests_on: tuple[str, ...]


class _Cost(NamedTuple):
    """Of one profile, in the mean; `seconds` of the whole run."""

    calls: float
    tokens_in: float
    tokens_out: float
    seconds: float


_DEFAULTS: dict[Writer, tuple[_Cost, str]] = {
    "llm": (_Cost(6.8, 5_225, 306, 13.5), _LLM),
    "template": (_Cost(0, 0, 0, 0.06), _TEMPLATE),
}


def estimate(
    whole: int, further: int, accounts: Sequence[Written], writer: Writer, prices: Prices = UNPRICED
) -> Estimate:
    """Estimate what it costs to write profiles, from what the latest have cost.

    A profile that goes on from the one before it costs less than a whole one: the two are told apart where there are
    at least 20 of each.

    Args:
        whole: How many are written from the start.
        further: How many go on from the one before.
        accounts: Of past profiles by the same writer and model.
        writer: Who writes.
        prices: Of the tokens.
    """
    counts = {False: whole, True: further}
    parts, rests_on = [], []
    for again, count in counts.items():
        if count:
            mean, basis = _cost_of(accounts, writer, again=again)
            parts.append((count, mean))
            rests_on.append(f"{'profiles that go on' if again else 'whole profiles'}: {basis}")

    def total(name: str) -> float:
        return sum(count * float(getattr(mean, name)) for count, mean in parts)

    tokens_in, tokens_out = total("tokens_in"), total("tokens_out")
    cost = (tokens_in * prices.tokens_in + tokens_out * prices.tokens_out) / 1e6
    return Estimate(
        profiles=sum(counts.values()),
        calls=round(total("calls")),
        tokens_in=round(tokens_in),
        tokens_out=round(tokens_out),
        seconds=round(total("seconds"), 1),
        cost=round(cost, 4) if any(prices) else None,
        rests_on=tuple(rests_on),
    )


def _cost_of(accounts: Sequence[Written], writer: Writer, *, again: bool) -> tuple[_Cost, str]:
    """Return the mean cost of such a profile, and what it was taken from."""
    alike = [account for account in accounts if account.again is again]
    taken = alike if len(alike) >= _ENOUGH else accounts
    if len(taken) < _ENOUGH:
        return _DEFAULTS[writer]
    n, default = len(taken), _DEFAULTS[writer][0]
    # The times of profiles written side by side overlap: the mean time, over how many were under way at once.
    busy, spent = _busy(accounts), sum(_seconds(account) for account in accounts)
    at_once = spent / busy if busy else 1.0
    mean = sum(_seconds(account) for account in taken) / n
    kind = "such" if taken is alike else "latest"
    return _Cost(
        calls=sum(account.calls for account in taken) / n,
        tokens_in=sum(account.tokens_in for account in taken) / n,
        tokens_out=sum(account.tokens_out for account in taken) / n,
        seconds=mean / at_once if busy else default.seconds,
    ), f"the {n:,} {kind} profiles"


def _seconds(account: Written) -> float:
    return (account.finished_at - account.started_at).total_seconds()


def _busy(accounts: Iterable[Written]) -> float:
    """Return the seconds in which at least one profile was under way."""
    busy, end = timedelta(), None
    for account in sorted(accounts, key=lambda account: account.started_at):
        begin = account.started_at if end is None else max(account.started_at, end)
        busy += max(account.finished_at - begin, timedelta())
        end = account.finished_at if end is None else max(account.finished_at, end)
    return busy.total_seconds()
