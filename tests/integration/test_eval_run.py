"""`limner eval run` and `compare` as commands: what they write, what they say, and with which exit code they end."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

import api.evaluating
import api.runtime
from api.cli import main
from api.settings import Settings
from eval import report
from eval.findings import Curve, Example, Figure, Findings
from eval.options import Options
from eval.running import NAMES
from eval.world import World
from store.database import Database
from store.errors import DownloadError
from tests.command_line import Ended
from tests.gate import run as gate
from tests.small_world import EVERYONE, FakeEmbedder, fill

VALUE = 0.5
LOW, HIGH = 0.4, 0.6
MOVIES = "1::The Ash Garden (1994)::Mystery|Drama\n2::Rye Days (2013)::Comedy\n3::No Year At All::Drama\n"
RATINGS = "".join(f"{user}::{item}::{3 + item % 3}::{978300000 + 60 * item}\n" for user in (1, 2) for item in (1, 2, 3))


class Suites:
    """Stand in for the suites: each finds one figure, or ends as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.value = VALUE
        self.ends: dict[str, BaseException] = {}
        self.asked: list[tuple[str, World, Options]] = []
        for name in NAMES:
            module = ModuleType(f"eval.suites.{name}")
            module.run = self._suite(name)  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, module.__name__, module)

    def _suite(self, name: str) -> Callable[..., Findings]:
        def run(world: World, _embedder: object, options: Options, tell: Callable[[str], None], **_more: object):
            self.asked.append((name, world, options))
            tell(f"{name}: at it")
            if name in self.ends:
                raise self.ends[name]
            made = Figure(suite=name, metric="share", subject="template", value=self.value, low=LOW, high=HIGH, n=6)
            text = Example(suite=name, title=world.items[0].title, verdict="best", text="Likes it.")
            line = Curve(suite=name, title="t", subject="s", x_label="x", y_label="y", x=(0, 1), y=(0, 1))
            return Findings(figures=(made,), examples=(text,), curves=(line,))

        return run


@pytest.fixture
def suites(monkeypatch: pytest.MonkeyPatch) -> Suites:
    return Suites(monkeypatch)


@pytest.fixture
def limner(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Run a command on the test's database, with the fake embedder."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("LIMNER_HOME", str(home))
    monkeypatch.setenv("LIMNER_DATABASE_URL", database_url)
    monkeypatch.setattr(api.runtime, "embedder", lambda _settings: FakeEmbedder())

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["limner", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return Ended(int(end.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def scratch(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let public logs go to a database of the test's server in the place of an embedded one."""

    @contextmanager
    def opened(url: str | None, _home: Path) -> Iterator[Database]:
        assert url is None
        found = Database(empty_url)
        yield found
        found.close()

    monkeypatch.setattr(api.evaluating, "open_database", opened)
    return empty_url


def test_it_writes_a_report_for_machines_and_one_for_people(database, limner, suites, tmp_path):
    fill(database)
    ended = limner("eval", "run", "--out", tmp_path / "r", "--suite", "cost,ranking", "--seeds", 3, "--users", 4)
    assert ended.code == 0
    made = report.read(tmp_path / "r")
    assert [s.name for s in made.suites] == ["ranking", "cost"]
    assert made.whole
    assert (made.data.name, made.data.users) == ("own", len(EVERYONE))
    assert (made.parameters.seeds, made.parameters.users, made.embedder) == (3, 4, "fake")
    assert [(f.suite, f.value) for f in made.findings.figures] == [("ranking", VALUE), ("cost", VALUE)]
    assert "<!doctype html>" in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert [(name, options.users) for name, _, options in suites.asked] == [("ranking", 4), ("cost", 4)]
    assert "report.html" in ended.out
    assert "ranking: at it" in ended.err


def test_the_cost_suite_itself_measures_the_store(database, limner, tmp_path):
    fill(database)
    assert limner("eval", "run", "--out", tmp_path, "--suite", "cost", "--seeds", 1).code == 0
    figures = {f.metric: f for f in report.read(tmp_path).findings.figures}
    assert figures["seconds"].n == len(EVERYONE)
    assert figures["calls"].value == 0


@pytest.mark.parametrize(
    ("error", "code", "states"),
    [
        (ValueError("nobody is left"), 3, ["done", "failed", "done"]),
        (KeyboardInterrupt(), 130, ["done", "stopped", "left out"]),
    ],
    ids=["failed", "interrupted"],
)
def test_what_was_found_before_is_kept(database, limner, suites, tmp_path, error, code, states):
    fill(database)
    suites.ends["ranking"] = error
    ended = limner("eval", "run", "--out", tmp_path, "--suite", "profiles,ranking,cost")
    assert ended.code == code
    made = report.read(tmp_path)
    assert [s.state for s in made.suites] == states
    assert "profiles" in {f.suite for f in made.findings.figures}
    assert f"ranking: {states[1]}" in ended.out
    assert "nothing half-done was kept" not in ended.err


def test_an_empty_store_is_told_what_to_do(database, limner, suites, tmp_path):
    ended = limner("eval", "run", "--out", tmp_path)
    assert ended.code == 1
    assert "limner ingest" in ended.err
    assert not suites.asked


@pytest.mark.parametrize(
    "arguments",
    [("--suite", "poetry"), ("--suite", ","), ("--path", "."), ("--dataset", "ml-1m")],
    ids=["unknown", "none", "path alone", "no path"],
)
def test_what_makes_no_sense_is_refused(database, limner, tmp_path, arguments):
    assert limner("eval", "run", "--out", tmp_path, *arguments).code == 2


def test_ml_1m_is_read_into_a_database_of_its_own(database, limner, suites, scratch, tmp_path):
    fill(database)
    source = tmp_path / "ml-1m"
    source.mkdir()
    (source / "movies.dat").write_text(MOVIES, encoding="latin-1")
    (source / "ratings.dat").write_text(RATINGS, encoding="latin-1")
    told = ("eval", "run", "--dataset", "ml-1m", "--path", source, "--suite", "cost", "--out", tmp_path / "r")
    assert limner(*told).code == 0
    world = suites.asked[0][1]
    assert sorted(world.user_ids) == ["1", "2"]
    assert {i.item_id: (i.title, i.categories, i.attributes.get("year")) for i in world.items} == {
        "1": ("The Ash Garden", ("Mystery", "Drama"), "1994"),
        "2": ("Rye Days", ("Comedy",), "2013"),
        "3": ("No Year At All", ("Drama",), None),
    }
    assert len(world.interactions) == 6
    assert limner(*told).code == 0  # a second time, what is there is used
    assert report.read(tmp_path / "r").data.events == 6

    (source / "movies.dat").write_text(MOVIES.replace("Rye Days", "Rye Nights"), encoding="latin-1")
    assert limner(*told).code == 0
    assert "Rye Nights" in {item.title for item in suites.asked[-1][1].items}  # and what has changed, taken in


@pytest.mark.parametrize(
    ("name", "text"), [("movies.dat", None), ("ratings.dat", "1::2::3\n")], ids=["missing", "of another form"]
)
def test_a_wrong_folder_is_told(database, limner, suites, scratch, tmp_path, name, text):
    source = tmp_path / "ml-1m"
    source.mkdir()
    (source / "movies.dat").write_text(MOVIES, encoding="latin-1")
    (source / "ratings.dat").write_text(RATINGS, encoding="latin-1")
    (source / name).unlink() if text is None else (source / name).write_text(text, encoding="latin-1")
    ended = limner("eval", "run", "--dataset", "ml-1m", "--path", source, "--out", tmp_path / "r")
    assert ended.code == 1
    assert name in ended.err


@pytest.fixture
def measured(database, limner, suites, tmp_path) -> Callable[[str, float], Path]:
    """Measure, with a figure of a certain value, into a folder of this name."""
    fill(database)

    def run(name: str, value: float) -> Path:
        suites.value = value
        assert limner("eval", "run", "--out", tmp_path / name, "--suite", "ranking").code == 0
        return tmp_path / name

    return run


@pytest.mark.parametrize(
    ("value", "verdict", "code"),
    [(VALUE, "within", 0), (0.41, "within", 0), (0.39, "worse", 1), (0.61, "better", 0)],
    ids=["equal", "within", "worse", "better"],
)
def test_two_reports_are_compared(limner, measured, value, verdict, code):
    first, second = measured("first", VALUE), measured("second", value)
    ended = limner("eval", "compare", first, second, "--json")
    assert ended.code == 0
    (change,) = json.loads(ended.out)["changes"]
    assert (change["verdict"], change["before"], change["after"]) == (verdict, VALUE, value)
    ended = limner("eval", "compare", first / "report.json", second, "--fail")
    assert ended.code == code
    assert f"1 figures: 1 {verdict}." in ended.out


def test_what_is_no_report_is_told(limner, tmp_path):
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    ended = limner("eval", "compare", tmp_path / "other.json", tmp_path / "other.json")
    assert ended.code == 1
    assert "limner eval run" in ended.err


class Gate:
    """The gate over the test's database, and a baseline in a folder."""

    def __init__(self, folder: Path, suites: Suites, settings: Settings) -> None:
        self.folder, self.suites, self.settings = folder, suites, settings

    def run(self, value: float, *more: str) -> int:
        """Measure with a figure of this value."""
        self.suites.value = value
        return gate.main(["--baselines", str(self.folder), *more])


@pytest.fixture
def gated(measured, suites, limner, database, monkeypatch, tmp_path) -> Gate:
    @contextmanager
    def opened(_settings: Settings, _dataset: str, _path: Path | None) -> Iterator[Database]:
        yield database

    folder = tmp_path / "baselines"
    folder.mkdir()
    report.write(report.read(measured("first", VALUE)).bare(), folder / "baseline.json")
    monkeypatch.setattr(api.evaluating, "opened", opened)
    return Gate(folder, suites, Settings())


def test_the_gate_is_open_for_equal_figures_and_closed_for_worse_ones(gated):
    assert gated.run(VALUE) == 0
    assert gated.run(0.41) == 0
    assert gated.run(0.39) == gate.WORSE
    assert gated.run(0.61) == 0


def test_the_gate_is_closed_where_a_figure_is_missing_or_a_suite_fails(gated, suites):
    suites.ends["ranking"] = ValueError("broken")
    assert gated.run(VALUE) == gate.WORSE


def test_the_baseline_moves_when_it_is_asked_to(gated):
    assert gated.run(0.39, "--move") == 0
    assert gated.run(0.39) == 0
    text = (gated.folder / "baseline.json").read_text(encoding="utf-8")
    assert "Likes it" not in text
    assert "baseline.json" in {path.name for path in gated.folder.iterdir()}


def test_the_gate_says_when_the_data_cannot_be_fetched(gated, monkeypatch, capsys):
    def refuse(*_given: object) -> None:
        raise DownloadError("pip could not download it: no index.")

    monkeypatch.setattr(api.evaluating, "opened", refuse)
    assert gated.run(VALUE) == gate.NOT_RUN
    assert "MovieLens-100K" in capsys.readouterr().err


def test_the_language_models_figures_are_left_out_without_that_model(gated, capsys):
    of_llm = report.read(gated.folder / "baseline.json").model_copy(update={"model": "m", "weights_hash": "0" * 64})
    report.write(of_llm, gated.folder / "llm.json")
    assert gated.run(VALUE) == 0
    assert "llm: left out" in capsys.readouterr().out
    assert gated.run(0.39, "--only", "llm") == 0
