"""The writer: themes, intents and the summary put into words by a language model, verified, repaired, or templated.

One loop serves all three: ask, verify, ask again with the violations at most twice, then fall back to the template.
A server that cannot be reached ends the profile instead (`ChatError`), so that the one before it stays.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from agent.catalogue import Telling
from agent.chat import Call, ChatModel, Message
from agent.contract import Language
from agent.errors import ChatError, Usage
from agent.exemplary import adds_nothing, keeps_to, names_all_once, names_only
from agent.phrasing import echoes, misspoken
from agent.pipeline import in_thread
from agent.themes import informative, is_informative
from agent.verify import (
    Grounds,
    Repetition,
    Verdict,
    Violation,
    attributes_named,
    checks,
    run_checks,
    verify,
    verify_claim,
)
from agent.words import (
    BriefSummary,
    IntentWords,
    SummaryWords,
    ThemesWords,
    ThemeWords,
    Worded,
    called,
    cite,
    in_part,
    is_main,
    named_after,
    quantified,
    short_name,
    themes_words,
    uncited,
    without_listing,
)
from prompts.loader import Prompt, load

MAX_TOKENS = 160
MAX_SUMMARY_TOKENS = 260
LANGUAGE_NAMES: dict[Language, str] = {"en": "English", "zh": "Chinese (简体中文)"}
_MENDABLE = frozenset({"malformed", "cut_off"})
PROMPTS: dict[str, int] = {"theme": 1, "intent": 1, "summary": 1, "repair": 1}

Schema = TypeVar("Schema", bound=BaseModel)
Checked = TypeVar("Checked")
Result = TypeVar("Result")


class WriterSettings(BaseModel):
    """How a model is asked.

    Attributes:
        max_repairs: How often a refused wording is asked for again; small models hardly ever mend theirs.
        themes_per_call: Themes put into words by one call: 1 suits small models, 12 large ones.
        max_claims: Claims of a profile that the model puts into words, the strongest; the others keep the template's
            words. So the cost of a profile has a bound, however long the log.
        examples: Whether the prompts show examples; a model that was taught on these very tasks needs none.
        summary: Whether the model writes the summary; if not, code does, of the claims' names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_repairs: int = Field(default=1, ge=0, le=2)
    themes_per_call: int = Field(default=1, ge=1, le=12)
    max_claims: int = Field(default=7, ge=1)
    examples: bool = True
    summary: bool = True


def prompts_in(language: Language, asked: WriterSettings) -> dict[str, Prompt]:
    """Return the prompts in use for a language, by name: with examples in that language, or in brief for any."""
    own = ("" if language == "en" else f"-{language}") if asked.examples else "-brief"
    used = {name: version for name, version in PROMPTS.items() if name != "summary" or asked.summary}
    return {name: load(name if name == "repair" else name + own, version) for name, version in used.items()}


def labels(prompts: Mapping[str, Prompt]) -> dict[str, str]:
    """Return name, version and hash of each prompt, by name."""
    return {name: prompt.label for name, prompt in prompts.items()}


class ClaimTask(NamedTuple):
    """A claim to be worded.

    Attributes:
        described: The claim's examples and traits as the prompt lists them.
        telling: Traits that set it apart.
        strength: Of the claim, signed.
        grounds: What the words may say.
        fallback: The template's words.
        titles: Of the numbered examples, as they are shown.
        intent: Whether it is an intent (prompt `intent`) rather than a theme.
    """

    described: str
    telling: tuple[Telling, ...]
    strength: float
    grounds: Grounds
    fallback: Worded
    titles: tuple[str, ...]
    intent: bool = False

    @property
    def kind(self) -> tuple[str, bool]:
        """Claims of one kind must not say the same: likes, dislikes, intents."""
        return self.grounds.polarity, self.intent

    @property
    def says_something(self) -> bool:
        """Whether there is a trait to put into words."""
        return any(is_informative(t) for t in self.telling)

    @property
    def holds_together(self) -> bool:
        """Whether a trait describes the whole of it; of a mix the template says all that may be said."""
        return any(is_main(t, n) for n, t in enumerate(informative(self.telling)))

    def has_no_trait_beyond(self, other: "ClaimTask") -> bool:
        """Tell whether another claim of its kind has all of its traits."""
        own, others = ({t.attribute for t in informative(task.telling)} for task in (self, other))
        return self.kind == other.kind and own <= others


class SummaryTask(NamedTuple):
    """A summary to be written.

    Attributes:
        variables: The claims as the prompt lists them.
        texts: Their words, which the summary may use.
        liked: Their signs.
        order: Their places in the profile.
        grounds: Of the catalogue.
    """

    variables: dict[str, str]
    texts: tuple[str, ...]
    liked: tuple[bool, ...]
    order: tuple[int, ...]
    grounds: Grounds


class Refused(NamedTuple):
    """An answer that cannot be used: its JSON (empty if there is none to show), why, and the tries that it took."""

    answer: str
    violations: tuple[Violation, ...]
    tries: int = 1


class SummaryLine(NamedTuple):
    """A sentence of the summary, the places of its claims in the profile, and what wrote it."""

    text: str
    claims: tuple[int, ...]
    by_model: bool
    tries: int


class Passed(NamedTuple):
    """An answer that others can learn by: the prompt that it is to, the values of its variables, and its JSON."""

    role: str
    variables: Mapping[str, str]
    answer: str


@dataclass
class Account:
    """The calls that one profile took, and the answers of the model that others can learn by."""

    calls: list[Call] = field(default_factory=list)
    passed: list[Passed] = field(default_factory=list)

    def add(self, role: str, prompt: Prompt, usage: Usage, outcome: str, detail: str | None = None) -> None:
        """Keep a call."""
        self.calls.append(Call(role, prompt.label, usage, outcome, detail))


def _listed(violations: Sequence[Violation]) -> str:
    return "; ".join(f"{v.kind}: {v.detail}" for v in violations)


async def together(calls: Sequence[Coroutine[None, None, Result]]) -> list[Result]:
    """Await all; when the model is out of reach for one, the others are stopped before the error goes on."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except ChatError:
        for task in tasks:  # or they would go on behind the back of the account
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


class LlmWriter:
    """Words claims and summaries by a chat model.

    Args:
        chat: The model.
        repetition: Tells whether two texts say the same.
        language: The language to write in.
        settings: How the model is asked.
    """

    def __init__(
        self,
        chat: ChatModel,
        repetition: Repetition,
        language: Language,
        settings: WriterSettings = WriterSettings(),  # noqa: B008 - frozen
    ) -> None:
        self.chat, self._repetition, self._language = chat, repetition, language
        self.settings = settings
        self._prompts = prompts_in(language, settings)

    @property
    def prompts(self) -> dict[str, str]:
        """Labels of the prompts in use, by name."""
        return labels(self._prompts)

    async def aclose(self) -> None:
        """Close the model's connections."""
        await self.chat.aclose()

    async def claims(
        self, tasks: Sequence[ClaimTask], account: Account, settled: Sequence[tuple[ClaimTask, Worded]] = ()
    ) -> list[Worded]:
        """Word claims; the model is asked for all at once.

        Claims that repeat one before them (of the same kind) are then asked for again, all at once, too: one request
        at a time leaves an engine idle. What still repeats gets the template's words.

        Args:
            tasks: The claims.
            account: Where the calls are kept.
            settled: Other claims of the profile, whose words stand: they are not to be said again, and count among
                those that the model may word.
        """
        asked, first = len(tasks), [task.fallback for task in tasks]
        before = [task for task, _ in settled]
        batches = self._batches(tasks, before, self.settings.max_claims - sum(w.wording == "llm" for _, w in settled))
        tasks = [*tasks, *before]
        answers = await together([self._batch([tasks[n] for n in batch], account) for batch in batches])
        for batch, worded in zip(batches, answers, strict=True):
            for n, words in zip(batch, worded, strict=True):
                first[n] = words
        stands = {asked + n: words for n, (_, words) in enumerate(settled)}
        kept, repeats = await in_thread(self._told_apart, tasks, first, stands)
        again = await together([self._again(tasks, n, first[n], other, kept, account) for n, other in repeats.items()])
        kept = await in_thread(self._or_fallback, tasks, dict(zip(repeats, again, strict=True)), kept)
        return self._distinct(tasks[:asked], [kept[n] for n in range(asked)])

    def _told_apart(
        self, tasks: Sequence[ClaimTask], words: Sequence[Worded], kept: Mapping[int, Worded]
    ) -> tuple[dict[int, Worded], dict[int, str]]:
        """Return the words that stand by the claim's place, those kept before among them, and what others repeat."""
        stand, repeats = dict(kept), dict[int, str]()
        for n, worded in enumerate(words):
            if worded.wording == "llm" and (other := self._repeated(tasks, n, worded, stand)):
                repeats[n] = other
            else:
                stand[n] = worded
        return stand, repeats

    def _or_fallback(
        self, tasks: Sequence[ClaimTask], words: Mapping[int, Worded], kept: Mapping[int, Worded]
    ) -> dict[int, Worded]:
        """Return all words by the claim's place; the template's for those that still repeat others."""
        stand = dict(kept)
        for n, worded in words.items():
            if worded.wording == "llm" and self._repeated(tasks, n, worded, stand):
                worded = replace(tasks[n].fallback, tries=worded.tries)  # noqa: PLW2901
            stand[n] = replace(worded, alike=worded.wording == "template")
        return stand

    def _batches(self, tasks: Sequence[ClaimTask], before: Sequence[ClaimTask], most: int) -> list[list[int]]:
        """Return the places of the claims that the model words, at most so many, by call.

        A taught model keeps to the traits, so it cannot tell a claim from one before it that has them all.
        """
        worth = [n for n, task in enumerate(tasks) if task.holds_together]
        if not self.settings.examples:
            said = [[*before, *tasks[:n]] for n in range(len(tasks))]
            worth = [n for n in worth if not any(tasks[n].has_no_trait_beyond(other) for other in said[n])]
        asked = sorted(sorted(worth, key=lambda n: -abs(tasks[n].strength))[: max(most, 0)])
        themes, size = [n for n in asked if not tasks[n].intent], self.settings.themes_per_call
        batches = [themes[start : start + size] for start in range(0, len(themes), size)]
        return batches + [[n] for n in asked if tasks[n].intent]

    async def _batch(self, tasks: Sequence[ClaimTask], account: Account) -> list[Worded]:
        """Word claims by one call; those refused are asked for again, each by itself."""
        if len(tasks) == 1:
            return [await self._claim(tasks[0], (), account)]
        prompt = self._prompts["theme"]
        messages = prompt.render(self._variables(tasks))
        try:
            answer, usage = await self.chat.ask(messages, themes_words(len(tasks)), MAX_TOKENS * len(tasks))
        except ChatError as error:
            account.add("theme", prompt, error.usage, error.outcome, str(error))
            if error.outcome not in _MENDABLE:
                raise
            return await together([self._claim(task, (), account, Refused("", ())) for task in tasks])
        judged = [self._judge(t, words, ()) for t, words in zip(tasks, answer.groups, strict=True)]
        wrong = [v for _, verdict in judged for v in verdict.violations]
        account.add("theme", prompt, usage, *(("violations", _listed(wrong)) if wrong else ("ok", None)))

        async def mended(n: int) -> Worded:
            worded, verdict = judged[n]
            written = ThemesWords(groups=[answer.groups[n]]).model_dump_json()
            if verdict.passes:
                self._learn(tasks[n], answer.groups[n], worded, account)
                return replace(worded, tries=1)
            return await self._claim(tasks[n], (), account, Refused(written, verdict.violations))

        return await together([mended(n) for n in range(len(tasks))])

    def _variables(self, tasks: Sequence[ClaimTask]) -> dict[str, str]:
        described = "\n\n".join(task.described for task in tasks)
        return {"events" if tasks[0].intent else "groups": described, "language": LANGUAGE_NAMES[self._language]}

    async def _again(
        self, tasks: Sequence[ClaimTask], n: int, words: Worded, other: str, kept: dict[int, Worded], account: Account
    ) -> Worded:
        reason = f'this was said already: "{other}"; say what sets these items apart'
        said = [w.statement for m, w in kept.items() if tasks[m].kind == tasks[n].kind]
        entry = {"name": words.name, "goal" if tasks[n].intent else "statement": uncited(words.statement)}
        answer = json.dumps(entry if tasks[n].intent else {"groups": [entry]}, ensure_ascii=False)
        return await self._claim(tasks[n], said, account, Refused(answer, (Violation("repeats", reason),), words.tries))

    def _repeated(self, tasks: Sequence[ClaimTask], n: int, words: Worded, kept: dict[int, Worded]) -> str | None:
        """Return what a claim repeats among those kept of its kind: a name, or a statement."""
        others = [w for m, w in kept.items() if tasks[m].kind == tasks[n].kind]
        for other in others:
            if other.name.lower() == words.name.lower():
                return other.name
        grounds = tasks[n].grounds
        return self._repetition.of(words.statement, [w.statement for w in others], grounds.vocabulary, grounds.known)

    def _distinct(self, tasks: Sequence[ClaimTask], words: Sequence[Worded]) -> list[Worded]:
        """Let no two claims of a kind have the same name."""
        taken: set[tuple[tuple[str, bool], str]] = set()
        done = []
        for task, claim in zip(tasks, words, strict=True):
            name = claim.name
            if (task.kind, name.lower()) in taken:
                name = named_after(name, task.titles, self._language)
            taken.add((task.kind, name.lower()))
            done.append(replace(claim, name=name))
        return done

    def _judge(self, task: ClaimTask, answer: ThemeWords | IntentWords, said: Sequence[str]) -> tuple[Worded, Verdict]:
        """Make a claim's words of an answer, and verify them."""
        grounds = task.grounds
        written = answer.goal if isinstance(answer, IntentWords) else answer.statement
        sentence = in_part(quantified(without_listing(written, task.titles), task.telling), task.telling)
        # The sentence must rest on the traits by itself; the examples are added by code.
        name = in_part(short_name(answer.name.strip().rstrip("."), grounds.noun, task.telling), task.telling)
        verdict = verify_claim(name, sentence, grounds, self._repetition, said)
        cited = cite(sentence, answer.examples, self._language)
        wrong = run_checks(cited, grounds, checks.citations)
        wrong += echoes(name, sentence, task.titles, grounds) + misspoken(sentence)
        words = Worded(name[:1].upper() + name[1:], cited, "llm", verdict.interpretive, verdict.words)
        return words, verdict._replace(violations=(*verdict.violations, *wrong))

    def _learn(self, task: ClaimTask, answer: ThemeWords | IntentWords, worded: Worded, account: Account) -> None:
        """Keep an answer that passed, in the words that stand, if others can learn by it."""
        sentence, variables = uncited(worded.statement), self._variables([task])
        given = [called(trait.attribute) for trait in informative(task.telling)] + [task.grounds.noun or ""]
        if not keeps_to(f"{worded.name}. {sentence}", given, task.titles):
            return
        if isinstance(answer, IntentWords):
            intent = answer.model_copy(update={"name": worded.name, "goal": sentence})
            account.passed.append(Passed("intent", variables, intent.model_dump_json()))
        elif names_all_once(worded.name, sentence, task.telling):
            theme = answer.model_copy(update={"name": worded.name, "statement": sentence})
            account.passed.append(Passed("theme", variables, ThemesWords(groups=[theme]).model_dump_json()))

    async def _claim(
        self, task: ClaimTask, said: Sequence[str], account: Account, refused: Refused | None = None
    ) -> Worded:
        """Word one claim, from the start or after a refused answer; the template's words if the model's do not hold.

        Args:
            task: The claim.
            said: Statements that it must not repeat.
            account: Where the calls are kept.
            refused: An answer that cannot be used.
        """

        def one(answer: IntentWords | ThemesWords) -> tuple[Worded, Verdict]:
            words = answer if isinstance(answer, IntentWords) else answer.groups[0]
            worded, verdict = self._judge(task, words, said)
            if verdict.passes:
                self._learn(task, words, worded, account)
            return worded, verdict

        role = "intent" if task.intent else "theme"
        schema: type[IntentWords | ThemesWords] = IntentWords if task.intent else themes_words(1)
        written = await self._ask(role, self._variables([task]), schema, MAX_TOKENS, one, account, refused)
        if written is None:
            return replace(task.fallback, tries=self.settings.max_repairs + 1)
        words, tries = written
        return replace(words, tries=tries)

    async def summary(self, task: SummaryTask, account: Account) -> list[SummaryLine] | None:
        """Write the summary; None where the model's sentences do not hold."""

        def check(answer: SummaryWords | BriefSummary) -> tuple[list[SummaryLine], Verdict]:
            lines, violations = [], []
            numbered = (answer.likes_claims, answer.dislikes_claims) if isinstance(answer, SummaryWords) else ([], [])
            for text, numbers, liked in zip((answer.likes, answer.dislikes), numbered, (True, False), strict=True):
                if not text.strip():
                    continue
                claims = self._claims_named(text, [n - 1 for n in numbers], task, liked=liked)
                violations += self._summary_violations(text, claims, task, liked=liked)
                lines.append(SummaryLine(text.strip(), claims, by_model=True, tries=1))
            if not lines:
                violations.append(Violation("malformed", "sum up the claims"))
            return lines, Verdict(tuple(dict.fromkeys(violations)), (), 0)

        def learnt(answer: SummaryWords | BriefSummary) -> tuple[list[SummaryLine], Verdict]:
            lines, verdict = check(answer)
            if (
                verdict.passes
                and len(lines) == len(set(task.liked))
                and all(self._sums_up_all(line, task) for line in lines)
            ):
                brief = BriefSummary(likes=answer.likes, dislikes=answer.dislikes)
                account.passed.append(Passed("summary", variables, brief.model_dump_json()))
            return lines, verdict

        variables = {**task.variables, "language": LANGUAGE_NAMES[self._language]}
        schema: type[SummaryWords | BriefSummary] = SummaryWords if self.settings.examples else BriefSummary
        written = await self._ask("summary", variables, schema, MAX_SUMMARY_TOKENS, learnt, account)
        if written is None:
            return None
        lines, tries = written
        return [line._replace(tries=tries, claims=tuple(task.order[n] for n in line.claims)) for line in lines]

    def still_sums_up(self, text: str, claims: Sequence[int], task: SummaryTask) -> bool:
        """Tell whether a sentence may stand over these of a task's claims."""
        liked = bool(claims) and task.liked[claims[0]]
        return not self._summary_violations(text, claims, task, liked=liked)

    @staticmethod
    def _sums_up_all(line: SummaryLine, task: SummaryTask) -> bool:
        """Tell whether a sentence names a trait of every claim of its sign, and nothing that is none."""
        liked = task.liked[line.claims[0]]
        texts = [text for text, sign in zip(task.texts, task.liked, strict=True) if sign is liked]
        named = attributes_named(line.text, task.grounds)
        added = verify(line.text, replace(task.grounds, other_texts=tuple(texts))).interpretive
        every = all(attributes_named(text, task.grounds) & named for text in texts)
        return every and names_only(line.text, texts) and adds_nothing(added)

    @staticmethod
    def _claims_named(text: str, numbers: Sequence[int], task: SummaryTask, *, liked: bool) -> tuple[int, ...]:
        """Return the claims that a sentence rests on: those it numbers, and those whose traits it names besides."""
        missing = attributes_named(text, task.grounds)
        for n in numbers:
            missing -= attributes_named(task.texts[n], task.grounds) if 0 <= n < len(task.texts) else set()
        named = list(numbers)
        for n, (words, sign) in enumerate(zip(task.texts, task.liked, strict=True)):
            found = attributes_named(words, task.grounds)
            if sign is liked and missing & found:
                named.append(n)
                missing -= found
        return tuple(dict.fromkeys(named))

    def _summary_violations(
        self, text: str, claims: Sequence[int], task: SummaryTask, *, liked: bool
    ) -> list[Violation]:
        if unknown := [n + 1 for n in claims if not 0 <= n < len(task.texts)]:
            return [Violation("citation", f"there is no claim {unknown[0]}")]
        if not claims or any(task.liked[n] is not liked for n in claims):
            return [Violation("polarity", "put what is liked under likes and what is disliked under dislikes")]
        grounds = replace(
            task.grounds,
            polarity="positive" if liked else "negative",
            other_texts=tuple(task.texts[n] for n in claims),
        )
        return [*verify(text, grounds).violations, *misspoken(text)]

    async def _ask(
        self,
        role: str,
        variables: dict[str, str],
        schema: type[Schema],
        max_tokens: int,
        check: Callable[[Schema], tuple[Checked, Verdict]],
        account: Account,
        refused: Refused | None = None,
    ) -> tuple[Checked, int] | None:
        """Ask, verify and repair; returns what passed and the number of calls, or None.

        Args:
            role: Which prompt.
            variables: Its variables.
            schema: Of the answer.
            max_tokens: Of the answer.
            check: Makes the result of an answer and judges it.
            account: Where the calls are kept.
            refused: An answer that cannot be used; one more is asked for at most `max_repairs` times.

        Raises:
            ChatError: The server is out of reach or refuses.
        """
        prompt = self._prompts[role]
        base: list[Message] = prompt.render(variables)
        messages = base + self._repair(*refused[:2]) if refused and refused.answer else base
        before = refused.tries if refused else 0
        for more in range(1, self.settings.max_repairs + (1 if refused else 2)):
            try:
                answer, usage = await self.chat.ask(messages, schema, max_tokens)
            except ChatError as error:
                account.add(role, prompt, error.usage, error.outcome, str(error))
                if error.outcome not in _MENDABLE:
                    raise
                kind = Violation("cut_off" if error.outcome == "cut_off" else "malformed", f"{error}; answer in short")
                messages = base + self._repair(error.raw[:600] or "{}", (kind,))
                continue
            result, verdict = await in_thread(check, answer)  # calls of others go on meanwhile
            if verdict.passes:
                account.add(role, prompt, usage, "ok")
                return result, before + more
            account.add(role, prompt, usage, "violations", _listed(verdict.violations))
            messages = base + self._repair(answer.model_dump_json(), verdict.violations)
        return None

    def _repair(self, answer: str, violations: Sequence[Violation]) -> list[Message]:
        details = "\n".join(f"- {v.detail}" for v in violations[:4])
        return [("assistant", answer), *self._prompts["repair"].render({"violations": details})]
