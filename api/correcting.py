"""Corrections of claims as they come in, by command or request: which claim is meant, and which words may be."""

import unicodedata
from collections.abc import Sequence
from typing import Any

from sqlmodel import Session

from agent import archive
from agent.contract import Claim
from api import runtime
from store import corrections, profiles
from store.errors import ConflictError, NotFoundError

LONGEST = 600
"""Characters of a name or a statement, as in the contract of a claim."""
_JOINERS = "\u200c\u200d"


def own_words(text: str) -> str:
    """Return words of the user's own without blanks around them; they are kept as they are.

    Raises:
        ValueError: They are empty or too long, or hold control characters or such that hide or turn text round.
    """
    words = text.strip()
    if not 0 < len(words) <= LONGEST:
        raise ValueError(f"must have 1 to {LONGEST} characters, it has {len(words)}")
    if any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and c not in _JOINERS for c in words):
        raise ValueError("must have no control characters; write it in one line")
    return words


def find(claims: Sequence[Claim], wanted: str) -> Claim:
    """Return the claim with this id, or else with this name, whatever the case.

    Raises:
        NotFoundError: There is none, or several have the name.
    """
    name = " ".join(wanted.split()).casefold()
    found = [c for c in claims if c.claim_id == wanted] or [c for c in claims if c.name.casefold() == name]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(f"{c.claim_id} ({c.name})" for c in found or claims) or "none"
    if found:
        raise NotFoundError(f"Several claims are named '{wanted}'. Give the id of one: {listed}.")
    raise NotFoundError(
        f"The profile has no claim '{wanted}'. It has: {listed}. One that was added goes with `limner claim undo`."
    )


def correct(session: Session, user_id: str, wanted: str, action: corrections.Action, **said: Any) -> int:
    """Store a correction of a claim of the user's active profile.

    Args:
        session: The unit of work.
        user_id: The user.
        wanted: The claim's id or name.
        action: What is done to it.
        said: More of the correction: `rho`, or `new_name` and `new_statement`.

    Returns:
        The id of the correction.

    Raises:
        NotFoundError: There is no such user, profile or claim.
        ConflictError: The user has not consented, has added the claim themselves, or has corrected it so before.
    """
    corrections.lock(session, user_id)
    claim = find(archive.from_rows(profiles.load(session, user_id)).claims, wanted)
    if claim.claim_id.startswith("+"):
        raise ConflictError(
            f"User {user_id} has added this claim themselves. To change it, take correction {claim.correction_id} back "
            f"(`limner claim undo {user_id} --id {claim.correction_id}`) and add it in other words."
        )
    return corrections.add(
        session,
        user_id,
        action,
        claim.kind,
        claim.name,
        runtime.now(),
        statement=claim.statement,
        claim_id=claim.claim_id,
        evidence=[e.event_id for e in claim.evidence],
        **said,
    )
