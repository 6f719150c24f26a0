"""Profiles that go on from the version before: what is asked of the model again, and what is not."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from agent import archive
from agent.check import check_profiles
from agent.contract import Profile
from agent.diff import diff
from agent.profiling import Report
from agent.unit import ModelInfo
from agent.writer import WriterSettings
from store import corrections, profiles
from store.database import Database
from store.tables import UserRow
from tests.scripted_llm import ScriptedLLM
from tests.small_world import NOW, START, event, fill, profiler, wrote

LATE = START + timedelta(days=40)


def read(database: Database, version: int | None = None) -> Profile:
    with database.session() as session:
        return archive.from_rows(profiles.load(session, "ann", version))


def write(database: Database, scripted: ScriptedLLM, **settings: object) -> Report:
    scripted.requests.clear()
    report = wrote(profiler(database, scripted.url, **settings), ["ann"])
    assert report.failed == {}
    return report


def happens(database: Database, *events: tuple[str, str]) -> None:
    """Ann does something: (type, item)."""
    with database.session() as session:
        count = session.scalar(text("select count(*) from events where user_id = 'ann'"))
        session.add_all(
            event("ann", 5_000 + count + n, kind, item, LATE + timedelta(hours=count + n))
            for n, (kind, item) in enumerate(events)
        )
        session.get_one(UserRow, "ann").log_revision += 1


@pytest.fixture
def world(database: Database, scripted: ScriptedLLM) -> Database:
    """The small world, and Ann's first profile by the model: mysteries and cooking liked, horror disliked."""
    fill(database)
    write(database, scripted)
    assert {c.wording for c in read(database).claims} == {"llm"}
    return database


def test_one_more_event_of_a_theme_costs_no_call(world: Database, scripted: ScriptedLLM) -> None:
    before = read(world)
    happens(world, ("purchase", "m1"))
    report = write(world, scripted)
    after = read(world)
    assert (report.written, scripted.requests, report.tokens_in) == (["ann"], [], 0)
    assert after.version == before.version + 1
    assert [(c.claim_id, c.name, c.statement, c.wording) for c in after.claims] == [
        (c.claim_id, c.name, c.statement, c.wording) for c in before.claims
    ]
    said = [s.text for s in before.summary if s.wording == "llm"]
    assert [s.text for s in after.summary if s.wording == "llm"] == said != []
    grown = next(c for c in after.interests if c.claim_id == "i1")
    assert len(grown.evidence) == len(before.interests[0].evidence) + 1
    assert after.provenance.clustering == before.provenance.clustering
    assert after.provenance.continues is not None
    assert (after.provenance.continues.version, after.provenance.continues.reworded) == (before.version, {})
    assert list(check_profiles(world, ["ann"]))[-1].stale == 0


def test_a_new_interest_is_worded_and_the_old_ones_are_not(world: Database, scripted: ScriptedLLM) -> None:
    before = read(world)
    happens(world, *(("purchase", f"t{n}") for n in (1, 2, 3)))
    write(world, scripted)
    after = read(world)
    new = {c.claim_id for c in after.interests} - {c.claim_id for c in before.interests}
    assert new == {"i3"}
    kept = {c.claim_id: c.statement for c in before.claims}
    assert {c.claim_id: c.statement for c in after.claims if c.claim_id in kept} == kept
    asked = [request.task for request in scripted.requests]
    assert len(asked) == 2  # the new theme, and the summary, which names it
    assert not any("Ash Garden" in task for task in asked)
    change = next(c for c in diff(before, after) if c.before is None)
    assert (change.after and change.after.claim_id, change.what) == ("i3", ("new",))


def test_other_attributes_are_worded_anew_and_the_diff_says_why(world: Database, scripted: ScriptedLLM) -> None:
    before = read(world)
    with world.session() as session:
        session.execute(text("update items set categories = '{Mystery,Legal}' where item_id like 'm%'"))
    happens(world, ("purchase", "m1"))
    write(world, scripted)
    after = read(world)
    assert after.provenance.continues is not None
    assert after.provenance.continues.reworded == {"i1": "attributes"}
    change = next(c for c in diff(before, after) if c.after and c.after.claim_id == "i1")
    assert "wording" in change.what
    assert change.why == "other attributes tell its events apart now"


def test_words_that_do_not_hold_any_more_are_replaced(world: Database, scripted: ScriptedLLM) -> None:
    with world.session() as session:
        session.execute(
            text("update claims set statement = 'Likes the nine operas of Marta Quell.' where claim_id = 'i1'")
        )
    happens(world, ("purchase", "m1"))
    write(world, scripted)
    after = read(world)
    assert after.provenance.continues is not None
    assert after.provenance.continues.reworded == {"i1": "words"}
    assert "Quell" not in after.interests[0].statement


def test_another_writer_words_everything_anew(world: Database, scripted: ScriptedLLM) -> None:
    made = profiler(world, scripted.url)
    assert made.llm is not None
    made.llm = (made.llm[0], ModelInfo("another"))
    scripted.requests.clear()
    report = wrote(made, ["ann"])
    continues = read(world).provenance.continues
    assert report.written == ["ann"]
    assert continues is not None
    assert set(continues.reworded) == {c.claim_id for c in read(world).claims}
    assert set(continues.reworded.values()) == {"writer"}
    assert continues.clustered is None


def test_force_begins_afresh_and_keeps_the_ids(world: Database, scripted: ScriptedLLM) -> None:
    before = read(world)
    write(world, scripted, force=True)
    after = read(world)
    assert after.provenance.continues is not None
    assert after.provenance.continues.clustered == "as it was asked for"
    assert len(scripted.requests) == len(before.claims) + 1
    assert [c.claim_id for c in after.claims] == [c.claim_id for c in before.claims]


def test_a_claim_that_the_user_rejects_stays_away_and_the_others_keep_their_words(
    world: Database, scripted: ScriptedLLM
) -> None:
    before = read(world)
    gone = before.interests[0]
    with world.session() as session:
        cited = [e.event_id for e in gone.evidence]
        corrections.add(session, "ann", "reject", "interest", gone.name, NOW, claim_id=gone.claim_id, evidence=cited)
    for _ in range(2):
        happens(world, ("purchase", "m1"), ("purchase", "k1"))
        write(world, scripted)
        after = read(world)
        assert gone.claim_id not in {c.claim_id for c in after.claims}
        assert not {e.event_id for c in after.interests for e in c.evidence} & {e.event_id for e in gone.evidence}
        assert after.provenance.continues is not None
        assert (after.provenance.continues.clustered, after.provenance.continues.reworded) == (None, {})
    assert scripted.requests == []  # the summary of what is left was written in the first round


def test_a_name_that_the_user_rejects_is_not_carried_on(world: Database, scripted: ScriptedLLM) -> None:
    with world.session() as session:
        session.execute(text("update claims set name = 'Locked rooms' where claim_id = 'i1'"))
        session.execute(text("update claims set statement = 'Enjoys mystery.' where claim_id = 'i1'"))
        corrections.add(session, "ann", "reject", "interest", "Locked rooms", NOW)
    write(world, scripted)
    assert "Locked rooms" not in {c.name for c in read(world).claims}


def test_at_most_so_many_claims_are_worded_by_the_model_in_all(database: Database, scripted: ScriptedLLM) -> None:
    fill(database)
    wrote(profiler(database, scripted.url, WriterSettings(max_claims=3)), ["ann"])
    happens(database, *(("purchase", f"t{n}") for n in (1, 2, 3)))
    wrote(profiler(database, scripted.url, WriterSettings(max_claims=3)), ["ann"])
    assert [c.wording for c in read(database).claims if c.claim_id == "i3"] == ["template"]
