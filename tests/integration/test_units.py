"""What a profile rests on is known without reading logs, and whoever has not changed is left alone."""

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text

from agent import profiling
from agent.keys import unit_key
from store import corrections, logs, units
from store.database import Database
from store.ingest import ingest
from store.privacy import Hasher
from store.tables import UserRow
from store.units import Standing
from tests.scripted_llm import ScriptedLLM
from tests.small_world import EVERYONE, NOW, event, fill, profiler, wrote


@pytest.fixture
def world(database: Database) -> Database:
    fill(database)
    return database


def do(database: Database, query: str, **values: Any) -> Any:
    with database.session() as session:
        found = session.execute(text(query), values)
        return found.scalar() if found.returns_rows else None


def standing(database: Database, user_id: str = "ann") -> Standing:
    with database.session() as session:
        return units.standings(session, [user_id])[user_id]


def like(database: Database, user_id: str, item: str, n: int = 900) -> None:
    with database.session() as session:
        session.add(event(user_id, n, "like", item, NOW - timedelta(days=1)))
        session.get_one(UserRow, user_id).log_revision += 1


def test_inputs_are_those_of_the_store(world: Database) -> None:
    do(world, "update items set title = 'New' where item_id = 't1'")  # bob's, and not ann's
    of_ann, of_bob = standing(world), standing(world, "bob")
    assert of_ann.key is None
    assert (of_ann.inputs.log_revision, of_ann.inputs.corrections_revision) == (1, 0)
    assert of_bob.inputs.items_revision == of_bob.inputs.catalogue_revision == of_ann.inputs.catalogue_revision
    assert of_ann.inputs.items_revision < of_bob.inputs.items_revision
    assert of_ann.inputs.declared == of_bob.inputs.declared
    with world.session() as session:
        session.add(UserRow(user_id="no", consent=False, log_revision=1))
        session.add(UserRow(user_id="new"))
    with world.session() as session:
        found = units.standings(session, ["no", "new", "nobody"])
    assert found.keys() == {"new"}
    assert found["new"].inputs.items_revision == 0


CHANGES = {
    "an event": "update users set log_revision = log_revision + 1 where user_id = 'ann'",
    "a title": "update items set title = 'Other' where item_id = 'm1'",
    "categories": "update items set categories = '{Fishing}' where item_id = 'm1'",
    "attributes": """update items set attributes = '{"year": 1901}' where item_id = 'm1'""",
    "what it is called": """update items set attributes = attributes || '{"noun": "films"}' where item_id = 'm1'""",
    "a description": "update items set description = 'Dark.' where item_id = 'm1'",
    "a caption": "update items set image_caption = 'A hat.' where item_id = 'm1'",
    "what is declared": """update users set attributes = '{"country": "se"}' where user_id = 'ann'""",
    "a time zone": "update users set tz = 'Europe/Oslo' where user_id = 'ann'",
    "a language": "update users set language = 'sv' where user_id = 'ann'",
    "a correction": "update users set corrections_revision = corrections_revision + 1 where user_id = 'ann'",
}


@pytest.mark.parametrize("query", CHANGES.values(), ids=CHANGES)
def test_what_changes_is_written_anew_and_nothing_else(world: Database, query: str) -> None:
    wrote(profiler(world))
    do(world, query)
    touched = [u for u in EVERYONE if u == "ann" or ("items" in query and u in {"cid", "dee", "eli"})]
    report = wrote(profiler(world))
    assert sorted(report.written) == sorted(touched)
    assert sorted(report.unchanged) == sorted(set(EVERYONE) - set(touched))
    assert wrote(profiler(world)).written == []


@pytest.mark.parametrize(
    "query",
    [
        "update items set price = 9.5, created_at = now()",
        "update items set title = title",
        "update users set log_revision = log_revision where user_id = 'ann'",
        "insert into items (item_id, title) values ('z9', 'Nobody knows it')",
        "update items set title = 'Other' where item_id = 'new'",
    ],
)
def test_what_no_profile_rests_on_changes_nothing(world: Database, query: str) -> None:
    do(world, "insert into items (item_id, title) values ('new', 'Nobody has it')")
    wrote(profiler(world))
    do(world, query)
    assert sorted(wrote(profiler(world)).unchanged) == sorted(EVERYONE)


def test_a_second_run_asks_no_model_and_reads_no_log(world: Database, scripted: ScriptedLLM) -> None:
    assert len(wrote(profiler(world, scripted.url)).written) == len(EVERYONE)
    asked, queries = len(scripted.requests), []
    made = profiler(world, scripted.url)

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        queries.append(statement)

    sqlalchemy_event.listen(world.engine, "before_cursor_execute", note)
    report = wrote(made)
    assert sorted(report.unchanged) == sorted(EVERYONE)
    assert len(scripted.requests) == asked
    assert queries
    assert not any("events" in query for query in queries)


def test_another_prompt_or_model_is_another_recipe(world: Database, scripted: ScriptedLLM) -> None:
    wrote(profiler(world))
    assert len(wrote(profiler(world, scripted.url)).written) == len(EVERYONE)
    assert len(wrote(profiler(world)).written) == len(EVERYONE)


def test_the_row_keeps_what_the_key_is_made_of(world: Database) -> None:
    made = profiler(world)
    before = standing(world).inputs
    wrote(made, ["ann"])
    with world.session() as session:
        row = session.execute(text("select * from profiles where user_id = 'ann'")).one()
    assert row.key == row.provenance["key"] == unit_key(before, made.recipe)
    assert row.recipe == made.recipe.hash
    assert (row.log_revision, row.corrections_revision) == (before.log_revision, before.corrections_revision)
    assert (row.items_revision, row.catalogue_revision) == (before.items_revision, before.catalogue_revision)
    assert row.declared == before.declared
    # 15 likes, 8 of them with 5 and 7 with 4, each beside a view; 7 dislikes of 1 or 2. By hand:
    likes = sum(1.0 if n % 2 == 0 else 0.5 for group in (8, 7) for n in range(group))
    dislikes = sum(1.0 if n % 2 == 0 else 0.5 for n in range(7))
    assert row.weight == pytest.approx(likes + dislikes + 15 * 0.2)


def test_a_key_is_never_of_a_newer_log_than_was_read(world: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    read = profiling.load_users

    def late(database: Database, *rest: Any) -> Any:
        found = read(database, *rest)
        like(database, "ann", "t3")  # after the log was read
        return found

    def early(database: Database, *rest: Any) -> Any:
        like(database, "ann", "t4", 901)  # after the revisions were, and before the log
        return read(database, *rest)

    for moment in (late, early):
        do(world, CHANGES["an event"])
        monkeypatch.setattr(profiling, "load_users", moment)
        assert wrote(profiler(world), ["ann"]).written == ["ann"]
        monkeypatch.setattr(profiling, "load_users", read)
        assert standing(world).key != unit_key(standing(world).inputs, profiler(world).recipe)
        assert wrote(profiler(world), ["ann"]).written == ["ann"]
    assert wrote(profiler(world), ["ann"]).unchanged == ["ann"]
    with world.session() as session:
        assert len(logs.read_logs(session, ["ann"])[0].events) == do(
            world, "select (log->>'events_read')::int from profiles where user_id = 'ann' and active"
        )


def test_a_profile_of_unknown_making_is_written_anew(world: Database) -> None:
    wrote(profiler(world))
    do(world, "update profiles set key = null where user_id = 'bob'")
    assert wrote(profiler(world)).written == ["bob"]
    do(world, "update profiles set items_revision = null, catalogue_revision = null where user_id = 'bob'")
    assert wrote(profiler(world)).written == []  # they are found again in the log


def test_who_is_gone_or_does_not_consent_is_neither_written_nor_unchanged(world: Database) -> None:
    wrote(profiler(world))
    do(world, "update users set consent = false where user_id = 'ann'")
    report = wrote(profiler(world), ["ann", "nobody", "bob"])
    assert (report.written, report.unchanged, report.failed) == ([], ["bob"], {})


def test_force_writes_all(world: Database) -> None:
    wrote(profiler(world))
    assert len(wrote(profiler(world, force=True)).written) == len(EVERYONE)


def test_the_time_of_a_change_is_kept(world: Database) -> None:
    do(world, "update users set changed_at = '2020-01-01Z'")

    def since() -> set[str]:
        with world.session() as session:
            return set(session.scalars(text("select user_id from users where changed_at > '2021-01-01Z'")))

    do(world, "update users set attributes = attributes")
    assert since() == set()
    like(world, "ann", "m1")
    with world.session() as session:
        corrections.add(session, "bob", "add", "interest", "chess", NOW)
    do(world, "update users set language = 'sv' where user_id = 'cid'")
    do(world, "update users set consent = false where user_id = 'dee'")
    assert since() == {"ann", "bob", "cid", "dee"}


def test_ingest_raises_the_revisions_of_what_it_changes(world: Database, tmp_path: Path) -> None:
    def take_in(kind: Literal["items", "users", "events"], content: str) -> None:
        file = tmp_path / f"{kind}.csv"
        file.write_text(content, encoding="utf-8")
        hasher, rejects = Hasher(b"key of the tests"), tmp_path / "rejects.csv"
        ingest(world, kind, file, source="x", known_types=("like",), now=NOW, hasher=hasher, rejects_path=rejects)

    take_in("items", "item_id,title,categories,price\nn1,One,A|B,3\nn2,Two,A,4\n")
    take_in("events", "user_id,item_id,type,ts\nzoe,n1,like,1700000000\n")
    before = standing(world, "zoe").inputs
    assert before.log_revision == 1
    assert do(world, "select changed_at is not null from users where user_id = 'zoe'")
    take_in("items", "item_id,title,categories,price\nn1,One,A|B,5\nn2,Another,A,4\n")
    assert standing(world, "zoe").inputs.items_revision == before.items_revision
    take_in("items", "item_id,title,categories,price\nn1,Once,A|B,5\n")
    assert standing(world, "zoe").inputs.items_revision > before.items_revision
    take_in("users", "user_id,tz\nzoe,Europe/Oslo\n")
    assert standing(world, "zoe").inputs.declared != before.declared
