"""What a change to a user does to the top of their list."""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from recommend.contract import Recommendations, RecommendedItem

TOP = 10
NO_EFFECT = "A pin, or other words, has no effect on recommendations."
_NOT_SHOWN = f"The change in the top {TOP} cannot be shown"
_NO_MODEL = "there is no model yet. Train one with `limner train`."

Made = TypeVar("Made")


class Change(NamedTuple):
    """An item whose rank changes; None where it is not in the list."""

    item_id: str
    title: str
    before: int | None
    after: int | None


class Compared(NamedTuple, Generic[Made]):
    """What was made, and the changes in the top list; or None and why they cannot be shown."""

    made: Made
    changes: list[Change] | None
    note: str | None = None


class Ranker(Protocol):
    """Knows a user's best items."""

    def top(self, user_id: str, k: int = TOP) -> Recommendations: ...  # noqa: D102


def compare(ranker: Ranker | str, user_id: str, make: Callable[[], Made]) -> Compared[Made]:
    """Make a change, and compare the top list before and after.

    Args:
        ranker: Or why there is none: then the change is made all the same.
        user_id: Whose list it is.
        make: Makes the change.
    """
    if isinstance(ranker, str):
        return Compared(make(), None, f"{_NOT_SHOWN}: {ranker}")
    before = ranker.top(user_id, TOP)
    made = make()
    if before.model_id is None:
        return Compared(made, None, f"{_NOT_SHOWN}: {_NO_MODEL}")
    return Compared(made, changes(before.items, ranker.top(user_id, TOP).items))


def changes(before: Sequence[RecommendedItem], after: Sequence[RecommendedItem]) -> list[Change]:
    """List the items whose rank differs: those of the new list by rank, then those that have left it."""
    old, new = ({item.item_id: item.rank for item in items} for items in (before, after))
    titles = {item.item_id: item.title for item in (*after, *before)}
    found = [Change(item_id, title, old.get(item_id), new.get(item_id)) for item_id, title in titles.items()]
    return [change for change in found if change.before != change.after]
