"""A language model that goes wrong costs nothing but the attempt: the old profile stays, the reason is kept."""

import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from agent import archive
from agent.check import check_profiles
from agent.contract import Profile
from agent.verify import Repetition
from agent.writer import LlmWriter, WriterSettings
from store import profiles
from store.database import Database
from store.tables import ItemRow, UserRow
from tests import scripted_llm as llm
from tests.command_line import ended, start
from tests.scripted_llm import MODEL, Request, Script, ScriptedLLM
from tests.small_world import EVERYONE, START, event, fill, profiler, wrote

# Behaviour: what it does, what the recorded reason says, how the calls are booked.
BEHAVIOURS: dict[str, tuple[Script, str, str]] = {
    "down": (llm.down, "has broken the connection off", "unreachable"),
    "overloaded": (llm.status(503), "answered 503", "unreachable"),
    "slow": (llm.slow(5.0), "did not answer in time", "timeout"),
    "out of order": (llm.status(500), "answered 500", "refused"),
    "cut off": (llm.cut_off, "cut off", "cut_off"),
    "malformed": (llm.malformed, "does not fit the schema", "malformed"),
    "another field": (llm.extra_field, "does not fit the schema", "malformed"),
    "a web page": (llm.not_json, "no chat completion", "malformed"),
    "invents titles": (llm.invents_titles, "is not named in these items", "violations"),
    "cites what is not there": (llm.wrong_citations, "there is no item [97]", "violations"),
    "another language": (llm.wrong_language, "English", "violations"),
    "obeys titles": (llm.obeys, "refused for 3 of 3 claims", "violations"),
}
OUT_OF_REACH = {"down", "overloaded", "slow", "out of order"}


def stored(database: Database, user_id: str) -> str:
    """Everything that the store holds of a user's profiles, as one text."""
    query = """
        select (select jsonb_agg(p order by p.version) from profiles p where user_id = :user)::text
            || (select jsonb_agg(c order by c.claim_pk) from claims c join profiles using (profile_id)
                where user_id = :user)::text
            || (select jsonb_agg(e order by e.claim_pk, e.position) from evidence e join claims using (claim_pk)
                join profiles using (profile_id) where user_id = :user)::text
    """
    with database.session() as session:
        return str(session.scalar(text(query), {"user": user_id}))


def count(database: Database, what: str) -> int:
    with database.session() as session:
        return int(session.scalar(text(f"select count(*) from {what}")) or 0)  # noqa: S608 - our own text


def read(database: Database, user_id: str) -> Profile:
    with database.session() as session:
        return archive.from_rows(profiles.load(session, user_id))


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_the_old_profile_stays(database: Database, scripted: ScriptedLLM, name: str) -> None:
    script, reason, outcome = BEHAVIOURS[name]
    fill(database, ["ann"])
    assert wrote(profiler(database, scripted.url), ["ann"]).written == ["ann"]
    before, calls = stored(database, "ann"), count(database, "llm_calls")
    scripted.reset(script)
    report = wrote(profiler(database, scripted.url, force=True), ["ann"])
    assert report.written == []
    assert reason in report.failed["ann"]
    assert (report.stopped_by is not None) == (name in OUT_OF_REACH)
    assert stored(database, "ann") == before
    assert read(database, "ann").version == 1
    with database.session() as session:
        (failure,) = profiles.failures(session, "ann")
        booked = session.execute(
            text("select outcome from llm_calls where attempt_id = :id"), {"id": failure.attempt_id}
        ).scalars()
        assert set(booked) == {outcome}
    assert failure.reason == report.failed["ann"]
    assert failure.finished_at is not None
    assert count(database, "llm_calls") > calls
    assert list(check_profiles(database, ["ann"]))[-1].stale == 0
    # And once the model is well again, all is well again.
    scripted.reset()
    assert wrote(profiler(database, scripted.url, force=True), ["ann"]).written == ["ann"]
    assert read(database, "ann").version == 2


@pytest.mark.parametrize("repairs", [0, 1, 2])
def test_a_refused_answer_is_asked_for_again(database: Database, scripted: ScriptedLLM, repairs: int) -> None:
    fill(database, ["ann"])
    scripted.reset(llm.malformed)
    wrote(profiler(database, scripted.url, asked=WriterSettings(max_repairs=repairs)), ["ann"])
    assert len(scripted.requests) == 4 * (1 + repairs)  # three claims and the summary
    assert count(database, "llm_calls") == 4 * (1 + repairs)
    assert count(database, "profiles") == 0


def test_a_profile_stands_whose_words_only_repeat_one_another(database: Database, scripted: ScriptedLLM) -> None:
    fill(database, ["ann"])
    made = profiler(database, scripted.url, max_fallback=0.0)
    assert made.llm is not None
    writer, model = made.llm
    alike = Repetition(made.embedder.embed, near=-1.0, common=0.0)  # all texts are
    made.llm = LlmWriter(writer.chat, alike, "en"), model
    report = wrote(made, ["ann"])
    assert (report.written, report.failed, report.fallback) == (["ann"], {}, 1)
    assert [claim.wording for claim in read(database, "ann").claims] == ["llm", "template", "llm"]


@pytest.mark.parametrize(
    ("first", "outcome"), [(llm.malformed, "malformed"), (llm.cut_off, "cut_off"), (llm.wrong_language, "violations")]
)
def test_a_repair_is_counted(database: Database, scripted: ScriptedLLM, first: Script, outcome: str) -> None:
    fill(database, ["ann"])
    scripted.reset(llm.then(first, llm.honest))
    report = wrote(profiler(database, scripted.url), ["ann"])
    assert (report.written, report.repaired, report.first_try, report.fallback) == (["ann"], 1, 3, 0)
    quality = read(database, "ann").quality
    assert (quality.repaired, quality.first_try, quality.fallback) == (1, 3, 0)
    assert count(database, f"llm_calls where outcome = '{outcome}'") == 1
    assert count(database, "llm_calls where outcome = 'ok'") == 4
    assert read(database, "ann").provenance.tokens_in > 0


def test_a_wording_that_stays_wrong_falls_back_alone(database: Database, scripted: ScriptedLLM) -> None:
    fill(database, ["ann"])
    scripted.reset(llm.when(lambda text: "Rye Days" in text, llm.invents_titles, llm.honest))
    assert wrote(profiler(database, scripted.url), ["ann"]).written == ["ann"]
    profile = read(database, "ann")
    assert [c.wording for c in profile.claims] == ["llm", "template", "llm"]
    assert profile.quality.fallback == 1
    assert "Vermilion" not in profile.model_dump_json()


def test_a_poisoned_user_costs_only_that_user(database: Database, scripted: ScriptedLLM) -> None:
    fill(database, ["ann", "bob", "cid", "dee"])
    with database.session() as session:
        session.add_all(ItemRow(item_id=f"g{n}", title=f"Plot {n}", categories=["Gardening"]) for n in range(6))
        session.add(UserRow(user_id="fay"))
        session.flush()
        session.add_all(event("fay", n, "like", f"g{n}", START + timedelta(days=n)) for n in range(6))
    scripted.reset(llm.when(lambda text: "gardening" in text, llm.malformed, llm.honest))
    report = wrote(profiler(database, scripted.url), ["ann", "bob", "cid", "dee", "fay"])
    assert sorted(report.written) == ["ann", "bob", "cid", "dee"]
    assert list(report.failed) == ["fay"]
    assert report.stopped_by is None


def test_a_prompt_that_the_server_rejects_costs_only_its_user(database: Database, scripted: ScriptedLLM) -> None:
    fill(database, ["ann", "bob"])
    scripted.reset(llm.when(lambda text: "detective" in text, llm.status(400), llm.honest))
    report = wrote(profiler(database, scripted.url), ["ann", "bob"])
    assert (report.written, list(report.failed), report.stopped_by) == (["bob"], ["ann"], None)
    assert "answered 400" in report.failed["ann"]


def test_a_model_out_of_reach_ends_the_run(database: Database, scripted: ScriptedLLM) -> None:
    fill(database)
    scripted.reset(llm.down)
    report = wrote(profiler(database, scripted.url, users_at_once=1))
    assert list(report.failed) == ["ann"]  # the others are not even tried
    assert report.stopped_by == report.failed["ann"]
    assert count(database, "attempts") == 1


def test_themes_without_traits_are_not_refused_wordings(database: Database, scripted: ScriptedLLM) -> None:
    """A catalogue of bare titles gives the model nothing to say; that is no failure of the model."""
    with database.session() as session:
        session.add_all(ItemRow(item_id=f"b{n}", title=f"Thing {n}", categories=[]) for n in range(6))
        session.add(UserRow(user_id="gus"))
        session.flush()
        session.add_all(event("gus", n, "like", f"b{n}", START + timedelta(days=n)) for n in range(6))
    report = wrote(profiler(database, scripted.url), ["gus"])
    assert (report.written, report.failed) == (["gus"], {})
    assert {c.wording for c in read(database, "gus").claims} == {"template"}


# The command.


@pytest.fixture
def settings(scripted: ScriptedLLM, database_url: str) -> dict[str, str]:
    return {"LLM__BASE_URL": scripted.url, "LLM__MODEL": MODEL, "DATABASE_URL": database_url}


@pytest.mark.parametrize(
    ("script", "said"),
    [(llm.down, "Stopped: the model's server has broken the"), (llm.malformed, "does not fit the schema")],
    ids=["down", "malformed"],
)
def test_the_command_says_what_failed(
    database: Database, scripted: ScriptedLLM, settings: dict[str, str], tmp_path: Path, script: Script, said: str
) -> None:
    fill(database, ["ann"])
    wrote(profiler(database, scripted.url), ["ann"])
    before = stored(database, "ann")
    scripted.reset(script)
    result = ended(start(["profile", "write", "--user", "ann", "--force"], tmp_path, **settings))
    assert result.code == 1
    assert said in result.err
    assert "The old profiles of these users stay" in result.err
    assert "0 profiles written" in result.out
    assert "1 failed" in result.out
    assert "Traceback" not in result.out + result.err
    assert stored(database, "ann") == before


# Storing cid's profile takes for ever.
STUCK = """
create function stuck() returns trigger language plpgsql as $$ begin
    if (select user_id from profiles where profile_id = new.profile_id) = 'cid' and new.position = 1 then
        perform pg_sleep(300);
    end if;
    return new;
end $$;
create trigger stuck before insert on claims for each row execute function stuck();
"""
ASLEEP = """
pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'
"""


def test_a_killed_command_leaves_whole_profiles_only(
    database: Database, scripted: ScriptedLLM, settings: dict[str, str], tmp_path: Path
) -> None:
    fill(database)
    with database.session() as session:
        session.connection().exec_driver_sql(STUCK)
    process = start(["profile", "write", "--all"], tmp_path, LLM__USERS_AT_ONCE="1", **settings)
    assert eventually(lambda: count(database, ASLEEP) == 1), process.poll()
    process.kill()
    assert ended(process).code == -signal.SIGKILL
    with database.session() as session:
        session.execute(text(f"select pg_terminate_backend(pid) from {ASLEEP}"))  # noqa: S608 - our own text
    assert eventually(lambda: count(database, ASLEEP) == 0)
    with database.session() as session:
        assert profiles.active_users(session) == ["ann", "bob"]
        session.connection().exec_driver_sql("drop trigger stuck on claims")
    assert count(database, "profiles where user_id = 'cid'") == 0
    assert list(check_profiles(database, ["ann", "bob"]))[-1] == (2, 6, 0)
    # The next run takes up where this one was.
    report = wrote(profiler(database, scripted.url))
    assert (sorted(report.unchanged), len(report.written)) == (["ann", "bob"], len(EVERYONE) - 2)
    assert list(check_profiles(database, EVERYONE))[-1].profiles == len(EVERYONE)


def test_an_interrupted_command_says_so(
    database: Database, scripted: ScriptedLLM, settings: dict[str, str], tmp_path: Path
) -> None:
    fill(database, ["ann"])

    def hangs(request: Request, n: int) -> llm.Reply:
        return llm.slow(300.0)(request, n)

    scripted.reset(hangs)
    process = start(["profile", "write", "--all"], tmp_path, **settings)
    assert eventually(lambda: len(scripted.requests) > 0), process.poll()
    process.send_signal(signal.SIGINT)
    result = ended(process)
    assert result.code == 130
    assert "Stopped; nothing half-done was kept." in result.err
    assert "Traceback" not in result.out + result.err
    assert count(database, "profiles") == 0
