"""A question answered with the language model, for callers without an event loop."""

import asyncio

from agent.chat import ChatClient
from recommend.asking import LIMIT_S, NO_MODEL, ask
from recommend.contract import Answer
from recommend.facts import Facts


def answered(
    facts: Facts, question: str, chat: ChatClient | None, limit_s: float = LIMIT_S, without: str | None = None
) -> Answer:
    """Answer a question, and close the client.

    Args:
        facts: Of the user who is asked about.
        question: At most 1,000 characters.
        chat: The model; None: rules and templates do without.
        limit_s: How long the model may take, in all.
        without: Why there is no model, where that can be said.

    Raises:
        ValueError: The question is empty or too long.
    """

    async def run() -> Answer:
        try:
            return await ask(facts, question, chat, limit_s, without or NO_MODEL)
        finally:
            if chat is not None:
                await chat.aclose()

    return asyncio.run(run())
