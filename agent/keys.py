"""The key of a unit: SHA-256 of everything that one user's profile depends on. The same key, the same profile.

What only bears on how a run goes (how much at once, by force or not, against which server) is no part of it.
"""

import hashlib
from functools import cached_property
from typing import Any, Self

import orjson
from pydantic import BaseModel, ConfigDict

from agent.contract import Language, Writer
from agent.evidence import EvidenceSettings
from agent.unit import ModelInfo, sampling
from agent.verify import VERSION
from agent.writer import WriterSettings, labels, prompts_in
from store.units import Inputs

CODE = "12"
"""Raised with every change of what a profile is made of (evidence, themes, template, what a model is asked)."""


class Recipe(BaseModel):
    """How profiles are made, for all users alike.

    Attributes:
        code: Version of the code that drafts.
        verifier: Version of the verifier.
        evidence: Settings of the arithmetic.
        embedder: Id of the embedder.
        theme_factors: Hash of the factors that themes are made with; None if they are made of texts alone.
        language: That is written in.
        writer: Who puts it into words.
        model: The language model; None for the template.
        weights_hash: Of its weights, where it is known.
        prompts: Hash of each prompt, by name and version.
        sampling: How the model is asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    code: str = CODE
    verifier: str = VERSION
    evidence: EvidenceSettings
    embedder: str
    theme_factors: str | None = None
    language: Language
    writer: Writer
    model: str | None = None
    weights_hash: str | None = None
    prompts: dict[str, str] = {}
    sampling: dict[str, float] = {}

    @classmethod
    def of(
        cls,
        evidence: EvidenceSettings,
        embedder: str,
        language: Language,
        asked: WriterSettings | None = None,
        model: ModelInfo | None = None,
        theme_factors: str | None = None,
    ) -> Self:
        """Return the recipe by which a model that is asked so writes; without one, that of the template."""
        made: dict[str, Any] = {
            "evidence": evidence, "embedder": embedder, "theme_factors": theme_factors, "language": language,
        }  # fmt: skip
        if asked is None or model is None:
            return cls(**made, writer="template")
        return cls(
            **made,
            writer="llm",
            model=model.name,
            weights_hash=model.weights_hash,
            prompts=labels(prompts_in(language, asked)),
            sampling=sampling(asked),
        )

    @cached_property
    def hash(self) -> str:
        """SHA-256 of all of it."""
        return _sha256(self.model_dump(mode="json"))


def unit_key(inputs: Inputs, recipe: Recipe) -> str:
    """Return the key of a user's profile, made of these inputs by this recipe."""
    parts = {name: value for name, value in inputs._asdict().items() if name != "catalogue_revision"}
    return _sha256({**parts, "recipe": recipe.hash})


def _sha256(document: object) -> str:
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()
