"""Rules that choose a tool, times in questions, and the check of what a model says."""

# ruff: noqa: RUF001 - Chinese punctuation

from datetime import date

import pytest

from recommend.citing import holds, tidy
from recommend.facts import Fact
from recommend.questions import Period, Pick, period_of, pick, sought, stands_in
from store.search import FoundItem

TODAY = date(2025, 9, 1)  # a Monday
HEAT = FoundItem("50", "Heat (1995)", "heat", own=True)
TENT = FoundItem("t1", "Larkhide Two", "larkhide two", own=False)


def one(day: date) -> Period:
    return Period(day, day)


@pytest.mark.parametrize(
    ("question", "period"),
    [
        ("what did I watch today?", one(TODAY)),
        ("what did I watch yesterday?", one(date(2025, 8, 31))),
        ("what did I watch on Saturday?", one(date(2025, 8, 30))),
        ("what did I watch on Monday?", one(TODAY)),
        ("what changed since last month?", Period(date(2025, 8, 1), None)),
        ("what did I buy last month?", Period(date(2025, 8, 1), date(2025, 8, 31))),
        ("what did I buy this week?", Period(TODAY, TODAY)),
        ("what did I buy last week?", Period(date(2025, 8, 25), date(2025, 8, 31))),
        ("what did I buy last weekend?", Period(date(2025, 8, 30), date(2025, 8, 31))),
        ("what did I buy in March?", Period(date(2025, 3, 1), date(2025, 3, 31))),
        ("what did I buy in November?", Period(date(2024, 11, 1), date(2024, 11, 30))),
        ("what did I buy in December 2023?", Period(date(2023, 12, 1), date(2023, 12, 31))),
        ("what did I buy in 2023?", Period(date(2023, 1, 1), date(2023, 12, 31))),
        ("what did I buy on 24 May?", one(date(2025, 5, 24))),
        ("what did I buy on October 3rd?", one(date(2024, 10, 3))),
        ("what did I buy on 2025-02-03?", one(date(2025, 2, 3))),
        ("what did I buy on 2025-02-31?", None),
        ("what did I do 3 days ago?", one(date(2025, 8, 29))),
        ("what did I do 2 weeks ago?", Period(date(2025, 8, 18), TODAY)),
        ("what did I do lately?", Period(date(2025, 8, 2), TODAY)),
        ("why did you show me Heat?", None),
        ("may I ask what you know?", None),
        ("我昨天看了什么？", one(date(2025, 8, 31))),
        ("我星期六买了什么？", one(date(2025, 8, 30))),
        ("上周六呢", one(date(2025, 8, 30))),
        ("上周买了什么", Period(date(2025, 8, 25), date(2025, 8, 31))),
        ("上个月以来有什么变化？", Period(date(2025, 8, 1), None)),
        ("3天前", one(date(2025, 8, 29))),
        ("5月24日", one(date(2025, 5, 24))),
        ("2024年5月买了什么", Period(date(2024, 5, 1), date(2024, 5, 31))),
        ("去年", Period(date(2024, 1, 1), date(2024, 12, 31))),
    ],
)
def test_the_days_that_a_question_is_about(question: str, period: Period | None) -> None:
    assert period_of(question, TODAY) == period


@pytest.mark.parametrize(
    ("question", "items", "picked"),
    [
        ("why did you show me Heat?", [HEAT], Pick("explanation", "50")),
        ("Heat?", [HEAT], Pick("explanation", "50")),
        ('"Heat"?', [HEAT], Pick("explanation", "50")),
        ("为什么推荐《Heat》？", [HEAT], Pick("explanation", "50")),
        ("why larkhide two", [TENT], Pick("explanation", "t1")),
        ("did I rate Heat?", [HEAT], Pick("search_events", "50", ("rating",))),
        ("did I watch Heat on Saturday?", [HEAT], Pick("search_events", "50", (), *one(date(2025, 8, 30)))),
        ("show me something like Heat", [HEAT], Pick("recommendations")),
        ("which films did I rate highest?", [], Pick("search_events", words=("rating",), order="best")),
        ("which films did I rate lowest?", [], Pick("search_events", words=("rating",), order="worst")),
        ("what do I dislike?", [], Pick("profile", kinds=("dislike",))),
        ("what do I like?", [], Pick("profile", kinds=("interest", "intent"))),
        ("why do you think I don't like comedies?", [], Pick("profile", words=("comed",), kinds=("dislike",))),
        ("what changed since last month?", [], Pick("profile_changes", since=date(2025, 8, 1))),
        ("有什么变化？", [], Pick("profile_changes")),
        ("what do you know about me?", [], Pick("profile")),
        ("do I like horror?", [], Pick("profile", words=("horror",))),
        ("why do you think I like horror?", [], Pick("profile", words=("horror",))),
        ("你了解我什么？", [], Pick("profile")),
        ("what should I watch next?", [], Pick("recommendations")),
        ("有什么推荐？", [], Pick("recommendations")),
        (
            "what did I watch on Saturday?", [],
            Pick("search_events", since=date(2025, 8, 30), until=date(2025, 8, 30)),
        ),
        ("have I bought tents?", [], Pick("search_events", words=("tent", "purchase"))),
        ("我买过什么", [], Pick("search_events", words=("purchase",))),
        ("qwertz", [], Pick("profile", words=("qwertz",), sure=False)),
        ("what is the capital of France?", [], Pick("profile", words=("capital", "france"), sure=False)),
    ],
)  # fmt: skip
def test_the_tool_that_answers(question: str, items: list[FoundItem], picked: Pick) -> None:
    assert pick(question, TODAY, items) == picked


def test_a_title_of_one_common_word_is_not_found_in_every_question() -> None:
    you = FoundItem("1", "You", "you", own=False)
    what = FoundItem("2", "What?", "what?", own=False)
    assert not stands_in(you, "what do you know about me?")
    assert not stands_in(what, "What do you know")
    assert stands_in(you, 'did I watch "You"?')
    assert stands_in(HEAT, "did I watch heat?")
    assert not stands_in(HEAT, "did I watch Heathers?")
    assert stands_in(FoundItem("3", "静港", "静港", own=False), "为什么推荐静港？")


def test_words_to_look_for() -> None:
    assert sought("did I ever look at light tents for camping?") == ("light", "tent", "camping")
    assert sought('did I see "The Third Man"?') == ("The Third Man",)
    assert sought("我买过“帐篷”吗？") == ("帐篷",)


# What a model says.

FACTS = {
    1: Fact("event", "e1", "On Saturday 30 August 2025 at 11:00 you gave Larkhide Two 4.5 stars.", ("Larkhide Two",)),
    2: Fact("event", "e2", "On Friday 29 August 2025 at 09:00 you bought Mr. Tent 3.", ("Mr. Tent 3",)),
    3: Fact("claim", "i1", 'Interest: "Tents". Enjoys light tents. Strength 0.41, 31 events, rising.', ("Tents",)),
    4: Fact(
        "event",
        "e3",
        'On 1 May 2025 at 10:00 you searched for "mail bob@example.com [2]".',
        ("mail bob@example.com [2]",),
    ),
}
FACTS_ZH = {
    1: Fact("event", "e1", "2025年8月30日星期六11:00，你给《云雀》打了4星。", ("云雀",)),
    2: Fact("claim", "i1", "兴趣：“帐篷”。经常喜欢帐篷类的内容。强度0.41，31条记录。", ("帐篷",)),
}  # fmt: skip

TRUE = [
    "You gave Larkhide Two 4.5 stars on Saturday 30 August 2025 [1].",
    "On Friday 29 August 2025 you bought Mr. Tent 3 [2]. You gave Larkhide Two 4.5 stars [1].",
    "You enjoy light tents, with a strength of 0.41 from 31 events, and that is rising [3].",
    "Your interest in tents rests on 31 events [3].",
    "You bought Mr. Tent 3 [2], and gave Larkhide Two 4.5 stars [1].",
    "You gave Larkhide Two 4.5 stars. [1] You bought Mr. Tent 3. [2]",
    "You gave Larkhide Two 4.5 stars and bought Mr. Tent 3 [1, 2].",
]
FALSE = [
    "You gave Larkhide Two 4.5 stars.",  # no source
    "You gave Larkhide Two 4.5 stars [9].",  # no such source
    "You gave Larkhide Two 5 stars [1].",
    "You gave Larkhide Two 4.5 stars on Sunday 31 August 2025 [1].",
    "You gave Larkhide Two 4.5 stars [2].",  # another source
    "You bought Larkhide Two [1].",  # another deed
    "You disliked Larkhide Two, and gave it 4.5 stars [1].",
    "You did not give Larkhide Two 4.5 stars [1].",
    "You have never bought Mr. Tent 3 [2].",
    "You gave The Vermilion Orchard 4.5 stars [1].",
    "You gave Larkhide Two 4.5 stars [1]. You are a wonderful person.",
    "You gave Larkhide Two 4.5 stars [1]. Buy a new stove at www.example.com [1].",
    "You gave Larkhide Two 4.5 stars because of your pregnancy [1].",
    "Your interest in tents rests on forty events [3].",
    "Your interest in tents is fading [3].",
    "**You** gave Larkhide Two 4.5 stars [1].",
    "你给Larkhide Two打了4.5星 [1]。",
    "You gave Larkhide Two 4.5 stars, dear secret admirer of velvet mountains and golden harbours [1].",
    "You also like it [1], [2].",  # what?
    "[1]",
    "",
]


@pytest.mark.parametrize("text", TRUE)
def test_what_the_sources_say_holds(text: str) -> None:
    assert holds(tidy(text), FACTS, ["2 of your events fit:"], "en", "ann-1")


@pytest.mark.parametrize("text", FALSE)
def test_what_they_do_not_say_does_not(text: str) -> None:
    assert not holds(tidy(text), FACTS, ["2 of your events fit:"], "en", "ann-1")


def test_a_search_text_may_be_repeated_and_its_brackets_are_no_source() -> None:
    assert not holds("You searched for tents [2].", FACTS, [], "en", "ann-1")
    assert not holds("Write to bob@example.net [4].", FACTS, [], "en", "ann-1")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("你在2025年8月30日给《云雀》打了4星[1]。", True),
        ("你对“帐篷”的兴趣来自31条记录[2]。", True),
        ("你给《云雀》打了5星[1]。", False),
        ("你给《海鸥》打了4星[1]。", False),
        ("你没有给《云雀》打4星[1]。", False),
        ("你给《云雀》打了四星[1]。", False),
        ("You gave it 4 stars [1].", False),
        ("你给《云雀》打了4星。", False),
    ],
)
def test_chinese(text: str, right: bool) -> None:  # noqa: FBT001
    assert holds(tidy(text), FACTS_ZH, [], "zh", "ann-1") is right
