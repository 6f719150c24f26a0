"""What can go wrong between a log and a profile; every error says what to do next."""

from typing import NamedTuple


class Usage(NamedTuple):
    """What one call of a language model cost: tokens read, tokens written, seconds of wall time."""

    tokens_in: int
    tokens_out: int
    seconds: float


_NOTHING = Usage(0, 0, 0.0)


class AgentError(Exception):
    """Root of this package's errors."""


class ModelError(AgentError):
    """Weights are unknown, missing, damaged, or cannot be served."""


class ChatError(AgentError):
    """A language model did not give a usable answer.

    Attributes:
        outcome: `unreachable`, `timeout` or `refused` (the server takes no request of ours), `rejected` (not this
            one), `cut_off` or `malformed`.
        raw: What the model said, as far as it said something.
        usage: What the call cost, as far as known.
    """

    def __init__(self, outcome: str, message: str, raw: str = "", usage: Usage = _NOTHING) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.raw = raw
        self.usage = usage


class ProfileError(AgentError):
    """A profile could not be written; the one before it stays."""


class CheckError(AgentError):
    """A stored profile does not follow from the events that it cites."""


class LessonError(AgentError):
    """Lessons for a small writer are missing, damaged, or too few."""
