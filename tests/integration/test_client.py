"""The Python client against a running server and worker; each resource, and each kind of error."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import httpx
import pytest

import api.sending
from api.client import ApiError, Client
from api.http.app import create_app
from store.database import Database
from tests import command_line
from tests.http_client import fresh, new_key, settings
from tests.small_world import EVERYONE, SHOPPER, items, ratings, shopping

ODD = "a/b ?%é"
WAIT_S = 120


class Service(NamedTuple):
    """A running server, with a worker beside it."""

    url: str
    database: Database

    def client(self, *scopes: str, requests_per_minute: int | None = None, **given: float) -> Client:
        """A client with a new key."""
        key = new_key(self.database, *scopes, requests_per_minute=requests_per_minute)
        return Client(self.url, key, **given)  # type: ignore[arg-type]


def _listening(process: subprocess.Popen[str], log: Path) -> str:
    while process.poll() is None:
        if found := re.search(r"listens at (http://\S+),", log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def service(postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("home")
    with fresh(postgres_url, migrated_template) as database_url, (home / "log").open("w") as log:
        started = [
            command_line.start(args, home, log, DATABASE_URL=database_url)
            for args in (["serve", "--port", "0"], ["worker"])
        ]
        database = Database(database_url)
        try:
            yield Service(_listening(started[0], home / "log"), database)
        finally:
            database.close()
            for process in started:
                process.send_signal(signal.SIGTERM)
            codes = [process.wait(60) for process in started]
        assert codes == [0, 0], (home / "log").read_text()


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    """A client that may do everything, at a service with profiles and a model."""
    with service.client("admin") as made:
        rows = [
            {"item_id": row.item_id, "title": row.title, "categories": row.categories, "attributes": row.attributes}
            for row in items()
        ]
        assert made.add_items(rows).rows_stored == len(rows)
        for user_id in EVERYONE:
            assert made.declare_user(user_id, consent=True, tz="Europe/Paris").value.tz == "Europe/Paris"
        log = [row for user in EVERYONE for row in (shopping() if user == SHOPPER else ratings(user))]
        report = made.add_events(
            {"user_id": e.user_id, "item_id": e.item_id, "type": e.type, "ts": e.ts, "value": e.value, "text": e.text}
            for e in log
        )
        assert (report.rows_stored, report.users_made) == (len(log), 0)
        job = made.create_job("all", writer="template")
        assert job.total == len(EVERYONE)
        assert made.wait_job(job.job_id, WAIT_S, 0.1).counts.written == len(EVERYONE)
        assert made.wait_job(made.train_model(defaults=True).job_id, WAIT_S, 0.1).state == "done"
        yield made


def refused(status: int, slug: str, asked: Callable[[], object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        asked()
    error = caught.value
    assert (error.status, error.type) == (status, f"urn:limner:problem:{slug}")
    assert error.detail in str(error)
    assert error.problem.instance == f"urn:limner:request:{error.request_id}"
    return error


def test_every_route_has_a_method(tmp_path: Path, database: Database) -> None:
    described = create_app(settings(tmp_path), database).openapi()["paths"]
    names = {
        operation["operationId"].partition("_v1_")[0]
        for path, methods in described.items()
        if path.startswith("/v1/")
        for operation in methods.values()
    }
    assert names == {name for name in vars(Client) if not name.startswith("_")} - {"wait_job"}


def test_items_and_events(client: Client) -> None:
    found = list(client.list_items())
    assert [item.item_id for item in found] == sorted(row.item_id for row in items())
    assert client.read_item("m1") == next(item for item in found if item.item_id == "m1")
    logged = list(client.list_user_events("ann"))
    assert len(logged) == len(ratings("ann"))
    again = {"user_id": "ann", "item_id": "m1", "type": "view", "ts": 1_700_000_000}
    told = client.add_events([again, {"user_id": "ann"}], source="elsewhere")
    assert (told.rows_stored, told.rows_rejected, told.rejected[0].row) == (1, 1, 2)
    assert client.add_events([again], source="elsewhere").rows_known == 1
    assert len(list(client.list_user_events("ann"))) == len(logged) + 1


def test_lists_go_on_over_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = list(client.list_items())
    monkeypatch.setattr(api.sending, "_PAGE", 7)
    assert list(client.list_items()) == at_once


def test_users(client: Client) -> None:
    for user_id in (ODD, "search", "import"):
        made = client.declare_user(user_id, consent=False, attributes={"n": 1})
        read = client.read_user(user_id)
        assert (read, read.value.attributes) == (made, {"n": 1})
        assert client.read_user(user_id, known=read) is read
        later = client.declare_user(user_id, consent=True, if_match=read.etag)
        refused(412, "stale", lambda: client.declare_user(user_id, consent=True, if_match=read.etag))  # noqa: B023
        assert client.read_user(user_id, known=read) == later
        document = client.export_user(user_id)
        client.erase_user(user_id)
        refused(409, "erased", lambda: client.declare_user(user_id, consent=True))  # noqa: B023
        client.allow_user(user_id)
        assert client.import_exported_user(document).user_id == user_id
        assert user_id in [user.user_id for user in client.list_users()]
        client.erase_user(user_id)
    with pytest.raises(ValueError, match="no id"):
        client.read_user("..")


def test_profiles_and_claims(client: Client) -> None:
    read = client.read_profile("bob")
    assert client.read_profile("bob", known=read) is read
    claim = read.value.interests[0].claim_id
    corrected = client.reject_claim("bob", claim, if_match=read.etag)
    assert corrected.value.changes
    refused(412, "stale", lambda: client.pin_claim("bob", claim, if_match=read.etag))
    assert client.undo_correction("bob", corrected.value.correction.correction_id, corrected.etag).value.changes
    assert client.lessen_claim("bob", claim, 0.2).value.correction.rho == 0.2
    assert client.rewrite_claim("bob", claim, name="Tents of my own").value.correction.new_name == "Tents of my own"
    assert client.pin_claim("bob", claim).value.correction.action == "pin"
    assert client.add_claim("bob", "Space opera", kind="dislike").value.correction.kind == "dislike"
    assert "add" in [correction.action for correction in client.list_corrections("bob")]
    job = client.wait_job(client.refresh_profile("bob", writer="template").job_id, WAIT_S, 0.1)
    assert job.counts.written == 1
    assert client.read_profile("bob", known=read).value.version == 2
    assert [version.version for version in client.list_profile_versions("bob")] == [2, 1]
    assert client.read_profile_version("bob", 1) == read.value
    assert client.diff_profile("bob", 1, 2).changes
    [found] = client.search_users("Space opera", limit=1).items
    assert found.claims


def test_recommendations_and_questions(client: Client) -> None:
    listed = client.recommendations("eli", k=3, exclude=["m1"], category=["Mystery", "Cooking"])
    assert len(listed.items) == 3
    best = listed.items[0].item_id
    why = client.explanation("eli", best, counterfactual=True, k=3)
    assert why.text
    assert client.what_if("eli", best, without_claim=["i1"]).item_id == best
    answer = client.ask("eli", "What do you know about me?")
    assert (answer.by, bool(answer.sources)) == ("rule", True)


def test_jobs(client: Client) -> None:
    job = client.create_job(["cid", "dee"], writer="template", force=True, idempotency_key="nightly")
    assert (
        client.create_job(["cid", "dee"], writer="template", force=True, idempotency_key="nightly").job_id == job.job_id
    )
    shown = list(client.follow_job(job.job_id))
    assert (shown[-1].state, shown[-1].counts.written) == ("done", 2)
    assert client.read_job(job.job_id) == shown[-1]
    assert job.job_id in [one.job_id for one in client.list_jobs()]
    assert [one.user_id for one in client.list_job_items(job.job_id, state="written")] == ["cid", "dee"]
    assert client.report_job(job.job_id).state == "done"
    refused(409, "conflict", lambda: client.cancel_job(job.job_id))
    refused(409, "conflict", lambda: client.resume_job(job.job_id))
    refused(404, "not-found", lambda: list(client.follow_job("nothing")))
    with pytest.raises(TimeoutError, match="Does a worker run"):
        client.wait_job(client.train_model().job_id, timeout_s=0)


def test_models(client: Client) -> None:
    first = list(client.list_models())[-1]
    assert client.activate_model(first.model_id).active


def test_errors_are_told(service: Service, client: Client) -> None:
    with Client(service.url) as stranger:
        refused(401, "unauthorized", lambda: list(stranger.list_items()))
    with service.client("read") as reader:
        refused(403, "forbidden", lambda: reader.declare_user("ann", consent=True))
    refused(404, "not-found", lambda: client.read_user("nobody"))
    error = refused(422, "invalid", lambda: client.recommendations("ann", k=0))
    assert error.problem.errors is not None
    assert error.problem.errors[0].where == "query.k"


def test_a_client_of_many_requests_waits_as_it_is_told(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service.client("read", requests_per_minute=1, patience=0) as hasty:
        hasty.read_item("m1")
        refused(429, "rate-limit", lambda: hasty.read_item("m1"))
    pauses: list[float] = []
    clock = SimpleNamespace(sleep=pauses.append, monotonic=lambda: 100.0 * len(pauses))
    monkeypatch.setattr(api.sending, "time", clock)
    with service.client("read", requests_per_minute=1, patience=70) as patient:
        patient.read_item("m1")
        refused(429, "rate-limit", lambda: patient.read_item("m1"))
    assert len(pauses) == 1
    assert 0 < pauses[0] <= 60


def test_the_example_of_the_documentation_runs(
    service: Service,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    [example] = re.findall(r"```python\n(.*?)```", (command_line.ROOT / "docs/service.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("key.txt").write_text(new_key(service.database, "write") + "\n")
    exec(example.replace("http://127.0.0.1:8000", service.url), {"W": "cid"})  # noqa: S102 - our own
    said = capsys.readouterr().out
    assert "RankChange" in said
    assert "'rating'" in said


class Flaky(httpx.HTTPTransport):
    """Loses answers: what was asked for is done, but the client does not hear of it."""

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.losses, self.keys = losses, list[str]()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and lose the answer."""
        response = super().handle_request(request)
        self.keys.append(request.headers.get("idempotency-key", ""))
        if len(self.keys) <= self.losses:
            response.close()
            raise httpx.ReadError("lost")
        return response


def test_what_is_sent_again_is_done_once(service: Service, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.sending, "_FIRST_PAUSE_S", 0.0)
    before, flaky = len(list(client.list_corrections("ann"))), Flaky(2)
    with Client(service.url, new_key(service.database, "write"), transport=flaky) as unlucky:
        made = unlucky.add_claim("ann", "Jazz")
    assert len(flaky.keys) == 3
    assert len(set(flaky.keys)) == 1
    corrections = list(client.list_corrections("ann"))
    assert (len(corrections), corrections[-1]) == (before + 1, made.value.correction)
    with (
        Client(service.url, new_key(service.database, "read"), patience=0, transport=Flaky(1)) as impatient,
        pytest.raises(httpx.ReadError),
    ):
        impatient.read_item("m1")


def test_an_answer_of_something_in_between_is_an_error_too() -> None:
    proxy = httpx.MockTransport(lambda request: httpx.Response(502, text="<h1>Bad Gateway</h1>"))
    with Client("http://proxy", transport=proxy) as made, pytest.raises(ApiError) as caught:
        made.read_item("m1")
    assert (caught.value.status, caught.value.type) == (502, "about:blank")
    assert caught.value.request_id is None


def test_the_import_is_light() -> None:
    heavy = {"fastapi", "numpy", "psycopg", "sqlalchemy", "torch"}
    program = f"import api.client, sys; print(sorted({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
