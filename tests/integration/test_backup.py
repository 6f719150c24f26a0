"""A backup that is restored elsewhere gives the same answers, and nobody who was erased since comes back with it."""

import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

import api.runtime
from api.cli import main
from api.http.app import create_app
from api.training import train_model
from store import backup as backups
from store import dumps, erasure, models, tombstones
from store.backup import BackupError, Manifest
from store.database import Database
from store.errors import StoreError
from store.privacy import KEY_FILE, Hasher, hasher
from store.tombstones import PrivacyKeyError
from tests.command_line import Ended
from tests.http_client import client, fresh, new_key, settings
from tests.integration.test_http_recommendations import PARAMETERS
from tests.personal import tables_with
from tests.small_world import EVERYONE, NOW, FakeEmbedder, fill, profiler, wrote

Answers = dict[str, tuple[int, bytes]]
Limner = Callable[..., Ended]
LATER = NOW + timedelta(days=1)
MUCH_LATER = NOW + timedelta(days=2)
OTHER = Hasher(b"another key of the tests")


class World(NamedTuple):
    """An installation: its database, its data directory, the token of a key, and what it answers."""

    database: Database
    home: Path
    token: str
    answers: Answers

    @property
    def hasher(self) -> Hasher:
        return hasher(self.home, None)


def answers(database: Database, home: Path, token: str, users: tuple[str, ...] = EVERYONE) -> Answers:
    """What a server says about users and in all, byte for byte."""
    paths = ["models", "users?limit=20", "users/search?q=tents&limit=5", "items?limit=40"]
    for user in users:
        paths += [
            f"users/{user}{rest}"
            for rest in ("", "/profile", "/profile/versions", "/events", "/corrections", "/recommendations?k=10",
                         "/explanations/t1", "/explanations/m3")
        ]  # fmt: skip
    with client(create_app(settings(home), database), token) as http:
        found = {path: http.get(f"/v1/{path}") for path in paths}
    return {path: (answer.status_code, answer.content) for path, answer in found.items()}


@pytest.fixture(autouse=True)
def _faked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())


@pytest.fixture(scope="module")
def world(postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everyone has a profile; ann has rejected a claim, bob has added one. Tests leave it as it is."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patched, fresh(postgres_url, migrated_template) as url:
        patched.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
        database = Database(url)
        fill(database)
        wrote(profiler(database), EVERYONE)
        train_model(database, settings(home), PARAMETERS)
        token = new_key(database, "admin")
        with client(create_app(settings(home), database), token) as http:
            assert http.post("/v1/users/ann/claims/i1/reject").is_success
            assert http.post("/v1/users/bob/claims", json={"name": "Bread", "statement": "Bakes bread."}).is_success
        yield World(database, home, token, answers(database, home, token))
        database.close()


@pytest.fixture(scope="module")
def file(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its backup."""
    path = tmp_path_factory.mktemp("backup") / "limner.zip"
    backups.backup(world.database, path, NOW, "0.1.0")
    return path


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        database.close()


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    """Another database, without tables."""
    with opened(empty_url) as database:
        yield database


@pytest.fixture
def away(world: World, tmp_path: Path) -> Path:
    """Another data directory, with the privacy key."""
    home = tmp_path / "elsewhere"
    home.mkdir()
    shutil.copy(world.home / KEY_FILE, home)
    return home


def manifest(file: Path) -> Manifest:
    with zipfile.ZipFile(file) as archive:
        return Manifest.model_validate_json(archive.read(backups.MANIFEST))


def rewritten(file: Path, to: Path, **changes: object) -> Path:
    """The backup with another manifest."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            told = old.read(name)
            new.writestr(name, json.dumps(json.loads(told) | changes) if name == backups.MANIFEST else told)
    return to


def is_empty(database: Database) -> bool:
    return database.status().current is None


# The way back.


def test_a_restored_backup_gives_the_same_answers_elsewhere(
    world: World, file: Path, empty: Database, away: Path
) -> None:
    assert {path: status for path, (status, _) in world.answers.items() if status != 200} == {}
    before = world.home.rename(world.home.with_name("gone"))  # nothing can be read where it was
    try:
        done = backups.restore(empty, hasher(away, None), away, file, LATER)
        assert (done.erased, done.journal, done.manifest.lost) == (0, False, [])
        assert answers(empty, away, world.token) == world.answers
    finally:
        before.rename(world.home)
    with empty.session() as session:
        row = models.active_model(session)
        assert row is not None
        assert Path(row.path).parent == away / "recommenders"
    empty.require_head()


@pytest.fixture
def copy(world: World, file: Path, database_url: str, tmp_path: Path) -> Iterator[World]:
    """An installation to be changed: the backup, restored into a database that has tables and no rows."""
    home = tmp_path / "copy"
    home.mkdir()
    shutil.copy(world.home / KEY_FILE, home)
    with opened(database_url) as database:
        backups.restore(database, world.hasher, home, file, NOW)
        yield World(database, home, world.token, world.answers)


def of_others(found: Answers) -> Answers:
    return {
        path: answer
        for path, answer in found.items()
        if path.split("/")[1:2] not in ([], ["ann"]) and "?q=" not in path
    }


def test_who_was_erased_since_stays_erased(world: World, file: Path, copy: World, empty: Database, away: Path) -> None:
    erasure.erase(copy.database, copy.hasher, copy.home, "ann", LATER)
    shutil.copy(copy.home / tombstones.JOURNAL, away)
    done = backups.restore(empty, hasher(away, None), away, file, MUCH_LATER)
    assert (done.erased, done.journal) == (1, True)
    assert tables_with(empty, "ann") == set()
    found = answers(empty, away, world.token)
    assert of_others(found) == of_others(world.answers)
    assert {status for path, (status, _) in found.items() if path.startswith("users/ann")} == {404}
    with empty.raw() as connection, pytest.raises(tombstones.ErasedError):
        tombstones.require_not_erased(connection, hasher(away, None), "ann")


def test_the_database_that_is_replaced_tells_who_was_erased(file: Path, copy: World) -> None:
    hashes = copy.hasher
    for user in ("ann", "bob"):
        erasure.erase(copy.database, hashes, copy.home, user, LATER)
    erasure.allow(copy.database, hashes, copy.home, "bob", MUCH_LATER)
    (copy.home / tombstones.JOURNAL).unlink()
    with pytest.raises(BackupError, match="The database is not empty"):
        backups.restore(copy.database, hashes, copy.home, file, MUCH_LATER)
    done = backups.restore(copy.database, hashes, copy.home, file, MUCH_LATER, replace=True)
    assert done.erased == 1
    found = answers(copy.database, copy.home, copy.token, ("ann", "bob"))
    assert (found["users/ann"][0], found["users/bob/profile"]) == (404, copy.answers["users/bob/profile"])
    assert {entry.what for entry in tombstones.read_journal(copy.home, hashes).values()} == {"erased", "allowed"}


def test_without_the_journal_it_says_that_there_is_none(file: Path, copy: World, empty: Database, away: Path) -> None:
    erasure.erase(copy.database, copy.hasher, copy.home, "ann", LATER)
    done = backups.restore(empty, hasher(away, None), away, file, MUCH_LATER)
    assert (done.erased, done.journal) == (0, False)
    assert answers(empty, away, copy.token, ("ann",))["users/ann"][0] == 200
    shutil.copy(copy.home / tombstones.JOURNAL, away)
    assert erasure.replay(empty, hasher(away, None), away, MUCH_LATER) == 1


def test_another_privacy_key_is_refused_before_anything_is_done(
    file: Path, copy: World, empty: Database, away: Path, tmp_path: Path
) -> None:
    erasure.erase(copy.database, copy.hasher, copy.home, "ann", LATER)
    later = tmp_path / "later.zip"
    backups.backup(copy.database, later, LATER, "0.1.0")
    with pytest.raises(PrivacyKeyError, match="Set LIMNER_PRIVACY_KEY"):
        backups.restore(empty, OTHER, away, later, MUCH_LATER)
    shutil.copy(copy.home / tombstones.JOURNAL, away)
    with pytest.raises(PrivacyKeyError, match="Set LIMNER_PRIVACY_KEY"):
        backups.restore(empty, OTHER, away, file, MUCH_LATER)
    assert is_empty(empty)
    assert not (away / "recommenders").exists()
    assert backups.restore(empty, copy.hasher, away, later, MUCH_LATER).erased == 0


# What is refused.


def test_a_damaged_file_is_refused(file: Path, empty: Database, away: Path, tmp_path: Path) -> None:
    whole, damaged = file.read_bytes(), tmp_path / "damaged.zip"
    rng, refused = random.Random(4), 0  # noqa: S311
    directory = range(len(whole) - 700, len(whole), 5)
    places = [*range(40), *directory, *(rng.randrange(len(whole)) for _ in range(20))]
    flipped = [whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :] for place in places]
    for content in (b"", b"no archive", whole[:-1], whole[: len(whole) // 2], *flipped):
        damaged.write_bytes(content)
        try:
            with backups._opened(damaged) as archive:
                found = backups._checked(archive, damaged)
        except BackupError:
            refused += 1
        else:
            assert found == manifest(file)  # such as a bit of a time, which nothing depends on
    assert refused > len(places) / 2
    damaged.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BackupError, match=r"damaged\.zip is no backup, or is damaged: .* Nothing was restored\."):
        backups.restore(empty, OTHER, away, damaged, LATER)
    with zipfile.ZipFile(file) as archive:
        at = archive.getinfo(backups.DUMP).header_offset + 500
    damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(BackupError, match=r"is damaged"):
        backups.restore(empty, OTHER, away, damaged, LATER)
    assert is_empty(empty)
    assert list(away.iterdir()) == [away / KEY_FILE]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dump": "0" * 64}, r"database\.dump in .* is damaged"),
        ({"models": {"1": "../../../x"}}, "no backup that this version of Limner knows"),
        ({"models": {"1": "0" * 64}}, "no backup that this version of Limner knows"),
        ({"format": 2}, "no backup that this version of Limner knows"),
        ({"revision": "9999"}, "a newer one has upgraded it"),
        ({"postgres": 99}, r"of PostgreSQL 99, and this server is \d+"),
        ({"pg_dump": 99}, r"pg_restore of PostgreSQL 99 or newer is needed, and the newest here is \d+\. Install it"),
    ],
)
def test_a_backup_that_cannot_be_restored_is_refused(
    file: Path, empty: Database, away: Path, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(StoreError, match=reason):
        backups.restore(empty, OTHER, away, rewritten(file, tmp_path / "other.zip", **changes), LATER)
    assert is_empty(empty)


def test_a_database_with_other_peoples_tables_is_left_alone(file: Path, empty: Database, away: Path) -> None:
    with empty.raw() as connection:
        connection.execute("create table theirs (id int)")
    for replace in (False, True):
        with pytest.raises(BackupError, match="has tables that are not Limner's"):
            backups.restore(empty, OTHER, away, file, LATER, replace=replace)


def test_a_dump_that_fails_leaves_nothing(
    file: Path, empty: Database, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with empty.raw() as connection:
        connection.execute("create view users as select 1")
    with pytest.raises(StoreError, match=r'pg_restore has failed: .*"users" already exists'):
        backups.restore(empty, OTHER, away, file, LATER)
    assert is_empty(empty)


# Making one.


def test_it_is_of_one_moment_and_readable_by_its_owner_alone(
    world: World, empty: Database, away: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, find = tmp_path / "b.zip", backups._pack_models

    def meanwhile(*given: object) -> object:
        with world.database.raw() as connection:
            connection.execute("insert into users (user_id) values ('late')")
        return find(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(backups, "_pack_models", meanwhile)
    commands: list[str] = []
    run = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: (commands.extend(a[0]), run(*a, **k))[1])
    try:
        backups.backup(world.database, path, NOW, "0.1.0")
    finally:
        with world.database.raw() as connection:
            connection.execute("delete from users where user_id = 'late'")
    backups.restore(empty, world.hasher, away, path, LATER)
    with empty.raw() as connection:
        assert connection.execute("select user_id from users order by 1").fetchall() == sorted((u,) for u in EVERYONE)
    assert path.stat().st_mode & 0o777 == 0o600
    password = world.database.engine.url.password
    assert [word for word in commands if word.startswith("--dbname=")]
    assert password is None or password not in " ".join(commands)


def test_a_backup_that_fails_leaves_no_file(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "pg_dump"
    script.write_text('#!/bin/sh\necho "pg_dump (PostgreSQL) 99.1"; [ "$1" = --version ] || exit 3\n')
    script.chmod(0o755)
    monkeypatch.setattr(dumps, "program", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(StoreError, match="pg_dump has failed: exit code 3"):
        backups.backup(world.database, tmp_path / "b.zip", NOW, "0.1.0")
    script.write_text('#!/bin/sh\necho "pg_dump (PostgreSQL) 9.6"\n')
    with pytest.raises(StoreError, match=r"pg_dump of PostgreSQL \d+ or newer is needed, and the newest here is 9"):
        backups.backup(world.database, tmp_path / "b.zip", NOW, "0.1.0")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(StoreError, match=r"is needed, and none is here\. Install it .* postgresql-client-\d+"):
        backups.backup(world.database, tmp_path / "b.zip", NOW, "0.1.0")
    assert list(tmp_path.iterdir()) == [script]


def test_an_older_database_and_a_model_whose_file_is_gone(
    copy: World, empty: Database, away: Path, tmp_path: Path
) -> None:
    with copy.database.session() as session:
        row = models.active_model(session)
        assert row is not None
        Path(row.path).unlink()
    copy.database.downgrade("0006")
    made = backups.backup(copy.database, tmp_path / "old.zip", NOW, "0.1.0")
    assert (made.revision, made.models, made.lost) == ("0006", {}, [row.model_id])
    backups.restore(empty, copy.hasher, away, tmp_path / "old.zip", LATER)
    empty.require_head()


def test_a_database_from_before_there_were_erasures_is_upgraded_first(empty: Database, tmp_path: Path) -> None:
    empty.upgrade()
    empty.downgrade("0003")
    with pytest.raises(BackupError, match="revision 0003: run `limner db upgrade`"):
        backups.backup(empty, tmp_path / "older.zip", NOW, "0.1.0")
    assert list(tmp_path.iterdir()) == []


# The commands.


@pytest.fixture
def limner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Limner:
    """The command in this process; settings are keywords."""

    def run(*args: str, **settings: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["limner", *args])
        for name, value in settings.items():
            monkeypatch.setenv(f"LIMNER_{name}", value)
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        return Ended(int(caught.value.code or 0), said.out, said.err)

    return run


def test_the_commands(world: World, limner: Limner, empty_url: str, away: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    there = {"HOME": str(world.home), "DATABASE_URL": world.database.url}
    made = limner("db", "backup", str(path), **there)
    assert (made.code, "1 trained models" in made.out, KEY_FILE in made.err) == (0, True, True)
    again = limner("db", "backup", str(path), **there)
    assert (again.code, "exists already. Give the backup another name." in again.err) == (1, True)
    here = {"HOME": str(away), "DATABASE_URL": empty_url}
    assert "there is nothing to back up" in limner("db", "backup", str(tmp_path / "c.zip"), **here).err
    done = limner("db", "restore", str(path), **here)
    assert done.code == 0
    assert done.out.startswith("Restored what was there on ")
    assert f"There is no {tombstones.JOURNAL}" in done.err
    refused = limner("db", "restore", str(path), **here)
    assert (refused.code, "The database is not empty." in refused.err) == (1, True)
    assert limner("db", "restore", str(path), "--replace", **here).code == 0
