"""The levels of noise, and the rest of what the suite `simulated` simulates: fixed in `eval/noise.json`."""

from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field

from agent.contract import Language
from eval.simulation.domains import DomainName


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DriftSettings(_Part):
    """How drift is simulated.

    Attributes:
        users: Of each domain and language.
        events_per_user: Mean length of a log.
        noise: Share of noise.
        profile_day: Day of the logs on which the profile is written.
        calibration_seed: The one on which the threshold is set; nothing is measured there.
    """

    users: int = Field(ge=1)
    events_per_user: float
    noise: float
    profile_day: int
    calibration_seed: int


class NoiseSettings(_Part):
    """What is simulated.

    Attributes:
        levels: Of noise, ascending; shares of the events.
        domains: Each of them in each of the languages.
        users: Of each domain and language.
        items: Likewise.
        events_per_user: Mean length of a log.
        bots: Share of the users.
    """

    levels: tuple[float, ...]
    domains: tuple[DomainName, ...]
    languages: tuple[Language, ...]
    users: int = Field(ge=1)
    items: int
    events_per_user: float
    bots: float
    drift: DriftSettings


@cache
def read_settings() -> NoiseSettings:
    """Read the committed file."""
    return NoiseSettings.model_validate_json(files("eval").joinpath("noise.json").read_text(encoding="utf-8"))
