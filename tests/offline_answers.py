"""Asks vLLM's engine in a process of its own, for tests: `python -m tests.offline_answers HOME RESULT.json`."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agent.chat import ChatModel, Message
from agent.errors import ChatError
from agent.models import resolve
from agent.offline import engine
from agent.serving import ServeSettings
from agent.words import IntentWords, SummaryWords, ThemesWords
from prompts.loader import load

MODEL = "smollm2-135m"
ITEMS = '[1] "Quiet Harbour" (1958) drama, war\n[2] "The Last Convoy" (1953) war, drama\nTraits: mainly drama, war'
LONG = '[1] "Quiet Harbour" (1958) drama, war\n' * 400
Asked = tuple[Sequence[Message], type[BaseModel], int]


def requests() -> list[Asked]:
    """Prompts of each kind; an answer that is cut off; a prompt that is too long."""
    theme, intent, summary = (load(name, 1) for name in ("theme", "intent", "summary"))
    told = {"language": "English", "groups": f"The person likes:\n{ITEMS}"}
    likes = {"language": "English", "likes": '[1] "War dramas" (strongest)', "dislikes": '[2] "Horror"'}
    return [
        (theme.render(told), ThemesWords, 120),
        (intent.render({"language": "English", "events": ITEMS}), IntentWords, 120),
        (summary.render(likes), SummaryWords, 120),
        (summary.render(likes), SummaryWords, 9),
        (theme.render({**told, "groups": LONG}), ThemesWords, 120),
    ]


async def answers(chat: ChatModel) -> list[dict[str, Any]]:
    """Ask one after the other: within a batch, sums of floating-point numbers may come out otherwise."""
    found = []
    for messages, schema, max_tokens in requests():
        try:
            answer, usage = await chat.ask(messages, schema, max_tokens)
        except ChatError as error:
            found.append({"outcome": error.outcome, "said": error.raw, "tokens": error.usage[:2]})
        else:
            found.append({"outcome": "ok", "said": answer.model_dump(), "tokens": usage[:2]})
    await chat.aclose()
    return found


async def at_once(chat: ChatModel, most: int) -> int:
    """Ask the same many times at once; returns how many answers there are."""
    messages, schema, max_tokens = requests()[0]
    found = await asyncio.gather(*(chat.ask(messages, schema, max_tokens) for _ in range(most)), return_exceptions=True)
    return sum(not isinstance(answer, BaseException) or isinstance(answer, ChatError) for answer in found)


async def main(chat: ChatModel) -> dict[str, Any]:
    """Ask one after the other, and then many at once."""
    return {"answers": await answers(chat), "at_once": await at_once(chat, 40)}


if __name__ == "__main__":
    with engine(resolve(MODEL, Path(sys.argv[1])), ServeSettings()) as running:
        result = asyncio.run(main(running))
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
