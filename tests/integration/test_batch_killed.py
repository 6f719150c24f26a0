"""A run over which everything is killed in turn: command, worker, database server and model server."""

from pathlib import Path

import pytest

from tests.benchmarks.kill import TARGETS, kill_at_random

USERS = 60


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_everything_is_killed_in_turn(tmp_path: Path) -> None:
    found = kill_at_random(tmp_path, len(TARGETS), USERS, seed=7, say=print)
    assert sorted(done.target for done in found.rounds) == sorted(TARGETS)
    assert all(done.under_way > 0 for done in found.rounds)  # each kill has hit something
    assert found.rounds[-1].written < USERS
    assert found.wrong(USERS) == []
