"""The whole service against its own description, by schemathesis, over a socket: see the config for what is checked."""

import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from api.http.app import create_app
from api.queue import enqueue_profiles
from api.settings import Settings
from api.training import train_model
from recommend.parameters import Parameters
from store.database import Database
from tests.command_line import ROOT
from tests.http_client import new_key, settings, small
from tests.scripted_llm import MODEL, ScriptedLLM
from tests.small_world import EVERYONE, profiler, wrote

__all__ = ["small"]

SMALL = Parameters(factors=4, epochs=2, projection=4)
CONFIG = """
request-timeout = 30.0
max-stream-events = 1
continue-on-failure = true
headers = {{ Authorization = "Bearer {token}" }}
warnings = false
hooks = "tests.schemathesis_hooks"

[cache]
enabled = false

[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
# What is valid by the description may yet be refused: cursors, time zones, event types, NUL characters.
positive_data_acceptance.enabled = false
# `headers` above adds the key to requests that are meant to go without; another test sends those to every route.
missing_required_header.enabled = false

[dictionaries.users]
values = ["ann", "bob", "cid", "dee", "sam"]
[dictionaries.items]
values = ["m1", "k2", "t3", "h4"]
[dictionaries.claims]
values = ["i1", "i2", "d1"]
[dictionaries.jobs]
values = ["{job_id}"]
[dictionaries.models]
values = [{model_id}]
[dictionaries.versions]
values = [1, 2]
[dictionaries.texts]
values = ["'; drop table users;--", "<script>alert(1)</script>"]
[dictionaries.etags]
values = ["*", '"stale"']

[parameters]
"path.user_id" = {{ dictionary = "users", probability = 0.7 }}
"path.item_id" = {{ dictionary = "items", probability = 0.7 }}
"path.claim_id" = {{ dictionary = "claims", probability = 0.7 }}
"path.job_id" = {{ dictionary = "jobs", probability = 0.7 }}
"path.model_id" = {{ dictionary = "models", probability = 0.7 }}
"path.version" = {{ dictionary = "versions", probability = 0.7 }}
"header.If-Match" = {{ dictionary = "etags" }}
"query.from_version" = {{ dictionary = "versions", probability = 0.7 }}
"query.to_version" = {{ dictionary = "versions", probability = 0.7 }}

[generation.dictionaries]
string = {{ dictionary = "texts", probability = 0.1 }}

[[operations]]
include-name = "DELETE /v1/users/{{user_id}}"
parameters = {{ user_id = "eli" }}

# Rows are taken as from a file: a number is a text too.
[[operations]]
include-path-regex = "^/v1/(events|items)$"
checks.negative_data_rejection.enabled = false

# These are also paths of users with such ids, who can be read, declared and erased.
[[operations]]
include-path-regex = "^/v1/users/(search|import)$"
checks.allow_header_conformance.enabled = false
"""


@pytest.fixture
def server(small: FastAPI, database: Database, scripted: ScriptedLLM, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL of a server, and the configuration of schemathesis: profiles, corrections, a model, a job, a key."""
    llm = {"base_url": scripted.url, "model": MODEL, "timeout_s": 5.0}
    chosen = settings(tmp_path, llm=llm, api={"requests_per_minute": 0})
    wrote(profiler(database))
    wrote(profiler(database, force=True), ["ann", "bob"])
    model_id = train_model(database, chosen, SMALL, lambda _: nullcontext(lambda *_: None)).model_id
    with database.session() as session:
        job_id = enqueue_profiles(session, list(EVERYONE), "template")
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG.format(token=new_key(database, "admin"), job_id=job_id, model_id=model_id))
    with serving(chosen, database) as url:
        yield url, config


@contextmanager
def serving(chosen: Settings, database: Database) -> Iterator[str]:
    """Serve from a thread."""
    options = uvicorn.Config(
        create_app(chosen, database), port=0, log_config=None, access_log=False, timeout_graceful_shutdown=1
    )
    running = uvicorn.Server(options)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = running.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        running.should_exit = True
        thread.join()


def schemathesis(server: tuple[str, Path], *options: str) -> tuple[int, str]:
    """Run it; returns its exit code and what it says."""
    url, config = server
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", f"{url}/openapi.json"]
    done = subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=config.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stdout + done.stderr


def test_the_service_keeps_to_its_description(server: tuple[str, Path]) -> None:
    code, said = schemathesis(server, "--phases", "examples,fuzzing,stateful", "--max-examples", "3", "--seed", "1")
    assert code == 0, said


def test_a_url_that_is_too_long_is_refused_as_described(server: tuple[str, Path]) -> None:
    url = httpx.URL(server[0])
    asking = http.client.HTTPConnection(url.host, url.port)  # httpx refuses such a URL itself
    asking.request("GET", f"/v1/users/ann/recommendations?exclude={'x' * (1 << 16)}")
    answer = asking.getresponse()
    described = httpx.get(url.join("/openapi.json")).json()["paths"]["/v1/users/{user_id}/recommendations"]["get"]
    text = described["responses"][str(answer.status)]["content"][answer.headers.get_content_type()]
    assert (answer.status, answer.read().decode()) == (400, text["example"])


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_the_service_keeps_to_its_description_at_length(server: tuple[str, Path]) -> None:
    code, said = schemathesis(server, "--max-examples", "40")
    assert code == 0, said
