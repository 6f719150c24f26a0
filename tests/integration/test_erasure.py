"""Erasure: nothing of the person is left anywhere, and nothing comes back, from a file or from a backup."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.evidence import EvidenceSettings
from recommend.data import read_training
from store import corrections, declared, erasure, factors, logs, profiles, revisions, tombstones
from store.database import Database, driver
from store.errors import ConflictError, IngestError, NotFoundError, StoreError
from store.export import export
from store.ingest import IngestReport, ingest
from store.privacy import Hasher
from store.records import User
from store.redaction import Redaction
from store.tombstones import ErasedError, PrivacyKeyError
from store.vectors import claim_vectors
from tests.personal import HASHER, files_with, spread, tables_with
from tests.scripted_llm import ScriptedLLM
from tests.small_world import NOW, RATERS, fill, profiler, wrote

ID = "rare-7f3a9"
AWKWARD = 'Zoë "O\'Hara"/a\\b\n你 %s ; drop table users;--'
LATER = NOW + timedelta(days=1)
OTHER = Hasher(b"another key of the tests")
EVERY_TABLE = {
    "users", "events", "profiles", "evidence", "attempts", "llm_calls", "corrections", "jobs", "job_items",
    "idempotency", "ingest_runs", "api_keys", "procrastinate_jobs",
}  # fmt: skip
EVERY_FILE = {
    "rejects/log.csv.rejects.csv", "rejects/only.csv.rejects.csv", "reports/eval.json", "reports/eval.md",
    "logs/limner.log", "logs/deep/old.log", "postgres/postgres.log",
}  # fmt: skip

Take = Callable[..., IngestReport]


def erase(database: Database, home: Path, user_id: str = ID, hasher: Hasher = HASHER, at: Any = NOW) -> None:
    erasure.erase(database, hasher, home, user_id, at)


def count(database: Database, query: str, *values: Any) -> Any:
    with database.raw() as connection:
        row = connection.execute(query, values).fetchone()
    assert row is not None
    return row[0]


def document(database: Database, user_id: str) -> dict[str, Any]:
    with export(database, HASHER, user_id, NOW) as file:
        found: dict[str, Any] = json.loads(file.read())
    return found


@pytest.fixture
def take(database: Database, tmp_path: Path) -> Take:
    """Ingests text."""

    def ingest_it(text: str, kind: Any = "events", **options: Any) -> IngestReport:
        path = tmp_path / "taken.csv"
        path.write_text(text, encoding="utf-8")
        given = {"source": "s", "known_types": {"view", "rating"}, "now": NOW, "hasher": HASHER}
        return ingest(database, kind, path, rejects_path=tmp_path / "bad.csv", **given | options)

    return ingest_it


@pytest.mark.parametrize("user_id", [ID, AWKWARD])
def test_nothing_is_left_in_any_table_or_file(database: Database, tmp_path: Path, user_id: str) -> None:
    spread(database, tmp_path, user_id)
    bob = document(database, "bob")
    claims = "select count(*) from {0} where kind = 'claim'"
    had = {table: count(database, claims.format(table)) for table in ("embeddings", "factors")}
    assert tables_with(database, user_id) == EVERY_TABLE
    assert files_with(tmp_path, user_id) == EVERY_FILE
    assert min(had.values()) > 0

    erase(database, tmp_path, user_id)

    assert tables_with(database, user_id) == set()
    assert files_with(tmp_path, user_id) == set()
    assert count(database, claims.format("factors")) == 0
    assert count(database, claims.format("embeddings")) == len(bob["profiles"][0]["claims"])
    assert document(database, "bob") == bob
    subject = HASHER.subject(user_id)
    assert count(database, "select count(*) from erasures where subject_hash = %s", subject) == 1
    with database.raw() as connection:
        rows = connection.execute("select action, key_id from audit where subject_hash = %s order by 1", [subject])
        assert rows.fetchall() == [("erase_user", None), ("read_profile", "k")]


def test_what_names_others_too_keeps_them(database: Database, tmp_path: Path) -> None:
    spread(database, tmp_path, ID)
    erase(database, tmp_path)
    with database.raw() as connection:
        jobs = connection.execute("select total, request->'users', result->'failed' from jobs order by job_id")
        assert jobs.fetchall() == [(1, ["bob"], {"bob": "User bob has no events."}), (0, [], {})]
        assert connection.execute("select args from queue.procrastinate_jobs").fetchall() == [
            ({"users": ["bob"], "chunk": 1},)
        ]
        assert connection.execute("select idempotency_key from idempotency").fetchall() == [("another's",)]
        keys = connection.execute("select key_id, scopes, revoked_at from api_keys order by key_id").fetchall()
        assert keys == [("both", ["read"], None), ("own", [], NOW)]
    rejects = (tmp_path / "rejects" / "log.csv.rejects.csv").read_text(encoding="utf-8").splitlines()
    assert rejects == ["line,column,value,reason", "2,value,five,not a number"]
    assert not (tmp_path / "rejects" / "only.csv.rejects.csv").exists()
    assert json.loads((tmp_path / "reports" / "eval.json").read_bytes()) == {"users": ["bob"], "k": 10}
    lines = (tmp_path / "logs" / "limner.log").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"event": "written", "user": "*" * len(ID), "n": 3}, {"event": "written", "user": "bob"},
    ]  # fmt: skip


def test_a_log_that_is_being_written_to_goes_on(database: Database, tmp_path: Path) -> None:
    fill(database, ["ann"])
    path = tmp_path / "logs" / "limner.log"
    path.parent.mkdir()
    with path.open("a", encoding="utf-8") as log:
        log.write("user ann begins\n")
        log.flush()
        erase(database, tmp_path, "ann")
        log.write("the next line\n")
    assert path.read_text(encoding="utf-8") == "user *** begins\nthe next line\n"


def test_a_large_log_is_cleaned_across_its_parts(database: Database, tmp_path: Path) -> None:
    fill(database, ["ann"])
    with database.raw() as connection:
        connection.execute("insert into users (user_id) values (%s)", [ID])
    lines = [f"{n:09} {ID if n % 7 == 0 else 'someone-e'}\n" for n in range(200_000)]
    path = tmp_path / "logs" / "large.log"
    path.parent.mkdir()
    path.write_text("".join(lines), encoding="utf-8")
    erase(database, tmp_path)
    assert path.read_text(encoding="utf-8") == "".join(lines).replace(ID, "*" * len(ID))


@pytest.mark.parametrize(
    ("user_id", "text", "hidden"),
    [
        ("7", "User 7 has 7 claims", "User [erased] has [erased] claims"),
        ("7", "7 of 17 claims were refused", "7 of 17 claims were refused"),
        ("7", "No user 12, 7 in the store", "No user 12, [erased] in the store"),
        ("7", "/v1/users/7/profile", "/v1/users/[erased]/profile"),
        ("7", "/v1/users/77/profile", "/v1/users/77/profile"),
        ("ann", "annual plans of joann", "annual plans of joann"),
        ("ann", "user ann", "user [erased]"),
        ("user-1", "user-1, user-11 and xuser-1", "[erased], user-11 and xuser-1"),
        ("a/b c d", "GET /v1/users/a%2Fb%20c%20d", "GET /v1/users/[erased]"),
        ('say "hi"', r'{"id": "say \"hi\""}', '{"id": "[erased]"}'),
        ("erased", "erased erased", "[erased] [erased]"),
        ("******", "******", "[erased]"),
        (
            "Zoë123",
            r"repr 'Zoë123', ascii Zo\xeb123, json Zo\u00eb123",
            "repr '[erased]', ascii [erased], json [erased]",
        ),
    ],
)
def test_an_id_is_found_as_a_name_and_not_as_a_number(user_id: str, text: str, hidden: str) -> None:
    assert Redaction(user_id).hide(text) == hidden


def test_a_short_id_spoils_no_numbers_of_json() -> None:
    told = {"users": ["7", "8"], "k": "7", "user_id": "7", "7": 1, "n": 7, "reason": "7 failed"}
    assert Redaction("7").strip(told) == {"users": ["8"], "k": "7", "n": 7, "reason": "7 failed"}


def test_erased_twice_and_never_seen(database: Database, tmp_path: Path) -> None:
    fill(database, ["ann"])
    with pytest.raises(NotFoundError, match="no user nobody"):
        erase(database, tmp_path, "nobody")
    assert not (tmp_path / tombstones.JOURNAL).exists()
    erase(database, tmp_path, "ann")
    erase(database, tmp_path, "ann", at=LATER)
    assert [row.erased_at for row in erasure.erasures(database, HASHER)] == [NOW]


def test_a_file_that_cannot_be_cleaned_stops_the_erasure(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, ["ann"])

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "limner.log")

    monkeypatch.setattr(Redaction, "clean", refuse)
    with pytest.raises(StoreError, match=r"limner\.log cannot be cleaned: Permission denied\. Nothing was erased"):
        erase(database, tmp_path, "ann")
    assert count(database, "select count(*) from users") == 1


# What comes in later.


def test_rows_of_the_erased_are_dropped_and_counted(database: Database, tmp_path: Path, take: Take) -> None:
    head = "user_id,item_id,type,ts\n"
    take(f"{head}{ID},i1,view,1700000000\nbob,i1,view,1700000000\n")
    erase(database, tmp_path)
    text = f"{head}{ID},new,view,1700000001\nbob,i1,view,1700000000\nbob,i2,view,1700000002\n{ID},i1,bad,1700000003\n"
    report = take(text + f"{ID},i1,view,1700000004\n")
    counts = report.rows_stored, report.rows_known, report.rows_rejected, report.rows_dropped
    assert (report.rows_read, counts) == (5, (1, 1, 1, 2))
    users = take(f"user_id,consent\n{ID},true\nzed,true\nbob,true\n", "users")
    assert (users.rows_read, users.rows_stored, users.rows_known, users.rows_dropped) == (3, 1, 1, 1)
    assert tables_with(database, ID) == set()
    assert count(database, "select count(*) from items where item_id = 'new'") == 0


def test_who_is_erased_while_their_file_is_read_is_dropped(database: Database, tmp_path: Path, take: Take) -> None:
    head = "user_id,item_id,type,ts\n"
    take(f"{head}{ID},i1,view,1700000000\nbob,i1,view,1700000000\n")
    text = f"{head}{ID},i1,view,1700000001\n{ID},i1,view,1700000002\nbob,i2,view,1700000003\n"
    report = take(text, progress=lambda *_: erase(database, tmp_path))
    assert (report.rows_read, report.rows_stored, report.rows_dropped) == (3, 1, 2)
    assert tables_with(database, ID) == set()
    take("user_id\nfay\n", "users")
    report = take("user_id,tz\nfay,\ngus,\n", "users", progress=lambda *_: erase(database, tmp_path, "fay"))
    assert report.rows_stored + report.rows_known + report.rows_dropped == report.rows_read == 2
    assert count(database, "select string_agg(user_id, ',' order by user_id) from users") == "bob,gus"


def test_the_erased_are_not_declared_again(database: Database, tmp_path: Path) -> None:
    fill(database, ["ann"])
    erase(database, tmp_path, "ann")
    with pytest.raises(ErasedError, match="limner user allow"), database.session() as session:
        declared.declare(session, User(user_id="ann"), HASHER)
    assert count(database, "select count(*) from users") == 0


def test_who_is_allowed_may_come_back_and_stays(database: Database, tmp_path: Path, take: Take) -> None:
    fill(database, ["ann"])
    other_home = tmp_path / "other"
    erase(database, tmp_path, "ann")
    erase(database, other_home, "ann")  # the journal of another machine knows of the erasure alone
    erasure.allow(database, HASHER, tmp_path, "ann", LATER)
    with pytest.raises(NotFoundError, match="no tombstone"):
        erasure.allow(database, HASHER, tmp_path, "ann", LATER)
    assert take("user_id,item_id,type,ts\nann,i1,view,1700000000\n").rows_dropped == 0
    for home in (tmp_path, other_home):
        assert erasure.replay(database, HASHER, home, LATER) == 0
    assert erasure.erasures(database, HASHER) == []
    erase(database, tmp_path, "ann", at=LATER + timedelta(days=1))
    assert len(erasure.erasures(database, HASHER)) == 1
    with database.raw() as connection:
        actions = connection.execute("select action from audit order by audit_id").fetchall()
    assert actions == [("erase_user",), ("erase_user",), ("allow_user",), ("erase_user",)]


# Backups and crashes.


@pytest.fixture
def backup(database: Database) -> Callable[[], Callable[[], None]]:
    """Call it to make a backup; call what it gives to bring the whole database back to that."""
    query = "select table_schema, table_name from information_schema.tables where table_schema in ('public', 'queue')"

    def dump() -> Callable[[], None]:
        kept: dict[str, bytes] = {}
        with database.raw() as connection, connection.cursor() as cursor:
            names = [f'"{schema}"."{name}"' for schema, name in cursor.execute(query).fetchall()]
            for name in names:
                with cursor.copy(f"copy {name} to stdout") as copy:  # type: ignore[arg-type]
                    kept[name] = b"".join(bytes(part) for part in copy)

        def restore() -> None:
            with database.raw() as connection, connection.cursor() as cursor:
                cursor.execute("set local session_replication_role = replica")
                cursor.execute(f"truncate {', '.join(kept)}")  # type: ignore[arg-type]
                for name, rows in kept.items():
                    with cursor.copy(f"copy {name} from stdin") as copy:  # type: ignore[arg-type]
                        copy.write(rows)

        return restore

    return dump


@pytest.mark.parametrize("user_id", [ID, AWKWARD])
def test_a_restored_backup_is_erased_again(
    database: Database, tmp_path: Path, backup: Callable[[], Callable[[], None]], user_id: str
) -> None:
    spread(database, tmp_path, user_id)
    restore = backup()
    assert erasure.replay(database, HASHER, tmp_path, NOW) == 0
    erase(database, tmp_path, user_id)
    bob = document(database, "bob")
    restore()
    assert tables_with(database, user_id) == EVERY_TABLE
    assert erasure.erasures(database, HASHER) == []
    assert erasure.replay(database, HASHER, tmp_path, LATER) == 1
    assert tables_with(database, user_id) == set()
    assert document(database, "bob") == bob
    assert [row.subject for row in erasure.erasures(database, HASHER)] == [HASHER.subject(user_id)]
    assert erasure.replay(database, HASHER, tmp_path, LATER) == 0


def test_rows_that_come_back_beside_their_tombstone_are_erased_again(database: Database, tmp_path: Path) -> None:
    fill(database, ["ann"])
    erase(database, tmp_path, "ann")
    (tmp_path / tombstones.JOURNAL).unlink()  # as on another machine
    with database.raw() as connection:
        connection.execute("insert into users (user_id) values ('ann'), ('bob')")
    assert erasure.replay(database, HASHER, tmp_path, LATER) == 1
    assert count(database, "select string_agg(user_id, ',') from users") == "bob"


def test_a_crash_before_the_end_is_made_good_at_the_next_start(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread(database, tmp_path, ID)
    write_down = tombstones.write_down

    def crash(*given: Any) -> None:
        write_down(*given)
        raise SystemExit(9)

    monkeypatch.setattr(tombstones, "write_down", crash)
    with pytest.raises(SystemExit):
        erase(database, tmp_path)
    assert tables_with(database, ID) == EVERY_TABLE
    monkeypatch.undo()
    assert erasure.replay(database, HASHER, tmp_path, LATER) == 1
    assert tables_with(database, ID) == set()


def test_a_line_of_the_journal_that_was_cut_off_is_left_out(database: Database, tmp_path: Path) -> None:
    fill(database, ["ann", "bob"])
    erase(database, tmp_path, "ann")
    path = tmp_path / tombstones.JOURNAL
    assert path.stat().st_mode & 0o777 == 0o600
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    erase(database, tmp_path, "bob")
    assert set(tombstones.read_journal(tmp_path, HASHER)) == {HASHER.subject("ann"), HASHER.subject("bob")}
    assert path.read_bytes().count(b"\n") == 3


def test_another_privacy_key_is_an_error_that_says_what_to_do(database: Database, tmp_path: Path, take: Take) -> None:
    fill(database, ["ann", "bob"])
    assert take("user_id\ncid\n", "users", hasher=OTHER).rows_stored == 1  # nobody was erased yet
    erase(database, tmp_path, "ann")
    for action in (
        lambda: erase(database, tmp_path, "bob", OTHER),
        lambda: erasure.allow(database, OTHER, tmp_path, "ann", NOW),
        lambda: erasure.replay(database, OTHER, tmp_path, NOW),
        lambda: erasure.erasures(database, OTHER),
        lambda: take("user_id\nann\n", "users", hasher=OTHER),
    ):
        with pytest.raises(PrivacyKeyError, match="Set LIMNER_PRIVACY_KEY"):
            action()
    with database.raw() as connection:
        connection.execute("truncate erasures")  # a backup from before: only the journal knows
    with pytest.raises(PrivacyKeyError):
        erasure.replay(database, OTHER, tmp_path, NOW)
    assert count(database, "select count(*) from users where user_id = 'bob'") == 1


# At work meanwhile, and consent.


def test_who_is_erased_while_the_model_writes_is_not_written_down(
    database: Database, tmp_path: Path, scripted: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RATERS, ID, RATERS["ann"])
    fill(database, [ID, "bob"])
    made = profiler(database, scripted.url)
    save = profiles.save

    def erased_first(session: Any, profile: Any, **given: Any) -> int:
        if profile.row.user_id == ID:
            erase(database, tmp_path)
        return save(session, profile, **given)

    monkeypatch.setattr(profiles, "save", erased_first)
    report = wrote(made, [ID, "bob"])
    assert report.written == ["bob"]
    assert set(report.failed) == {ID}
    assert tables_with(database, ID) == set()


@pytest.mark.parametrize("how", ["erased", "withdrawn"])
def test_no_call_is_made_for_who_goes_while_others_are_written(
    database: Database, tmp_path: Path, scripted: ScriptedLLM, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setitem(RATERS, ID, RATERS["ann"])
    fill(database, [ID, "bob"])
    made = profiler(database, scripted.url, users_at_once=1)
    save = profiles.save

    def then_the_other_goes(session: Any, profile: Any, **given: Any) -> int:
        if how == "erased":
            erase(database, tmp_path)
        else:
            with database.session() as other:
                declared.declare(other, User(user_id=ID, consent=False), HASHER)
        scripted.reset()
        return save(session, profile, **given)

    monkeypatch.setattr(profiles, "save", then_the_other_goes)
    report = wrote(made, ["bob", ID])
    assert report.written == ["bob"]
    assert "is gone, or has withdrawn consent" in report.failed[ID]
    assert scripted.requests == []
    assert count(database, "select count(*) from attempts where user_id = %s", ID) == 0
    assert (tables_with(database, ID) == set()) is (how == "erased")


def test_consent_withdrawn_takes_a_user_out_of_everything(database: Database, scripted: ScriptedLLM) -> None:
    fill(database)
    wrote(profiler(database))
    with database.raw() as connection:
        connection.execute(
            "insert into models (created_at, path, sha256, active, card) values (now(), 'none', '0', true, '{}')"
        )
        (model,) = connection.execute("select model_id from models").fetchone() or (0,)
    ids = [f"m{n}" for n in range(1, 9)]
    factors.write_factors(database, model, "item", ids, claim_vectors(database, "fake").vectors[:8])
    factors.write_claim_factors(database, model)
    near = {claim.user_id for claim in factors.claims_near_item(database, model, "m1", 99)}
    assert "ann" in near
    with database.session() as session:
        declared.declare(session, User(user_id="ann", consent=False), HASHER)

    own = (
        "select count(*) from {0} e join claims c on e.kind = 'claim' and e.owner_id = c.claim_pk::text"
        " join profiles p using (profile_id) where p.user_id = 'ann'"
    )
    assert [count(database, own.format(table)) for table in ("embeddings", "factors")] == [0, 0]
    assert {claim.user_id for claim in factors.claims_near_item(database, model, "m1", 99)} == near - {"ann"}
    assert "ann" not in claim_vectors(database, "fake").user_ids
    assert "ann" not in read_training(database, "fake", EvidenceSettings()).user_ids
    with database.session() as session:
        assert profiles.versions(session, "ann") == []
        assert "ann" not in profiles.active_users(session)
        assert "ann" not in logs.user_ids(session)
        assert logs.read_logs(session, ["ann"]) == []
        with pytest.raises(NotFoundError, match="does not consent"):
            profiles.load(session, "ann")
        with pytest.raises(NotFoundError, match="does not consent"):
            profiles.load(session, "ann", 1)
        with pytest.raises(ConflictError, match="does not consent"):
            corrections.add(session, "ann", "reject", "interest", "Tents", NOW)
    before = tables_with(database, "ann")
    report = wrote(profiler(database, scripted.url, force=True), ["ann"])
    assert (report.written, scripted.requests, tables_with(database, "ann")) == ([], [], before)


# The catalogue's revision.


def test_the_catalogue_has_a_revision(database: Database, take: Take) -> None:
    def revision() -> int:
        with database.session() as session:
            return revisions.value(session, "catalogue")

    take("item_id,title\ni1,One\n", "items")
    assert revision() == 1
    take("item_id,title\ni1,One\n", "items")
    take("user_id\nann\n", "users")
    take("user_id,item_id,type,ts\nann,i1,view,1700000000\n")
    assert revision() == 1
    take("user_id,item_id,type,ts\nann,i2,view,1700000001\n")
    assert revision() == 2
    with pytest.raises(IngestError):
        take("item_id,title\ni3,Three\n,\n,\n", "items", reject_limit=0.0)
    assert revision() == 2


def test_the_revision_rises_in_the_unit_of_work(database: Database) -> None:
    def raised_and_given_up() -> None:
        with database.session() as session:
            revisions.rise(session, "catalogue")
            revisions.rise(driver(session), "catalogue")
            assert revisions.value(session, "catalogue") == 2
            raise KeyError

    with pytest.raises(KeyError):
        raised_and_given_up()
    with database.session() as session:
        assert revisions.value(session, "catalogue") == 0
