"""Profiles in the store: versions, of which exactly one is active; their claims, evidence, attempts and calls."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import sql
from sqlalchemy import String, cast, delete, insert, literal, select, text, update
from sqlmodel import Session, col

from store.database import driver
from store.errors import ConflictError, NotFoundError
from store.tables import AttemptRow, ClaimRow, EmbeddingRow, LlmCallRow, ProfileRow, UserRow

_PROFILE, _CLAIM = tuple(ProfileRow.model_fields), tuple(ClaimRow.model_fields)


def _columns(table: str, names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(table, name) for name in names)


# Plain SQL, since a user's first read pays for it: the object mapper takes four times as long.
_LOAD = """
    select u.consent, {}
    from users u left join profiles p on p.user_id = u.user_id and {}
    where u.user_id = %(user_id)s
"""
_LOAD_ACTIVE = sql.SQL(_LOAD).format(_columns("p", _PROFILE), sql.SQL("p.active"))
_LOAD_VERSION = sql.SQL(_LOAD).format(_columns("p", _PROFILE), sql.SQL("p.version = %(version)s"))
_LOAD_CLAIMS = sql.SQL("""
    select e.ids, e.weights, e.counters, {}
    from claims c,
        lateral (
            select coalesce(array_agg(event_id order by position), '{{}}') as ids,
                coalesce(array_agg(weight order by position), '{{}}') as weights,
                coalesce(array_agg(counter order by position), '{{}}') as counters
            from evidence where claim_pk = c.claim_pk
        ) e
    where c.profile_id = %s
    order by c.position
""").format(_columns("c", _CLAIM))

_LOCK = "select consent, corrections_revision from users where user_id = %s for update"
# A statement after the lock, so that it sees what the one who had it has stored.
_LATEST = """
    select max(version), max(coalesce((log->>'revision')::bigint, 0)) filter (where active)
    from profiles where user_id = %s
"""
# The object mapper takes as long for a user's evidence as for all else.
_ADD_EVIDENCE = """
    insert into evidence (claim_pk, position, event_id, weight, counter)
    select * from unnest(%s::bigint[], %s::integer[], %s::text[], %s::double precision[], %s::boolean[])
"""


class Cited(NamedTuple):
    """An event that a claim cites: a row of `evidence` but for the claim and the position."""

    event_id: str
    weight: float
    counter: bool


class StoredClaim(NamedTuple):
    """A claim's row and its evidence, in order."""

    row: ClaimRow
    evidence: tuple[Cited, ...]


class UnindexedClaim(NamedTuple):
    """A claim that has no vector yet: the owner that it will have, and its words."""

    owner: str
    name: str
    statement: str
    wording: str


class StoredProfile(NamedTuple):
    """A profile's row and its claims, in the order in which they are shown."""

    row: ProfileRow
    claims: tuple[StoredClaim, ...]


def save(
    session: Session, profile: StoredProfile, *, log_revision: int, corrections_revision: int | None = None
) -> int:
    """Store a profile as the user's next version and make it the active one.

    Args:
        session: The unit of work; all of it is stored or nothing.
        profile: Rows without keys; the version is set here.
        log_revision: The revision of the log that the profile was made of.
        corrections_revision: That of the user's corrections; None does not compare it.

    Returns:
        The version.

    Raises:
        ConflictError: The user has gone, withdrawn consent, made a correction meanwhile, or has a profile of a later
            revision of the log.
    """
    row = profile.row
    session.flush()
    connection = driver(session)
    user = connection.execute(_LOCK, [row.user_id]).fetchone()
    if user is None or not user[0]:
        raise ConflictError(f"User {row.user_id} is gone or has withdrawn consent: the profile was not stored.")
    if corrections_revision is not None and user[1] != corrections_revision:
        raise ConflictError(f"User {row.user_id} has made a correction meanwhile: the profile was not stored.")
    latest, revision = connection.execute(_LATEST, [row.user_id]).fetchone() or (None, None)
    if revision is not None and revision > log_revision:
        raise ConflictError(f"User {row.user_id} has a profile of a later log: this one was not stored.")
    if revision is not None:
        connection.execute("update profiles set active = false where user_id = %s and active", [row.user_id])
    row.version, row.active = (latest or 0) + 1, True
    session.add(row)
    session.flush()
    add_claims(session, row, profile.claims)
    return row.version


def put_back(session: Session, job_id: str, limit: int) -> list[str]:
    """Make the versions active again that were so before a job wrote its own; a user who had none has none again.

    It leaves those users alone whose active version is not the job's any more, and those who have made a correction
    since. The job's versions stay, and say so in their provenance (`put_back`); none of these is ever made active.

    Args:
        session: The unit of work.
        job_id: Of a job that writes no more.
        limit: Users at once.

    Returns:
        The ids of the users; none when all is done.
    """
    found = session.execute(
        text("""
            select p.user_id, p.profile_id, p.version
            from job_items i
            join users u on u.user_id = i.user_id
            join profiles p on p.user_id = i.user_id and p.version = i.version
            where i.job_id = :job_id and i.state = 'written' and p.active
              and coalesce((p.provenance->>'corrections_revision')::int, 0) = u.corrections_revision
            order by p.user_id limit :limit for update of u, p
        """),
        {"job_id": job_id, "limit": limit},
    ).all()
    ids = {"profiles": [row.profile_id for row in found]}
    session.execute(
        text("""
            update profiles set active = false, provenance = provenance || '{"put_back": true}'::jsonb
            where profile_id = any(:profiles)
        """),
        ids,
    )
    session.execute(
        text("""
            update profiles set active = true where profile_id in (
                select distinct on (p.user_id) p.profile_id
                from profiles ours join profiles p on p.user_id = ours.user_id and p.version < ours.version
                where ours.profile_id = any(:profiles) and not coalesce((p.provenance->>'put_back')::bool, false)
                order by p.user_id, p.version desc
            )
        """),
        ids,
    )
    return [row.user_id for row in found]


def add_claims(session: Session, profile: ProfileRow, claims: Sequence[StoredClaim]) -> None:
    """Store the claims of a stored profile, and their evidence."""
    for claim in claims:
        assert profile.profile_id is not None  # noqa: S101 - set by the flush
        claim.row.profile_id = profile.profile_id
        session.add(claim.row)
    session.flush()
    rows = [(claim.row.claim_pk, n, *cited) for claim in claims for n, cited in enumerate(claim.evidence)]
    if rows:
        driver(session).execute(_ADD_EVIDENCE, [list(column) for column in zip(*rows, strict=True)])


def load(session: Session, user_id: str, version: int | None = None) -> StoredProfile:
    """Read a version of a user's profile; the active one unless a version is given. The rows are copies, to be read.

    Raises:
        NotFoundError: There is none, or the user has withdrawn consent.
    """
    session.flush()
    connection = driver(session)
    query = _LOAD_ACTIVE if version is None else _LOAD_VERSION
    head = connection.execute(query, {"user_id": user_id, "version": version}).fetchone()
    if head is not None and not head[0]:
        raise NotFoundError(f"User {user_id} does not consent to a profile: there is none to read.")
    if head is None or head[1] is None:
        what = "profile" if version is None else f"version {version} of a profile"
        raise NotFoundError(f"User {user_id} has no {what}. Write one with `limner profile write --user {user_id}`.")
    row = ProfileRow.model_construct(**dict(zip(_PROFILE, head[1:], strict=True)))
    claims = connection.execute(_LOAD_CLAIMS, [row.profile_id]).fetchall()
    return StoredProfile(row, tuple(_loaded(*claim) for claim in claims))


def _loaded(ids: Sequence[str], weights: Sequence[float], counters: Sequence[bool], *columns: Any) -> StoredClaim:
    claim = ClaimRow.model_construct(**dict(zip(_CLAIM, columns, strict=True)))
    return StoredClaim(claim, tuple(map(Cited, ids, weights, counters)))


def versions(session: Session, user_id: str) -> list[ProfileRow]:
    """Return the rows of all versions of a user's profile, oldest first; none if the user does not consent."""
    query = (
        select(ProfileRow)
        .join(UserRow, col(UserRow.user_id) == col(ProfileRow.user_id))
        .where(col(ProfileRow.user_id) == user_id, col(UserRow.consent))
        .order_by(col(ProfileRow.version))
    )
    return list(session.scalars(query))


def recent_versions(session: Session, user_id: str, limit: int, before: int | None = None) -> list[ProfileRow]:
    """Return the versions of a user's profile, the newest first: those before this one, at most `limit + 1`."""
    query = select(ProfileRow).where(col(ProfileRow.user_id) == user_id).order_by(col(ProfileRow.version).desc())
    if before is not None:
        query = query.where(col(ProfileRow.version) < before)
    return list(session.scalars(query.limit(limit + 1)))


def active_users(session: Session) -> list[str]:
    """Return the ids of the users who have an active profile and consent to it, in order."""
    query = (
        select(col(ProfileRow.user_id))
        .join(UserRow, col(UserRow.user_id) == col(ProfileRow.user_id))
        .where(col(ProfileRow.active), col(UserRow.consent))
        .order_by(col(ProfileRow.user_id))
    )
    return list(session.scalars(query))


def written_by(session: Session, writer: str) -> list[str]:
    """Return the ids of the users whose active profile is by this writer."""
    query = select(col(ProfileRow.user_id)).where(
        col(ProfileRow.active), ProfileRow.provenance["writer"].astext == writer
    )
    return list(session.scalars(query))


def start_attempt(session: Session, user_id: str, writer: str, now: datetime) -> int | None:
    """Note that an attempt to write a profile begins.

    Returns:
        Its id; None if the user is gone or does not consent.
    """
    # Held until the note is stored: an erasure goes before it, and then there is no note, or takes it along.
    user = select(col(UserRow.user_id), literal(writer), literal(now), literal("running")).where(
        col(UserRow.user_id) == user_id, col(UserRow.consent)
    )
    note = insert(AttemptRow).from_select(
        ["user_id", "writer", "started_at", "outcome"], user.with_for_update(read=True, key_share=True)
    )
    return session.scalar(note.returning(col(AttemptRow.attempt_id)))


def end_attempt(
    session: Session,
    attempt_id: int,
    now: datetime,
    outcome: str,
    *,
    reason: str | None = None,
    version: int | None = None,
) -> bool:
    """Note how an attempt ended, also one that others have taken for interrupted.

    Returns:
        Whether it was under way: not if it has ended already, or the user was erased since.
    """
    query = (
        update(AttemptRow)
        .where(col(AttemptRow.attempt_id) == attempt_id, col(AttemptRow.outcome).in_(["running", "interrupted"]))
        .values(finished_at=now, outcome=outcome, reason=reason, version=version)
        .returning(col(AttemptRow.attempt_id))
    )
    return session.scalar(query) is not None


def add_calls(session: Session, calls: Sequence[LlmCallRow]) -> None:
    """Keep the accounts of calls of a language model."""
    session.add_all(calls)


def failures(session: Session, user_id: str) -> list[AttemptRow]:
    """Return a user's failed attempts, oldest first."""
    query = select(AttemptRow).where(col(AttemptRow.user_id) == user_id, col(AttemptRow.outcome) == "failed")
    return list(session.scalars(query.order_by(col(AttemptRow.started_at))))


def unindexed_claims(session: Session, model: str, users: Sequence[str] | None = None) -> list[UnindexedClaim]:
    """Return the claims of active, consented profiles that have no vector by this model.

    Only of these users, unless None is given: then of all.
    """
    owner = cast(col(ClaimRow.claim_pk), String)
    has_vector = select(col(EmbeddingRow.owner_id)).where(
        col(EmbeddingRow.kind) == "claim",
        col(EmbeddingRow.model) == model,
        col(EmbeddingRow.owner_id) == owner,
    )
    query = (
        select(owner, col(ClaimRow.name), col(ClaimRow.statement), col(ClaimRow.wording))
        .join(ProfileRow, col(ProfileRow.profile_id) == col(ClaimRow.profile_id))
        .join(UserRow, col(UserRow.user_id) == col(ProfileRow.user_id))
        .where(col(ProfileRow.active), col(UserRow.consent), ~has_vector.exists())
        .order_by(col(ClaimRow.claim_pk))
    )
    if users is not None:
        query = query.where(col(ProfileRow.user_id).in_(users))
    return [UnindexedClaim(*row) for row in session.execute(query)]


def forget_old_claim_vectors(session: Session, users: Sequence[str] | None = None) -> None:
    """Remove the vectors of claims that are not in an active profile of a user who consents.

    Only of these users, unless None is given: then of all.
    """
    live = col(ProfileRow.active) & col(UserRow.consent)
    claims = (
        select(cast(col(ClaimRow.claim_pk), String))
        .join(ProfileRow, col(ProfileRow.profile_id) == col(ClaimRow.profile_id))
        .join(UserRow, col(UserRow.user_id) == col(ProfileRow.user_id))
    )
    owner = col(EmbeddingRow.owner_id)
    old = owner.not_in(claims.where(live))
    if users is not None:
        old = owner.in_(claims.where(~live, col(ProfileRow.user_id).in_(users)))
    session.execute(delete(EmbeddingRow).where(col(EmbeddingRow.kind) == "claim", old))
