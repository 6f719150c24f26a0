"""Wrong input on every route, found by walking the description: each time a clear problem, and nothing is changed."""

import re
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient

import api.runtime
from agent.words import clean
from api.http.app import create_app
from api.training import train_model
from recommend.parameters import Parameters
from store import keys
from store.database import Database
from tests.http_client import client, fresh, new_key, problem, settings
from tests.small_world import NOW, FakeEmbedder, fill, profiler, wrote

SCOPES = ("read", "write", "admin")
UNKNOWN = {
    "user_id": "nobody", "item_id": "nothing", "claim_id": "i99", "job_id": "0" * 32, "model_id": "99", "version": "99",
    "correction_id": "99",
}  # fmt: skip
NASTY = "'); drop table users;-- <script>alert(1)</script> {{7*7}} %s %(x)s ${x} \\ \" 你好 👩‍🚀"
NONSENSE = [[{}]]
"""Of the wrong type for every part of every body."""


class Operation(NamedTuple):
    """A route, as it is described."""

    method: str
    path: str
    said: dict[str, Any]
    body: Any

    @property
    def named(self) -> list[str]:
        """The ids in the path."""
        return re.findall(r"\{(\w+)\}", self.path)

    @property
    def scope(self) -> str:
        """What it needs."""
        return str(self.said["security"][0]["HTTPBearer"][0])

    def send(self, asking: TestClient, given: dict[str, str] | None = None, **more: Any) -> Any:
        """Send a request that is right but for what is given: ids of nothing, and the body of the example."""
        ids = UNKNOWN | (given or {})
        path = re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], self.path)
        query = {p["name"]: 1 for p in self.said["parameters"] if p["in"] == "query" and p["required"]}
        body = {"json": self.body} if self.body is not None else {}
        return asking.request(self.method, path, **{"params": query} | body | more)


@pytest.fixture(scope="module")
def world(postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """The small world with profiles and a model."""
    with pytest.MonkeyPatch.context() as patched, fresh(postgres_url, migrated_template) as url:
        patched.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
        database = Database(url)
        fill(database)
        wrote(profiler(database))
        chosen = settings(tmp_path_factory.mktemp("model"))
        small = Parameters(factors=4, epochs=2, projection=4)
        train_model(database, chosen, small, lambda _: nullcontext(lambda *_: None))
        yield database
        database.close()


@pytest.fixture(scope="module")
def app(world: Database, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """The app on it."""
    return create_app(settings(tmp_path_factory.mktemp("home"), api={"requests_per_minute": 0}), world)


@pytest.fixture(scope="module")
def asking(app: FastAPI, world: Database) -> TestClient:
    """Someone who may do everything."""
    return client(app, new_key(world, "admin"))


@pytest.fixture(scope="module")
def operations(app: FastAPI, asking: TestClient) -> list[Operation]:
    """All routes, with bodies that are right."""
    found = []
    for path, methods in app.openapi()["paths"].items():
        for method, said in methods.items():
            if path.startswith("/v1/"):
                found.append(Operation(method.upper(), path, {"parameters": []} | said, body_of(app, asking, said)))
    assert len(found) >= 37
    return found


def body_of(app: FastAPI, asking: TestClient, said: dict[str, Any]) -> Any:
    """The body of the example."""
    if "requestBody" not in said:
        return None
    if said["operationId"] == "import_exported_user":
        return asking.get("/v1/users/bob/export").json()
    if said["operationId"] == "create_job":
        return {"kind": "profiles", "users": ["ann"]}
    content = said["requestBody"]["content"]["application/json"]
    if "example" in content:
        return content["example"]
    model = app.openapi()["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
    return model["example"] if "example" in model else model["examples"][0]


def counted(database: Database) -> dict[str, int]:
    """How many rows each table has, but for the audit and the repeated requests."""
    tables = (
        "users", "items", "events", "profiles", "claims", "corrections", "jobs", "models", "tombstones", "erasures",
    )  # fmt: skip
    with database.session() as session:
        there = set(session.scalars(text("select table_name from information_schema.tables")))
        return {name: session.scalar(text(f"select count(*) from {name}")) or 0 for name in tables if name in there}  # noqa: S608


def test_every_route_needs_the_scope_that_it_names(app: FastAPI, world: Database, operations: list[Operation]) -> None:
    of = {scope: client(app, new_key(world, scope)) for scope in SCOPES}
    for operation in operations:
        needed = SCOPES.index(operation.scope)
        for rank, scope in enumerate(SCOPES):
            answer = operation.send(of[scope], json=NONSENSE)
            assert (answer.status_code == 403) == (rank < needed), (operation.method, operation.path, scope)
            if rank < needed:
                problem(answer, 403, "forbidden")


def test_a_revoked_key_is_refused_everywhere(app: FastAPI, world: Database, operations: list[Operation]) -> None:
    token = new_key(world, "admin")
    with world.session() as session:
        keys.revoke(session, token.split("_")[1], NOW)
    revoked = client(app, token)
    before = counted(world)
    for operation in operations:
        problem(operation.send(revoked, {"user_id": "ann"}), 401, "unauthorized")
    assert counted(world) == before


def test_what_is_not_there_is_not_found(world: Database, asking: TestClient, operations: list[Operation]) -> None:
    before, walked = counted(world), 0
    for operation in operations:
        if not operation.named or operation.said["operationId"] == "declare_user":
            continue
        rounds = [{}, *([{"user_id": "ann"}] if operation.named[1:] else [])]
        for given in rounds:
            found = problem(operation.send(asking, given), 404)
            assert found["type"] != "urn:limner:problem:unknown-route"
            walked += 1
    assert walked >= 30
    assert counted(world) == before


@pytest.mark.parametrize("segment", ["%00", "%FF", "%ED%A0%80", "x" * 513, "-1", "1e9", "9" * 40, "%2E%2E%2F", "null"])
def test_ids_that_cannot_be_are_problems_everywhere(
    asking: TestClient, operations: list[Operation], segment: str
) -> None:
    for operation in operations:
        for name in operation.named:
            if (operation.said["operationId"], name) == ("declare_user", "user_id"):
                continue  # almost any text is the id of someone new
            answer = operation.send(asking, {"user_id": "ann"} | {name: segment})
            assert answer.status_code in {404, 422}, (operation.method, operation.path, name)
            problem(answer, answer.status_code)


WRONG = {"integer": "many", "number": "much", "boolean": "perhaps"}


def test_parameters_of_the_wrong_type_are_problems(asking: TestClient, operations: list[Operation]) -> None:
    walked = 0
    for operation in operations:
        for parameter in operation.said["parameters"]:
            if parameter["in"] != "query":
                continue
            schemas = parameter["schema"].get("anyOf", [parameter["schema"]])
            kind = next((WRONG[s["type"]] for s in schemas if s.get("type") in WRONG), None)
            query = {p["name"]: 1 for p in operation.said["parameters"] if p["in"] == "query" and p["required"]}
            if kind is not None:
                answer = operation.send(asking, {"user_id": "ann"}, params=query | {parameter["name"]: kind})
                assert parameter["name"] in str(problem(answer, 422, "invalid")["errors"])
                walked += 1
            for odd in ("\0", NASTY, "x" * 9_000):
                answer = operation.send(asking, {"user_id": "ann"}, params=query | {parameter["name"]: odd})
                assert answer.status_code < 500, (operation.path, parameter["name"], answer.text)
                if answer.status_code >= 400:
                    problem(answer, answer.status_code)
    assert walked >= 20


def test_parts_of_bodies_of_the_wrong_type_are_problems(
    world: Database, asking: TestClient, operations: list[Operation]
) -> None:
    before, walked = counted(world), 0
    for operation in operations:
        if operation.body is None:
            continue
        rows = isinstance(operation.body, list)
        example = operation.body[0] if rows else operation.body
        for name in example:
            spoiled = example | {name: NONSENSE}
            answer = operation.send(asking, {"user_id": "ann", "claim_id": "i1"}, json=[spoiled] if rows else spoiled)
            found = problem(answer, 422)
            assert "script" not in str(found)
            walked += 1
    assert walked >= 25
    assert counted(world) == before


def test_a_change_that_rests_on_an_old_version_is_refused(
    world: Database, asking: TestClient, operations: list[Operation]
) -> None:
    pinned = asking.post("/v1/users/ann/claims/i1/pin").json()["correction"]["correction_id"]
    ids = {"user_id": "ann", "claim_id": "i2", "correction_id": str(pinned)}
    before, user, walked = counted(world), asking.get("/v1/users/ann").json(), 0
    for operation in operations:
        if "412" not in operation.said["responses"]:
            assert "If-Match" not in str(operation.said["parameters"])
            continue
        for etag in ('"stale"', "W/*", "\N{LATIN SMALL LETTER U WITH DIAERESIS}".encode("latin-1"), ""):
            problem(operation.send(asking, ids, headers={"If-Match": etag}), 412, "stale")
        walked += 1
    assert walked >= 7
    assert counted(world) == before
    assert asking.get("/v1/users/ann").json() == user


def test_a_name_of_a_request_is_good_for_one_body(asking: TestClient, operations: list[Operation]) -> None:
    ids, walked = {"user_id": "cid", "claim_id": "i1"}, 0
    for n, operation in enumerate(operations):
        if operation.body is None:
            continue
        name = {"Idempotency-Key": f"walk-{n}"}
        first = operation.send(asking, ids, headers=name)
        assert first.status_code < 500
        other = [*operation.body, operation.body[0]] if isinstance(operation.body, list) else operation.body | {"x": 1}
        problem(operation.send(asking, ids, headers=name, json=other), 409, "idempotency-key")
        again = operation.send(asking, ids, headers=name)
        assert (again.status_code, again.content) == (first.status_code, first.content), operation.path
        assert again.headers["idempotent-replay"] == "true"
        walked += 1
    assert walked >= 9


def test_every_text_is_stored_and_comes_back_as_text(asking: TestClient, world: Database) -> None:
    before = counted(world)
    user = f"/v1/users/{quoted(NASTY)}"
    declared = {"consent": True, "attributes": {NASTY: [NASTY, {"deep": NASTY}]}}
    assert asking.put(user, json=declared).json()["attributes"] == declared["attributes"]
    assert asking.get(user).json()["attributes"] == declared["attributes"]

    texts = dict.fromkeys(("item_id", "title", "description", "image_caption"), NASTY)
    item = texts | {"categories": [NASTY, "Drama"], "attributes": {NASTY: NASTY}}
    assert asking.post("/v1/items", json=[item], params={"source": NASTY}).json()["rows_stored"] == 1
    shown = asking.get(f"/v1/items/{quoted(NASTY)}")
    assert {name: shown.json()[name] for name in item} == item
    assert shown.headers["content-type"] == "application/json"

    event = {
        "user_id": NASTY, "item_id": NASTY, "event_id": NASTY, "type": "search", "ts": "2025-03-01T18:00:00Z",
        "text": NASTY, "context": {NASTY: NASTY},
    }  # fmt: skip
    assert asking.post("/v1/events", json=[event]).json()["rows_stored"] == 1
    (logged,) = asking.get(f"{user}/events").json()["items"]
    assert {name: logged[name] for name in ("event_id", "item_id", "text", "context")} == {
        name: event[name] for name in ("event_id", "item_id", "text", "context")
    }
    assert NASTY not in asking.post("/v1/events", json=[event | {"type": NASTY}]).text

    plain = "'); drop table users;-- & <b> {{7*7}} %s"
    added = asking.post(f"{user}/claims", json={"name": plain, "statement": plain}).json()["correction"]
    (listed,) = asking.get(f"{user}/corrections").json()["items"]
    assert (listed["name"], listed["statement"]) == (added["name"], added["statement"]) == (plain, plain)

    asked = asking.post(f"{user}/ask", json={"question": NASTY}).json()
    assert (asked["user_id"], asked["question"]) == (NASTY, clean(NASTY, 1_000))
    filters = {"category": NASTY, "attribute": f"{NASTY}={NASTY}", "exclude": NASTY}
    assert asking.get(f"{user}/recommendations", params=filters).json()["items"] == []
    problem(asking.get(f"{user}/recommendations", params={"claim": NASTY}), 404)
    problem(asking.get(f"{user}/explanations/{quoted(NASTY)}"), 404, "unknown-item")  # the model is older than the item
    assert asking.get("/v1/users/search", params={"q": NASTY}).status_code == 200
    assert asking.get(f"{user}/export").json()["user"]["user_id"] == NASTY
    assert asking.delete(user).status_code == 204
    after = counted(world)
    assert after == before | {"items": before["items"] + 1, "erasures": after["erasures"]}


def quoted(segment: str) -> str:
    """A segment of a path."""
    return "".join(f"%{byte:02X}" for byte in segment.encode())
