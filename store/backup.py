"""Backups: one file with a dump of the database and the files of its trained models, and the way back.

The file is a ZIP archive: `manifest.json`, `database.dump` (PostgreSQL's custom format) and
`recommenders/<SHA-256>.safetensors`. It holds people's data, and neither the privacy key nor the journal of erasures:
with the key, whoever has the file could test whose hashes are in it, and the journal must be newer than any backup.
"""

import hashlib
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Literal, NamedTuple
from zipfile import BadZipFile, ZipFile

from psycopg import Connection
from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints, ValidationError

from store import dumps, erasure, models, tombstones
from store.database import Database, require_known
from store.errors import StoreError
from store.packages import sha256_of
from store.privacy import Hasher

MANIFEST, DUMP, FOLDER = "manifest.json", "database.dump", "recommenders"
_CHUNK = 1 << 20
_OLDEST = "0004"  # the first revision with erasures
_DAMAGED = (BadZipFile, OSError, EOFError, RuntimeError, zlib.error)  # what a wrong byte in an archive can lead to

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class BackupError(StoreError):
    """A backup cannot be made or restored; what was there before is as it was."""


class Manifest(BaseModel):
    """What a backup says of itself.

    Attributes:
        format: Of the file.
        limner: Version that made it.
        made_at: When.
        revision: Of the database.
        postgres: Major version of the server.
        pg_dump: Major version of the program that made the dump.
        tombstones_key: Fingerprint of the privacy key that the tombstones in it were made under; none: there are none.
        dump: SHA-256 of the dump.
        models: SHA-256 of each trained model's file, by the model's id.
        lost: Ids of models whose files were gone or damaged already.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    limner: str
    made_at: AwareDatetime
    revision: str
    postgres: int
    pg_dump: int
    tombstones_key: str | None
    dump: Sha256
    models: dict[int, Sha256]
    lost: list[int]


class Restored(NamedTuple):
    """What was restored: the backup, how many users were erased again, and whether a journal of erasures was there."""

    manifest: Manifest
    erased: int
    journal: bool


def backup(database: Database, file: Path, now: datetime, version: str) -> Manifest:
    """Write a backup of one moment, while others go on reading and writing; the file appears whole or not at all.

    Args:
        database: To back up.
        file: That does not exist yet; only its owner may read it.
        now: The time.
        version: Of Limner.

    Raises:
        BackupError: The database is empty or older than erasures are, or there is such a file.
        StoreError: `pg_dump` is missing, too old, or has failed, or the file cannot be written.
    """
    status = database.status()
    if status.current is None:
        raise BackupError("The database is empty: there is nothing to back up.")
    if status.current < _OLDEST:
        raise BackupError(f"The database is at revision {status.current}: run `limner db upgrade` before a backup.")
    if file.exists():
        raise BackupError(f"{file} exists already. Give the backup another name.")
    server = dumps.major(status.server_version)
    program, made_by = dumps.find("pg_dump", server)
    draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}.partial")
    try:
        with os.fdopen(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as sink:
            with ZipFile(sink, "w") as archive, database.raw() as connection:
                snapshot = _snapshot(connection)
                kept, lost = _pack_models(connection, archive)
                key = connection.execute("select subject_hash from erasures where subject_hash ~ '^key:'").fetchone()
                with dumps.dumping(database, program, snapshot) as dump:
                    digest = _pack(archive, DUMP, dump)
                manifest = Manifest(
                    limner=version, made_at=now, revision=status.current, postgres=server, pg_dump=made_by,
                    tombstones_key=key[0] if key else None, dump=digest, models=kept, lost=lost,
                )  # fmt: skip
                archive.writestr(MANIFEST, manifest.model_dump_json(indent=2))
            sink.flush()
            os.fsync(sink.fileno())
        draft.rename(file)
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror}. Nothing was kept.") from error
    finally:
        draft.unlink(missing_ok=True)
    return manifest


def restore(
    database: Database, hasher: Hasher, home: Path, file: Path, now: datetime, *, replace: bool = False
) -> Restored:
    """Bring a backup back, and erase again who was erased since it was made, as the journal in `home` tells.

    The dump comes back whole or not at all. Servers and workers must not run meanwhile.

    Args:
        database: To restore into; without users, items, keys and the like.
        hasher: Of the installation that the backup is of.
        home: The data directory, where the models' files go; its path may be another than before.
        file: The backup.
        now: The time.
        replace: Remove first what is in the database; what it knows of erasures goes into the journal before.

    Raises:
        BackupError: The file is no backup or damaged, or the database is not empty.
        MigrationError: A newer version of Limner has made the backup, or upgraded the database.
        PrivacyKeyError: It has tombstones, or `home` a journal, that were made under another key.
        StoreError: `pg_restore` is missing, too old, or has failed.
    """
    with _opened(file) as archive:
        manifest = _checked(archive, file)
        require_known(manifest.revision)
        if manifest.tombstones_key not in {None, tombstones.fingerprint(hasher)}:
            raise tombstones.PrivacyKeyError
        tombstones.read_journal(home, hasher)  # refuses another key
        server = dumps.major(database.status().server_version)
        if server < manifest.postgres:
            raise BackupError(
                f"The backup is of PostgreSQL {manifest.postgres}, and this server is {server}. Restore it into one "
                f"that is {manifest.postgres} or newer."
            )
        program, _ = dumps.find("pg_restore", max(server, manifest.pg_dump))
        ours = _has_room(database, replace=replace)
        paths = {model_id: _unpack_model(archive, home, digest) for model_id, digest in manifest.models.items()}
        if ours:
            with database.raw() as connection:
                tombstones.complete_journal(connection, hasher, home)
            database.clear()
        with archive.open(DUMP) as dump:
            dumps.load(database, program, dump)
    database.upgrade()
    with database.session() as session:
        models.move(session, paths)
    with database.raw() as connection:
        connection.execute("analyze")  # a dump has no statistics
    erased = erasure.replay(database, hasher, home, now)
    return Restored(manifest, erased, (home / tombstones.JOURNAL).exists())


def _snapshot(connection: Connection) -> str:
    """Freeze what this transaction sees, and let `pg_dump` see the same."""
    connection.execute("set transaction isolation level repeatable read, read only")
    row = connection.execute("select pg_export_snapshot()").fetchone()
    assert row is not None  # noqa: S101 - for the type checker
    return str(row[0])


def _pack_models(connection: Connection, archive: ZipFile) -> tuple[dict[int, str], list[int]]:
    """Put the models' files into the archive; return their hashes, and the ids of those that are gone or damaged."""
    kept: dict[int, str] = {}
    lost: list[int] = []
    rows = connection.execute("select model_id, path, sha256 from models order by model_id").fetchall()
    for model_id, path, digest in rows:
        if not Path(path).is_file() or sha256_of(Path(path)) != digest:
            lost.append(model_id)
            continue
        if digest not in kept.values():
            with Path(path).open("rb") as source:
                _pack(archive, _name(digest), source)
        kept[model_id] = digest
    return kept, lost


def _name(digest: str) -> str:
    return f"{FOLDER}/{digest}.safetensors"


def _pack(archive: ZipFile, name: str, source: IO[bytes]) -> str:
    """Copy a stream into the archive; return its SHA-256."""
    with archive.open(name, "w", force_zip64=True) as sink:
        return _sha256(source, sink)


def _sha256(source: IO[bytes], sink: IO[bytes] | None = None) -> str:
    """Return the SHA-256 of a stream, and copy it on the way."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        if sink is not None:
            sink.write(chunk)
    return digest.hexdigest()


@contextmanager
def _opened(file: Path) -> Iterator[ZipFile]:
    try:
        archive = ZipFile(file)
    except _DAMAGED as error:
        raise BackupError(f"{file} is no backup, or is damaged: {error}. Nothing was restored.") from error
    with archive:
        yield archive


def _checked(archive: ZipFile, file: Path) -> Manifest:
    """Read all of the archive, and return its manifest if everything in it is as it says."""
    try:
        manifest = Manifest.model_validate_json(archive.read(MANIFEST))
        for name, expected in {DUMP: manifest.dump, **{_name(d): d for d in manifest.models.values()}}.items():
            with archive.open(name) as source:
                if _sha256(source) != expected:
                    raise BackupError(f"{name} in {file} is damaged. Nothing was restored: take another backup.")
    except (KeyError, ValidationError) as error:
        raise BackupError(f"{file} is no backup that this version of Limner knows. Nothing was restored.") from error
    except _DAMAGED as error:
        raise BackupError(f"{file} is damaged: {error}. Nothing was restored: take another backup.") from error
    return manifest


def _has_room(database: Database, *, replace: bool) -> bool:
    """Refuse a database that is in use; tell whether it has our tables, which are to be removed first.

    Raises:
        BackupError: It is not empty and may not be replaced, or it has tables that are not ours.
    """
    if database.status().current is None:
        with database.raw() as connection:
            others = connection.execute(
                "select count(*) from information_schema.tables where table_type = 'BASE TABLE'"
                " and table_schema not in ('pg_catalog', 'information_schema')"
            ).fetchone()
        if others and others[0]:
            raise BackupError("The database has tables that are not Limner's. Restore into a database of its own.")
        return False
    with database.raw() as connection:
        if not replace and _is_filled(connection):
            raise BackupError(
                "The database is not empty. Set LIMNER_DATABASE_URL or LIMNER_HOME to another one, or give --replace, "
                "which removes all that is in it."
            )
    return True


def _is_filled(connection: Connection) -> bool:
    row = connection.execute(
        "select exists (select from users) or exists (select from items) or exists (select from events)"
        " or exists (select from api_keys) or exists (select from erasures) or exists (select from models)"
    ).fetchone()
    return bool(row and row[0])


def _unpack_model(archive: ZipFile, home: Path, digest: str) -> Path:
    """Put a model's file where models are; it appears whole or not at all."""
    path = home / _name(digest)
    draft = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(_name(digest)) as source, draft.open("wb") as sink:
            shutil.copyfileobj(source, sink, _CHUNK)
        draft.replace(path)
    except OSError as error:
        raise BackupError(f"{path} cannot be written: {error.strerror}. Nothing was restored.") from error
    return path
