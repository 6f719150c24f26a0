"""A user who is in every table and in every kind of file, and a search that finds their id wherever it is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from psycopg.types.json import Jsonb

from store import audit, corrections
from store.database import Database, driver
from store.privacy import Hasher
from store.tables import AttemptRow, FactorRow, IdempotencyRow, JobItemRow, JobRow, LlmCallRow, ModelRow
from tests.small_world import NOW, RATERS, fill, profiler, wrote

HASHER = Hasher(b"the key of the tests")
_TABLES = """
select table_schema, table_name from information_schema.tables
where table_schema not in ('pg_catalog', 'information_schema') and table_type = 'BASE TABLE' order by 1, 2
"""


def spread(database: Database, home: Path, user_id: str) -> None:
    """Put the user, who likes what ann likes, and bob into every table, and the user into files."""
    with patch.dict(RATERS, {user_id: RATERS["ann"]}):
        fill(database, [user_id, "bob"])
    wrote(profiler(database), [user_id, "bob"])
    wrote(profiler(database, force=True), [user_id])
    _rows(database, user_id)
    _files(home, user_id)


def _rows(database: Database, user_id: str) -> None:
    subject = HASHER.subject(user_id)
    told = f"User {user_id} has no events."
    with database.session() as session:
        first = corrections.add(session, user_id, "reject", "interest", "Tents", NOW, evidence=[f"{user_id}-0000"])
        corrections.add(session, user_id, "add", "interest", "Bread", NOW, weight=2.0)
        corrections.undo(session, user_id, first, NOW)
        attempt = AttemptRow(user_id=user_id, writer="llm", started_at=NOW, outcome="failed", reason=told)
        model = ModelRow(created_at=NOW, path="none", sha256="0", active=True, card={})
        session.add_all([attempt, model])
        for number, users in ((1, [user_id, "bob"]), (2, [user_id])):
            job = f"job-{number}"
            session.add(
                JobRow(
                    job_id=job, kind="profiles", state="running", total=len(users), created_at=NOW, reason=told,
                    request={"users": users, "writer": "template"},
                    result={"failed": {user: f"User {user} has no events." for user in users}},
                )
            )  # fmt: skip
            session.flush()
            session.add_all(JobItemRow(job_id=job, user_id=user, state="failed", reason=told) for user in users)
        session.add_all(
            IdempotencyRow(key_id="k", idempotency_key=key, request_hash="0", subject_hash=whose, created_at=NOW,
                           status=200, headers=headers, body=body)
            for key, whose, headers, body in (
                ("by subject", subject, {}, b"{}"),
                ("by body", None, {}, json.dumps({"user_id": user_id}, ensure_ascii=False).encode()),
                ("by header", None, {"location": f"/v1/users/{user_id}"}, b""),
                ("another's", HASHER.subject("bob"), {"location": "/v1/users/bob"}, b'{"user_id": "bob"}'),
            )
        )  # fmt: skip
        session.flush()
        for call in (LlmCallRow(attempt_id=attempt.attempt_id), LlmCallRow()):
            call.role, call.prompt, call.model, call.outcome, call.detail = "writer", "p@1", "m", "failed", told
            call.tokens_in, call.tokens_out, call.seconds, call.created_at = 10, 5, 0.5, NOW
            session.add(call)
        audit.note(session, NOW, "k", "read_profile", subject, "r")
        connection = driver(session)
        claims = connection.execute(
            "select c.claim_pk::text from claims c join profiles p using (profile_id) where p.user_id = %s", [user_id]
        ).fetchall()
        session.add_all(
            FactorRow(model_id=model.model_id or 0, kind="claim", owner_id=pk, vector=[1.0, 0.0]) for (pk,) in claims
        )
        connection.execute(
            "insert into ingest_runs (kind, file, source, state, started_at, rows_read, rows_stored, rows_known,"
            " rows_rejected, reason) values ('events', %s, 's', 'failed', %s, 0, 0, 0, 0, %s)",
            [f"{user_id}.csv", NOW, told],
        )
        connection.execute("set local search_path = queue, public")
        connection.execute(
            "insert into procrastinate_jobs (queue_name, task_name, args, lock) values ('q', 't', %s, %s)",
            [Jsonb({"users": [user_id, "bob"], "chunk": 1}), f"user {user_id}"],
        )
        connection.execute(
            "insert into api_keys (key_id, name, scopes, secret_hash, created_at) values ('own', %s, %s, '0', %s),"
            " ('both', 'shop', %s, '0', %s)",
            [f"phone of {user_id}", [f"self:{user_id}"], NOW, ["read", f"self:{user_id}"], NOW],
        )


def _files(home: Path, user_id: str) -> None:
    quoted, said = user_id.replace('"', '""'), json.dumps(user_id)
    for name, content in {
        "rejects/log.csv.rejects.csv": (
            "line,column,value,reason\n2,value,five,not a number\n"
            f'3,user_id,"{quoted}",bad\n4,event_id,"{quoted}-0001",known\n5,ts,x,"user ""{quoted}"" has no time"\n'
        ),
        "rejects/only.csv.rejects.csv": f'line,column,value,reason\n3,user_id,"{quoted}",bad\n',
        "reports/eval.json": json.dumps({"users": [user_id, "bob"], user_id: 1, "k": 10}),
        "reports/eval.md": f"# Report\n\nUser {user_id} has 3 claims, user bob 2.\n",
        "logs/limner.log": f'{{"event": "written", "user": {said}, "n": 3}}\n{{"event": "written", "user": "bob"}}\n',
        "logs/deep/old.log": f"ERROR: user {user_id} has no events\nok\n",
        "postgres/postgres.log": f"DETAIL: Key (user_id)=({user_id}) already exists.\n",
    }.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def tables_with(database: Database, text: str) -> set[str]:
    """The tables, of all schemas, with a column that holds this text in any spelling."""
    found = set()
    with database.raw() as connection:
        for schema, name in connection.execute(_TABLES).fetchall():
            rows = connection.execute(f'select to_jsonb(t) from "{schema}"."{name}" t')  # noqa: S608
            if any(_holds(leaf, text) for (row,) in rows for leaf in _leaves(row)):
                found.add(name)
    return found


def files_with(home: Path, text: str) -> set[str]:
    """The files under the data directory with this text in their content or their name."""
    return {
        path.relative_to(home).as_posix()
        for path in home.rglob("*")
        if path.is_file() and (_holds(path.read_bytes().decode("utf-8", "replace"), text) or text in path.name)
    }


def _holds(held: str, text: str) -> bool:
    spellings = {
        text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], text.replace('"', '""'),
        text.encode().hex(), json.dumps(text, ensure_ascii=False)[1:-1].encode().hex(),
    }  # fmt: skip
    return any(spelling in held for spelling in spellings)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif value is not None:
        yield str(value)
