"""The report: what it says of the data, two of them compared, the page, the answers, and suites that break."""

import dataclasses
import doctest
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from types import ModuleType

import numpy as np
import pytest

from eval import comparing, headlines, options, plots, running
from eval.comparing import compare
from eval.errors import ReportError
from eval.findings import Curve, Example, Figure, Findings, PairedTest, figure, paired_tests
from eval.html import to_page, view
from eval.options import Options
from eval.plots import panel, ticks
from eval.report import Data, Parameters, Report, SuiteRun, data_hash, read, write
from tests.evaluated_world import evaluated_world
from tests.small_world import FakeEmbedder

NOT_CODE = "<script>alert('x')</script>"


def one(value: float, metric: str = "ndcg@10", subject: str = "EASE", **of: object) -> Figure:
    """A figure of 40 users, with an interval of ±.02 around it unless one is given."""
    given = {"suite": "ranking", "low": value - 0.02, "high": value + 0.02, "n": 40} | of
    return Figure.model_validate({"metric": metric, "subject": subject, "value": value} | given)


def found() -> Findings:
    """Something of everything."""
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0.5, 0.1, 40), rng.normal(0.3, 0.1, 40)
    told = figure(ours, suite="profiles", protocol="later visit", metric="picked out of 10", subject="template")
    return Findings(
        figures=(
            told,
            told.model_copy(update={"segment": "few events", "value": 0.4}),
            one(0.3),
            one(0.2, subject="popularity"),
            one(0.28, metric="ndcg@5"),
            one(2.5, metric="seconds", subject="template", suite="cost", unit="s", low=None, high=None),
        ),
        tests=paired_tests([("llm", "template", ours, theirs)], suite="profiles", metric="specificity"),
        curves=(
            Curve(suite="explanations", title="Deletion", subject="parts", x_label="events", y_label="score",
                  x=(0, 1, 2), y=(1, 0.6, 0.3), low=(1, 0.5, 0.2), high=(1, 0.7, 0.4)),
            Curve(suite="explanations", title="Deletion", subject="random", x_label="events", y_label="score",
                  x=(0, 1, 2), y=(1, 0.9, 0.8)),
        ),
        examples=(Example(suite="profiles", title=NOT_CODE, verdict="worst", text=f"Likes {NOT_CODE}"),),
        protocols={"later visit": "More than an hour after."},
        metrics={"ndcg@10": "Discounted gain."},
        notes=(f"A note & {NOT_CODE}",),
    )  # fmt: skip


def made(findings: Findings | None = None, **changes: object) -> Report:
    world = evaluated_world()
    whole = Report(
        limner="0.1.0",
        created_at=datetime(2026, 3, 1, tzinfo=UTC),
        data=Data.of("own", world),
        parameters=Parameters.of(("profiles", "ranking"), Options()),
        embedder="fake",
        suites=(SuiteRun(name="profiles", state="done", seconds=1.5), SuiteRun(name="ranking", state="done")),
        findings=found() if findings is None else findings,
    )
    return whole.model_copy(update=changes)


@pytest.mark.parametrize("module", [comparing, headlines, options, plots], ids=lambda module: module.__name__)
def test_worked_examples(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_a_report_comes_back_as_it_was_written(tmp_path):
    write(made(), tmp_path / "report.json")
    assert read(tmp_path / "report.json") == read(tmp_path) == made()


def test_each_figure_has_a_line_of_its_own(tmp_path):
    write(made(), tmp_path / "report.json")
    lines = (tmp_path / "report.json").read_text(encoding="utf-8").splitlines()
    assert sum('"metric":"' in line for line in lines) == len(made().findings.figures)


def test_a_bare_report_has_figures_and_nothing_of_anyone(tmp_path):
    write(made().bare(), tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert read(tmp_path).figures() == {key: f for key, f in made().figures().items() if key.segment == "all"}
    assert "Likes" not in text
    assert "A note" not in text


@pytest.mark.parametrize("text", ["", "{}", '{"limner": 1}'])
def test_what_is_no_report_is_told(tmp_path, text):
    (tmp_path / "report.json").write_text(text, encoding="utf-8")
    with pytest.raises(ReportError, match="limner eval run"):
        read(tmp_path)


def test_where_there_is_no_report_is_told(tmp_path):
    with pytest.raises(ReportError, match="limner eval run"):
        read(tmp_path)


def test_data_have_one_hash_in_any_order_and_another_with_any_change():
    world = evaluated_world()
    before = data_hash(world)
    turned = dataclasses.replace(world, items=world.items[::-1], logs=world.logs[::-1])
    assert data_hash(turned) == before
    first = world.logs[0]
    for change in (
        {"values": [1.0, *first.values[1:]] if first.values[0] != 1.0 else [2.0, *first.values[1:]]},
        {"times": first.times + 1.0},
        {"event_ids": ["another", *first.event_ids[1:]]},
        {"types": ["view", *first.types[1:]]},
    ):
        changed = dataclasses.replace(world, logs=[dataclasses.replace(first, **change), *world.logs[1:]])
        assert data_hash(changed) != before
    renamed = world.items[0].model_copy(update={"title": "Another"})
    assert data_hash(dataclasses.replace(world, items=[renamed, *world.items[1:]])) != before


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (one(0.30), one(0.30), "within"),
        (one(0.30), one(0.281), "within"),
        (one(0.30), one(0.279), "worse"),
        (one(0.30), one(0.321), "better"),
        (one(0.30, better="lower"), one(0.279, better="lower"), "better"),
        (one(0.30, better="lower"), one(0.321, better="lower"), "worse"),
        (one(0.30, better="neither"), one(0.4, better="neither"), "changed"),
        (one(1.0, low=1.0, high=1.0, n=40), one(0.93), "within"),
        (one(1.0, low=1.0, high=1.0, n=40), one(0.92), "worse"),
        (one(7.0, low=7.0, high=7.0, unit="calls", better="lower"), one(7.1, unit="calls"), "worse"),
        (one(0.30, low=None, high=None), one(0.1), "no interval"),
        (one(3.0, unit="s", better="lower"), one(30.0, unit="s", better="lower"), "no interval"),
    ],
    ids=[
        "equal",
        "lower within",
        "lower",
        "higher",
        "less",
        "more",
        "neither",
        "same",
        "not the same",
        "same calls",
        "no interval",
        "seconds",
    ],
)
def test_a_change_counts_beyond_the_interval_of_the_first(before, after, verdict):
    result = compare(made(Findings(figures=(before,))), made(Findings(figures=(after,))))
    assert [change.verdict for change in result.changes] == [verdict]


def of_users(*values: float, **more: object) -> Figure:
    """A figure whose users are known by their number, with an interval that is wider than any change."""
    return one(float(np.mean(values)), low=0.0, high=1.0, by_user=dict(enumerate(values)), **more)


UP = np.linspace(0.3, 0.5, 12)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (of_users(*UP), of_users(*(UP + 0.01)), "better"),
        (of_users(*UP), of_users(*(UP - 0.01)), "worse"),
        (of_users(*UP, better="lower"), of_users(*(UP + 0.01), better="lower"), "worse"),
        (of_users(*UP, better="neither"), of_users(*(UP + 0.01), better="neither"), "changed"),
        (of_users(*UP), of_users(*(UP + np.resize([0.01, -0.012], 12))), "within"),
        (of_users(*UP), of_users(*(UP[:5] + 0.01)), "within"),  # of five users nothing can be significant
        (of_users(*UP, unit="s"), of_users(*(UP + 0.01), unit="s"), "no interval"),
    ],
    ids=["better", "worse", "lower is better", "neither", "either way", "few in both", "times"],
)
def test_users_whom_both_reports_know_are_compared_pair_by_pair(before, after, verdict):
    (change,) = compare(made(Findings(figures=(before,))), made(Findings(figures=(after,)))).changes
    assert change.verdict == verdict


def test_pairs_are_corrected_for_their_number_and_are_of_the_same_data():
    names = [f"m{n}" for n in range(200)]
    pairs = [[of_users(*(UP + more), metric=name) for name in names] for more in (0.0, 0.01)]
    same = of_users(*UP, metric="the same for all")  # which no test could tell apart: it makes the others no harder
    first, second = (made(Findings(figures=(*figures, same))) for figures in pairs)
    *changes, unchanged = compare(first, second).changes
    assert changes[0].p == pytest.approx(200 / 2**11)
    assert {change.verdict for change in changes} == {"within"}
    assert (unchanged.verdict, unchanged.p) == ("within", None)
    elsewhere = second.model_copy(update={"data": second.data.model_copy(update={"sha256": "0"})})
    assert {change.p for change in compare(first, elsewhere).changes} == {None}


def test_users_numbers_are_read_back_and_not_committed(tmp_path):
    report = made(Findings(figures=(of_users(0.1, 0.2),)))
    write(report, tmp_path / "report.json")
    assert read(tmp_path / "report.json") == report
    assert report.bare().findings.figures[0].by_user == {}


def test_figures_that_one_report_lacks_are_named():
    first = made(Findings(figures=(one(0.3), one(0.2, subject="gone"))))
    second = made(Findings(figures=(one(0.3), one(0.2, subject="come"))))
    verdicts = {change.subject: change.verdict for change in compare(first, second).changes}
    assert verdicts == {"EASE": "within", "gone": "missing", "come": "new"}


def test_what_was_not_measured_alike_is_told():
    other = made(
        embedder="another", model="m", prompts={"theme": "theme@1 abc"},
        parameters=Parameters.of(("profiles",), Options(users=9)),
    )  # fmt: skip
    told = " ".join(compare(made(), other).differences)
    for part in ("the embedder", "the language model", "the option users", "the option suites", "the prompt theme"):
        assert part in told
    assert compare(made(), made()).differences == ()


class Page(HTMLParser):
    """What a page loads, which tags it leaves open, and its words."""

    EMPTY = frozenset({"meta", "br", "img", "input", "hr", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: set[str] = set()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses |= {v for k, v in attrs if k in {"src", "href", "action", "data"} and v}
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def test_the_page_is_whole_and_loads_nothing():
    text = to_page(made())
    page = Page(text)
    assert page.open == []
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert all(address.startswith("#") for address in page.addresses)
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_escapes_what_comes_from_data():
    page = Page(to_page(made()))
    assert "script" not in page.tags
    assert page.words.count(NOT_CODE) == 3  # a title, a text and a note


def test_the_page_shows_suites_figures_curves_tests_and_examples():
    page = Page(to_page(made()))
    for word in ("Profiles", "Recommendations", "Explanations", "Deletion", "picked out of 10", "few events", "2.50 s",
                 "More than an hour after.", "llm", "among the worst", made().data.sha256):  # fmt: skip
        assert word in page.words
    assert "svg" in page.tags


def test_the_page_says_what_has_failed():
    suites = (
        SuiteRun(name="profiles", state="failed", reason="ValueError: <b>"),
        SuiteRun(name="ranking", state="stopped"),
        SuiteRun(name="cost", state="left out"),
    )
    words = " ".join(Page(to_page(made(suites=suites))).words.split())
    assert "profiles has failed: ValueError: <b>." in words
    assert "ranking was interrupted" in words
    assert "cost was not begun" in words


def test_a_report_of_nothing_is_a_page_as_well():
    assert Page(to_page(made(Findings()))).open == []


def test_wins_are_those_with_the_better_figure():
    low, high = np.zeros(10), np.ones(10)
    tests = paired_tests([("quick", "slow", low, high)], suite="cost", metric="seconds", better="lower")
    (row,) = view(made(Findings(tests=tests))).suites[0].tests
    assert (row.wins, row.losses, row.ties, row.tone) == (10, 0, 0, "good")


def test_bars_lie_on_their_track_the_best_first():
    drawn = panel([one(0.1), one(0.4, subject="b"), one(0.25, subject="c", low=None, high=None)])
    assert [bar.subject for bar in drawn.bars] == ["b", "c", "EASE"]
    for bar in drawn.bars:
        assert 0 <= bar.at <= 100
        if bar.left is not None:
            assert 0 <= bar.left <= bar.at <= bar.left + bar.width <= 100
    least = panel([one(0.1, better="lower"), one(0.4, subject="b", better="lower")])
    assert [bar.subject for bar in least.bars] == ["EASE", "b"]


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (-3.0, -3.0), (0.0, 1e-9), (-1e6, 1e6), (0.47, 0.471)])
def test_ticks_hold_the_data_and_are_few(low, high):
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high - 1e-9
    assert 2 <= len(found) <= 8


@pytest.mark.parametrize(
    ("value", "answer"), [(0.5, "Yes:"), (0.11, "Unclear:"), (0.03, "No:")], ids=["yes", "unclear", "no"]
)
def test_whether_profiles_tell_users_apart_is_answered_by_the_interval(value, answer):
    told = one(value, metric="picked out of 10", subject="template", suite="profiles")
    answers = {h.question: h for h in headlines.headlines(Findings(figures=(told,)))}
    headline = answers["Do the profiles tell users apart?"]
    assert headline.answer == answer
    assert headlines.percent(value) in headline.sentence


@pytest.mark.parametrize(("sign", "answer"), [(1, "Yes:"), (0, "Unclear:"), (-1, "No:")])
def test_chance_is_what_the_others_pick_where_that_was_measured(sign, answer):
    of = {"metric": "picked out of 10", "suite": "profiles"}
    figures = (one(0.15, subject="template", **of), one(0.08, subject="template, chance", **of))
    test = pair("template", "template, chance", sign, **of)
    (headline,) = headlines.headlines(Findings(figures=figures, tests=(test,)))
    assert headline.answer == answer
    assert headlines.percent(0.08) in headline.sentence


@pytest.mark.parametrize(("sign", "answer"), [(1, "Yes:"), (0, "Unclear:"), (-1, "No:")])
def test_whether_planted_interests_are_found_is_read_at_a_fifth_of_noise(sign, answer):
    of = {"metric": "f1", "suite": "simulated"}
    figures = tuple(
        one(value - drop, subject=subject, protocol=f"{level}% noise", **of)
        for level, drop in ((0, 0.0), (20, 0.1)) for subject, value in (("template", 0.9), ("category histogram", 0.6))
    )  # fmt: skip
    tests = tuple(
        pair("template", "category histogram", way, protocol=f"{level}% noise", **of)
        for level, way in ((0, 1), (20, sign))
    )
    (headline,) = headlines.headlines(Findings(figures=figures, tests=tests))
    assert headline.answer == answer
    assert "0.800" in headline.sentence
    assert "0.500" in headline.sentence


def pair(first: str, second: str, sign: int, **of: object) -> PairedTest:
    """A test that the first wins (1), loses (-1), or neither (0)."""
    given = {"metric": "ndcg@10", "suite": "ranking", "protocol": "later visit", "wins": 9, "losses": 1, "n": 10}
    given |= dict.fromkeys(("difference", "low", "high"), 0.1 * sign) | {"p": 0.001 if sign else 0.9}
    return PairedTest.model_validate({"first": first, "second": second} | given | of)


@pytest.mark.parametrize(
    ("popular", "plain", "answer"),
    [(1, 1, "Yes:"), (1, 0, "In part:"), (1, -1, "In part:"), (0, 1, "Unclear:"), (-1, -1, "No:")],
)
def test_whether_recommendations_are_better_is_answered_by_paired_tests(popular, plain, answer):
    elsewhere = [pair("fused", other, -1, protocol="same sitting") for other in ("popularity", "iALS")]
    tests = (*elsewhere, pair("fused", "popularity", popular), pair("fused", "iALS", plain))
    (headline,) = headlines.headlines(Findings(tests=tests))
    assert headline.answer == answer
    assert "later visit" in headline.sentence


@pytest.mark.parametrize(
    ("signs", "answer", "told"),
    [
        ((1, 0), "Yes:", "better in m0; in 1 of 2 figures"),
        ((-1, 0), "No:", "worse in m0; in 1 of 2 figures"),
        ((1, -1), "In part:", "better in m0; it is worse in m1; in 0 of 2 figures"),
        ((0, 0), "No difference:", "in 2 of 2 figures no difference"),
    ],
    ids=["better", "worse", "both", "neither"],
)
def test_whether_the_language_model_writes_better_is_said_figure_by_figure(signs, answer, told):
    tests = tuple(
        pair("llm", "template", sign, suite="profiles", metric=f"m{n}", segment=segment)
        for n, sign in enumerate(signs) for segment in ("all", "few events")
    )  # fmt: skip
    (headline,) = headlines.headlines(Findings(tests=tests))
    assert headline.answer == answer
    assert told in headline.sentence


@pytest.mark.parametrize(("sign", "answer"), [(-1, "Yes:"), (0, "Unclear:"), (1, "No:")])
def test_reasons_are_real_where_less_is_left_without_them(sign, answer):
    of = {"suite": "explanations", "metric": "deletion area", "better": "lower"}
    figures = (one(0.7, subject="parts", **of), one(0.9, subject="random", **of))
    (headline,) = headlines.headlines(Findings(figures=figures, tests=(pair("parts", "random", sign, **of),)))
    assert headline.answer == answer
    assert "70\N{NO-BREAK SPACE}%" in headline.sentence


@pytest.mark.parametrize(("sign", "answer"), [(1, "Yes:"), (-1, "In part:")])
def test_a_profile_that_is_worse_than_popularity_foretells_in_part(sign, answer):
    ours = one(0.6, metric="AUC", subject="template, by texts", suite="profiles")
    test = pair(ours.subject, "popularity", sign, suite="profiles")
    (headline,) = headlines.headlines(Findings(figures=(ours,), tests=(test,)))
    assert headline.answer == answer


def test_no_answer_is_given_without_its_figure():
    assert headlines.headlines(Findings()) == ()


@pytest.fixture
def suite(monkeypatch):
    """Put a suite in the place of a real one: it finds a figure, or raises."""

    def put(name: str, error: BaseException | None = None) -> None:
        module = ModuleType(f"eval.suites.{name}")

        def run(*given: object, **_more: object) -> Findings:
            if error is not None:
                raise error
            return Findings(figures=(one(0.5, suite=name),))

        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


def test_a_suite_that_fails_costs_the_others_nothing(suite):
    suite("profiles")
    suite("ranking", ValueError("nobody is left"))
    suite("cost")
    failed = []
    ran = running.run(
        ("profiles", "ranking", "cost"), evaluated_world(), FakeEmbedder(), Options(), lambda _: None,
        lambda name, error: failed.append((name, str(error))),
    )  # fmt: skip
    assert [(s.name, s.state, s.reason) for s in ran.suites] == [
        ("profiles", "done", None), ("ranking", "failed", "ValueError: nobody is left"), ("cost", "done", None),
    ]  # fmt: skip
    assert [f.suite for f in ran.findings.figures] == ["profiles", "cost"]
    assert failed == [("ranking", "nobody is left")]


def test_an_interrupt_keeps_what_was_found_and_begins_nothing_more(suite):
    suite("profiles")
    suite("ranking", KeyboardInterrupt())
    suite("cost")
    ran = running.run(
        ("profiles", "ranking", "cost"), evaluated_world(), FakeEmbedder(), Options(), lambda _: None, pytest.fail
    )
    assert [s.state for s in ran.suites] == ["done", "stopped", "left out"]
    assert [f.suite for f in ran.findings.figures] == ["profiles"]


def test_the_sample_is_the_same_for_a_seed_and_another_for_another():
    codes = np.arange(100)
    samples = [Options(users=10, seed=seed).sample(codes).tolist() for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]
    assert len(set(samples[0])) == 10
    assert Options(users=200).sample(codes).tolist() == codes.tolist()
