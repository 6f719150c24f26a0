"""The key of a unit: each of its inputs changes it, and nothing else does."""

from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from agent.catalogue import BaseRates
from agent.evidence import EventType, EvidenceSettings
from agent.keys import Recipe, unit_key
from agent.loading import Catalogue
from agent.models import TEACHER
from agent.profiling import Profiler
from agent.writer import WriterSettings
from api import runtime
from api.settings import LlmSettings, Settings
from store.database import Database
from store.units import Inputs
from tests.small_world import NOW, FakeEmbedder

WORDS = st.text(max_size=8)
COUNTS = st.integers(0, 1 << 40)
EVIDENCE = st.builds(
    EvidenceSettings,
    types=st.dictionaries(WORDS, st.builds(EventType, weight=st.floats(-1, 1), explicit=st.booleans()), max_size=3),
    half_life_days=st.floats(1, 1_000),
    neutral=st.floats(1, 5),
    max_negative_share=st.floats(0, 1),
)
RECIPES = st.builds(
    Recipe,
    code=WORDS,
    verifier=WORDS,
    evidence=EVIDENCE,
    embedder=WORDS,
    theme_factors=st.none() | WORDS,
    language=st.sampled_from(["en", "zh"]),
    writer=st.sampled_from(["llm", "template"]),
    model=st.none() | WORDS,
    weights_hash=st.none() | WORDS,
    prompts=st.dictionaries(WORDS, WORDS, max_size=3),
    sampling=st.dictionaries(WORDS, st.floats(0, 10), max_size=3),
)
INPUTS = st.builds(
    Inputs,
    user_id=WORDS,
    log_revision=COUNTS,
    corrections_revision=COUNTS,
    items_revision=COUNTS,
    declared=WORDS,
    catalogue_revision=COUNTS,
)
INPUT = Inputs("ann", 3, 1, 40, "d", 50)
RECIPE = Recipe(evidence=EvidenceSettings(), embedder="e", language="en", writer="template")


@pytest.mark.parametrize("name", [name for name in Inputs._fields if name != "catalogue_revision"])
@given(inputs=INPUTS, other=INPUTS, recipe=RECIPES)
def test_each_input_of_a_user_changes_the_key(name: str, inputs: Inputs, other: Inputs, recipe: Recipe) -> None:
    changed = inputs._replace(**{name: getattr(other, name)})
    assert (unit_key(inputs, recipe) == unit_key(changed, recipe)) is (inputs == changed)


@pytest.mark.parametrize("name", list(Recipe.model_fields))
@given(inputs=INPUTS, recipe=RECIPES, other=RECIPES)
def test_each_part_of_the_recipe_changes_the_key(name: str, inputs: Inputs, recipe: Recipe, other: Recipe) -> None:
    changed = Recipe(**{part: getattr(other if part == name else recipe, part) for part in Recipe.model_fields})
    assert (unit_key(inputs, recipe) == unit_key(inputs, changed)) is (recipe == changed)


@given(inputs=INPUTS, revision=COUNTS)
def test_items_that_the_log_does_not_name_do_not_count(inputs: Inputs, revision: int) -> None:
    assert unit_key(inputs, RECIPE) == unit_key(inputs._replace(catalogue_revision=revision), RECIPE)


def test_the_key_is_the_same_on_every_machine() -> None:
    pinned = Recipe(
        code="6", verifier="2", evidence=EvidenceSettings(types={}), embedder="e", language="en", writer="template"
    )
    assert unit_key(INPUT, pinned) == "c6f999407518208c25717ffbae72b3e3a22cf0d3836833f4c8cb76b5f721fb87"


def test_how_a_run_goes_is_no_part_of_the_recipe() -> None:
    database = Database("postgresql://nobody@nowhere/nothing")  # it is never asked
    catalogue = Catalogue(BaseRates(0, {}), FakeEmbedder().embed(["x"])[0])
    made = Profiler(database, FakeEmbedder(), catalogue, EvidenceSettings(), "en", lambda: NOW)
    knobs: dict[str, Any] = {
        "users_at_once": 99, "max_fallback": 0.01, "force": True, "fence": lambda *_: None, "wanted": lambda _: True,
        "around": lambda _: nullcontext(),
    }  # fmt: skip
    known = {"database", "embedder", "catalogue", "evidence", "language", "clock", "llm", *knobs}
    assert {field.name for field in fields(Profiler)} == known  # a new one is either: decide which
    for name, value in knobs.items():
        assert replace(made, **{name: value}).recipe.hash == made.recipe.hash


def test_of_the_settings_only_those_that_words_depend_on_are_in_the_recipe(tmp_path: Path) -> None:
    def recipe(**llm: Any) -> str:
        return runtime.recipe(Settings(home=tmp_path, llm=LlmSettings(**llm)), "llm").hash

    knobs: dict[str, Any] = {
        "base_url": "http://elsewhere:9/v1", "api_key": SecretStr("s"), "timeout_s": 3.0, "concurrency": 99,
        "users_at_once": 99,
    }  # fmt: skip
    asked: dict[str, Any] = {
        "max_repairs": 0, "themes_per_call": 7, "max_claims": 3, "examples": False, "summary": False,
    }  # fmt: skip
    assert set(asked) == set(WriterSettings.model_fields)
    base = {"base_url": "http://here:9/v1", "model": TEACHER}
    for name, value in knobs.items():
        assert recipe(**base | {name: value}) == recipe(**base)
    for name, value in (asked | {"model": "another"}).items():
        assert recipe(**base | {name: value}) != recipe(**base)
    template = runtime.recipe(Settings(home=tmp_path), "template")
    assert template.model is None
    assert template.hash != recipe(**base)
