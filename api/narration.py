"""An explanation in the words of the language model, where these hold."""

import asyncio

from agent.chat import ChatClient
from agent.contract import Language
from recommend import narrating
from recommend.contract import Explanation

REFUSED = "The model's words did not hold against the parts: these are the template's."


def narrated(chat: ChatClient, found: Explanation, language: Language, *, examples: bool = True) -> Explanation:
    """Let the model word an explanation; the template's words stand where the model's do not hold. Closes the client.

    Args:
        chat: The model.
        found: What to say.
        language: To write in.
        examples: Whether the prompt shows examples.

    Raises:
        ChatError: The server is out of reach or refuses.
    """

    async def say() -> str | None:
        try:
            return await narrating.narrate(chat, found, language, examples=examples)
        finally:
            await chat.aclose()

    text = asyncio.run(say())
    if text is None:
        return found.model_copy(update={"notes": [*found.notes, REFUSED]})
    return found.model_copy(update={"text": text, "narrated": True})
