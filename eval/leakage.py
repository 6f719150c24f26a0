"""Does a profile know what it cannot know? Every event that it rests on lies before its user's cut."""

from collections.abc import Iterable, Mapping

import numpy as np

from agent.contract import Profile
from agent.themes import UserLog
from eval.errors import EvaluationError


class LeakError(EvaluationError):
    """A profile knows of events at or after its user's cut: whatever is measured on those is worthless."""


def assert_before(cuts: Mapping[str, float], profiles: Iterable[Profile], logs: Mapping[str, UserLog]) -> int:
    """Check that profiles know nothing from their users' cuts on.

    Of a profile it is checked that each event cited, for or against, is one of the user's before the cut; that no
    more events were read than lie before it, and that a claim does not cite more than were read; and that the log's
    last event and the time that weights are decayed to lie before it.

    Args:
        cuts: By user id, in seconds since 1970.
        profiles: That were made of what was before.
        logs: The users' whole logs, by user id.

    Returns:
        The number of citations that were looked at.

    Raises:
        LeakError: The first that does not hold.
    """
    cited = 0
    for profile in profiles:
        log, cut = logs[profile.user_id], cuts[profile.user_id]
        time = dict(zip(log.event_ids, log.times.tolist(), strict=True))
        where = f"The profile of user {profile.user_id}"
        known = int(np.count_nonzero(log.times < cut))
        for claim in profile.claims:
            evidence = [piece.event_id for piece in (*claim.evidence, *claim.counter_evidence)]
            for event_id in evidence:
                if event_id not in time:
                    raise LeakError(f"{where} cites {event_id}, which is no event of theirs. Look at what wrote it.")
                if time[event_id] >= cut:
                    raise LeakError(f"{where} cites {event_id}, which is held out. Write it from `before` alone.")
            cited += len(evidence)
        if profile.log.events_read > known:
            raise LeakError(
                f"{where} was read from {profile.log.events_read} events, but {known} lie before the cut. "
                "Write it from `before` alone."
            )
        for name, at in (("last event", profile.log.last), ("as_of", profile.log.as_of)):
            if at.timestamp() >= cut:
                raise LeakError(f"{where} has the {name} {at}, which is held out. Write it from `before` alone.")
    return cited
