"""Free questions about a profile or a recommendation: a LangChain agent with tools over our own functions.

The tools do the facts (`recommend.facts`); they are bound to one user, so that nothing in a question or in a title
changes whose data is read. The model chooses tools and words. What it says stands only if it holds against the facts
that it cites (`recommend.citing`). Where it calls no tool, or not the one that the question plainly asks for, a rule
chooses (`recommend.questions`); where its words do not hold, it is asked for words once more, with examples; and where
these do not hold either, or there is no model, a template lists the facts.
"""

# ruff: noqa: RUF001 - Chinese punctuation

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import openai
from pydantic import BaseModel, ConfigDict, Field

from agent.chat import ChatClient
from agent.contract import Language
from agent.errors import ChatError, Usage
from agent.verify.text import CITATION
from agent.words import clean
from prompts.loader import load
from recommend.citing import holds, tidy
from recommend.contract import Answer, By, Source, Tool, ToolCall
from recommend.facts import Fact, Facts, Found
from recommend.questions import Pick, pick
from store import profiles
from store.tables import LlmCallRow

PROMPTS: dict[str, tuple[str, int]] = {"tools": ("ask-tools", 1), "en": ("ask", 1), "zh": ("ask-zh", 1)}
MAX_QUESTION = 1_000
MAX_CALLS = 4
MAX_TOKENS = 300
LIMIT_S = 90.0
NO_MODEL = "No language model is at hand"
_LANGUAGES: dict[Language, str] = {"en": "English", "zh": "Chinese (简体中文)"}
_CAN_ASK: dict[Language, str] = {
    "en": "Nothing is on record about you that would answer this. You can ask what your profile says, what changed in "
    "it, what you did on a day, what is recommended to you, and why an item is.",
    "zh": "没有可以回答这个问题的记录。你可以问：画像说了什么、有什么变化、某一天做了什么、有什么推荐，"
    "为什么推荐某个条目。",
}


class AskWords(BaseModel):
    """An answer in words."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(min_length=2, max_length=900)


@dataclass
class Notebook:
    """The facts that the tools have told so far, numbered through, and the calls.

    Attributes:
        facts: Of one user.
        told: By number, from 1; a fact that is told twice keeps its number.
        blocks: What each call has told: its heading, and the numbers of its facts.
        fitting: Numbers of the facts that were asked for; the others only come near, and a model may not cite them,
            since it would leave out that they do.
    """

    facts: Facts
    told: dict[int, Fact] = field(default_factory=dict)
    blocks: list[tuple[str, list[int]]] = field(default_factory=list)
    fitting: set[int] = field(default_factory=set)
    calls: list[ToolCall] = field(default_factory=list)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def call(self, by: By, name: Tool, arguments: dict[str, Any], tool: Callable[[], Found]) -> str:
        """Call a tool in a thread, note what it tells, and return that as numbered lines."""
        async with self._one_at_a_time:
            if len(self.calls) >= MAX_CALLS:
                return "No more calls: answer from the facts that you have."
            given = {key: value for key, value in arguments.items() if value not in (None, "", ())}
            self.calls.append(ToolCall(name=name, arguments=given, by=by))
            found = await asyncio.to_thread(tool)
        numbers = [self._number(fact) for fact in found.facts]
        self.blocks.append((found.heading, numbers))
        self.fitting.update(numbers if found.fits else ())
        return "\n".join([found.heading, *(f"[{n}] {self.told[n].text}" for n in numbers)])

    def _number(self, fact: Fact) -> int:
        for n, known in self.told.items():
            if known == fact:
                return n
        self.told[len(self.told) + 1] = fact
        return len(self.told)

    @property
    def lines(self) -> str:
        """All facts as numbered lines."""
        return "\n".join(f"[{n}] {fact.text}" for n, fact in self.told.items())

    def holds(self, text: str) -> bool:
        """Tell whether a text says nothing but what the facts say that it cites."""
        facts = {n: fact for n, fact in self.told.items() if n in self.fitting}
        return holds(text, facts, [h for h, _ in self.blocks], self.facts.language, self.facts.user_id)

    def start_again(self) -> None:
        """Forget what was asked and told."""
        for known in (self.calls, self.blocks, self.told, self.fitting):
            known.clear()


async def ask(
    facts: Facts, question: str, chat: ChatClient | None = None, limit_s: float = LIMIT_S, without: str = NO_MODEL
) -> Answer:
    """Answer a question.

    Args:
        facts: Of the user who is asked about.
        question: At most 1,000 characters.
        chat: The model; None: rules and templates do without. It is left open.
        limit_s: How long the model may take, in all.
        without: Why there is no model.

    Raises:
        ValueError: The question is empty or too long.
    """
    asked = clean(question, MAX_QUESTION + 1)
    if not asked or len(question) > MAX_QUESTION:
        raise ValueError(f"a question has 1 to {MAX_QUESTION} characters")
    notebook, notes = Notebook(facts), list[str]()
    text = None
    if chat is None:
        notes.append(f"{without}: a rule has chosen the tool, and a template the words.")
    else:
        try:
            async with asyncio.timeout(limit_s):
                text = await _by_model(notebook, asked, chat, notes)
        except TimeoutError:
            notes.append(f"The model took longer than {limit_s:g} s.")
        except ChatError as error:
            notes.append(f"The model gave no answer ({error.outcome}).")
    if text is None and not notebook.told:
        await _by_rule(notebook, asked)
    return _answer(notebook, asked, text, notes)


async def _by_model(notebook: Notebook, question: str, chat: ChatClient, notes: list[str]) -> str | None:
    """Let the model call tools and answer; None where its words do not hold.

    Raises:
        ChatError: The server is out of reach or refuses.
    """
    text = await _with_tools(notebook, question, chat)
    chosen = await _chosen(notebook.facts, question)
    astray = chosen.sure and chosen.tool not in {call.name for call in notebook.calls}
    if not astray and notebook.holds(text):
        return text
    if astray or not (chosen.sure and notebook.told):
        notes.append("The model called no tool that answers it: a rule has chosen one.")
        notebook.start_again()
        await _by_rule(notebook, question)
    if notebook.fitting and notebook.holds(text := await _worded(notebook, question, chat)):
        return text
    notes.append("The model's words did not hold against the sources: these are the template's.")
    return None


async def _with_tools(notebook: Notebook, question: str, chat: ChatClient) -> str:
    """Run the agent.

    Returns:
        What it said last; nothing where the server would not take the tools.
    """
    # It takes seconds to import, and only a question that a model answers needs it.
    from langchain.agents import create_agent  # noqa: PLC0415
    from langchain.agents.middleware import (  # noqa: PLC0415
        ModelCallLimitMiddleware,
        ToolCallLimitMiddleware,
        wrap_model_call,
    )

    facts = notebook.facts
    prompt = load(*PROMPTS["tools"])
    (_, system), (_, user) = prompt.render(
        {"language": _LANGUAGES[facts.language], "today": f"{facts.today:%A %-d %B %Y}", "question": question}
    )

    async def facts_first(request: Any, handler: Any) -> Any:
        # Left to themselves, small models answer at once, and make it up.
        asked = any(message.type == "tool" for message in request.messages)
        return await handler(request if asked else request.override(tool_choice="required"))

    bounds: list[Any] = [
        wrap_model_call(facts_first),
        ToolCallLimitMiddleware(run_limit=MAX_CALLS),
        ModelCallLimitMiddleware(run_limit=MAX_CALLS + 1, exit_behavior="end"),
    ]
    agent: Any = create_agent(chat.client(MAX_TOKENS), _tools(notebook), system_prompt=system, middleware=bounds)
    started = time.perf_counter()
    usage, outcome, said = Usage(0, 0, 0.0), "ok", ""
    try:
        result = await agent.ainvoke({"messages": [("user", user)]})
        replies = [message for message in result["messages"] if message.type == "ai"]
        counted = [message.usage_metadata for message in replies if message.usage_metadata]
        usage = Usage(sum(c["input_tokens"] for c in counted), sum(c["output_tokens"] for c in counted), 0.0)
        said = tidy(str(replies[-1].text)) if replies else ""
    except openai.APIConnectionError as error:
        from agent.openai_chat import lost  # noqa: PLC0415 - its libraries are slow to load; by now they are there

        outcome, reason = lost(error)
        raise ChatError(outcome, reason) from error
    except (openai.OpenAIError, ValueError, LookupError, TypeError, AttributeError):
        outcome = "rejected"  # it takes no tools, or sent what is no chat completion
    finally:
        usage = usage._replace(seconds=time.perf_counter() - started)
        await asyncio.to_thread(_keep, facts, chat.name, prompt.label, usage, outcome)
    return said


async def _worded(notebook: Notebook, question: str, chat: ChatClient) -> str:
    """Let the model put the facts that were told into words, by examples; nothing where its answer is no answer."""
    facts = notebook.facts
    prompt = load(*PROMPTS[facts.language])
    quoted = '"' + question.replace('"', "'") + '"'
    messages = prompt.render({"language": _LANGUAGES[facts.language], "question": quoted, "facts": notebook.lines})
    usage, outcome = Usage(0, 0, 0.0), "ok"
    try:
        words, usage = await chat.ask(messages, AskWords, MAX_TOKENS)
    except ChatError as error:
        usage, outcome = error.usage, error.outcome
        if outcome in {"malformed", "cut_off", "rejected"}:
            return ""
        raise
    finally:
        await asyncio.to_thread(_keep, facts, chat.name, prompt.label, usage, outcome)
    return tidy(words.text)


def _keep(facts: Facts, model: str, prompt: str, usage: Usage, outcome: str) -> None:
    """Keep the account of a call; nothing of what was asked or said."""
    row = LlmCallRow(
        role="ask", prompt=prompt, model=model, tokens_in=usage.tokens_in, tokens_out=usage.tokens_out,
        seconds=usage.seconds, outcome=outcome, created_at=facts.now,
    )  # fmt: skip
    with facts.database.session() as session:
        profiles.add_calls(session, [row])


def _tools(notebook: Notebook) -> list[Any]:
    """Return the tools, bound to the user of the notebook; their docstrings are what the model reads."""
    from langchain.tools import tool  # noqa: PLC0415 - as above

    facts = notebook.facts

    @tool
    async def profile(version: int | None = None) -> str:
        """What is claimed about the person: interests, dislikes, habits. Without a version: the present profile."""
        return await notebook.call("model", "profile", {"version": version}, lambda: facts.profile(version))

    @tool
    async def profile_changes(
        since: date | None = None, from_version: int | None = None, to_version: int | None = None
    ) -> str:
        """What changed in the profile since a day (YYYY-MM-DD) or between two versions."""
        arguments = {"since": since and since.isoformat(), "from_version": from_version, "to_version": to_version}
        return await notebook.call(
            "model", "profile_changes", arguments, lambda: facts.profile_changes(since, from_version, to_version)
        )

    @tool
    async def search_events(text: str = "", since: date | None = None, until: date | None = None) -> str:
        """What the person did: views, ratings, purchases, searches. By words of titles and by days (YYYY-MM-DD)."""
        arguments = {"text": text, "since": since and since.isoformat(), "until": until and until.isoformat()}
        return await notebook.call(
            "model", "search_events", arguments, lambda: facts.search_events(text[:MAX_QUESTION], since, until)
        )

    @tool
    async def explanation(item: str) -> str:
        """Why an item, given by its title, is recommended to the person."""
        return await notebook.call(
            "model", "explanation", {"item": item}, lambda: facts.explanation(item[:MAX_QUESTION])
        )

    @tool
    async def recommendations(count: int = 5) -> str:
        """What is recommended to the person at present, the best first."""
        return await notebook.call("model", "recommendations", {"count": count}, lambda: facts.recommendations(count))

    return [profile, profile_changes, search_events, explanation, recommendations]


async def _chosen(facts: Facts, question: str) -> Pick:
    """Choose the tool by rule."""
    return pick(question, facts.today, await asyncio.to_thread(facts.items_in, question))


async def _by_rule(notebook: Notebook, question: str) -> None:
    """Call the tool that a rule chooses; where that has nothing to tell, tell of the profile, then of the events."""
    facts = notebook.facts
    chosen = await _chosen(facts, question)
    others = [Pick(name) for name in ("profile", "search_events") if name != chosen.tool]
    for picked in (chosen, *others):
        arguments = {
            "item": picked.item, "text": " ".join(picked.words), "since": picked.since and picked.since.isoformat(),
            "until": picked.until and picked.until.isoformat(), "kinds": " ".join(picked.kinds), "order": picked.order,
        }  # fmt: skip
        await notebook.call("rule", picked.tool, arguments, _bound(facts, picked))
        if notebook.told:
            return


def _bound(facts: Facts, picked: Pick) -> Callable[[], Found]:
    match picked.tool:
        case "profile":
            return lambda: _of_profile(facts, picked)
        case "profile_changes":
            return lambda: facts.profile_changes(picked.since)
        case "search_events":
            return lambda: facts.events(picked.words, picked.since, picked.until, picked.item, picked.order)
        case "explanation":
            return lambda: facts.explanation(picked.item or "")
        case "recommendations":
            return facts.recommendations


def _of_profile(facts: Facts, picked: Pick) -> Found:
    """Say what the profile says of it; of one thing that it does not name, what was done about that."""
    found = facts.profile(None, picked.words, picked.kinds)
    if found.fits or len(picked.words) != 1:
        return found
    done = facts.events(picked.words)
    return done if done.fits and done.facts else found


def _answer(notebook: Notebook, question: str, text: str | None, notes: Sequence[str]) -> Answer:
    """Number the sources anew, in the order in which the text cites them."""
    said = _template(notebook) if text is None else text
    new: dict[int, int] = {}
    for n in map(int, CITATION.findall(said)):
        new.setdefault(n, len(new) + 1)
    told = notebook.told
    return Answer(
        user_id=notebook.facts.user_id,
        question=question,
        text=CITATION.sub(lambda match: f"[{new[int(match[1])]}]", said),
        sources=[Source(n=n, kind=told[old].kind, id=told[old].id, what=told[old].text) for old, n in new.items()],
        tool_calls=notebook.calls,
        by="rule" if text is None else "model",
        notes=list(notes),
    )


def _template(notebook: Notebook) -> str:
    """List the facts under their headings; where there are none, say what can be asked."""
    lines, listed = list[str](), set[int]()
    for heading, numbers in notebook.blocks:
        new = [n for n in numbers if n not in listed]
        listed.update(new)
        if new or not numbers:
            lines.append(_plain(heading))
        lines += [f"- {_plain(notebook.told[n].text)} [{n}]" for n in new]
    if not listed:
        lines.append(_CAN_ASK[notebook.facts.language])
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Take away what looks like a citation in a title or a text."""
    return CITATION.sub(r"(\1)", text)
