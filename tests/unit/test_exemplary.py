"""Which answers are worth learning by."""

import pytest

from agent.catalogue import Attribute, Telling
from agent.exemplary import adds_nothing, keeps_to, names_all_once, names_only
from agent.words import quantified

TELLING = [
    Telling(Attribute("category", "Coffee"), 9, 0.9, 8.0),
    Telling(Attribute("brand", "Pemberlow"), 3, 0.3, 6.0),
]
MORE = [
    *TELLING,
    Telling(Attribute("artist", "The Beatles"), 9, 0.9, 9.0),
    Telling(Attribute("brand", "Oxmoor Ltd."), 9, 0.9, 9.0),
]


@pytest.mark.parametrize(
    ("name", "sentence", "worth"),
    [
        ("Coffee with some Pemberlow", "Looks for coffee, partly by Pemberlow.", True),
        ("Coffee", "Looks for coffee, partly by Pemberlow.", True),
        ("Coffee with some Pemberlow", "Looks for coffee, partly by Pemberlow, and some from Norrvik.", False),
        ("Coffee with some Pemberlow", "Looks for coffee, mostly coffee by Pemberlow.", False),
        ("Coffee and coffee", "Looks for coffee, partly by Pemberlow.", False),
        ("Coffee", "Looks for coffee.", False),
        ("Pemberlow tools", "Looks for Pemberlow.", False),
        ("Coffee with some Pemberlow", "Looks for coffee from the 1990s, partly by Pemberlow.", False),
    ],
)
def test_a_claim_names_its_traits_once_and_nothing_else(name: str, sentence: str, *, worth: bool) -> None:
    assert names_all_once(name, sentence, TELLING) is worth


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Coffee gear. Looks for coffee, partly by Pemberlow.", True),
        ("Coffee pots. Looks for coffee pots, partly by Pemberlow.", True),  # two of three titles
        ("Coffee. Looks for coffee and some steel filters.", False),
        ("Coffee. Looks for espresso.", False),
        ("Coffee. Enjoys coffee films.", False),
        ("Coffee. Looks for coffee, old and new.", False),
    ],
)
def test_a_lesson_takes_up_no_word_of_a_single_title(text: str, *, kept: bool) -> None:
    titles = ["Pemberlow Coffee Pot", "Copper Pots", "Steel Filter"]
    assert keeps_to(text, ["coffee", "Pemberlow"], titles) is kept


def test_one_title_shares_nothing() -> None:
    assert not keeps_to("Copper pots. Seems to be looking for copper pots.", ["coffee"], ["Copper Pots"])
    assert keeps_to("咖啡。喜欢咖啡和茶。", ["咖啡"], [])  # no words to be told apart


def test_only_words_that_say_nothing_may_be_added() -> None:
    assert adds_nothing(("gear", "items"))
    assert not adds_nothing(("gear", "books"))


def test_traits_are_named_in_any_form_and_longer_ones_hide_shorter_ones() -> None:
    rock = [Telling(Attribute("category", name), 9, 0.9, 8.0) for name in ("Rock", "Indie Rock")]
    assert names_all_once("Rock", "Goes for rock and indie rock.", rock)
    assert not names_all_once("Rock", "Goes for indie rock and more indie rock.", rock)
    comedy = [Telling(Attribute("category", name), 9, 0.9, 8.0) for name in ("Comedy", "Drama")]
    assert names_all_once("Comedies", "Enjoys comedies, and dramas.", comedy)
    chinese = [Telling(Attribute("category", "咖啡"), 9, 0.9, 8.0)]
    assert names_all_once("咖啡", "喜欢咖啡。", chinese)
    assert not names_all_once("茶", "喜欢茶。", chinese)


def test_what_a_sentence_begins_with_is_no_name() -> None:
    assert names_only("Looks for coffee. Stays away from Oxmoor.", ["coffee", "Oxmoor"])
    assert not names_only("Looks for coffee. Stays away from Oxmoor.", ["coffee"])


@pytest.mark.parametrize(
    ("said", "stands"),
    [
        ("Looks for coffee, mostly by Pemberlow.", "Looks for coffee, partly by Pemberlow."),
        ("Looks for tools, mostly coffee.", "Looks for tools, mostly coffee."),
        ("Looks for coffee, mainly by Norrvik.", "Looks for coffee, partly by Norrvik."),
        ("Looks for coffee, mainly from Norway.", "Looks for coffee, mainly from Norway."),
        ("Mostly by Pemberlow.", "Partly by Pemberlow."),
        ("Enjoys songs, mostly by The Beatles.", "Enjoys songs, mostly by The Beatles."),
        ("Enjoys songs, mostly by the Beatles.", "Enjoys songs, mostly by the Beatles."),
        ("Enjoys tools, mostly by Oxmoor.", "Enjoys tools, mostly by Oxmoor."),
        ("Looks for coffee, mostly the quick kind.", "Looks for coffee, mostly the quick kind."),
        ("Mostly looks for coffee.", "Mostly looks for coffee."),
        ("Looks for tools, largely of the Pemberlows.", "Looks for tools, largely of the Pemberlows."),
    ],
)
def test_how_much_is_said_by_arithmetic(said: str, stands: str) -> None:
    assert quantified(said, MORE) == stands
