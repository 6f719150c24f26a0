"""The few answers that a reader comes for, in plain words, made of the figures that give them."""

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from eval.findings import EVERYONE, Figure, Findings, PairedTest
from eval.plots import show

Tone = Literal["good", "fair", "bad", ""]
ALPHA = 0.05
_SURE = 0.95
_MOSTLY = 0.8
_LATER = "later visit"
_NOISE = "20% noise"
_ANSWERS: dict[int, tuple[str, Tone]] = {1: ("Yes:", "good"), 0: ("Unclear:", "fair"), -1: ("No:", "bad")}


class Headline(NamedTuple):
    """A question and its answer; places are in per cent of the width of a track.

    Attributes:
        at: Of the figure; None where there is none to draw.
        left: Of its interval; None where there is none. `width` likewise.
        chance: Of what chance, or the baseline, gives.
        ends: What the ends of the track stand for.
        note: What the dashed line is.
    """

    question: str
    answer: str
    tone: Tone
    sentence: str
    at: float | None = None
    left: float | None = None
    width: float | None = None
    chance: float | None = None
    ends: tuple[str, str] = ("0", "1")
    note: str = ""


Asked = Callable[[Findings], Headline | None]


def headlines(findings: Findings) -> tuple[Headline, ...]:
    """Return the answers that these findings give."""
    return tuple(found for ask in QUESTIONS if (found := ask(findings)) is not None)


def percent(share: float) -> str:
    r"""Write a share as people say it.

    >>> percent(0.0451), percent(0.5), percent(1.0)
    ('4.5\xa0%', '50\xa0%', '100\xa0%')
    """
    return f"{100 * share:.{0 if round(100 * share, 1) >= 10 else 1}f}\N{NO-BREAK SPACE}%"  # noqa: PLR2004


def against(figure: Figure, chance: float) -> tuple[str, Tone]:
    """Answer yes, no or unclear: does the interval lie beyond what chance gives?

    >>> one = Figure(suite="profiles", metric="m", subject="s", value=0.3, low=0.2, high=0.4, n=9)
    >>> against(one, 0.1), against(one, 0.25), against(one, 0.5)
    (('Yes:', 'good'), ('Unclear:', 'fair'), ('No:', 'bad'))
    """
    low, high = (figure.low, figure.high) if figure.low is not None and figure.high is not None else (figure.value,) * 2
    if chance < low:
        return "Yes:", "good"
    return ("No:", "bad") if high < chance else ("Unclear:", "fair")


def _track(figure: Figure, chance: float | None = None, note: str = "", end: float = 1.0) -> dict[str, object]:
    """Place a figure on a track from 0 to `end`."""
    bounds = None if figure.low is None or figure.high is None else (figure.low, figure.high)
    return {
        "at": 100 * min(max(figure.value / end, 0.0), 1.0),
        "left": None if bounds is None else 100 * max(bounds[0] / end, 0.0),
        "width": None if bounds is None else 100 * min((bounds[1] - bounds[0]) / end, 1.0),
        "chance": None if chance is None else 100 * chance / end,
        "ends": ("0", percent(end)),
        "note": note,
    }


def _figure(
    findings: Findings, suite: str, metric: str, subjects: Iterable[str] = (), protocol: str | None = None
) -> Figure | None:
    """Find a figure of everyone: of the first of these subjects that has one, else the first there is."""
    found = [f for f in findings.figures if (f.suite, f.metric, f.segment) == (suite, metric, EVERYONE)]
    found = [f for f in found if protocol in {None, f.protocol}]
    named = (f for subject in subjects for f in found if f.subject == subject)
    return next(named, found[0] if found else None)


def _headline(question: str, answer: tuple[str, Tone], sentence: str, **track: object) -> Headline:
    return Headline(question, *answer, sentence, **track)  # type: ignore[arg-type]


def _true(findings: Findings) -> Headline | None:
    figure = _figure(findings, "profiles", "interest precision", ("template",))
    if figure is None:
        return None
    low = figure.value if figure.low is None else figure.low
    answer: tuple[str, Tone] = (
        ("Yes:", "good") if low >= _SURE else ("Mostly:", "fair") if low >= _MOSTLY else ("Not enough:", "bad")
    )
    text = (
        f"{percent(figure.value)} of a user's claims rest on enough events of that user, and their words pass every "
        "check. One that repeats another fails, too."
    )
    return _headline("Is what the profiles say true?", answer, text, **_track(figure))


def _telling(findings: Findings) -> Headline | None:
    """Is a user's profile nearest to what the user does later? Chance is how often the others' likes pick it."""
    figure = _figure(findings, "profiles", "picked out of 10", ("template",))
    if figure is None:
        return None
    others = _subject(findings, "profiles", "picked out of 10", f"{figure.subject}, chance")
    chance = others.value if others is not None else 0.1
    test = _test(findings, "profiles", "picked out of 10", figure.subject, f"{figure.subject}, chance")
    answer = _ANSWERS[_verdict(test)] if test is not None else against(figure, chance)
    text = (
        f"of the ten profiles most alike, what a user likes later picks the user's own {percent(figure.value)} of the "
        f"time, by chance {percent(chance)}"
    )
    at_random = _figure(findings, "profiles", "picked out of 10 at random", (figure.subject,))
    if at_random is not None:
        text += f"; of any ten, {percent(at_random.value)}, by chance {percent(0.1)}"
        if answer[1] != "good" and against(at_random, 0.1)[1] == "good":
            answer = "In part:", "fair"
    track = _track(figure, chance, "dashed: chance")
    return _headline("Do the profiles tell users apart?", answer, f"{text}.", **track)


def _useful(findings: Findings) -> Headline | None:
    """Can later likes be foreseen by a profile's words alone? Against chance, and beside popularity."""
    figure = _figure(findings, "profiles", "AUC", ("template, by texts",))
    if figure is None:
        return None
    answer = against(figure, 0.5)
    text = f"a later like outranks {percent(figure.value)} of the other items; chance is {percent(0.5)}."
    test = _test(findings, "profiles", "ndcg@10", figure.subject, "popularity")
    if test is not None:
        text += f" Its first ten are {_beside(test)} the ten most popular items."
        if answer[1] == "good" and _verdict(test) < 0:
            answer = "In part:", "fair"
    question = "Do a profile's words alone foretell what its user will like?"
    return _headline(question, answer, text, **_track(figure, 0.5, "dashed: chance"))


def _recommended(findings: Findings) -> Headline | None:
    """Are recommendations better than what is popular, and than the strongest that knows no profiles?"""
    name, metric, ours = "ranking", "ndcg@10", "fused"
    tests = [t for t in findings.tests if (t.suite, t.metric, t.first, t.segment) == (name, metric, ours, EVERYONE)]
    protocols = [test.protocol for test in tests]
    if not tests:
        return None
    protocol = _LATER if _LATER in protocols else protocols[0]
    by_other = {test.second: test for test in tests if test.protocol == protocol}
    popular, plain = by_other.get("popularity"), by_other.get("iALS")
    if popular is None or plain is None:
        return None
    won = [_verdict(test) for test in (popular, plain)]
    answer: tuple[str, Tone] = ("In part:", "fair") if won[0] == 1 and won[1] < 1 else _ANSWERS[won[0]]
    text = (
        f"for {popular.n:,} users ({protocol}) they are {_beside(popular)} listing what is popular, and "
        f"{_beside(plain)} the same factorization without profiles and texts (iALS)."
    )
    return _headline("Are the recommendations better than plain ones?", answer, text)


def _explained(findings: Findings) -> Headline | None:
    ours = _figure(findings, "explanations", "deletion area", ("parts",))
    other = _figure(findings, "explanations", "deletion area", ("random",))
    test = _test(findings, "explanations", "deletion area", "parts", "random")
    if ours is None or other is None or test is None:
        return None
    text = (
        f"as the ten events named first are taken away, {percent(ours.value)} of the score is left in the mean; "
        f"{percent(other.value)} where ten go at random."
    )
    track = _track(ours, other.value, "dashed: at random")
    return _headline("Are the reasons given the real ones?", _ANSWERS[_verdict(test)], text, **track)


def _found(findings: Findings) -> Headline | None:
    """Are planted interests found, and better than by counting categories?"""
    figures = [
        _figure(findings, "simulated", "f1", (subject,), _NOISE) for subject in ("template", "category histogram")
    ]
    test = _test(findings, "simulated", "f1", "template", "category histogram", _NOISE)
    ours, other = figures
    if ours is None or other is None or test is None:
        return None
    text = (
        f"of {ours.n:,} invented users, a fifth of whose events is about something else, profiles name the planted "
        f"interests with an F1 of {show(ours.value)}; counting categories reaches {show(other.value)}."
    )
    track = _track(ours, other.value, "dashed: counting") | {"ends": ("0", "1")}
    return _headline("Where the truth is known, is it found?", _ANSWERS[_verdict(test)], text, **track)


def _written(findings: Findings) -> Headline | None:
    """Does the language model write better profiles than the template, of the same users?"""
    tests = [t for t in findings.tests if t.suite == "profiles" and t.segment == EVERYONE]
    tests = [
        t for t in tests if t.first.startswith("llm") and t.second.startswith("template") and t.better != "neither"
    ]
    if not tests:
        return None
    better, worse = ([t.metric for t in tests if _verdict(t) == sign] for sign in (1, -1))
    answer: tuple[str, Tone] = (
        ("Yes:", "good") if better and not worse
        else ("No:", "bad") if worse and not better
        else ("In part:", "fair") if better
        else ("No difference:", "fair")
    )  # fmt: skip
    told = [
        f"it is {word} in {', '.join(dict.fromkeys(metrics))}"
        for word, metrics in (("better", better), ("worse", worse))
        if metrics
    ]
    rest = len(tests) - len(better) - len(worse)
    told.append(f"in {rest} of {len(tests)} figures no difference can be told from chance")
    text = f"of {max(test.n for test in tests)} users, " + "; ".join(told) + "."
    return _headline("Does the language model write better than the template?", answer, text)


def _costs(findings: Findings) -> Headline | None:
    figure = _figure(findings, "cost", "seconds", ("template",))
    if figure is None:
        return None
    text = "for one by the template, without a language model."
    by_model, tokens = (_subject(findings, "cost", name, "llm") for name in ("seconds", "tokens out"))
    if by_model is not None and tokens is not None:
        text += (
            f" By the language model {show(by_model.value, 's')}, beside others, and {show(tokens.value, 'tokens')}."
        )
    return _headline("What does a profile take?", (show(figure.value, "s"), ""), text)


def _verdict(test: PairedTest) -> int:
    """Say whether the first is significantly better (1), worse (-1), or neither (0)."""
    if test.p >= ALPHA or test.difference == 0:
        return 0
    return 1 if (test.difference > 0) == (test.better != "lower") else -1


def _beside(test: PairedTest) -> str:
    """Say it in words."""
    return {1: "better than", 0: "not significantly different from", -1: "worse than"}[_verdict(test)]


def _subject(findings: Findings, suite: str, metric: str, subject: str) -> Figure | None:
    found = _figure(findings, suite, metric, (subject,))
    return found if found is not None and found.subject == subject else None


def _test(
    findings: Findings, suite: str, metric: str, first: str, second: str, protocol: str | None = None
) -> PairedTest | None:
    wanted = suite, metric, first, second, EVERYONE
    found = (t for t in findings.tests if (t.suite, t.metric, t.first, t.second, t.segment) == wanted)
    return next((t for t in found if protocol in {None, t.protocol}), None)


QUESTIONS: tuple[Asked, ...] = (_true, _telling, _useful, _recommended, _explained, _found, _written, _costs)
