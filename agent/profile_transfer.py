"""Profiles out of the store into a file, and from a file into a store that has the users' logs.

An import takes nothing on trust: a profile must meet the contract, cite events and corrections of its own user that are
here, and be no older than the one that is active. It does the same if it is done again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import ValidationError
from sqlalchemy import text
from sqlmodel import Session

from agent import archive
from agent.contract import Profile
from agent.embedder import Embedder
from agent.loading import index_claims
from agent.profile_files import Exported, Format, ProfileFileError, Row, read, write, write_lines
from store import audit, profile_files, profiles, tombstones
from store.database import Database, driver
from store.ingest.rejects import Reject, RejectLog
from store.ingest.times import EPOCH
from store.privacy import Hasher
from store.profiles import StoredProfile
from store.tables import ProfileRow, UserRow

Clock = Callable[[], datetime]
Progress = Callable[[int, int], None]
Outcome = Literal["stored", "unchanged", "older", "dropped"]

_INDEX_EVERY = 64  # users
_LARGEST_NUMBER = 1 << 53  # beyond it, not every reader of JSON is exact
_LARGEST_REVISION = 1 << 30  # the counter of the store must have room to rise
_NAMED = 3


@dataclass
class Imported:
    """What became of the rows of a file.

    Attributes:
        read: Rows read; the sum of the others.
        stored: Profiles that are new here.
        unchanged: Profiles that are here already, as the active version or an earlier one.
        older: Left out, since the active profile is of a later log, of later corrections, or written later.
        dropped: Left out, since the user was erased.
        rejected: Left out for another reason; all of these are in the rejects file.
    """

    read: int = 0
    stored: int = 0
    unchanged: int = 0
    older: int = 0
    dropped: int = 0
    rejected: int = 0


def export_profiles(
    database: Database,
    target: Path | BinaryIO,
    form: Format,
    *,
    hasher: Hasher,
    clock: Clock,
    users: Sequence[str] | None = None,
    all_versions: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write the profiles of users who consent, as they are at one moment, and note in the audit whose they are.

    Args:
        database: To read from.
        target: A file, which is replaced at the end; or a stream, for JSON Lines.
        form: Of the file.
        hasher: Of the audit.
        clock: Tells the time.
        users: Of these users; None for all.
        all_versions: Also those that are not active any more.
        progress: Called with the number of profiles done, and of all.

    Returns:
        The number of profiles.

    Raises:
        NotFoundError: There is nothing to export, or not of one of these users.
        ProfileFileError: The file cannot be written, or a stored profile does not meet the contract.
    """
    done = 0

    def each(batches: Iterator[profile_files.Batch]) -> Iterator[Exported]:
        nonlocal done
        for total, stored in batches:
            whose = sorted({profile.row.user_id for profile in stored})
            with database.raw() as connection:
                audit.note_all(connection, clock(), None, "export_profile", map(hasher.subject, whose))
            for profile in stored:
                yield Exported(_contract(profile), profile.row.active)
            done += len(stored)
            if progress:
                progress(done, total)

    with closing(profile_files.stream(database, users, all_versions=all_versions)) as batches:
        if isinstance(target, Path):
            write(target, form, each(batches))
        else:
            write_lines(target, each(batches))
    return done


def _contract(stored: StoredProfile) -> Profile:
    try:
        return archive.from_rows(stored)
    except ValidationError as error:
        row, first = stored.row, error.errors(include_url=False)[0]
        raise ProfileFileError(
            f"Version {row.version} of the profile of user {row.user_id} does not meet the contract "
            f"({'.'.join(map(str, first['loc']))}: {first['msg']}). Write it anew with "
            f"`limner profile write --user {row.user_id} --force`."
        ) from error


def import_profiles(
    database: Database,
    path: Path,
    form: Format,
    *,
    hasher: Hasher,
    embedder: Embedder,
    rejects: RejectLog,
    clock: Clock,
    progress: Progress | None = None,
) -> Imported:
    """Take in the profiles of a file, each in a transaction of its own, and embed the claims of the active ones.

    Versions are numbered anew: a profile becomes the user's next version.

    Args:
        database: To store in.
        path: The file.
        form: Its format.
        hasher: Tells who was erased.
        embedder: Of the claims.
        rejects: Where rows go that cannot be taken.
        clock: Tells the time.
        progress: Called with what is read of the file, and its size (bytes of JSON Lines, rows of Parquet).

    Raises:
        ProfileFileError: The file cannot be read, or not to its end; the profiles before that are stored.
        PrivacyKeyError: There are tombstones of erased users, made under another key.
    """
    told, users = Imported(), list[str]()
    try:
        for row in read(path, form):
            outcome = _taken_in(database, row, hasher, clock())
            told.read += 1
            if isinstance(outcome, Reject):
                rejects.extend([outcome])
                told.rejected += 1
            else:
                setattr(told, outcome, getattr(told, outcome) + 1)
            if outcome in {"stored", "unchanged"} and isinstance(row.content, Profile):
                users.append(row.content.user_id)
            if len(users) == _INDEX_EVERY:
                index_claims(database, embedder, users)
                users.clear()
            if progress:
                progress(row.done, row.total)
    finally:
        index_claims(database, embedder, users)
        with database.session() as session:  # it waits for the disk, and so for all that came before
            audit.note(session, clock(), None, "import_profiles")
    return told


def _taken_in(database: Database, row: Row, hasher: Hasher, now: datetime) -> Outcome | Reject:
    profile = row.content
    if isinstance(profile, Reject):
        return profile
    if fault := _fault(profile):
        return Reject(row.number, fault[0], profile.user_id, fault[1])
    with database.session() as session:
        # The next commits make it last; at the end `import_profiles` waits for all.
        session.execute(text("set local synchronous_commit = off"))
        outcome = _stored(session, profile, hasher)
        if outcome == "stored":
            audit.note(session, now, None, "import_profile", hasher.subject(profile.user_id))
    return outcome if isinstance(outcome, str) else outcome._replace(line=row.number)


def _stored(session: Session, profile: Profile, hasher: Hasher) -> Outcome | Reject:
    user_id = profile.user_id
    user = profile_files.lock_user(session, user_id)
    if tombstones.is_erased(driver(session), hasher, user_id):
        return "dropped"
    if user is None or not user.consent:
        unknown, unwilling = (
            "there is no such user here: ingest the log first",
            "the user does not consent to a profile",
        )
        return _reject(profile, "user_id", unknown if user is None else unwilling)
    known = profile_files.with_key(session, user_id, profile.provenance.key)
    if any(_contract(one) == profile.model_copy(update={"version": one.row.version}) for one in known):
        return "unchanged"
    rows, active = archive.to_rows(profile), profile_files.active_row(session, user_id)
    if active is not None and _age(active) > _age(rows.row):
        return "older"
    if refused := _unfounded(session, profile, user):
        return refused
    profiles.save(session, rows, log_revision=profile.log.revision)
    _catch_up(session, profile, user)
    return "stored"


def _age(row: ProfileRow) -> tuple[int, int, datetime]:
    """What a profile was made of, and when: of two profiles of a user, the greater is the newer."""
    return row.log["revision"], row.provenance.get("corrections_revision", 0), row.created_at


def _unfounded(session: Session, profile: Profile, user: UserRow) -> Reject | None:
    """Tell what a profile rests on that the user does not have here, if there is such a thing."""
    cited = {e.event_id for claim in profile.claims for e in (*claim.evidence, *claim.counter_evidence)}
    owners = profile_files.owners(session, sorted(cited))
    if missing := sorted(cited - owners.keys()):
        named = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED:,} more" if missing[_NAMED:] else "")
        return _reject(profile, "claims", "cites events that are not here", named)
    if any(owner != profile.user_id for owner in owners.values()):
        return _reject(profile, "claims", "cites events of another user")
    if profile.provenance.corrections_revision > user.corrections_revision:
        return _reject(profile, "provenance.corrections_revision", "follows corrections of the user that are not here")
    said = {claim.correction_id for claim in profile.claims} - {None}
    if said and not said <= profile_files.correction_ids(session, profile.user_id):
        return _reject(profile, "claims", "rests on a correction that the user has not made here")
    return None


def _catch_up(session: Session, profile: Profile, user: UserRow) -> None:
    """Raise the user's revision of the log to that of the profile, where the log has grown in fewer steps here.

    Else every profile that is written here from now on would count as older. If the log is not the same, the revision
    goes beyond that of the profile, which is then due to be written anew.
    """
    if user.log_revision > profile.log.revision:
        return
    log = profile.log
    same = profile_files.log_here(session, profile.user_id) == (log.events_read, log.first, log.last)
    user.log_revision = log.revision if same else log.revision + 1


def _reject(profile: Profile, column: str, reason: str, detail: str = "") -> Reject:
    return Reject(0, column, profile.user_id, f"{reason}: {detail}" if detail else reason, reason)


def _fault(profile: Profile) -> tuple[str, str] | None:
    """Find what the contract allows and the store cannot hold, or not as it is: where, and what."""
    for kind, claims in (("interest", profile.interests), ("intent", profile.intents), ("dislike", profile.dislikes)):
        if any(claim.kind != kind for claim in claims):
            return f"{kind}s", "holds a claim of another kind"
    log = profile.log
    for where, time in (
        ("log.first", log.first), ("log.last", log.last), ("log.as_of", log.as_of),
        ("provenance.created_at", profile.provenance.created_at),
    ):  # fmt: skip
        if time.tzinfo is None or time < EPOCH:
            return where, "is before 1970, or has no time zone"
    if not 0 <= log.revision < _LARGEST_REVISION:
        return "log.revision", "is no revision of a log"
    return next(_unfit(profile.model_dump(mode="json"), ""), None)


def _unfit(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _unfit(key, where)
            yield from _unfit(inner, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from _unfit(inner, f"{where}.{n}")
    elif isinstance(value, str) and "\0" in value:
        yield where, "holds a NUL character"
    elif isinstance(value, int | float) and not -_LARGEST_NUMBER < value < _LARGEST_NUMBER:
        yield where, "is a number beyond 2^53"
