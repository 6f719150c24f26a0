"""Export, import and erasure over HTTP and on the command line."""

import json
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

import api.runtime
from agent.evidence import EvidenceSettings
from api.cli import main
from api.http.app import create_app
from recommend.data import read_training
from recommend.parameters import Parameters
from recommend.training import train
from store import models, tombstones
from store.database import Database
from store.privacy import hasher
from tests.command_line import Ended
from tests.http_client import audited, client, http, problem, settings, small, with_key
from tests.personal import files_with, tables_with
from tests.small_world import NOW, FakeEmbedder, profiler, wrote

__all__ = ["http", "small", "with_key"]

AWKWARD = 'a/b "Zoë"; drop table users;--'
PATH = f"/v1/users/{quote(AWKWARD, safe='')}"
ASKED = {"consent": True, "attributes": {"occupation": "librarian"}, "language": "en", "tz": "Europe/Paris"}

Client = Callable[..., TestClient]
Limner = Callable[..., Ended]


def detail(answer: httpx.Response, status: int, slug: str) -> str:
    return str(problem(answer, status, slug)["detail"])


def event(n: int, user_id: str = AWKWARD, **fields: Any) -> dict[str, Any]:
    return {"event_id": f"e{n}", "user_id": user_id, "item_id": "m1", "type": "view", "ts": 1_700_000_000 + n} | fields


def make_awkward(http: TestClient) -> None:
    assert http.put(PATH, json=ASKED).status_code == 201
    assert http.post("/v1/events", json=[event(1, context={"device": "phone"}), event(2)]).json()["rows_stored"] == 2


# Export and import.


def test_an_export_comes_back_in_an_empty_installation(
    http: TestClient, database: Database, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make_awkward(http)
    answer = http.get(f"{PATH}/export")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert AWKWARD not in answer.headers["content-disposition"]
    told = answer.json()
    assert (told["user"]["user_id"], told["user"]["attributes"]) == (AWKWARD, ASKED["attributes"])
    assert [e["event_id"] for e in told["events"]] == ["e1", "e2"]
    assert [(a["action"], a["key"]) for a in told["audit"]][-1] == ("export_user", None)

    database.downgrade("base")
    database.upgrade()
    made = http.post("/v1/users/import", content=answer.content, headers={"Content-Type": "application/json"})
    assert (made.status_code, made.json()) == (
        201, {"user_id": AWKWARD, "items": 1, "events": 2, "profiles": 0, "corrections": 0},
    )  # fmt: skip
    again = http.get(f"{PATH}/export").json()
    assert [a["action"] for a in again["audit"]] == ["import_exported_user", "export_user"]
    assert {**again, "audit": 0, "exported_at": 0} == {**told, "audit": 0, "exported_at": 0}
    assert "already" in detail(http.post("/v1/users/import", json=told), 409, "conflict")


def test_a_wrong_document_is_refused_with_the_path_of_the_fault(http: TestClient) -> None:
    make_awkward(http)
    told = http.get(f"{PATH}/export").json()
    told["user"]["user_id"] = "someone else"
    told["events"][1]["ts"] = "yesterday"
    assert "events.1.ts" in detail(http.post("/v1/users/import", json=told), 422, "ingest")
    assert "all of it" in detail(http.post("/v1/users/import"), 422, "ingest")
    problem(http.get("/v1/users/someone%20else"), 404, "not-found")


def test_who_may_do_what(with_key: Client, http: TestClient, database: Database) -> None:
    assert http.put("/v1/users/ann", json=ASKED).status_code == 200
    own, other, reader, writer, admin = (
        with_key(scope) for scope in ("self:ann", "self:bob", "read", "write", "admin")
    )
    for asking in (own, reader, writer, admin):
        assert asking.get("/v1/users/ann/export").status_code == 200
    problem(other.get("/v1/users/ann/export"), 403, "forbidden")
    for asking in (own, other, reader, writer):
        problem(asking.delete("/v1/users/ann"), 403, "forbidden")
        problem(asking.delete("/v1/erasures/ann"), 403, "forbidden")
        problem(asking.post("/v1/users/import", json={}), 403, "forbidden")
    problem(admin.get("/v1/users/nobody/export"), 404, "not-found")


def test_an_export_needs_no_consent(http: TestClient) -> None:
    make_awkward(http)
    assert http.put(PATH, json={"consent": False}).status_code == 200
    told = http.get(f"{PATH}/export").json()
    assert (told["user"]["consent"], len(told["events"])) == (False, 2)


# Erasure.


def test_erased_is_erased(http: TestClient, small: FastAPI, database: Database, tmp_path: Path) -> None:
    home = small.state.limner.settings.home
    keyed = {"Idempotency-Key": AWKWARD.replace(" ", "").replace("ë", "e")}
    assert http.put(PATH, json=ASKED, headers=keyed).status_code == 201
    make = http.post("/v1/events", json=[event(1)], headers={"Idempotency-Key": "two"})
    assert make.json()["users_made"] == 0
    assert http.get(f"{PATH}/export").status_code == 200
    assert tables_with(database, AWKWARD) == {"users", "events"} | {"idempotency"}

    for _ in range(2):
        answer = http.delete(PATH, headers={"X-Request-ID": "request-of-erasure"})
        assert (answer.status_code, answer.content) == (204, b"")
    assert tables_with(database, AWKWARD) == set()
    assert files_with(home, AWKWARD) == set()
    assert files_with(home, AWKWARD.replace("ë", "e")) == set()
    subject = hasher(home, None).subject(AWKWARD)
    assert audited(database)[-2:] == [(None, "erase_user", subject)] * 2
    with database.raw() as connection:
        ids = connection.execute("select request_id from audit order by audit_id desc limit 2").fetchall()
    assert ids == [("request-of-erasure",)] * 2
    problem(http.get(PATH), 404, "not-found")
    problem(http.get(f"{PATH}/export"), 404, "not-found")
    problem(http.delete("/v1/users/nobody"), 404, "not-found")


def test_what_comes_in_later_is_dropped_until_it_is_allowed(
    http: TestClient, with_key: Client, database: Database
) -> None:
    make_awkward(http)
    told = http.get(f"{PATH}/export").json()
    assert http.delete(PATH).status_code == 204
    report = http.post("/v1/events", json=[event(5), event(6, "bob"), event(7)]).json()
    assert {name: report[name] for name in ("rows_read", "rows_stored", "rows_dropped")} == {
        "rows_read": 3, "rows_stored": 1, "rows_dropped": 2,
    }  # fmt: skip
    for answer in (
        http.put(PATH, json=ASKED, headers={"Idempotency-Key": "again"}),
        http.post("/v1/users/import", json=told, headers={"Idempotency-Key": "import"}),
    ):
        assert "DELETE /v1/erasures/" in detail(answer, 409, "erased")
    assert tables_with(database, AWKWARD) == set()

    path = f"/v1/erasures/{quote(AWKWARD, safe='')}"
    admin = with_key("admin")
    assert admin.delete(path).status_code == 204
    problem(admin.delete(path), 404, "not-found")
    assert audited(database)[-1][1] == "allow_user"
    assert admin.post("/v1/users/import", json=told).status_code == 201
    assert admin.put(PATH, json=ASKED).status_code == 200


def test_a_start_of_the_server_replays_erasures(
    http: TestClient, small: FastAPI, database: Database, database_url: str
) -> None:
    make_awkward(http)
    assert http.delete(PATH).status_code == 204
    with database.raw() as connection:  # a backup from before
        connection.execute("truncate erasures")
        connection.execute("insert into users (user_id) values (%s)", [AWKWARD])
    home = small.state.limner.settings.home
    with client(create_app(settings(home, database_url=database_url))) as restarted:
        problem(restarted.get(PATH), 404, "not-found")
        assert restarted.get("/v1/users/bob").status_code == 200
    assert tables_with(database, AWKWARD) == set()


def test_another_privacy_key_is_a_problem_that_says_so(http: TestClient, database: Database, tmp_path: Path) -> None:
    make_awkward(http)
    assert http.delete(PATH).status_code == 204
    other = client(create_app(settings(tmp_path, privacy_key="another key than before"), database))
    for answer in (other.delete("/v1/users/bob"), other.put("/v1/users/new", json=ASKED)):
        assert "LIMNER_PRIVACY_KEY" in detail(answer, 503, "privacy-key")


def test_without_consent_there_is_popularity_and_nothing_else(
    http: TestClient, database: Database, tmp_path: Path
) -> None:
    wrote(profiler(database))
    data = read_training(database, "fake", EvidenceSettings())
    model = train(data, Parameters(factors=8, epochs=4, projection=8), "fake", NOW)
    path = tmp_path / "model.safetensors"
    digest = model.save(path)
    with database.session() as session:
        models.add_model(session, str(path), digest, model.card.model_dump(mode="json"), NOW)
    assert http.put("/v1/users/neo", json={"consent": True}).status_code == 201
    nobody = http.get("/v1/users/neo/recommendations").json()
    own = http.get("/v1/users/ann/recommendations").json()
    assert http.put("/v1/users/ann", json={"consent": False}).status_code == 200
    told = http.get("/v1/users/ann/recommendations").json()
    assert (own["basis"], told["basis"]) == ("events and profile", "popularity")
    assert told["items"] == nobody["items"] != own["items"]


# The command line.


@pytest.fixture
def limner(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], small: FastAPI, database_url: str
) -> Limner:
    """The command in this process, in the data directory of the app."""

    def run(*args: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["limner", *args])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capfdbinary.readouterr()
        return Ended(int(caught.value.code or 0), said.out.decode(), said.err.decode())

    monkeypatch.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
    monkeypatch.setenv("LIMNER_HOME", str(small.state.limner.settings.home))
    monkeypatch.setenv("LIMNER_DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(small.state.limner.settings.home)
    return run


def test_the_command_exports_erases_and_takes_in(limner: Limner, database: Database, tmp_path: Path) -> None:
    file = tmp_path / "ann.json"
    shown = limner("user", "export", "ann")
    assert (shown.code, json.loads(shown.out)["user"]["user_id"]) == (0, "ann")
    assert limner("user", "export", "ann", "-o", str(file)).code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    told = json.loads(file.read_bytes())
    assert [a["action"] for a in told["audit"]] == ["export_user", "export_user"]
    assert {**told, "exported_at": 0, "audit": 0} == {**json.loads(shown.out), "exported_at": 0, "audit": 0}

    taken = limner("user", "import", str(file))
    assert (taken.code, "There is a user ann already" in taken.err) == (1, True)
    erased = limner("user", "erase", "ann", "--yes")
    assert (erased.code, "ann" in erased.out) == (0, False)
    file.unlink()
    assert tables_with(database, "ann") == set()
    assert limner("user", "erase", "ann", "--yes").code == 0
    unknown = limner("user", "erase", "nobody", "--yes")
    assert (unknown.code, "There is no user nobody" in unknown.err) == (1, True)

    file.write_bytes(json.dumps(told).encode())
    refused = limner("user", "import", str(file))
    assert (refused.code, "limner user allow" in refused.err) == (1, True)
    subject = hasher(Path.cwd(), None).subject("ann")
    assert subject in limner("user", "list-erasures").out
    assert limner("user", "allow", "ann").code == 0
    assert "Nobody was erased" in limner("user", "list-erasures").out
    assert limner("user", "allow", "ann").code == 1
    taken = limner("user", "import", str(file))
    assert taken.out == "User ann is taken in: 37 events, 0 new items, 0 versions of the profile, 0 corrections.\n"
    assert [action for _, action, of in audited(database) if of == subject][-2:] == ["allow_user", "import_user"]


def test_the_command_asks_before_it_erases(limner: Limner, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("typer.confirm", lambda text, **_: asked.append(text) or sys.exit(1))
    assert limner("user", "erase", "ann").code == 1
    assert "cannot be undone" in asked[0]
    assert "users" in tables_with(database, "ann")


def test_the_command_replays_and_ingest_says_what_it_drops(limner: Limner, database: Database, tmp_path: Path) -> None:
    assert "Nobody has come back" in limner("user", "replay-erasures").out
    limner("user", "erase", "ann", "--yes")
    with database.raw() as connection:
        connection.execute("insert into users (user_id) values ('ann')")
    assert "1 users were erased again" in limner("user", "replay-erasures").out
    assert tables_with(database, "ann") == set()
    file = tmp_path / "log.csv"
    file.write_text("user_id,item_id,type,ts\nann,m1,view,1700000000\nbob,m1,view,1700000001\n", encoding="utf-8")
    said = limner("ingest", "events", str(file))
    assert "2 rows read, 1 stored" in said.out
    assert "1 more rows were dropped: their users were erased." in said.out


def test_the_command_says_where_a_document_is_wrong(limner: Limner, tmp_path: Path) -> None:
    file = tmp_path / "wrong.json"
    file.write_text('{"format": "limner-user"}', encoding="utf-8")
    said = limner("user", "import", str(file))
    assert (said.code, "The document is no export that can be taken in: version: Field required" in said.err) == (
        1,
        True,
    )
    said = limner("user", "export", "ann", "-o", str(tmp_path / "no" / "such.json"))
    assert (said.code, "cannot be written" in said.err) == (1, True)


def test_the_journal_is_where_the_documentation_says(limner: Limner) -> None:
    limner("user", "erase", "ann", "--yes")
    (line,) = (Path.cwd() / tombstones.JOURNAL).read_text(encoding="utf-8").splitlines()
    told = json.loads(line)
    assert (told["what"], told["subject"]) == ("erased", hasher(Path.cwd(), None).subject("ann"))
    assert abs(api.runtime.now() - datetime.fromisoformat(told["at"])) < timedelta(hours=1)
