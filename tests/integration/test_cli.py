"""What the command line says when it is used wrongly: a sentence that says what to do, an exit code, no traceback."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import api.runtime
from api.cli import main
from store.database import Database
from tests.command_line import ROOT, Ended
from tests.small_world import FakeEmbedder, fill, profiler, wrote

Limner = Callable[..., Ended]
NOBODY_THERE = "postgresql://nobody:secret-word@127.0.0.1:9/none"


@pytest.fixture
def limner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Limner:
    """The command in this process, in an empty data directory; settings are keywords."""

    def run(*args: str, **settings: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["limner", *args])
        for name, value in settings.items():
            monkeypatch.setenv(f"LIMNER_{name}", value)
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        return Ended(int(caught.value.code or 0), said.out, said.err)

    monkeypatch.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
    monkeypatch.setenv("LIMNER_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture
def world(database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database with ann, who has a profile."""
    monkeypatch.setenv("LIMNER_DATABASE_URL", database_url)
    fill(database, ["ann"])
    wrote(profiler(database), ["ann"])
    return database


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (
            ["profile", "write", "--user", "nobody", "--writer", "template"],
            1,
            "No user nobody with consent in the store",
        ),
        (
            ["profile", "write", "--user", "ann", "--user", "nobody", "--limit", "9", "--writer", "template"],
            1,
            "No user nobody",
        ),
        (["profile", "show", "nobody"], 1, "User nobody has no profile. Write one with"),
        (["profile", "show", "ann", "--version", "7"], 1, "User ann has no version 7 of a profile"),
        (["profile", "diff", "ann", "1", "9"], 1, "User ann has no version 9 of a profile"),
        (["profile", "check", "--user", "nobody"], 1, "User nobody has no profile"),
        (["profile", "write"], 2, "say whose: --user ID, --limit N or --all"),
        (["profile", "check"], 2, "say whose: --user ID or --all"),
        (["profile", "write", "--all", "--writer", "parrot"], 2, "'parrot' is not one of"),
        (["profile", "write", "--limit", "0"], 2, "Invalid value for '--limit'"),
        (["profile", "diff", "ann", "one", "two"], 2, "Invalid value for 'v1'"),
        (["profile", "paint", "ann"], 2, "No such command 'paint'"),
        (["ingest", "events", "missing.csv"], 2, "'missing.csv' does not exist"),
        (["ingest", "feelings", "missing.csv"], 2, "'feelings' is not one of"),
        (["model", "pull", "no-such-model"], 1, "no-such-model"),
        (["data", "fetch", "no-such-data"], 2, "'no-such-data' is not"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_arguments(world: Database, limner: Limner, args: list[str], code: int, said: str) -> None:
    result = limner(*args)
    assert result.code == code
    assert said in result.err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"LANGUAGE": "tlh"}, "LIMNER_LANGUAGE is wrong: Input should be 'en' or 'zh'"),
        ({"LLM__TIMEOUT_S": "-1"}, "LIMNER_LLM__TIMEOUT_S is wrong"),
        ({"LLM__TIMEOUT_S": "soon"}, "LIMNER_LLM__TIMEOUT_S is wrong"),
        ({"LLM__MODLE": "x"}, "LIMNER_LLM__MODLE is wrong"),
        ({"LLM": "{not json"}, "LIMNER_LLM is no JSON"),
        ({"EVENT_TYPES": "{}}"}, "LIMNER_EVENT_TYPES is no JSON"),
        ({"EVIDENCE": '{"half_life_days": 0}'}, "LIMNER_EVIDENCE__HALF_LIFE_DAYS is wrong"),
        ({"EVIDENCE__HALF_LIFE": "9"}, "LIMNER_EVIDENCE__HALF_LIFE is wrong"),
        ({"EVENT_TYPES": '{"hug": {"weight": "heavy"}}'}, "LIMNER_EVENT_TYPES__HUG__WEIGHT is wrong"),
    ],
    ids=str,
)
def test_a_wrong_setting(limner: Limner, settings: dict[str, str], said: str) -> None:
    result = limner("db", "status", **settings)
    assert result.code == 1
    assert said in result.err


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("language = 'tlh'", "LIMNER_LANGUAGE is wrong"),
        ("no_such = 1", "LIMNER_NO_SUCH is wrong"),
        ("[[[", "limner.toml"),
    ],
)
def test_a_wrong_settings_file(limner: Limner, tmp_path: Path, toml: str, said: str) -> None:
    (tmp_path / "limner.toml").write_text(toml)
    result = limner("db", "status")
    assert result.code == 1
    assert said in result.err


@pytest.mark.parametrize("args", [["profile", "show", "ann"], ["db", "status"], ["db", "upgrade"]])
def test_no_database(limner: Limner, args: list[str]) -> None:
    result = limner(*args, DATABASE_URL=NOBODY_THERE)
    assert result.code == 1
    assert "cannot be reached" in result.err
    assert "LIMNER_DATABASE_URL" in result.err
    assert "secret-word" not in result.err


@pytest.mark.parametrize(
    ("url", "said"), [("mysql://a:b@c/d", "only PostgreSQL will do"), ("somewhere", "is not a URL")]
)
def test_a_url_of_something_else(limner: Limner, url: str, said: str) -> None:
    result = limner("db", "status", DATABASE_URL=url)
    assert (result.code, said in result.err) == (1, True)


def test_an_empty_database(limner: Limner, empty_url: str) -> None:
    result = limner("db", "status", DATABASE_URL=empty_url)
    assert result.code == 1
    assert "revision none" in result.out
    assert "Run `limner db upgrade`." in result.out
    result = limner("profile", "show", "ann")
    assert result.code == 1
    assert "The database is empty. Run `limner db upgrade`." in result.err
    assert limner("db", "upgrade").code == 0
    assert limner("db", "status").code == 0
    result = limner("profile", "write", "--all", "--writer", "template")
    assert result.code == 1
    assert "Ingest a log first" in result.out


def test_doctor_on_an_empty_home_says_what_is_next(limner: Limner, empty_url: str) -> None:
    result = limner("doctor", DATABASE_URL=empty_url)
    assert result.code == 1
    for step in ("limner db upgrade", "limner model pull all-minilm-l6-v2", "limner model pull limner-135m"):
        assert f"next: {step}" in result.out
    assert "limner-135m cannot answer free questions" in result.out
    assert "LIMNER_LLM__ASK__MODEL=qwen2.5-coder-1.5b" in result.out.replace("\n", "")
    large = limner("doctor", DATABASE_URL=empty_url, LLM__MODEL="qwen2.5-coder-1.5b")
    assert "cannot answer" not in large.out
    asking = limner("doctor", DATABASE_URL=empty_url, LLM__ASK__MODEL="qwen2.5-coder-1.5b")
    assert "cannot answer" not in asking.out
    assert "next: limner model pull qwen2.5-coder-1.5b" in asking.out


def test_doctor_says_what_embedder_a_language_needs(limner: Limner, empty_url: str) -> None:
    result = limner("doctor", DATABASE_URL=empty_url, LANGUAGE="zh")
    assert "does not read the language" in result.out
    assert "LIMNER_EMBEDDER__MODEL=use-multilingual-v3" in result.out.replace("\n", "")
    there = limner("doctor", DATABASE_URL=empty_url, LANGUAGE="zh", EMBEDDER__MODEL="use-multilingual-v3")
    assert "does not read" not in there.out


def test_doctor_says_where_the_server_is_not(limner: Limner, world: Database) -> None:
    result = limner("doctor", LLM__BASE_URL="http://127.0.0.1:9/v1")
    assert result.code == 1
    assert "1 users, 30 items" in result.out
    assert "next: start the server, or mend LIMNER_LLM__BASE_URL" in result.out


def test_an_unknown_model(limner: Limner, world: Database) -> None:
    result = limner("profile", "write", "--user", "ann", LLM__MODEL="no-such-model")
    assert result.code == 1
    assert "There is no model 'no-such-model'. The catalogue has limner-135m, qwen2.5-coder-1.5b" in result.err


def test_a_file_of_something_else(limner: Limner, world: Database, tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("colour,shape\nred,round\n")
    result = limner("ingest", "events", str(tmp_path / "events.csv"))
    assert result.code == 1
    assert "--map" in result.err


# And when it is used rightly.


def test_a_profile_from_files_to_paper(
    database: Database, database_url: str, limner: Limner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LIMNER_DATABASE_URL", database_url)
    (tmp_path / "items.csv").write_text(
        "item_id,title,categories\n" + "".join(f"x{n},Plot {n},Gardening\n" for n in range(5))
    )
    (tmp_path / "events.csv").write_text(
        "user_id,item_id,type,ts\n" + "".join(f"fay,x{n},like,2025-03-0{n + 1}T10:00:00Z\n" for n in range(5))
    )
    for kind in ("items", "events"):
        result = limner("ingest", kind, str(tmp_path / f"{kind}.csv"))
        assert (result.code, f"{kind}: 5 rows read, 5 stored" in result.out) == (0, True)
    result = limner("profile", "write", "--all", "--writer", "template")
    assert (result.code, "1 profiles written (1 claims), 0 unchanged, 0 failed" in result.out) == (0, True)
    result = limner("profile", "write", "--all", "--writer", "template")
    assert "0 profiles written (0 claims), 1 unchanged, 0 failed" in result.out
    result = limner("profile", "show", "fay")
    assert "Portrait of user fay, version 1, 5 events from 1 Mar 2025 to 5 Mar 2025" in result.out
    assert "Gardening" in result.out
    assert json.loads(limner("profile", "show", "fay", "--json").out)["interests"][0]["strength"] == 1.0
    result = limner("profile", "check", "--all")
    assert (result.code, "1 profiles, 1 claims: all follow" in result.out) == (0, True)
    assert limner("profile", "write", "--user", "fay", "--force", "--writer", "template").code == 0
    assert "Nothing changed." in limner("profile", "diff", "fay", "1", "2").out
    history = limner("profile", "history", "fay").out
    assert [line.split()[0] for line in history.splitlines()[1:]] == ["1", "2"]
    assert "has no profile" in limner("profile", "history", "nobody").out


def test_check_fails_on_a_profile_that_is_wrong(limner: Limner, world: Database) -> None:
    with world.session() as session:
        session.connection().exec_driver_sql("update claims set confidence = 0.99")
    result = limner("profile", "check", "--all")
    assert result.code == 1
    assert "user ann, version 1: claim i1" in result.err
    assert "has the confidence 0.99, but its events give" in result.err


def test_ann_fails_and_the_command_with_her(limner: Limner, world: Database) -> None:
    with world.session() as session:
        session.connection().exec_driver_sql("delete from evidence; delete from events")
    result = limner("profile", "write", "--all", "--writer", "template", "--force")
    assert result.code == 1
    assert "user ann: User ann has no events" in result.err
    assert "failed" in limner("profile", "history", "ann").out


def test_a_command_imports_no_other() -> None:
    program = """
import sys
from api.cli import app
app(["batch", "run", "--help"], standalone_mode=False)
print(*sorted({"fastapi", "irspack", "langchain_openai", "polars", "sklearn", "torch"} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "users" in found.stdout
    assert found.stdout.splitlines()[-1] == ""
