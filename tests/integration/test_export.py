"""Export and import: a document of everything, which an empty installation gives back as it was."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import archive
from agent.evidence import DEFAULT_TYPES
from agent.loading import index_claims
from store import audit, corrections, erasure, keys, profiles, revisions
from store.database import Database
from store.errors import ConflictError, NotFoundError
from store.export import Export, export
from store.tables import EventRow, ItemRow, UserRow
from store.tombstones import ErasedError
from store.user_import import DocumentError, Imported, import_user, read_export
from tests.http_client import fresh
from tests.personal import HASHER, spread
from tests.small_world import NOW, FakeEmbedder, event, fill, profiler, wrote

LATER = NOW + timedelta(days=400)
IDS = [
    "ann/b", "'; drop table users;--", 'say "hi"', "<script>alert(1)</script>", "你好🌊", "e\u0301 and é", "%s {x} \\n",
    "line\nbreak\ttab\x7f\x01", "...", " ", "null", "x" * 512,
]  # fmt: skip


def text(database: Database, user_id: str, at: Any = NOW) -> bytes:
    with export(database, HASHER, user_id, at) as file:
        return file.read()


def document(database: Database, user_id: str, at: Any = NOW) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text(database, user_id, at))
    return found


def lasting(told: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in told.items() if name not in {"exported_at", "audit"}}


def take_in(database: Database, told: dict[str, Any] | bytes, at: Any = NOW) -> Imported:
    data = told if isinstance(told, bytes) else json.dumps(told).encode()
    given = read_export(data)
    return import_user(database, HASHER, given, at, known_types=DEFAULT_TYPES.keys(), check=archive.from_rows)


def stored(database: Database) -> int:
    tables = ("users", "items", "events", "profiles", "claims", "corrections", "attempts", "llm_calls", "revisions")
    with database.raw() as connection:
        counts = (connection.execute(f"select count(*) from {name}").fetchone() for name in tables)  # noqa: S608
        return sum(row[0] for row in counts if row)


@contextmanager
def another(postgres_url: str, template: str) -> Iterator[Database]:
    with fresh(postgres_url, template) as url:
        database = Database(url)
        yield database
        database.close()


@pytest.fixture
def elsewhere(postgres_url: str, migrated_template: str) -> Iterator[Database]:
    """Another installation, without a row."""
    with another(postgres_url, migrated_template) as database:
        yield database


@pytest.fixture(scope="module")
def nothing(postgres_url: str, migrated_template: str) -> Iterator[Database]:
    """One for tests that store nothing."""
    with another(postgres_url, migrated_template) as database:
        yield database


@pytest.fixture(scope="module")
def world(postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Ann, of whom there is everything: also a claim that she has added, and one that she has pinned."""
    with another(postgres_url, migrated_template) as database:
        spread(database, tmp_path_factory.mktemp("home"), "ann")
        with database.session() as session:
            claim = archive.from_rows(profiles.load(session, "ann")).interests[0]
            corrections.add(
                session, "ann", "pin", claim.kind, claim.name, NOW, statement=claim.statement, claim_id=claim.claim_id,
                evidence=[e.event_id for e in claim.evidence],
            )  # fmt: skip
        wrote(profiler(database), ["ann"])
        yield database


@pytest.fixture
def told(world: Database) -> dict[str, Any]:
    """Ann's export."""
    return document(world, "ann")


def test_everything_is_in_it(told: dict[str, Any]) -> None:
    assert [len(told[part]) for part in ("items", "events", "corrections", "profiles")] == [22, 37, 3, 3]
    assert told["user"] == {
        "user_id": "ann", "attributes": {}, "consent": True, "language": None, "tz": None, "log_revision": 1,
        "corrections_revision": 4,
    }  # fmt: skip
    assert [(c["number"], c["action"], c["undone_at"] is None) for c in told["corrections"]] == [
        (1, "reject", False), (2, "add", True), (3, "pin", True),
    ]  # fmt: skip
    assert {e["item_id"] for e in told["events"]} == {i["item_id"] for i in told["items"]}
    assert [p["active"] for p in told["profiles"]] == [False, False, True]
    cited = {c["details"].get("correction_id") for c in told["profiles"][2]["claims"]}
    assert cited == {None, 2, 3}
    (failed,) = (a for a in told["attempts"] if a["outcome"] == "failed")
    assert failed["reason"] == "User ann has no events."
    assert [call["tokens_in"] for call in failed["calls"]] == [10]
    assert told["audit"] == [{"at": "2025-09-01T12:00:00Z", "action": "read_profile", "key": "k"}]
    Export.model_validate(told)


def test_the_audit_names_the_key(database: Database) -> None:
    fill(database, ["ann"])
    with database.session() as session:
        token = keys.create(session, "the shop", ["read"], NOW)
        for key_id in (token.split("_")[1], None):
            audit.note(session, NOW, key_id, "read_profile", HASHER.subject("ann"))
        audit.note(session, NOW, None, "read_profile", HASHER.subject("bob"))
    assert [entry["key"] for entry in document(database, "ann")["audit"]] == ["the shop", None]


def test_it_comes_back_as_it_was(world: Database, elsewhere: Database, told: dict[str, Any]) -> None:
    made = take_in(elsewhere, text(world, "ann"))
    assert made == Imported("ann", 22, 37, 3, 3)
    assert lasting(document(elsewhere, "ann", LATER)) == lasting(told)
    assert document(elsewhere, "ann")["audit"] == []
    for version in (1, 2, 3, None):
        with world.session() as here, elsewhere.session() as there:
            original, copied = (archive.from_rows(profiles.load(s, "ann", version)) for s in (here, there))
            if version in {1, 2}:
                assert copied == original
            assert [c.statement for c in copied.claims] == [c.statement for c in original.claims]
    with elsewhere.session() as session:
        assert revisions.value(session, "catalogue") == 1


def test_corrections_get_new_numbers_where_there_are_others(elsewhere: Database, told: dict[str, Any]) -> None:
    fill(elsewhere, ["bob"])
    with elsewhere.session() as session:
        for name in "abcde":
            corrections.add(session, "bob", "reject", "interest", name, NOW)
    told["profiles"][2]["summary"][0]["claim_ids"].append("+2")
    told["corrections"][2]["claim_id"] = "+2"
    take_in(elsewhere, told)
    with elsewhere.session() as session:
        rows = corrections.live(session, "ann")
        ids = {row.name: row.correction_id for row in rows}
        profile = archive.from_rows(profiles.load(session, "ann"))
    assert min(i or 0 for i in ids.values()) > 5
    (added,) = (claim for claim in profile.claims if claim.origin == "user")
    assert (added.claim_id, added.correction_id) == (f"+{ids['Bread']}", ids["Bread"])
    assert (profile.summary[0].claim_ids[-1], rows[-1].claim_id) == (added.claim_id, added.claim_id)
    assert lasting(document(elsewhere, "ann")) == lasting(told)


def test_what_is_taken_in_is_at_work(elsewhere: Database, told: dict[str, Any]) -> None:
    take_in(elsewhere, told)
    made = profiler(elsewhere)
    assert index_claims(elsewhere, FakeEmbedder()) == len(told["profiles"][2]["claims"])
    report = wrote(made, ["ann"])
    assert (report.failed, report.stopped_by) == ({}, None)


@pytest.mark.parametrize("user_id", IDS)
def test_awkward_ids_and_words_come_back(database: Database, elsewhere: Database, user_id: str) -> None:
    strange = f"{user_id} '\"\\%s\u2028"[:500]
    with database.session() as session:
        session.add(
            UserRow(user_id=user_id, attributes={strange: [strange, 1.5, None, {"a": True}]}, tz="Asia/Kolkata")
        )
        session.add(ItemRow(item_id=strange, title=strange, categories=[strange, ""], price=0.1, created_at=NOW))
        session.flush()
        session.add(EventRow(
            event_id=strange, user_id=user_id, item_id=strange, type="rating", ts=NOW, ts_offset=-330, value=1e-300,
            text=strange, context={strange: strange},
        ))  # fmt: skip
        corrections.add(session, user_id, "add", "interest", strange, NOW)
    told = document(database, user_id)
    take_in(elsewhere, text(database, user_id))
    assert lasting(document(elsewhere, user_id)) == lasting(told)
    assert told["events"][0]["context"] == {strange: strange}
    with elsewhere.raw() as connection:
        row = connection.execute(
            "select user_id, text, value, context, (select context is null from events) from events"
        )
        assert row.fetchone() == (user_id, strange, 1e-300, {strange: strange}, False)


def test_a_long_log_goes_to_the_disk_in_order(database: Database, elsewhere: Database) -> None:
    with database.raw() as connection:
        connection.execute("insert into users (user_id) values ('ann')")
        connection.execute(
            "insert into events (event_id, user_id, type, ts, text) select 'e' || n, 'ann', 'search',"
            " '2025-01-01'::timestamptz + n * interval '1 minute', repeat('x', 200) from generate_series(1, 20000) n"
        )
    with export(database, HASHER, "ann", NOW) as file:
        assert file._rolled
        data = file.read()
    assert [e["event_id"] for e in json.loads(data)["events"]] == [f"e{n}" for n in range(1, 20_001)]
    assert take_in(elsewhere, data).events == 20_000


def test_it_needs_no_consent_and_an_unknown_user_has_none(
    database: Database, elsewhere: Database, tmp_path: Path
) -> None:
    spread(database, tmp_path, "ann")
    with database.session() as session:
        session.get_one(UserRow, "ann").consent = False
    told = document(database, "ann")
    assert (told["user"]["consent"], len(told["profiles"])) == (False, 2)
    take_in(elsewhere, told)
    assert lasting(document(elsewhere, "ann")) == lasting(told)
    with pytest.raises(NotFoundError, match="does not consent"), elsewhere.session() as session:
        profiles.load(session, "ann")
    with pytest.raises(NotFoundError, match="no user nobody"):
        document(database, "nobody")


def test_who_is_there_already_or_was_erased_is_not_taken_in(
    elsewhere: Database, told: dict[str, Any], tmp_path: Path
) -> None:
    take_in(elsewhere, told)
    before = stored(elsewhere)
    with pytest.raises(ConflictError, match="There is a user ann already"):
        take_in(elsewhere, told)
    other = copy.deepcopy(told)
    other["user"]["user_id"] = "another"
    with pytest.raises(ConflictError, match=r"There is an event ann-.* already, of another user"):
        take_in(elsewhere, other)
    assert stored(elsewhere) == before
    erasure.erase(elsewhere, HASHER, tmp_path, "ann", NOW)
    with pytest.raises(ErasedError):
        take_in(elsewhere, told)
    erasure.allow(elsewhere, HASHER, tmp_path, "ann", NOW)
    take_in(elsewhere, told)
    assert lasting(document(elsewhere, "ann")) == lasting(told)


def test_items_that_are_there_stay_unless_they_are_stubs(elsewhere: Database, told: dict[str, Any]) -> None:
    with elsewhere.session() as session:
        session.add_all([ItemRow(item_id="m1", title="Ours"), ItemRow(item_id="m2", title="m2", stub=True)])
    assert take_in(elsewhere, told).items == 21
    with elsewhere.raw() as connection:
        rows = connection.execute("select title, stub from items where item_id in ('m1', 'm2') order by item_id")
        assert rows.fetchall() == [("Ours", False), ("Nine Bells", False)]


def _set(path: str, value: Any) -> Any:
    def change(told: dict[str, Any]) -> None:
        *way, last = path.split(".")
        place: Any = told
        for step in way:
            place = place[int(step) if isinstance(place, list) else step]
        place[int(last) if isinstance(place, list) else last] = value

    return change


def _twice(part: str) -> Any:
    return lambda told: told[part].append(told[part][0])


@pytest.mark.parametrize(
    ("change", "where", "message"),
    [
        (_set("format", "other"), "format", "Input should be 'limner-user'"),
        (_set("version", 2), "version", "Input should be 1"),
        (_set("more", 1), "more", "Extra inputs are not permitted"),
        (_set("events.3.ts", "yesterday"), "events.3.ts", "valid datetime"),
        (_set("events.3.ts", "2025-03-01T10:00:00"), "events.3.ts", "timezone"),
        (_set("events.3.ts", "0001-01-01T00:00:00+14:00"), "events.3.ts", "greater than"),
        (_set("events.3.ts", "1969-12-31T23:59:59Z"), "events.3.ts", "before 1970"),
        (_set("events.3.ts", "2026-12-31T23:59:59Z"), "events.3.ts", "future"),
        (_set("events.3.type", "teleport"), "events.3.type", "unknown event type"),
        (_set("events.3.item_id", "z9"), "events.3.item_id", "not among the items"),
        (_set("events.3.event_id", "x" * 513), "events.3.event_id", "at most 512"),
        (_set("events.3.text", "a\0b"), "events.3.text", "NUL"),
        (_set("user.user_id", ""), "user.user_id", "at least 1"),
        (_set("user.user_id", ".."), "user.user_id", "addresses cannot hold"),
        (_set("items.0.item_id", "."), "items.0.item_id", "addresses cannot hold"),
        (_set("user.attributes", {"a": {"b\0": 1}}), "user.attributes.a", "NUL"),
        (_set("user.tz", "Mars/Base"), "user.tz", "time zone"),
        (_set("user.log_revision", 1 << 31), "user.log_revision", "less than"),
        (_set("items.0.price", "much"), "items.0.price", "valid number"),
        (_twice("items"), "items.22", "twice"),
        (_twice("events"), "events.37", "twice"),
        (_twice("profiles"), "profiles.3", "twice"),
        (_twice("corrections"), "corrections.3", "twice"),
        (_set("profiles.0.active", True), "profiles", "more than one is active"),
        (_set("profiles.0.summary", [{"text": "Likes it."}]), "profiles.0.summary.0.claim_ids", "required"),
        (_set("profiles.0.claims.0.strength", 7.5), "profiles.0.strength", "less than or equal to 1"),
        (_set("profiles.0.claims.0.kind", "hate"), "profiles.0.claims.0.kind", "Input should be"),
        (_set("profiles.0.claims.0.claim_id", "+9"), "profiles.0.claims.0.claim_id", "not among the corrections"),
        (
            _set("profiles.0.claims.0.details.correction_id", 9),
            "profiles.0.claims.0.details.correction_id",
            "not among the corrections",
        ),
        (
            _set("profiles.0.claims.1.evidence.0.event_id", "bob-0000"),
            "profiles.0.claims.1.evidence.0.event_id",
            "not among the events",
        ),
        (_set("corrections.1.rho", 1.5), "corrections.1.rho", "less than or equal to 1"),
        (_set("corrections.1.action", "burn"), "corrections.1.action", "Input should be"),
    ],
)  # fmt: skip
def test_a_wrong_document_is_refused_with_the_path_of_the_fault(
    nothing: Database, told: dict[str, Any], change: Any, where: str, message: str
) -> None:
    change(told)
    with pytest.raises(DocumentError, match=message) as caught:
        take_in(nothing, told)
    assert caught.value.where == where
    assert stored(nothing) == 0


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"7", b"[]", b"{}", b'{"format": "\\ud800"}', b'{"a": ' * 5_000 + b"1" + b"}" * 5_000, b"\xff"],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(DocumentError):
        read_export(data)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_numbers_that_json_has_not_are_refused(nothing: Database, told: dict[str, Any], number: str) -> None:
    told["user"]["attributes"] = {"a": ["here"]}
    data = json.dumps(told).replace('"here"', number).encode()
    with pytest.raises(DocumentError, match=r"finite|JSON"):
        take_in(nothing, data)
    assert stored(nothing) == 0


def test_the_example_of_the_contract_can_be_taken_in(elsewhere: Database) -> None:
    example: Any = Export.model_config["json_schema_extra"]
    take_in(elsewhere, example["example"])
    again = document(elsewhere, "405")
    assert lasting(again) == lasting(example["example"])


def test_an_event_without_an_item_comes_back(database: Database, elsewhere: Database) -> None:
    with database.session() as session:
        session.add(UserRow(user_id="sam"))
        session.flush()
        session.add(event("sam", 1, "search", None, NOW, text="tents"))
    take_in(elsewhere, document(database, "sam"))
    assert lasting(document(elsewhere, "sam")) == lasting(document(database, "sam"))
    with elsewhere.raw() as connection:
        assert connection.execute("select context is null, run_id from events").fetchall() == [(True, None)]
