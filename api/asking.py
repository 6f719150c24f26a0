"""A question answered with the language model, for callers without an event loop."""

import asyncio

from agent.chat import ChatClient
from recommend.asking import LIMIT_S, ask
from recommend.contract import Answer
from recommend.facts import Facts


def answered(facts: Facts, question: str, chat: ChatClient | None, limit_s: float = LIMIT_S) -> Answer:
    """Answer a question, and close the client.

    Raises:
        ValueError: The question is empty or too long.
    """

    async def run() -> Answer:
        try:
            return await ask(facts, question, chat, limit_s)
        finally:
            if chat is not None:
                await chat.aclose()

    return asyncio.run(run())
