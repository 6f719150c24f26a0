"""The files under `deploy/`: what they start, set, mount and ask for is there. They are read, not run."""

import json
import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel, SecretStr
from sqlalchemy import make_url

from agent.models import CATALOGUE, TEACHER, Resolved
from agent.serving import ServeSettings, vllm_argv, vllm_env
from api.cli import app as cli
from api.http.app import create_app
from api.settings import ApiSettings, Settings, read_settings
from tests.command_line import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
SECRETS = {"POSTGRES_PASSWORD": "0f" * 16, "LIMNER_PRIVACY_KEY": "1e" * 16, "LIMNER_LLM__API_KEY": "2d" * 16}


def instructions() -> list[tuple[str, str]]:
    """The container file's instructions, each with what follows it."""
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)]


def told(word: str) -> list[str]:
    """What follows an instruction, wherever it stands."""
    return [rest for found, rest in instructions() if found == word]


def example() -> dict[str, str]:
    """What `.env.example` sets."""
    lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled_in(value: Any, given: dict[str, str]) -> str:
    """A value of the compose file, with the variables that compose puts in: `${A:-default}`, `${A:?message}`."""

    def variable(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        assert name in example(), f"{name} is not in .env.example"
        return given.get(name) or (rest if kind == ":-" else pytest.fail(f"{name} is not set: {rest}"))

    return re.sub(r"\$\{(\w+)(:[-?])?([^}]*)\}", variable, str(value))


def environment(service: str, given: dict[str, str] = SECRETS) -> dict[str, str]:
    return {name: filled_in(value, given) for name, value in SERVICES[service].get("environment", {}).items()}


def understood(args: list[str]) -> dict[str, Any]:
    """Have the command line read a command, without running it; what it has made of it."""
    command, context = typer.main.get_command(cli), None
    while True:
        context = command.make_context(command.name, list(args), parent=context)
        if not hasattr(command, "resolve_command"):
            return dict(context.params)
        _, command, args = command.resolve_command(context, [*context._protected_args, *context.args])


def routes() -> set[str]:
    return {route.path for route in create_app(Settings()).routes if hasattr(route, "path")}


def field(name: str) -> Any:
    """The field of the settings that a variable of the environment sets."""
    model: Any = Settings
    for part in name.removeprefix("LIMNER_").lower().split("__"):
        assert part in model.model_fields, f"{name} is no setting"
        model = model.model_fields[part].annotation
    assert not (isinstance(model, type) and issubclass(model, BaseModel)), f"{name} is a group of settings"
    return model


def commands() -> list[list[str]]:
    """Every `limner …` of the container file and the compose file."""
    found = [json.loads(rest) for rest in told("CMD")]
    found += [[filled_in(word, {}) for word in SERVICES[name].get("command", [])] for name in OURS]
    return [command for command in found if command]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_is_one_of_ours(command: list[str]) -> None:
    assert command[0] == "limner"
    understood(command[1:])


def test_the_reader_of_commands_refuses_what_is_not_there() -> None:
    assert understood(["serve", "--port", "8000", "--with-worker"])["with_worker"] is True
    for wrong in (["serv"], ["serve", "--prot", "1"], ["db", "up"], ["worker", "--concurrency", "many"]):
        with pytest.raises(Exception, match=r"No such (command|option)|a valid integer"):
            understood(wrong)


def test_the_commands_of_the_docs_are_ours() -> None:
    docs = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    deploy = docs[docs.index("## Deploy\n") :].split("\n## ")[0]
    found = re.findall(r"^.*docker compose (?:run --rm|exec) (\w+) (limner .+)$", deploy, re.MULTILINE)
    assert len(found) >= 2
    for service, command in found:
        assert service in OURS
        understood([word for word in shlex.split(command, comments=True)[1:] if word != "-"])


def test_every_variable_is_a_setting_with_a_right_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LIMNER_")]:
        monkeypatch.delenv(name)
    for name in (*example(), *(name for service in SERVICES for name in SERVICES[service].get("environment", {}))):
        if name.startswith("LIMNER_"):
            field(name)
    image = dict(pair.split("=", 1) for rest in told("ENV") for pair in shlex.split(rest))
    for name, value in {**image, **environment("service")}.items():
        if name.startswith("LIMNER_"):
            monkeypatch.setenv(name, value)
    settings = read_settings()
    assert isinstance(settings.database_url, SecretStr)
    url, database = make_url(settings.database_url.get_secret_value()), environment("postgres")
    assert (url.host, url.port, url.username) == ("postgres", 5432, database["POSTGRES_USER"])
    assert (url.password, url.database) == (database["POSTGRES_PASSWORD"], database["POSTGRES_DB"])
    assert settings.llm.priorities
    assert settings.llm.api_key.get_secret_value() == environment("vllm")["VLLM_API_KEY"]
    assert all(environment(name) == environment("service") for name in OURS)


def test_secrets_have_no_default() -> None:
    assert {name for name, value in example().items() if not value} == set(SECRETS)
    for missing in SECRETS:
        with pytest.raises(pytest.fail.Exception, match=missing):
            environment("service", SECRETS | {missing: ""})
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    assert not re.search(r"(PASSWORD|KEY): (?!\$\{\w+:\?)", text)


def test_vllm_is_started_as_limner_starts_it() -> None:
    service, default = SERVICES["vllm"], TEACHER
    command = [filled_in(word, {}) for word in service["command"]]
    entry = next(entry for entry in CATALOGUE if entry.name == default)
    # No configuration is there, so that the length is that of the settings.
    resolved = Resolved(
        name=default, path=Path("/models") / default, weights_hash="0", entry=entry, pulled=True, key=default
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("agent.serving._longest", lambda path: None)
        own = vllm_argv(resolved, ServeSettings(), "gpu", 8000)
    own[own.index("127.0.0.1")] = "0.0.0.0"  # noqa: S104
    assert service["entrypoint"][1:] + command == own[1:]
    assert {**environment("vllm"), **vllm_env(ServeSettings(), "gpu", [])} == environment("vllm")
    base_url = environment("service")["LIMNER_LLM__BASE_URL"]
    assert base_url == f"http://vllm:{command[command.index('--port') + 1]}/v1"
    gpu = service["deploy"]["resources"]["reservations"]["devices"][0]
    assert (gpu["driver"], gpu["capabilities"]) == ("nvidia", ["gpu"])
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert f"vllm=={service['image'].rpartition(':v')[2]}" in pinned["gpu"]


def test_ports_and_paths_of_health_are_there() -> None:
    port = str(ApiSettings().port)
    assert told("EXPOSE") == [port]
    for command in commands():
        if command[1] == "serve":
            assert understood(command[1:]) == {"host": "0.0.0.0", "port": int(port), "with_worker": False}  # noqa: S104
    assert SERVICES["service"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    asked = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", " ".join(told("HEALTHCHECK")))
    assert asked == [(port, "/livez")]
    assert "/livez" in routes()
    assert re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", SERVICES["vllm"]["healthcheck"]["test"][-1]) == [
        (port, "/health")
    ]
    assert not any("healthcheck" in SERVICES[name] for name in OURS if SERVICES[name]["command"][1] == "serve")
    assert all(
        SERVICES[name]["healthcheck"] == {"disable": True} for name in OURS if SERVICES[name]["command"][1] != "serve"
    )


def test_the_image_has_what_it_needs_and_no_root() -> None:
    copied = [rest.split()[:-1] for rest in told("COPY") if not rest.startswith("--from")]
    for path in (path for paths in copied for path in paths):
        assert (ROOT / path).exists(), path
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = re.findall(r"pip install .* \"?\.\[(\w+)\]", " ".join(told("RUN")))
    assert extras == ["otel"]
    assert set(extras) <= set(project["project"]["optional-dependencies"])
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {path for paths in copied for path in paths} >= {*packages, "pyproject.toml", project["project"]["readme"]}
    order = [word for word, _ in instructions()]
    assert told("USER") == ["10001"]
    assert order.index("USER") < order.index("CMD")
    assert (ROOT / "deploy" / SERVICES["service"]["build"]["context"]).resolve() == ROOT
    assert (ROOT / SERVICES["service"]["build"]["dockerfile"]).name == "Containerfile"
    made_by = " ".join(told("RUN"))
    for volume in SERVICES["service"]["volumes"]:
        assert f"{volume.partition(':')[2]} " in f"{made_by} ", "a volume takes its owner from the image"


def test_services_wait_for_what_they_need_and_volumes_exist() -> None:
    runs_once = {name for name in SERVICES if SERVICES[name].get("restart") == "no"}
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in runs_once else "service_healthy"
            assert how == {"condition": expected}, (name, other)
            assert other in runs_once or "test" in SERVICES[other]["healthcheck"]
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]
    assert set(SERVICES["worker"]["depends_on"]) >= {"postgres", "migrate", "vllm"}
    assert re.fullmatch(r"pgvector/pgvector:\d+\.\d+\.\d+-pg18-\w+", SERVICES["postgres"]["image"])
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]
