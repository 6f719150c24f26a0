"""A model writes about users for lessons, and a small one is taught by them."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from peft import PeftModel
from safetensors.torch import load_file
from sqlalchemy import text
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from agent import archive
from agent.errors import LessonError
from agent.lessons import Rehearsal, read, split
from agent.models import Resolved, resolve
from agent.teaching import ADAPTER, MODEL, Course, train
from agent.writer import WriterSettings, prompts_in
from api import runtime
from api.cli import app
from api.teaching import Rehearsals, rehearse
from api.training import train_model
from recommend.parameters import Parameters
from store import profiles
from store.database import Database
from store.privacy import Hasher
from tests.http_client import settings
from tests.scripted_llm import MODEL as MODEL_NAME
from tests.scripted_llm import ScriptedLLM, down, honest, malformed, sequence
from tests.small_world import EVERYONE, FakeEmbedder, fill, profiler, wrote
from tests.unit.test_lessons import lesson

HASHER = Hasher(b"key of the tests")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
COURSE = Course(rank=4, epochs=6, learning_rate=1e-2, batch=4, max_tokens=400, save_every=2)
TAUGHT = [lesson(f"War dramas {n}", f"Enjoys war dramas number {n}.") for n in range(12)]
HELD_OUT = [lesson("War films", "Enjoys war films.")]


@pytest.fixture
def rehearsals(database: Database, scripted: ScriptedLLM) -> Rehearsals:
    fill(database)
    return Rehearsals(database, profiler(database, scripted.url), "small", HASHER)


def test_what_passes_becomes_a_lesson_and_no_profile_is_stored(
    rehearsals: Rehearsals, database: Database, scripted: ScriptedLLM
) -> None:
    scripted.reset(honest)
    found: list[Rehearsal] = []
    assert rehearse(rehearsals, EVERYONE, found.append) is None
    assert {one.user for one in found} == {HASHER.subject(user) for user in EVERYONE}
    assert all(one.asked == one.first_try > 0 for one in found)
    lessons = [one for user in found for one in user.lessons]
    assert {one.role for one in lessons} == {"theme", "summary", "intent"}
    assert all(json.loads(one.answer) for one in lessons)
    assert not any(user in one.model_dump_json() for user in EVERYONE for one in lessons)
    with database.session() as session:
        stored = "select (select count(*) from profiles) + (select count(*) from attempts)"
        assert session.execute(text(stored)).scalar() == 0


def test_refused_answers_are_no_lessons(rehearsals: Rehearsals, scripted: ScriptedLLM) -> None:
    scripted.reset(malformed)
    found: list[Rehearsal] = []
    assert rehearse(rehearsals, EVERYONE, found.append) is None
    assert all(one.first_try == 0 < one.asked and not one.lessons for one in found)


def test_a_model_out_of_reach_ends_it_and_what_was_done_stays(rehearsals: Rehearsals, scripted: ScriptedLLM) -> None:
    scripted.reset(sequence(*[honest] * 12, down))
    found: list[Rehearsal] = []
    assert rehearse(rehearsals, EVERYONE, found.append) is not None
    assert len(found) < len(EVERYONE)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Resolved:
    """A tiny model with random weights, and its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), ByteLevel()
    special = ["<|im_start|>", "<|im_end|>"]
    texts = [one.answer + "".join(t for _, t in one.messages) for one in TAUGHT]
    made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=300, special_tokens=special))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|im_end|>")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).to(dtype=torch.bfloat16).save_pretrained(folder)
    return resolve(str(folder), folder)


class StoppedError(Exception):
    pass


def test_a_small_model_is_taught(base: Resolved, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    metrics = train(base, TAUGHT, HELD_OUT, tmp_path, COURSE, {"name": "small"}, lambda *at: steps.append(at))
    assert metrics["loss_after"] < 0.9 * metrics["loss_before"]
    assert (steps[-1], metrics["steps"]) == ((18, 18), 18)
    weights = load_file(tmp_path / ADAPTER / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert sorted(path.name for path in tmp_path.iterdir()) == [ADAPTER, "merge.log", MODEL]
    card = json.loads((tmp_path / ADAPTER / "limner.json").read_text())
    assert sorted(path.name for path in (tmp_path / ADAPTER).iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "limner.json",
    ]  # fmt: skip
    assert not any(str(base.path) in path.read_text() for path in (tmp_path / ADAPTER).glob("*.json"))
    assert (card["base_sha256"], card["course"]["rank"]) == (base.weights_hash, 4)
    assert resolve(str(tmp_path / MODEL), tmp_path).taught == {one.role for one in TAUGHT}
    assert not resolve(str(base.path), tmp_path).taught
    ids = torch.arange(20)[None]
    plain = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    before = plain(ids).logits
    apart = PeftModel.from_pretrained(plain, str(tmp_path / ADAPTER))(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / MODEL, dtype=torch.float32)(ids).logits
    assert (merged - apart).norm() < 0.05 * (before - apart).norm()  # what rounding to bfloat16 makes


def test_a_course_that_was_stopped_goes_on_to_the_same_end(base: Resolved, tmp_path: Path) -> None:
    def stop(done: int, _total: int) -> None:
        if done == 9:
            raise StoppedError

    whole = train(base, TAUGHT, HELD_OUT, tmp_path / "whole", COURSE, {})
    with pytest.raises(StoppedError):
        train(base, TAUGHT, HELD_OUT, tmp_path / "parts", COURSE, {}, stop)
    with pytest.raises(LessonError, match="of other lessons"):
        train(base, TAUGHT[1:], HELD_OUT, tmp_path / "parts", COURSE, {})
    steps: list[int] = []
    parts = train(base, TAUGHT, HELD_OUT, tmp_path / "parts", COURSE, {}, lambda done, _: steps.append(done))
    assert steps[0] == 9  # the checkpoint is of step 8
    assert parts["loss_after"] == whole["loss_after"]
    one, two = (load_file(tmp_path / n / ADAPTER / "adapter_model.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_without_a_lesson_that_is_short_enough_nothing_is_trained(base: Resolved, tmp_path: Path) -> None:
    with pytest.raises(LessonError, match="at most 16 tokens"):
        train(base, TAUGHT, HELD_OUT, tmp_path, Course(max_tokens=16), {})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def limner(
    database: Database, scripted: ScriptedLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """The command in this process, on the small world with a recommender."""
    monkeypatch.setattr(runtime, "embedder", lambda _: FakeEmbedder())
    monkeypatch.setenv("LIMNER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LIMNER_DATABASE_URL", database.url)
    monkeypatch.setenv("LIMNER_LLM__BASE_URL", scripted.url)
    monkeypatch.setenv("LIMNER_LLM__MODEL", MODEL_NAME)
    monkeypatch.setenv("COLUMNS", "200")
    fill(database)
    wrote(profiler(database))
    small = Parameters(factors=4, epochs=2, projection=4)
    train_model(database, settings(tmp_path / "home"), small, lambda _: nullcontext(lambda *_: None))
    return lambda *args: CliRunner().invoke(app, ["writer", *args])


def test_the_commands(limner: Callable[..., Result], scripted: ScriptedLLM, base: Resolved, tmp_path: Path) -> None:
    scripted.reset(honest)
    file, folder = tmp_path / "lessons" / "small.jsonl", tmp_path / "taught"
    first = limner("distill", str(file), "--limit", "3", "--domain", "small")
    assert (first.exit_code, " of 3 users were added" in first.output) == (0, True), first.output
    with file.open("a") as lines:
        lines.write('{"domain": "small", "us')  # a kill
    more = limner("distill", str(file), "--all", "--domain", "small")
    assert f" of {len(EVERYONE) - 3} users were added" in more.output
    none = limner("distill", str(file), "--all", "--domain", "small")
    assert "Everyone is in" in none.output
    found = list(read([file]))
    assert len({one.user for one in found}) == len(found) == len(EVERYONE)
    assert {one.role for user in found for one in user.lessons} == {"theme", "summary", "intent", "why"}

    judges = "held-out users" if split(found).held_out else "the lessons themselves"
    done = limner("train", str(file), "-o", str(folder), "--base", str(base.path), "--epochs", "1", "--rank", "2")
    assert (done.exit_code, f"Loss on {judges}" in done.output) == (0, True), done.output
    card = json.loads((folder / ADAPTER / "limner.json").read_text())
    assert (card["domains"], card["teachers"]) == (["small"], [[MODEL_NAME, "unknown"]])
    assert sum(card["lessons"].values()) > 0

    tried = limner("try", "--all")
    assert (tried.exit_code, "100.0%" in tried.output) == (0, True), tried.output
    taught = limner("try", "--all", "--except", str(file), "--domain", "small")
    assert (taught.exit_code, "all taught" in taught.output) == (1, True)
    elsewhere = limner("try", "--all", "--except", str(file), "--domain", "other")
    assert (elsewhere.exit_code, "100.0%" in elsewhere.output) == (0, True)
    scripted.reset(malformed)
    hopeless = limner("try", "--all").output
    assert " 0.0%" in hopeless
    assert "theme: the answer does not fit the schema" in hopeless
    scripted.reset(down)
    assert limner("try", "--all").exit_code == 5
    nothing = limner("train", str(file), "-o", str(folder), "--hold-out", "small")
    assert "nothing to teach by" in str(nothing.exception)


def test_who_was_taught_sums_up_without_numbers_and_code_finds_the_claims(
    database: Database, scripted: ScriptedLLM
) -> None:
    fill(database)
    summaries = []
    for examples in (True, False):
        scripted.reset(honest)
        wrote(profiler(database, scripted.url, WriterSettings(examples=examples), force=True))
        asked = {request.schema for request in scripted.record.requests}
        assert asked & {"SummaryWords", "BriefSummary"} == {"SummaryWords" if examples else "BriefSummary"}
        with database.session() as session:
            found = [archive.from_rows(profiles.load(session, user)) for user in EVERYONE]
        summaries.append([(line.text, set(line.claim_ids), line.wording) for one in found for line in one.summary])
    assert summaries[0] == summaries[1]
    assert any(wording == "llm" and len(claims) > 1 for _, claims, wording in summaries[1])


def test_code_sums_up_where_the_model_is_not_asked_to(database: Database, scripted: ScriptedLLM) -> None:
    fill(database)
    wrote(profiler(database, scripted.url, WriterSettings(summary=False)))
    assert "SummaryWords" not in {request.schema for request in scripted.record.requests}
    with database.session() as session:
        found = [archive.from_rows(profiles.load(session, user)) for user in EVERYONE]
    for one in found:
        assert {line.wording for line in one.summary} == {"template"}
        assert {claim.wording for claim in one.claims} == {"llm"}
        assert one.quality.fallback == 0
        assert "summary" not in one.provenance.prompts


def test_a_taught_model_is_asked_in_brief(tmp_path: Path, base: Resolved) -> None:
    def asked(**llm: Any) -> tuple[bool, bool]:
        found = runtime.asked(settings(tmp_path, llm=llm))
        return found.examples, found.summary

    for name, taught in (("mine", ["summary", "theme"]), ("less", ["theme"])):
        shutil.copytree(base.path, tmp_path / name)
        card = {"name": name, "weights_sha256": base.weights_hash, "taught": taught}
        (tmp_path / name / "limner.json").write_text(json.dumps(card))
    assert asked(model=str(tmp_path / "mine")) == (False, True)
    assert asked(model=str(tmp_path / "mine"), summary=False) == (False, False)
    assert asked(model=str(tmp_path / "less")) == (False, False)  # code sums up what it was not taught to
    assert asked(model=str(base.path)) == (True, True)
    elsewhere = "http://elsewhere/v1"
    assert asked(model=str(tmp_path / "mine"), base_url=elsewhere) == (True, True)  # the server's own name for it
    assert asked(model="theirs", base_url=elsewhere, examples=False, summary=False) == (False, False)
    brief, shown = (prompts_in("en", WriterSettings(examples=examples)) for examples in (False, True))
    assert brief["theme"].name == "theme-brief"
    assert "summary" not in prompts_in("en", WriterSettings(summary=False))
    assert len(brief["theme"].messages) < len(shown["theme"].messages)
