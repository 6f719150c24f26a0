"""The options that say whose profiles."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import typer

from api.commands.selecting import selection
from store.selection import Selection

NOW = datetime(2025, 9, 1, 12, tzinfo=UTC)


def test_the_options_make_a_selection(tmp_path: Path) -> None:
    listed = tmp_path / "ids.txt"
    listed.write_text("bob\n\n  cid \r\nann\n", encoding="utf-8")
    made = selection(
        NOW, user=["ann"], users_file=listed, where=["country=se", "note=a=b"], changed=True, changed_since="24h",
        older_than="2025-08-01", drifted=True,
    )  # fmt: skip
    assert made == Selection(
        users=("ann", "bob", "cid"),
        where={"country": "se", "note": "a=b"},
        changed_since=NOW - timedelta(hours=24),
        changed=True,
        older_than=datetime(2025, 8, 1, tzinfo=UTC),
        drifted=True,
    )
    assert selection(NOW, all_=True) == Selection(everyone=True)
    empty = tmp_path / "none.txt"
    empty.write_text("\n")
    assert selection(NOW, users_file=empty) == Selection(users=())


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("30d", NOW - timedelta(days=30)),
        ("90m", NOW - timedelta(minutes=90)),
        ("2w", NOW - timedelta(weeks=2)),
        ("45s", NOW - timedelta(seconds=45)),
        ("2025-08-31T22:00", datetime(2025, 8, 31, 22, tzinfo=UTC)),
        ("2025-08-31T22:00+02:00", datetime(2025, 8, 31, 22, tzinfo=timezone(timedelta(hours=2)))),
    ],
)
def test_times_and_ages(given: str, meant: datetime) -> None:
    assert selection(NOW, older_than=given).older_than == meant


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "say whose"),
        ({"all_": True, "user": ["ann"]}, "only one of them"),
        ({"where": ["country"]}, "key=value"),
        ({"where": ["=se"]}, "key=value"),
        ({"where": ["a=b", "a=c"]}, "twice"),
        ({"older_than": "a month"}, "no time and no age"),
        ({"older_than": "9999999999d"}, "longer than time"),
        ({"changed_since": "3y"}, "no time and no age"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(typer.BadParameter, match=says):
        selection(NOW, **options)
