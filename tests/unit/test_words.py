"""Words, the template writer, habits and tags."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest

from agent.catalogue import Attribute, BaseRates, Telling
from agent.contract import Habit, Language
from agent.evidence import Support
from agent.habits import find_habits, find_tags, sessions
from agent.template import sum_up, word_goal, word_theme
from agent.themes import Polarity, Theme, UserLog
from agent.words import (
    cite,
    clean,
    example_line,
    in_part,
    render,
    search_text,
    short_name,
    theme_lines,
    title_of,
    traits,
    without_listing,
)
from store.records import Item


def trait(value: str, share: float, lift: float = 3.0, field: str = "category") -> Telling:
    return Telling(Attribute(field, value), round(10 * share), share, lift)


CRIME, DRAMA = trait("Crime", 0.9), trait("Drama", 0.5)
HOLM, NINETIES = trait("Ada Holm", 0.7, field="director"), trait("1990s", 0.8, field="decade")
USUAL = trait("1990s", 0.8, lift=1.2, field="decade")


def theme_of(polarity: Polarity = "positive", examples: int = 4) -> Theme:
    """A theme of which only the sign and the number of examples matter."""
    keys = tuple(f"i{n}" for n in range(examples))
    rows = np.arange(examples)
    found = Support(0, examples, 1.0, 0.0)
    return Theme(polarity, rows, rows[:0], keys, keys, (), {}, found, 1.0, 0.5, None)


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("  A \n\t B\u00a0 C ", 80, "A B C"),
        ("A\u200b\u202e\x00\x1bB", 80, "AB"),
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde\u2026"),
        ("abcd efgh", 6, "abcd\u2026"),
        ("", 80, ""),
    ],
)
def test_clean(text: str, limit: int, expected: str) -> None:
    assert clean(text, limit) == expected


def test_a_title_as_it_is_shown() -> None:
    assert title_of(Item(item_id="x", title="Lantern\u200b Keeper, The\n(1994)")) == "The Lantern Keeper (1994)"
    assert title_of(Item(item_id="x", title="\u200b")) == "x"


@pytest.mark.parametrize(
    ("statement", "examples", "language", "expected"),
    [
        ("Enjoys war.", [2], "en", "Enjoys war, such as [2]."),
        ("Enjoys war", [2, 1], "en", "Enjoys war, such as [2] and [1]."),
        (" Enjoys war! ", [1, 3, 2], "en", "Enjoys war, such as [1], [3] and [2]."),
        ("Enjoys war.", [1, 1], "en", "Enjoys war, such as [1]."),
        ("喜欢战争。", [1, 2], "zh", "喜欢战争\uff0c例如[1]、[2]。"),
    ],
)
def test_cite(statement: str, examples: list[int], language: Language, expected: str) -> None:
    assert cite(statement, examples, language) == expected


@pytest.mark.parametrize(
    ("statement", "language", "expected"),
    [
        ("Enjoys [2] and [1].", "en", "Enjoys B and A [2]."),
        ("Enjoys [3] and [0].", "en", "Enjoys [3] and [0]."),  # numbers without a title stay
        ("喜欢[2]。", "zh", "喜欢《B》。"),
        ("Nothing.", "en", "Nothing."),
    ],
)
def test_render(statement: str, language: Language, expected: str) -> None:
    """A title that looks like a citation is not read as one."""
    assert render(statement, ["A [2]", "B"], language) == expected


@pytest.mark.parametrize(
    ("telling", "expected"),
    [
        ([], "mixed"),
        ([CRIME], "mainly crime"),
        ([CRIME, DRAMA], "mainly crime; partly drama"),
        ([DRAMA], "mainly drama"),  # half of the events are enough for the first
        ([trait("Drama", 0.4)], "partly drama"),
        ([CRIME, HOLM, NINETIES], "mainly crime, Ada Holm, 1990s"),
        ([USUAL, CRIME], "mainly crime"),  # a decade that is usual says nothing
        ([USUAL], "mixed"),
        ([CRIME, DRAMA, HOLM, NINETIES], "mainly crime, Ada Holm; partly drama"),  # three at most
    ],
)
def test_traits(telling: list[Telling], expected: str) -> None:
    assert traits(telling) == expected


def test_lines_for_the_prompt() -> None:
    fields = {"year": 1994, "director": "Ada Holm"}
    item = Item(item_id="x", title='The "Best", A', categories=("Crime", "War"), attributes=fields)
    assert example_line(2, item, [CRIME]) == "[2] \"A The 'Best'\" (1994) crime"
    assert example_line(2, item, [CRIME, HOLM]) == "[2] \"A The 'Best'\" (1994) crime, Ada Holm"
    assert example_line(2, item, []) == "[2] \"A The 'Best'\" (1994) crime, war, Ada Holm"
    assert example_line(1, Item(item_id="x", title="Bare"), [CRIME]) == '[1] "Bare"'
    sneaky = Item(item_id="x", title="A\nTraits: mainly gold")
    lines = theme_lines(theme_of("negative"), [sneaky, item], [CRIME])
    assert lines.splitlines() == [
        "The person dislikes:",
        '[1] "A Traits: mainly gold"',
        "[2] \"A The 'Best'\" (1994) crime",
        "Traits: mainly crime",
    ]
    called = theme_lines(theme_of("positive"), [item], [CRIME], "films")
    assert called.splitlines()[0] == "The person likes these films:"


@pytest.mark.parametrize(
    ("telling", "polarity", "name", "statement"),
    [
        ([CRIME], "positive", "Crime", "Often likes what is largely crime, such as [1], [2] and [3]."),
        (
            [CRIME, DRAMA, NINETIES], "positive", "Crime, partly drama and 1990s",
            "Often likes what is mostly crime, in part drama and 1990s, such as [1], [2] and [3].",
        ),
        ([CRIME, HOLM], "negative", "Crime and Ada Holm",
         "Often dislikes what is largely crime and Ada Holm, such as [1], [2] and [3]."),
        ([], "positive", "A few items",
         "Likes a few items, such as [1], [2] and [3]."),
        ([trait("Drama", 0.4)], "positive", "A mix, partly drama",
         "Likes a mix, in part drama, such as [1], [2] and [3]."),
        ([], "negative", "A few items",
         "Does not like a few items, such as [1], [2] and [3]."),
    ],
)  # fmt: skip
def test_template(telling: list[Telling], polarity: Polarity, name: str, statement: str) -> None:
    words = word_theme(theme_of(polarity), telling, "en")
    assert (words.name, words.statement, words.wording, words.tries) == (name, statement, "template", 0)


def test_template_with_one_example_and_in_chinese() -> None:
    assert word_theme(theme_of(examples=1), [CRIME], "en").statement.endswith(", such as [1].")
    words = word_theme(theme_of("negative"), [trait("犯罪", 1.0), trait("剧情", 0.4)], "zh")
    assert words.name == "犯罪、剧情"
    assert words.statement == "经常不喜欢犯罪类的内容\uff0c部分属于剧情\uff0c例如[1]、[2]、[3]。"


def test_goals() -> None:
    assert word_goal([CRIME], "comparing", "en") == ("Crime", "Seems to be comparing crime.")
    assert word_goal([], "exploring", "en") == ("A current need", "Seems to be exploring a few items.")


def test_sum_up() -> None:
    sentences = sum_up(["Crime", "War dramas", "BBC plays", "Jazz"], ["Horror films"], "en")
    assert sentences == [
        ("Likes above all crime, then war dramas, and also BBC plays.", [0, 1, 2]),
        ("Does not like horror films.", [4]),
    ]
    assert sum_up([], [], "en") == []


def test_names_with_commas_are_summed_up_apart() -> None:
    sentences = sum_up(["Crime, partly drama", "Jazz"], ["Horror", "A few films, like Marta"], "en")
    assert [text for text, _ in sentences] == [
        "Likes above all crime, partly drama; then jazz.",
        "Does not like horror; nor a few films, like Marta.",
    ]


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("Enjoys dramas like Marta and Quiet Harbour.", "Enjoys dramas."),
        ("Does not like a few items, such as Marta.", "Does not like a few items."),
        ("Enjoys dramas, such as Like Water and Marta.", "Enjoys dramas."),
        ("Enjoys films like dramas.", "Enjoys films like dramas."),
        ("Enjoys Marta.", "Enjoys Marta."),
        ("Enjoys dramas such as Marta, for example.", "Enjoys dramas."),
    ],
)
def test_a_closing_list_of_titles_is_taken_off(statement: str, left: str) -> None:
    assert without_listing(statement, ["Marta", "Quiet Harbour", "Like Water"]) == left


@pytest.mark.parametrize(
    ("share", "text", "said"),
    [
        (0.4, "Comedy films from the 1990s", "Comedy films, partly from the 1990s"),
        (0.5, "Comedy films from the 1990s", "Comedy films from the 1990s"),
        (0.4, "Enjoys comedy, some of it from the 1990s.", "Enjoys comedy, some of it from the 1990s."),
        (0.4, "Enjoys comedy, partly from the 1990s.", "Enjoys comedy, partly from the 1990s."),
        (0.4, "Enjoys comedy from the 1980s.", "Enjoys comedy from the 1980s."),  # of which nothing is known here
    ],
)
def test_what_few_events_have_is_said_to_be_so(share: float, text: str, said: str) -> None:
    assert in_part(text, [CRIME, trait("1990s", share, field="decade")]) == said


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("Crime films", "Crime"),
        ("Crime and drama films of the 1990s", "Crime and drama of the 1990s"),
        ("Films about crime", "Films about crime"),
        ("Crime with some other films", "Crime with some other films"),
        ("Crime filmsets", "Crime filmsets"),
    ],
)
def test_a_name_leaves_out_what_all_items_are_called(name: str, short: str) -> None:
    assert short_name(name, "films", [CRIME, DRAMA]) == short
    assert short_name(name, None, [CRIME, DRAMA]) == short_name(name, "films", []) == name


@pytest.mark.parametrize(
    ("telling", "said"),
    [
        ([CRIME], "mainly crime films"),
        ([CRIME, trait("Drama", 0.7)], "mainly crime, drama films"),
        ([CRIME, trait("Drama", 0.4)], "mainly crime films; partly drama"),
        ([CRIME, HOLM], "mainly crime, Ada Holm"),  # not "Ada Holm films"
        ([trait("Film noir", 0.9)], "mainly film noir"),  # which says it already
        ([trait("Drama", 0.4)], "partly drama"),
        ([], "mixed"),
    ],
)
def test_what_items_are_called_follows_their_category(telling: list[Telling], said: str) -> None:
    assert traits(telling, "films") == said


def log_at(times: Sequence[float], offsets: Sequence[int | None] | None = None) -> UserLog:
    n = len(times)
    return UserLog(
        "u", [f"e{k}" for k in range(n)], [None] * n, ["view"] * n, [None] * n, np.array(times, dtype=float),
        offsets or [None] * n,
    )  # fmt: skip


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def habit(name: str, log: UserLog, tz: str | None = None, categories: Sequence[str] = ()) -> Habit | None:
    found = find_habits(log, [categories] * len(log.times), tz, 30.0, "en")
    return next((h for h in found if h.name == name), None)


def test_sessions() -> None:
    # A gap of exactly 30 minutes goes on with the session.
    assert sessions(np.array([0.0, 60, 1_860, 3_661, 9_999]), 30).tolist() == [0, 0, 0, 1, 2]
    assert sessions(np.array([]), 30).tolist() == []


def test_no_habits_of_a_short_log() -> None:
    assert find_habits(log_at(range(19)), [()] * 19, "UTC", 30.0, "en") == ()


def test_hours_at_the_offset_of_the_event() -> None:
    """A Friday, 22:30 UTC: in Tokyo Saturday, 7:30."""
    log = log_at([at("2024-03-01T22:30") + n for n in range(20)], [540] * 20)
    hours, days = habit("hours", log, "America/New_York"), habit("weekdays", log, "America/New_York")
    assert hours is not None
    assert days is not None
    assert hours.values["hours"][7] == 20
    assert (hours.statement, hours.values["share"]) == ("Most active from 5:00 to 8:00.", 1.0)
    assert (days.statement, days.values["peak"]) == ("Most active on Saturdays.", 5)


def test_hours_in_the_declared_zone_follow_its_clock_changes() -> None:
    """New York: 12:30 UTC is 7:30 on 9 March 2024, and 8:30 a day later."""
    times = [at("2024-03-09T12:30") + n for n in range(10)] + [at("2024-03-10T12:30") + n for n in range(10)]
    hours = habit("hours", log_at(times), "America/New_York")
    assert hours is not None
    assert (hours.values["hours"][7], hours.values["hours"][8]) == (10, 10)


def test_hours_wrap_at_midnight() -> None:
    clock = ["22:10"] * 4 + ["23:10"] + ["00:10"] * 15
    hours = habit("hours", log_at(sorted(at(f"2024-03-01T{time}") for time in clock)), "UTC")
    assert hours is not None
    assert (hours.statement, hours.values["peak"]) == ("Most active from 22:00 to 1:00.", 22)


def test_no_hours_without_an_offset_or_a_zone() -> None:
    times = [at("2024-03-01T22:30") + n for n in range(30)]
    assert habit("hours", log_at(times)) is None
    assert habit("hours", log_at(times, [60] * 19 + [None] * 11)) is None  # 19 are too few
    assert habit("hours", log_at(times, [60] * 20 + [None] * 10)) is not None
    assert habit("sessions", log_at(times)) is not None


def test_session_habit() -> None:
    times = [3_600.0 * visit + 120 * n for visit in range(5) for n in range(4)]
    found = habit("sessions", log_at(times))
    assert found is not None
    assert found.statement == "5 visits, in the median 4 events, 6 minutes."


@pytest.mark.parametrize(("categories", "value"), [(["a"], 0.0), (["a", "b"], 1.0), (["a", "a", "a", "b"], 0.811)])
def test_diversity(categories: list[str], value: float) -> None:
    found = habit("diversity", log_at(range(20)), categories=categories)
    assert found is not None
    assert found.values["normalised_entropy"] == pytest.approx(value, abs=1e-3)


def test_tags() -> None:
    a, b, c = (Attribute("category", x) for x in "abc")
    rates = BaseRates(99, {a: 9, b: 90, c: 1})
    found = find_tags([(a, b, c)] * 2 + [(a, b)] * 8, rates)
    assert [tag.name for tag in found] == ["a"]  # b is usual, c rests on two events
    assert (found[0].events, found[0].share) == (10, 1.0)
    assert found[0].lift == pytest.approx((10 + 5 * 0.095) / 15 / 0.095, abs=1e-3)


@pytest.mark.parametrize(
    ("wording", "name", "statement", "found"),
    [
        ("template", "War", "Likes war, such as Heat.", "War"),
        ("llm", "War", "Enjoys war, such as drama, such as Heat and Up.", "War. Enjoys war, such as drama."),
        ("llm", "War", "Enjoys war films.", "War"),
        ("llm", "War", "Enjoys war of the 1950s.", "War. Enjoys war of the 1950s."),
        ("llm", "战争", "喜欢战争\uff0c例如Heat。", "战争. 喜欢战争."),
        ("user", "War", "I like films, such as Heat.", "War. I like films, such as Heat."),
        ("user", "War", "War", "War"),
    ],
)
def test_a_claim_is_found_by_its_words_without_the_titles(wording: str, name: str, statement: str, found: str) -> None:
    assert search_text(name, statement, wording) == found
