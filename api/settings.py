"""The settings: one frozen model, from the environment (`LIMNER_…`) and `limner.toml`; nothing else reads these."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from agent.contract import Language
from agent.errors import AgentError
from agent.evidence import DEFAULT_TYPES, EventType, EvidenceSettings


class SettingsError(AgentError):
    """A setting is wrong."""


class LlmSettings(BaseModel):
    """The language model that writes.

    Attributes:
        base_url: Of an OpenAI-compatible server, up to `/v1`; none: vLLM is started on demand.
        model: A name of the catalogue (`limner model list`), a Hub id, a path, or the server's name for it.
        timeout_s: For one call.
        concurrency: Calls under way at once.
        users_at_once: Users whose profiles are being written at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    base_url: str | None = None
    model: str = "qwen2.5-coder-1.5b"
    api_key: SecretStr = SecretStr("none")
    timeout_s: float = Field(default=120.0, gt=0)
    concurrency: int = Field(default=16, ge=1)
    users_at_once: int = Field(default=6, ge=1)


class EmbedderSettings(BaseModel):
    """The model that turns texts into vectors: a name of the catalogue, a Hub id or a path."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: str = "all-minilm-l6-v2"


class Settings(BaseSettings):
    """All settings.

    Attributes:
        home: Data directory: embedded database, weights, data, logs.
        database_url: Of a PostgreSQL with pgvector; none: an embedded server under `home`.
        language: Of the profiles.
        event_types: Event types beside the built-in ones, or in their place, by name.
        evidence: Half-life, rating scale and bounds of the evidence arithmetic (its `types` are `event_types`).
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
        settings.evidence_settings  # noqa: B018 - validates the nested part, too
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "__".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(
            f"The setting LIMNER_{where} is wrong: {first['msg']}. It comes from the environment or limner.toml."
        ) from error
    return settings.model_copy(update={"home": settings.home.expanduser().resolve()})
