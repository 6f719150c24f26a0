"""What an honest model makes of the prompts in `prompts/`: short, true sentences from the traits."""

import re
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]


def truth(schema: str, task: str, *, chinese: bool) -> Answer:
    """Answer the prompt whose schema has this title.

    Args:
        schema: `ThemesWords`, `IntentWords`, `SummaryWords` or `WhyWords`.
        task: The user's message that states the task.
        chinese: Whether the prompt asks for Chinese.
    """
    return _ANSWERS[schema](task, chinese)


def numbered(text: str) -> list[tuple[int, str]]:
    """Return the lines such as `[2] "A Title" drama` of a text: number and rest.

    >>> numbered('The person likes:\\n[2] "A Title" drama')
    [(2, '"A Title" drama')]
    """
    return [(int(n), rest) for n, rest in re.findall(r"^\[(\d+)\] (.*)$", text, re.MULTILINE)]


def _traits(task: str) -> tuple[list[str], list[str]]:
    """Read `Traits: mainly a, b; partly c`; of mixed items, what at least half of the lines name."""
    line = next((x[7:].strip() for x in reversed(task.splitlines()) if x.startswith("Traits:")), "")
    found: dict[str, list[str]] = {"mainly": [], "partly": []}
    for piece in line.split("; "):
        word, _, rest = piece.partition(" ")
        if word in found:
            found[word] = [trait.strip() for trait in rest.split(",")]
    if not found["mainly"] and not found["partly"]:
        rows = [set(re.sub(r'^.*"(?: \(\d+\))? ?', "", rest).split(", ")) - {""} for _, rest in numbered(task)]
        every = sorted(set().union(*rows))
        found["mainly"] = [trait for trait in every if 2 * sum(trait in row for row in rows) >= len(rows)][:2]
    return found["mainly"], found["partly"]


def _and(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)


def _called(task: str, *, chinese: bool) -> str:
    """Return what to call the items, as it stands within a sentence."""
    main, part = _traits(task)
    if chinese:
        return "、".join([*main, *part]) or "多样的内容"
    if part and not main:
        return f"a mix with {_and([f'some {trait}' for trait in part])}"
    said = _and(main) + (f", partly {_and(part)}" if part else "")
    return said or "a varied group of items"


def _claim(task: str, said: str) -> Answer:
    short = said.replace(" some ", " ")  # a name has at most ten words
    name = short[:1].upper() + short[1:]
    return {"name": name[:80], "examples": [n for n, _ in numbered(task)][:2]}


def _theme(task: str, chinese: bool) -> Answer:  # noqa: FBT001
    said, liked = _called(task, chinese=chinese), task.startswith("The person likes")
    if chinese:
        return {**_claim(task, said), "statement": f"{'经常喜欢' if liked else '经常不喜欢'}{said}类的内容。"}
    return {**_claim(task, said), "statement": f"{'Enjoys' if liked else 'Does not care for'} {said}."}


def _themes(task: str, chinese: bool) -> Answer:  # noqa: FBT001
    return {"groups": [_theme(group, chinese) for group in task.split("\n\n")]}


def _intent(task: str, chinese: bool) -> Answer:  # noqa: FBT001
    said = _called(task, chinese=chinese)
    goal = f"似乎正在寻找{said}类的内容。" if chinese else f"Seems to be looking for {said}."
    return {**_claim(task, said), "goal": goal}


def _summary(task: str, chinese: bool) -> Answer:  # noqa: FBT001
    """Write one sentence on what is liked, one on what is not, each of at most three claims' names."""
    likes, _, dislikes = task.partition("Dislikes:")
    found: Answer = {}
    for field, part, english, zh in (
        ("likes", likes, "Enjoys", "主要喜欢"),
        ("dislikes", dislikes, "Does not care for", "不喜欢"),
    ):
        claims = numbered(part)[:3]
        names = [rest.removeprefix('"').rpartition('"')[0] for _, rest in claims]
        said = f"{zh}{'、'.join(names)}。" if chinese else f"{english} {_and([_inside(n) for n in names])}."
        found |= {field: said[:200] if claims else "", f"{field}_claims": [n for n, _ in claims]}
    return found


def _inside(name: str) -> str:
    """Write a name as it stands inside a sentence."""
    return name[:1].lower() + name[1:] if name[1:2].islower() else name


def _why(task: str, chinese: bool) -> Answer:  # noqa: FBT001
    """Give the first reason, as the prompt states it."""
    reason = next(line for line in task.partition("For it:")[2].splitlines() if line.startswith("- "))
    said = re.sub(r" \(\d+ events?\)$", "", reason.removeprefix("- ")).replace('"', "")
    return {"text": f"推荐它是因为{said}。" if chinese else f"Recommended because of this: {said}."}


_ANSWERS: dict[str, Callable[[str, bool], Answer]] = {
    "ThemesWords": _themes,
    "IntentWords": _intent,
    "SummaryWords": _summary,
    "BriefSummary": lambda task, chinese: {k: v for k, v in _summary(task, chinese).items() if "claims" not in k},
    "WhyWords": _why,
}
