"""Does a profile steer what is recommended? The strongest interest is taken back, or denied.

The claim is the strongest interest that a category tells apart. What a correction does to claims and events is worked
out by the code that serves, as in `eval.correcting`. *Genre NDCG@10* ranks the items that the user has not met, and
takes those of the claim's most telling category for relevant. Asked for are its change when the claim is rejected, and
when its opposite is added instead: a dislike of the same name. Either should lower it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from agent.contract import Claim
from agent.embedder import Embedder
from eval.correcting import Corrector, User, corrector_of
from eval.interactions import Floats, Ints
from eval.profiles.writing import Metric, Written
from eval.world import World
from recommend.parameters import Parameters
from recommend.ranking import top_k
from store.tables import CorrectionRow

K = 10
ACTIONS = ("rejected", "opposite added")

_GENRE = "Change of genre NDCG@10, how far the claim's genre fills the first 10, when {}."
_SHARE = "Share of users whose genre NDCG@10 {} when {}, of those who had the genre among the first 10."
_WHEN = {
    "rejected": "the strongest interest is rejected",
    "opposite added": "a dislike of the strongest interest's name is added",
}
METRICS = {
    name: metric
    for action in ACTIONS
    for name, metric in {
        f"genre NDCG@10 change, {action}": Metric(_GENRE.format(_WHEN[action]), "lower"),
        f"right direction, {action}": Metric(_SHARE.format("falls", _WHEN[action])),
        f"wrong direction, {action}": Metric(_SHARE.format("rises", _WHEN[action]), "lower"),
    }.items()
}


def genre_ndcg(scores: Floats, of_genre: Ints, seen: Ints, k: int = K) -> float:
    """Return `sum 1 / log2(r + 1)` over the ranks r up to k that hold an item of the genre, over that of the best.

    Nan if the user has met all items of the genre.

    >>> round(genre_ndcg(np.array([3.0, 2.0, 1.0, 0.0]), np.array([1, 3]), np.array([0]), k=2), 3)
    0.613
    """
    found = np.isin(top_k(scores, k, seen), of_genre)
    discounts = 1.0 / np.log2(np.arange(2, len(found) + 2))
    best = discounts[: len(np.setdiff1d(of_genre, seen))].sum()
    return float(discounts[found].sum() / best) if best else float("nan")


def genre_of(claim: Claim) -> str | None:
    """Return the category that tells a claim apart most, by share times log lift."""
    found = [
        (-values["share"] * np.log(max(values["lift"], 1.0)), name.removeprefix("category:"))
        for name, values in claim.attributes.items()
        if name.startswith("category:")
    ]
    return min(found)[1] if found else None


def strongest(user: User) -> Claim | None:
    """Return the strongest interest that a category tells apart."""
    interests = [claim for claim in user.claims if claim.kind == "interest" and genre_of(claim) is not None]
    return max(interests, key=lambda claim: claim.strength, default=None)


def correctable(written: Sequence[Written], embedder: Embedder) -> list[User]:
    """Return the users who have claims, with the embeddings of their names, made in one batch."""
    some = [one for one in written if one.claims]
    if not some:
        return []
    vectors = embedder.embed([claim.name for one in some for claim in one.claims])
    ends = np.cumsum([len(one.claims) for one in some])[:-1]
    return [User(one.code, one.log, one.claims, own) for one, own in zip(some, np.split(vectors, ends), strict=True)]


def steer(corrector: Corrector, user: User, of_genre: Ints, claim: Claim) -> tuple[float, dict[str, float]]:
    """Correct a claim; returns the genre NDCG@10 before, and its change by each action."""
    seen = corrector.seen(user)
    before = genre_ndcg(corrector.scores(user, []), of_genre, seen)
    rows = {"rejected": _row(user, claim, "reject"), "opposite added": _row(user, claim, "add")}
    return before, {
        action: genre_ndcg(corrector.scores(user, [row]), of_genre, seen) - before for action, row in rows.items()
    }


def measure(written: Sequence[Written], past: World, embedder: Embedder, parameters: Parameters) -> dict[str, Floats]:
    """Let every user correct their strongest interest; `(users,)` for each metric, nan where there is none.

    Args:
        written: The profiles.
        past: The world that they were made from; the model is trained on it, and on their claims.
        embedder: Of claims.
        parameters: Of the model.
    """
    found = {name: np.full(len(past.user_ids), np.nan) for name in METRICS}
    users = correctable(written, embedder)
    if not users:
        return found
    corrector = corrector_of(past, embedder, users, parameters)
    of_genre: dict[str, list[int]] = {}
    for row, item in enumerate(past.items):
        for category in set(item.categories):
            of_genre.setdefault(category, []).append(row)
    for user in users:
        claim = strongest(user)
        if claim is None or (genre := genre_of(claim)) is None:
            continue
        before, changes = steer(corrector, user, np.array(of_genre[genre], dtype=np.int64), claim)
        for action, change in changes.items():
            found[f"genre NDCG@10 change, {action}"][user.code] = change
            if before > 0:
                found[f"right direction, {action}"][user.code] = float(change < 0)
                found[f"wrong direction, {action}"][user.code] = float(change > 0)
    return found


def _row(user: User, claim: Claim, action: str) -> CorrectionRow:
    rejects = action == "reject"
    return CorrectionRow(
        correction_id=1, user_id=user.log.user_id, created_at=datetime.fromtimestamp(float(user.log.times[-1]), UTC),
        action=action, name=claim.name, kind=claim.kind if rejects else "dislike",
        evidence=[e.event_id for e in claim.evidence] if rejects else [],
    )  # fmt: skip
