"""Free questions about a profile or a recommendation."""

from contextlib import nullcontext
from typing import Annotated

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agent.words import clean
from api import runtime
from api.asking import answered
from api.http.auth import UserReader
from api.http.ids import UserId
from api.http.problems import responses
from api.http.state import StateDep
from recommend.asking import MAX_QUESTION
from recommend.contract import Answer
from recommend.facts import Facts

router = APIRouter(prefix="/v1", tags=["questions"])


def _says_something(question: str) -> str:
    if not clean(question):
        raise ValueError("holds no characters that can be read")
    return question


class Question(BaseModel):
    """A question in English or Chinese."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"question": "Why did you show me Heat?"}]}
    )
    question: Annotated[str, Field(min_length=1, max_length=MAX_QUESTION), AfterValidator(_says_something)]


_ANSWER = {
    "user_id": "405",
    "question": "Why did you show me Heat?",
    "text": "Heat is recommended because of your interest in crime and film noir [1].",
    "sources": [{"n": 1, "kind": "claim", "id": "i1", "what": "Your interest in crime and film noir adds +0.214."}],
    "tool_calls": [{"name": "explanation", "arguments": {"item": "Heat"}, "by": "model"}],
    "by": "model",
    "notes": [],
}


@router.post(
    "/users/{user_id}/ask",
    summary="Ask a question",
    responses=responses(404) | {200: {"content": {"application/json": {"example": _ANSWER}}}},
)
def ask(user_id: UserId, body: Question, state: StateDep, _caller: UserReader) -> Answer:
    """What the profile says, what changed in it, what the user did, what is recommended and why.

    The text cites its sources. Where a language model runs, it chooses tools and words, and its words are checked
    against the sources (`by` is `model`); else a rule chooses the tool and a template lists what it tells (`rule`).
    """
    facts = Facts.of(state.database, user_id, state.recommender, state.settings.language, runtime.now())
    without = runtime.cannot_answer(state.settings.acting("ask"))
    with nullcontext() if without else state.asker.chat_if_any() as chat:
        return answered(facts, body.question, chat, state.settings.llm.timeout_s, without)
