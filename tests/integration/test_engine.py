"""One user's profile from end to end with real parts: vLLM on the CPU, the real embedder, PostgreSQL.

SmolLM2-135M follows few instructions, so the template's words may stand; the calls must be real all the same.
"""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from agent import archive
from agent.check import check_profiles
from agent.embedder import SentenceEmbedder
from agent.evidence import EvidenceSettings
from agent.loading import prepare_catalogue
from agent.models import pull
from agent.openai_chat import OpenAIChat
from agent.profiling import Profiler, Report
from agent.serving import serve
from agent.unit import ModelInfo
from agent.verify import Repetition
from agent.writer import LlmWriter
from store import profiles
from store.database import Database
from tests.small_world import NOW, fill

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


def test_a_profile_by_a_real_model(database: Database, model_home: Path) -> None:
    fill(database, ["ann"])
    weights = pull("all-minilm-l6-v2", model_home)
    embedder = SentenceEmbedder(weights.path, weights.name)
    model = pull("smollm2-135m", model_home)
    with serve(model, model_home) as serving:
        chat = OpenAIChat(serving.base_url, serving.model, timeout_s=300.0)
        made = Profiler(
            database=database,
            embedder=embedder,
            catalogue=prepare_catalogue(database, embedder),
            evidence=EvidenceSettings(),
            language="en",
            clock=lambda: NOW,
            llm=(
                LlmWriter(chat, Repetition(embedder.embed), "en"),
                ModelInfo(model.name, model.weights_hash),
            ),
            max_fallback=1.0,
        )

        async def write() -> Report:
            try:
                return await made.write(["ann"])
            finally:
                await chat.aclose()

        report = asyncio.run(write())
    assert (report.written, report.failed) == (["ann"], {})
    with database.session() as session:
        profile = archive.from_rows(profiles.load(session, "ann"))
        calls = session.execute(text("select role, model, tokens_in, tokens_out, seconds from llm_calls")).all()
    assert {call.role for call in calls} == {"theme", "summary"}
    assert {call.model for call in calls} == {"smollm2-135m"}
    assert all(call.tokens_in > 100 and call.tokens_out > 0 and call.seconds > 0 for call in calls)
    assert profile.provenance.tokens_in == sum(call.tokens_in for call in calls)
    assert profile.provenance.tokens_out == sum(call.tokens_out for call in calls)
    assert (profile.provenance.writer, profile.provenance.weights_hash) == ("llm", model.weights_hash)
    assert profile.claims
    assert profile.summary
    quality = profile.quality
    assert quality.first_try + quality.repaired + quality.fallback == len(profile.claims) + 1
    assert list(check_profiles(database, ["ann"]))[-1] == (1, len(profile.claims), 0)
    with database.session() as session:
        vectors = session.scalar(
            text("select count(*) from embeddings where kind = 'claim' and vector_dims(vector) = 384")
        )
    assert vectors == len(profile.claims)
