"""The template writer: wording without a language model, for every user, from the same evidence."""

from collections.abc import Sequence

from agent.catalogue import Telling
from agent.contract import Language
from agent.phrasing import within_sentence
from agent.themes import Theme, informative
from agent.words import Worded, called, cite, is_main

_EXAMPLES = 3


def word_theme(theme: Theme, telling: Sequence[Telling], language: Language) -> Worded:
    """Word a theme's name and statement (with citations of its first examples)."""
    shown = informative(telling)
    examples = list(range(1, min(_EXAMPLES, len(theme.examples)) + 1))
    name, statement = (_chinese if language == "zh" else _english)(shown, liked=theme.polarity == "positive")
    return Worded(name, cite(statement, examples, language), "template", words=0)


def _split(shown: Sequence[Telling]) -> tuple[list[str], list[str]]:
    """Return what the events have in common, and decades and lesser traits."""
    common = [t for n, t in enumerate(shown) if is_main(t, n)]
    main = [t for t in common if t.attribute.field != "decade"] or common
    return [called(t.attribute) for t in main], [called(t.attribute) for t in shown if t not in main]


def _english(shown: Sequence[Telling], *, liked: bool) -> tuple[str, str]:
    main, rest = _split(shown)
    if not main:
        verb, of = "Likes" if liked else "Does not like", f", in part {_and(rest)}" if rest else ""
        return (
            f"A mix, partly {_and(rest)}" if rest else "A few items",
            f"{verb} {'a mix' if rest else 'a few items'}{of}",
        )
    name = _and(main) + (f", partly {_and(rest)}" if rest else "")
    verb = "Often likes" if liked else "Often dislikes"
    statement = f"{verb} what is {'mostly' if rest else 'largely'} {_and(main)}"
    return name[0].upper() + name[1:], statement + (f", in part {_and(rest)}" if rest else "")


def _chinese(shown: Sequence[Telling], *, liked: bool) -> tuple[str, str]:
    main, rest = _split(shown)
    partly = f"，部分属于{'、'.join(rest)}" if rest else ""
    if not main:
        return "、".join(rest) or "若干内容", f"{'喜欢' if liked else '不喜欢'}若干内容{partly}"
    verb = "经常喜欢" if liked else "经常不喜欢"
    return "、".join([*main, *rest]), f"{verb}{'、'.join(main)}类的内容{partly}"


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def word_goal(telling: Sequence[Telling], stage: str, language: Language) -> tuple[str, str]:
    """Word an intent's name and goal."""
    main, rest = _split(informative(telling))
    what = _and([*main, *rest]) if main or rest else ""
    if language == "zh":
        return (what or "近期的需求", f"似乎正在寻找{what or '一些'}内容。")
    doing = {"comparing": "comparing", "deciding": "about to decide on", "returning": "returning to"}.get(
        stage, "exploring"
    )
    goal = f"Seems to be {doing} {what or 'a few items'}."
    return ((what[0].upper() + what[1:]) if what else "A current need", goal)


def sum_up(likes: Sequence[str], dislikes: Sequence[str], language: Language) -> list[tuple[str, list[int]]]:
    """Sum up claims by their names.

    Returns:
        Sentences, each with the positions of the claims that it rests on: likes from 0, dislikes after them.
    """
    sentences = []
    if likes:
        shown = [within_sentence(name) for name in likes[:3]]
        text = (
            f"主要喜欢{'；'.join(shown)}。"
            if language == "zh"
            else f"Likes above all {_run(shown, 'then', 'and also')}."
        )
        sentences.append((text, list(range(len(shown)))))
    if dislikes:
        shown = [within_sentence(name) for name in dislikes[:2]]
        text = f"不喜欢{'；'.join(shown)}。" if language == "zh" else f"Does not like {_run(shown, 'nor')}."
        sentences.append((text, list(range(len(likes), len(likes) + len(shown)))))
    return sentences


def _run(names: Sequence[str], *joints: str) -> str:
    """Join names, a word or two before each but the first, by semicolons if a name has a comma of its own."""
    mark = ";" if any("," in name for name in names) else ","
    return names[0] + "".join(f"{mark} {joint} {name}" for joint, name in zip(joints, names[1:], strict=False))


def say_trends(more: Sequence[str], less: Sequence[str], language: Language) -> str:
    """Say which claims have grown lately and which have faded, by their names; nothing if there are none."""
    chinese = language == "zh"
    sentences = []
    for names, english, zh in ((more, "Lately more", "近来增多"), (less, "Lately less", "近来减少")):
        if names:
            shown = [within_sentence(name) for name in names]
            sentences.append(f"{zh}：{'；'.join(shown)}。" if chinese else f"{english}: {'; '.join(shown)}.")
    return ("" if chinese else " ").join(sentences)
