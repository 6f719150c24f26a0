"""Profiles as files: what goes out comes back as it was, and nothing comes in that the store cannot vouch for."""

import csv
import gzip
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import make_url

import agent.profile_files
import store.profile_files
from agent import archive
from agent.contract import Claim, Evidence, Habit, Intent, LogSpan, Profile, Quality, SummarySentence, Tag
from agent.profile_files import SCHEMA, ProfileFileError, format_of
from agent.profile_transfer import Imported, export_profiles, import_profiles
from api.cli import main
from store import corrections, erasure, profiles
from store.database import Database
from store.errors import NotFoundError
from store.ingest.rejects import RejectLog
from store.tables import UserRow
from store.vectors import claim_vectors
from tests.command_line import Ended
from tests.http_client import fresh
from tests.personal import HASHER
from tests.small_world import EVERYONE, NOW, SHOPPER, FakeEmbedder, event, fill, profiler, wrote

Take = Callable[..., Imported]


@pytest.fixture(scope="module")
def filled(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """A database in which everyone has a profile; ann has three versions, and claims of her own in the last."""
    with fresh(postgres_url, migrated_template) as url:
        database = Database(url)
        fill(database)
        wrote(profiler(database))
        wrote(profiler(database, force=True), ["ann"])
        with database.session() as session:
            claim = archive.from_rows(profiles.load(session, "ann")).interests[0]
            corrections.add(
                session, "ann", "rewrite", "interest", claim.name, NOW, statement=claim.statement,
                claim_id=claim.claim_id, evidence=[e.event_id for e in claim.evidence], new_name="Whodunnits",
                new_statement="Loves a whodunnit.",
            )  # fmt: skip
            corrections.add(session, "ann", "add", "interest", "Bread", NOW, weight=2.0)
        wrote(profiler(database), ["ann"])
        database.close()  # a template must have no connections
        yield make_url(url).database or ""


@pytest.fixture
def world_url(postgres_url: str, filled: str) -> Iterator[str]:
    """The URL of a copy of the filled database."""
    with fresh(postgres_url, filled) as url:
        yield url


@pytest.fixture
def world(world_url: str) -> Iterator[Database]:
    """A copy of the filled database."""
    database = Database(world_url)
    yield database
    database.close()


@pytest.fixture
def take(world: Database, tmp_path: Path) -> Take:
    """Imports a file; the rejects are in `bad.csv`."""

    def import_it(path: Path) -> Imported:
        with RejectLog(tmp_path / "bad.csv") as rejects:
            return import_profiles(
                world, path, format_of(path), hasher=HASHER, embedder=FakeEmbedder(), rejects=rejects,
                clock=lambda: NOW,
            )  # fmt: skip

    return import_it


def put(database: Database, path: Path, **options: Any) -> Path:
    export_profiles(database, path, format_of(path), hasher=HASHER, clock=lambda: NOW, **options)
    return path


def contracts(database: Database, *, all_versions: bool = False) -> list[bytes]:
    with database.session() as session:
        rows = [row for user in EVERYONE for row in profiles.versions(session, user) if row.active or all_versions]
        found = [profiles.load(session, row.user_id, row.version) for row in rows]
        return sorted(archive.from_rows(stored).model_dump_json().encode() for stored in found)


def empty(database: Database) -> None:
    with database.raw() as connection:
        connection.execute("delete from profiles")


def lines_of(database: Database, tmp_path: Path, user: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(put(database, tmp_path / "one.jsonl", users=[user]).read_bytes())
    return told


def write_lines(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "given.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def count(database: Database, query: str) -> Any:
    with database.raw() as connection:
        return connection.execute(query).fetchone()[0]  # type: ignore[call-overload, index]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_round_trip_loses_nothing_and_two_change_nothing(
    world: Database, tmp_path: Path, take: Take, suffix: str
) -> None:
    before = contracts(world, all_versions=True)
    path = put(world, tmp_path / f"profiles.{suffix}", all_versions=True)
    assert take(path) == Imported(read=8, unchanged=8)
    empty(world)
    assert take(path) == Imported(read=8, stored=8)
    logs = "select array_agg((user_id, log_revision) order by user_id)::text from users"
    revisions = count(world, logs)
    assert contracts(world, all_versions=True) == before
    assert take(path) == Imported(read=8, unchanged=8)
    assert contracts(world, all_versions=True) == before
    assert count(world, logs) == revisions
    assert not (tmp_path / "bad.csv").exists()
    assert b"Whodunnits" in b"".join(before)
    assert b'"goal"' in b"".join(before)
    assert set(claim_vectors(world, FakeEmbedder.name).user_ids) == set(EVERYONE)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_active_profiles_come_back_as_first_versions(world: Database, tmp_path: Path, take: Take, suffix: str) -> None:
    before = contracts(world)
    path = put(world, tmp_path / f"profiles.{suffix}")
    empty(world)
    assert take(path) == Imported(read=6, stored=6)
    assert contracts(world) == [line.replace(b'"version":3', b'"version":1') for line in before]


def test_packed_lines(world: Database, tmp_path: Path, take: Take) -> None:
    for suffix, unpack in (("gz", gzip.decompress), ("zst", zstd)):
        path = put(world, tmp_path / f"profiles.jsonl.{suffix}")
        assert sorted(unpack(path.read_bytes()).splitlines()) == contracts(world)
        assert take(path) == Imported(read=6, unchanged=6)


def zstd(data: bytes) -> bytes:
    unpacked: bytes = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()
    return unpacked


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_kill_leaves_no_half_of_anything(
    world: Database, world_url: str, tmp_path: Path, take: Take, suffix: str
) -> None:
    whole = put(world, tmp_path / f"whole.{suffix}")
    half = tmp_path / f"half.{suffix}"
    before = contracts(world)
    empty(world)
    world.close()  # the child must have connections of its own

    def die_at(wanted: int) -> Callable[[int, int], None]:
        steps = itertools.count(1)
        return lambda *_: os.kill(os.getpid(), signal.SIGKILL) if next(steps) == wanted else None

    with RejectLog(tmp_path / "bad.csv") as rejects, patch.object(store.profile_files, "_BATCH", 1):
        given: dict[str, Any] = {"hasher": HASHER, "clock": lambda: NOW}
        more = given | {"rejects": rejects, "embedder": FakeEmbedder()}
        form = format_of(whole)
        dies(lambda: import_profiles(Database(world_url), whole, form, progress=die_at(3), **more))
        assert contracts(world) == [line.replace(b'"version":3', b'"version":1') for line in before[:3]]
        assert take(whole) == Imported(read=6, stored=3, unchanged=3)
        world.close()
        dies(lambda: export_profiles(Database(world_url), half, form, progress=die_at(4), **given))
    assert not half.exists()
    assert put(world, half).exists()


def dies(work: Callable[[], object]) -> None:
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def test_a_parquet_file_is_typed_and_says_what_it_is(world: Database, tmp_path: Path) -> None:
    path = put(world, tmp_path / "profiles.parquet")
    schema = pq.read_schema(path)
    assert schema.equals(SCHEMA, check_metadata=False)
    assert schema.metadata[b"limner.format"] == b"limner-profiles"
    assert schema.metadata[b"limner.version"] == b"1"
    assert path.stat().st_mode & 0o077 == 0
    claims = pl.scan_parquet(path).select("user_id", "claims").explode("claims").unnest("claims").collect()
    sure = claims.filter((pl.col("kind") == "interest") & (pl.col("origin") == "model"))
    profile = lines_of(world, tmp_path, "bob")
    expected = {claim["name"]: claim["strength"] for claim in profile["interests"]}
    assert dict(sure.filter(pl.col("user_id") == "bob").select("name", "strength").iter_rows()) == expected
    cited = sure.explode("evidence").unnest("evidence")
    assert cited["event_id"].str.head(3).eq(cited["user_id"]).all()


def test_the_columns_are_those_of_the_contract() -> None:
    def names(kind: Any) -> set[str]:
        return {field.name for field in (kind.value_type if pa.types.is_list(kind) else kind)}

    repeated = {"active", "created_at", "writer", "model", "key", "tokens"}
    assert set(SCHEMA.names) - repeated == (set(Profile.model_fields) - {"interests", "intents", "dislikes"}) | {
        "claims"
    }
    parts = {
        "claims": Intent,
        "summary": SummarySentence,
        "habits": Habit,
        "tags": Tag,
        "log": LogSpan,
        "quality": Quality,
    }
    for column, part in parts.items():
        assert names(SCHEMA.field(column).type) == set(part.model_fields)
    assert names(SCHEMA.field("claims").type.value_type.field("evidence").type) == set(Evidence.model_fields)
    assert set(Claim.model_fields) < set(Intent.model_fields)


def test_a_file_that_a_warehouse_has_rewritten(world: Database, tmp_path: Path, take: Take) -> None:
    before = contracts(world)
    path = put(world, tmp_path / "profiles.parquet")
    frame = pl.read_parquet(path).reverse()
    frame.select(reversed(frame.columns)).write_parquet(tmp_path / "rewritten.parquet")
    assert take(tmp_path / "rewritten.parquet").unchanged == len(EVERYONE)
    empty(world)
    assert take(tmp_path / "rewritten.parquet").stored == len(EVERYONE)
    assert [line.partition(b'"version"')[2][2:] for line in contracts(world)] == [
        line.partition(b'"version"')[2][2:] for line in before
    ]


def test_whose_profiles(world: Database, tmp_path: Path) -> None:
    path = put(world, tmp_path / "some.jsonl", users=["bob", "ann"], all_versions=True)
    found = [Profile.model_validate_json(line) for line in path.read_bytes().splitlines()]
    assert [(profile.user_id, profile.version) for profile in found] == [
        ("ann", 1), ("ann", 2), ("ann", 3), ("bob", 1),
    ]  # fmt: skip
    with world.session() as session:
        session.get_one(UserRow, "bob").consent = False
    assert b'"bob"' not in put(world, path).read_bytes()
    with pytest.raises(NotFoundError, match="No profile of user bob, eve"):
        put(world, path, users=["bob", "eve", "cid"])
    empty(world)
    with pytest.raises(NotFoundError, match="There are no profiles to export"):
        put(world, path)
    assert b'"cid"' in path.read_bytes()  # what was there before stays


def test_an_export_is_of_one_moment(world: Database, tmp_path: Path) -> None:
    def change(done: int, _: int) -> None:
        if done == 1:
            with world.session() as session:
                session.get_one(UserRow, SHOPPER).consent = False
            wrote(profiler(world, force=True), ["eli"])

    before = contracts(world)
    with patch.object(store.profile_files, "_BATCH", 1):
        path = put(world, tmp_path / "profiles.jsonl", progress=change)
    assert sorted(path.read_bytes().splitlines()) == before


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_an_export_that_fails_leaves_the_old_file(world: Database, tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / f"profiles.{suffix}"
    path.write_bytes(b"old")
    with world.raw() as connection:
        connection.execute("""update profiles set quality = '{"first_try": "many"}' where user_id = 'dee'""")
    with pytest.raises(ProfileFileError, match=r"user dee does not meet the contract \(quality.first_try"):
        put(world, path)
    assert [found.read_bytes() for found in folder.iterdir()] == [b"old"]
    with pytest.raises(ProfileFileError, match="cannot be written: No such file or directory"):
        put(world, tmp_path / "nowhere" / path.name)


def test_lines_that_are_rejected(world: Database, tmp_path: Path, take: Take) -> None:
    told, bob = lines_of(world, tmp_path, "ann"), lines_of(world, tmp_path, "bob")
    empty(world)
    first, *others = told["interests"]
    gone = [*first["evidence"][1:], {"event_id": "gone-1", "weight": 1.0}]
    bad: list[tuple[Any, str, str]] = [
        ({"mood": "good"}, "mood", "Extra inputs are not permitted"),
        ({"language": "tlh"}, "language", "Input should be 'en' or 'zh'"),
        ({"user_id": "nobody"}, "user_id", "there is no such user here"),
        ({"user_id": "bob"}, "claims", "cites events of another user"),
        ({"user_id": "b\0b"}, "user_id", "holds a NUL character"),
        ({"interests": told["dislikes"], "dislikes": [], "summary": []}, "interests", "holds a claim of another kind"),
        ({"log": told["log"] | {"revision": 1 << 40}}, "log.revision", "is no revision of a log"),
        ({"log": told["log"] | {"first": "2025-03-01T18:00:00"}}, "log.first", "has no time zone"),
        ({"log": told["log"] | {"events_read": 1 << 60}}, "log.events_read", "is a number beyond 2^53"),
        (
            {"provenance": told["provenance"] | {"corrections_revision": 7}},
            "provenance.corrections_revision",
            "follows corrections of the user that are not here",
        ),
        ({"interests": [first | {"evidence": gone}, *others]}, "claims", "cites events that are not here: gone-1"),
        (
            {"interests": [first | {"correction_id": 999}, *others]},
            "claims",
            "rests on a correction that the user has not made here",
        ),
        ({"interests": [first | {"evidence": []}, *others]}, "interests.0", "cites no event"),
        ('{"user_id": "ann"', "", "Invalid JSON"),
        ("[1, 2]", "", "Input should be an object"),
    ]
    rows = [change if isinstance(change, str) else told | change for change, _, _ in bad]

    assert take(write_lines(tmp_path, "", *rows, bob)) == Imported(read=16, stored=1, rejected=15)

    with (tmp_path / "bad.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    for n, ((_, column, reason), reject) in enumerate(zip(bad, found, strict=True)):
        assert (reject["line"], reject["column"]) == (str(n + 2), column), reject
        assert reason in reject["reason"]
    assert [json.loads(line)["user_id"] for line in contracts(world)] == ["bob"]


def test_records_that_are_rejected(world: Database, tmp_path: Path, take: Take) -> None:
    bad: list[tuple[str, Any, str]] = [
        ("key", "another", "key,bob,is not what provenance says"),
        ("tokens", 10**6, "tokens,bob,is not what provenance says"),
        ("provenance", "{", ",bob,a column of JSON text holds none"),
        ("provenance", None, ",bob,"),
        ("claims", None, ",bob,"),
        ("summary", None, "summary,bob,Input should be a valid tuple"),
        ("user_id", None, "user_id,None,Input should be a valid string"),
    ]
    path = put(world, tmp_path / "profiles.parquet")
    records = pq.read_table(path).to_pylist()
    changed = [records[1] | {column: value} for column, value, _ in bad]
    pq.write_table(pa.Table.from_pylist([*changed, *records], SCHEMA), path)
    assert take(path) == Imported(read=13, unchanged=6, rejected=7)
    rows = (tmp_path / "bad.csv").read_text().splitlines()[1:]
    for n, ((_, _, said), row) in enumerate(zip(bad, rows, strict=True), 1):
        assert row.startswith(f"{n},{said}")


def test_who_may_not_come_in(world: Database, tmp_path: Path, take: Take) -> None:
    path = put(world, tmp_path / "profiles.parquet")
    empty(world)
    erasure.erase(world, HASHER, tmp_path / "home", "cid", NOW)
    with world.session() as session:
        session.add(UserRow(user_id="cid"))  # back with a backup
        session.get_one(UserRow, "dee").consent = False
    assert take(path) == Imported(read=6, stored=4, dropped=1, rejected=1)
    assert "4,user_id,dee,the user does not consent to a profile" in (tmp_path / "bad.csv").read_text().splitlines()
    assert count(world, "select count(*) from profiles where user_id in ('cid', 'dee')") == 0
    assert count(world, "select count(*) from audit where action = 'import_profile'") == 4


def test_an_older_profile_does_not_replace_a_newer_one(world: Database, tmp_path: Path, take: Take) -> None:
    path = put(world, tmp_path / "profiles.jsonl", users=["bob", "cid", "dee"])
    for user in ("bob", "cid"):
        with world.session() as session:
            session.add(event(user, 900, "view", "m1", NOW))
            session.get_one(UserRow, user).log_revision += 1
    wrote(profiler(world), ["bob", "cid"])
    with world.raw() as connection:
        connection.execute("delete from profiles where version = 1")
    before = contracts(world)
    assert take(path) == Imported(read=3, stored=1, older=2)
    assert [line for line in contracts(world) if b'"dee"' not in line] == before


def test_the_same_log_in_fewer_steps(world: Database, tmp_path: Path, take: Take) -> None:
    told = [lines_of(world, tmp_path, user) for user in ("bob", "cid")]
    empty(world)
    for profile in told:
        profile["log"]["revision"] = 40
    told[1]["log"]["events_read"] -= 1  # cid's log has one more event here
    assert take(write_lines(tmp_path, *told)).stored == 2
    revisions = "select array_agg(log_revision order by user_id) from users where user_id in ('bob', 'cid')"
    assert count(world, revisions) == [40, 41]
    assert wrote(profiler(world, force=True), ["bob", "cid"]).failed == {}


def test_files_that_cannot_be_read(world: Database, tmp_path: Path, take: Take) -> None:
    damaged = "damaged, cut off or not of this format, at its beginning"
    for name, data, said in (
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\n \n", "is empty"),
        ("a.jsonl.gz", b"", "is empty"),
        ("a.parquet", b"", "is empty"),
        ("a.parquet", b"PAR1 and so on", damaged),
        ("a.jsonl.gz", b"no gzip\n", damaged),
        ("a.jsonl.zst", b"no zstd\n", damaged),
        ("a.csv", b"user_id\nann\n", "The format of"),
        ("a.gz", b"", "The format of"),
        ("parquet", b"", "The format of"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ProfileFileError, match=said):
            take(tmp_path / name)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl.gz", "jsonl.zst"])
def test_a_file_that_is_cut_off(world: Database, tmp_path: Path, take: Take, suffix: str) -> None:
    path = put(world, tmp_path / f"profiles.{suffix}")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ProfileFileError, match="damaged, cut off"):
        take(path)
    assert len(contracts(world)) == len(EVERYONE)


def test_a_damaged_place(world: Database, tmp_path: Path, take: Take) -> None:
    with patch.multiple(agent.profile_files, _ROW_GROUP=2, _BATCH=2):
        path = put(world, tmp_path / "profiles.parquet")
        group = pq.read_metadata(path).row_group(1).column(0)
        data = bytearray(path.read_bytes())
        start = group.dictionary_page_offset or group.data_page_offset
        data[start : start + 8] = b"\xff" * 8
        path.write_bytes(data)
        empty(world)
        with pytest.raises(ProfileFileError, match="after row 2"):
            take(path)
    assert len(contracts(world)) == 2


def test_other_columns(world: Database, tmp_path: Path, take: Take) -> None:
    path = put(world, tmp_path / "profiles.parquet")
    table = pq.read_table(path)
    numbers = pa.array([[1]] * len(table))
    for changed, said in (
        (table.drop(["log", "key"]), "columns key, log, log.as_of, .* missing"),
        (table.append_column("mood", numbers), "columns mood unknown"),
        (table.rename_columns([name.upper() for name in table.column_names]), "missing; .* unknown"),
        (table.set_column(0, "user_id", numbers), "has a column of the wrong type"),
        (table.replace_schema_metadata({"limner.version": "2"}), "was written by a newer version"),
    ):
        pq.write_table(changed, path)
        with pytest.raises(ProfileFileError, match=said):
            take(path)


@contextmanager
def command(args: list[str], url: str, home: Path) -> Iterator[None]:
    environment = {"LIMNER_DATABASE_URL": url, "LIMNER_HOME": str(home), "COLUMNS": "300", "NO_COLOR": "1"}
    with (
        patch.object(sys, "argv", ["limner", "profile", *args]),
        patch.dict("os.environ", environment),
        patch("api.commands.profile_files.embedder", lambda _: FakeEmbedder()),
    ):
        yield


def test_the_commands(
    world: Database, world_url: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def limner(*args: str) -> Ended:
        with command(list(args), world_url, tmp_path / "home"), pytest.raises(SystemExit) as caught:
            main()
        said = capfdbinary.readouterr()
        return Ended(int(caught.value.code or 0), said.out.decode(), said.err.decode())

    path = tmp_path / "profiles.parquet"
    ended = limner("export", str(path))
    assert (ended.code, ended.out) == (0, "")
    assert "6 profiles exported in" in ended.err
    ended = limner("export", "-", "--user", "bob")
    assert ended.code == 0
    assert ended.out.encode().splitlines() == [line for line in contracts(world) if b'"user_id":"bob"' in line]
    assert "1 profiles exported" in ended.err
    assert count(world, "select count(*) from audit where action = 'export_profile'") == 7

    ended = limner("import", str(path))
    assert ended.code == 0
    assert "6 profiles read: 0 stored, 6 unchanged, 0 older than what is here, 0 rejected" in ended.out
    with world.raw() as connection:
        connection.execute("delete from events where user_id = 'bob'")
        connection.execute("delete from profiles")
    ended = limner("import", str(path))
    assert ended.code == 1
    assert "6 profiles read: 5 stored, 0 unchanged, 0 older than what is here, 1 rejected" in ended.out
    assert "1 rejected: cites events that are not here" in ended.err
    assert (tmp_path / "home" / "rejects" / "profiles.parquet.rejects.csv").read_text().count("bob") > 1

    (tmp_path / "x.csv").write_text("user_id\n")
    for args, code, said in (
        (["export", str(tmp_path / "x.csv")], 1, "The format of"),
        (["export", "-", "--format", "parquet"], 2, "standard output takes JSON Lines"),
        (["export", "-", "--user", "nobody"], 1, "No profile of user nobody"),
        (["import", str(tmp_path / "gone.jsonl")], 2, "does not exist"),
        (["import", str(tmp_path / "x.csv")], 1, "The format of"),
        (["import", str(tmp_path / "x.csv"), "--format", "parquet"], 1, "damaged, cut off or not of this format"),
        (["import", str(path), "--rejects", str(path)], 2, "must not be the file itself"),
    ):
        ended = limner(*args)
        assert (ended.code, said in ended.err) == (code, True), ended
