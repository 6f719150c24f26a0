"""The settings: one frozen model, from the environment (`LIMNER_…`) and `limner.toml`; nothing else reads these."""

import json
import re
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as UnreadableError

from agent.contract import Language
from agent.errors import AgentError
from agent.evidence import DEFAULT_TYPES, EventType, EvidenceSettings
from agent.models import DEFAULT_CHAT, default_chat
from agent.planning import Policy
from agent.writer import WriterSettings


class SettingsError(AgentError):
    """A setting is wrong."""


def _with_commas(given: Any) -> Any:
    """Write a list of URLs with commas."""
    found = given
    if isinstance(given, str) and given.lstrip().startswith("["):
        found = json.loads(given)
    if isinstance(found, list):
        found = ",".join(str(url) for url in found)
    return ",".join(url.strip() for url in found.split(",") if url.strip()) if isinstance(found, str) else found


Urls = Annotated[str, BeforeValidator(_with_commas)]


class RoleSettings(BaseModel):
    """The language model of another task than writing profiles. What is not given is as for the writer.

    Attributes:
        base_url: Of its servers; empty: vLLM is started on demand, also if the writer has a server.
        model: As for the writer.
        api_key: Of its servers; the writer's only goes to the writer's.
        examples: Whether the prompts show examples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    base_url: Urls | None = None
    model: str | None = None
    api_key: SecretStr | None = None
    examples: bool | None = None


class LlmSettings(WriterSettings):
    """The language model that writes, and how it is asked.

    Attributes:
        base_url: Of an OpenAI-compatible server, up to `/v1`, or of several with the same model, with commas between
            or as a list; none: vLLM is started on demand.
        model: A name of the catalogue (`limner model list`), a Hub id, a path, or the server's name for it; if none is
            given, one of the catalogue that writes in the language of the profiles.
        timeout_s: For one call.
        concurrency: Calls under way at once, at each server.
        priorities: Whether the servers of `base_url` take a priority with each call, as vLLM does that was started
            with `--scheduling-policy priority`; one that we start does.
        engine: What batches use: a server, or vLLM's engine in the process of the command (`offline`), which is for
            one machine, and for nobody else meanwhile.
        users_at_once: Users whose profiles are being written at once; none: enough to have all calls under way.
        narrator: The model that words why something is recommended, if it is another.
        ask: The model that answers free questions, if it is another.
    """

    base_url: Urls | None = None
    model: str = DEFAULT_CHAT
    api_key: SecretStr = SecretStr("none")
    timeout_s: float = Field(default=120.0, gt=0)
    concurrency: int = Field(default=16, ge=1)
    priorities: bool = False
    engine: Literal["server", "offline"] = "server"
    users_at_once: int | None = Field(default=None, ge=1)
    narrator: RoleSettings = RoleSettings()
    ask: RoleSettings = RoleSettings()

    @property
    def writer(self) -> WriterSettings:
        """What the writer needs of these."""
        return WriterSettings(**self.model_dump(include=set(WriterSettings.model_fields)))


class EmbedderSettings(BaseModel):
    """The model that turns texts into vectors: a name of the catalogue, a Hub id or a path."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: str = "all-minilm-l6-v2"


class ApiSettings(BaseModel):
    """The HTTP interface.

    Attributes:
        host: Address that the server listens at.
        port: That it listens at; 0 is a free one.
        max_body_mib: The largest body that is taken.
        requests_per_minute: The most that a key may send which has no number of its own; 0 is no limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    max_body_mib: int = Field(default=16, ge=1, le=1_024)
    requests_per_minute: int = Field(default=6_000, ge=0)


class WorkerSettings(BaseModel):
    """The workers that take jobs up.

    Attributes:
        heartbeat_s: Seconds between two signs of life of a worker.
        stalled_s: After so many seconds without one, others take up what it was at; more than two heartbeats.
        tries: So often is an item taken up, before it fails where the model is out of reach or workers are lost.
        pause_s: Before the second try; it doubles with each further one, up to ten minutes.
        grace_s: How long users under way may take when a worker is asked to stop.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    heartbeat_s: int = Field(default=10, ge=1, le=30)
    stalled_s: float = Field(default=30.0, gt=0)
    tries: int = Field(default=8, ge=1)
    pause_s: float = Field(default=10.0, gt=0)
    grace_s: float = Field(default=8.0, ge=0)

    @model_validator(mode="after")
    def _live(self) -> Self:
        if self.stalled_s <= 2 * self.heartbeat_s:
            raise ValueError("stalled_s must be more than two heartbeats, or workers at work are taken for dead")
        return self


class TelemetrySettings(BaseModel):
    """Traces by OpenTelemetry.

    Attributes:
        otlp_endpoint: Base URL of a collector that takes OTLP over HTTP; none: no traces are made.
        sample: Share of the requests and tasks that are traced, where the caller has not decided it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    otlp_endpoint: Annotated[str, Field(pattern=r"^https?://")] | None = None
    sample: float = Field(default=1.0, ge=0, le=1)


class BatchSettings(Policy):
    """Runs over many users, and when they write a profile anew.

    Attributes:
        max_fallback: A run stops itself when a larger share of the model's texts is refused, and so falls back to the
            template; the profiles that were active before are active again then.
        max_failed: Likewise, of users who failed.
        judge_after: Users, written or failed, before a run is judged.
        concurrency: Calls of a batch under way at once, at each server; those of people come on top, and go first.
        timeout_s: For one call of a batch, with its wait at a busy server.
        price_in: Of a million tokens that the model reads; 0 is not known.
        price_out: Of a million tokens that it writes.
    """

    max_fallback: float = Field(default=0.5, ge=0, le=1)
    max_failed: float = Field(default=0.25, ge=0, le=1)
    judge_after: int = Field(default=20, ge=1)
    concurrency: int = Field(default=32, ge=1)
    timeout_s: float = Field(default=600.0, gt=0)
    price_in: float = Field(default=0.0, ge=0)
    price_out: float = Field(default=0.0, ge=0)

    @property
    def policy(self) -> Policy:
        """When a profile is written anew."""
        return Policy(**self.model_dump(include=set(Policy.model_fields)))


class Settings(BaseSettings):
    """All settings.

    Attributes:
        home: Data directory: embedded database, weights, data, logs.
        database_url: Of a PostgreSQL with pgvector; none: an embedded server under `home`.
        language: Of the profiles.
        event_types: Event types beside the built-in ones, or in their place, by name.
        evidence: Half-life, rating scale and bounds of the evidence arithmetic (its `types` are `event_types`).
        privacy_key: Under which user ids are hashed in the audit and in tombstones; none: the key in
            `home/privacy.key`. Servers with one database must have the same.
        api: The HTTP interface.
        worker: The workers that take jobs up.
        batch: Runs over many users.
        telemetry: Traces by OpenTelemetry.
    """

    model_config = SettingsConfigDict(
        env_prefix="LIMNER_", env_nested_delimiter="__", toml_file="limner.toml", extra="forbid", frozen=True
    )
    home: Path = Path(".limner")
    database_url: SecretStr | None = None
    language: Language = "en"
    llm: LlmSettings = LlmSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    event_types: dict[str, EventType] = Field(default_factory=dict)
    evidence: dict[str, Any] = Field(default_factory=dict)
    privacy_key: Annotated[SecretStr, Field(min_length=16)] | None = None
    api: ApiSettings = ApiSettings()
    worker: WorkerSettings = WorkerSettings()
    batch: BatchSettings = BatchSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over `limner.toml`."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def acting(self, role: Literal["narrator", "ask"]) -> Self:
        """Return the settings with the language model of a role in the place of the writer's."""
        own: RoleSettings = getattr(self.llm, role)
        given = own.model_dump(exclude_none=True) | {"engine": "server"}
        if own.base_url is not None and own.api_key is None:
            given["api_key"] = SecretStr("none")
        return self.model_copy(update={"llm": self.llm.model_copy(update=given)})

    @property
    def evidence_settings(self) -> EvidenceSettings:
        """The evidence settings with all event types."""
        return EvidenceSettings.model_validate({**self.evidence, "types": {**DEFAULT_TYPES, **self.event_types}})


def read_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: One is unknown or has a wrong value.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        raise _wrong(error) from error
    except UnreadableError as error:  # a part that is given whole, and is no JSON
        field = re.search(r'field "(\w+)"', str(error))
        name = f"The setting LIMNER_{field[1].upper()}" if field else "A setting"
        raise SettingsError(f"{name} is no JSON: {error.__cause__}. It comes from the environment.") from error
    except TOMLDecodeError as error:
        raise SettingsError(f"The file limner.toml in this folder is no TOML: {error}.") from error
    try:
        settings.evidence_settings  # noqa: B018 - validated only when it is put together
    except ValidationError as error:
        raise _wrong(error, "evidence") from error
    named = "model" in settings.llm.model_fields_set
    llm = settings.llm if named else settings.llm.model_copy(update={"model": default_chat(settings.language)})
    return settings.model_copy(update={"home": settings.home.expanduser().resolve(), "llm": llm})


def _wrong(error: ValidationError, *within: str) -> SettingsError:
    first = error.errors(include_url=False)[0]
    name = "__".join(str(part) for part in (*within, *first["loc"])).upper()
    return SettingsError(
        f"The setting LIMNER_{name} is wrong: {first['msg']}. It comes from the environment or limner.toml."
    )
