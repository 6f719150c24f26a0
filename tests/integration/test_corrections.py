"""Corrections on a real database, and the command that makes them."""

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text

import api.runtime
from agent import archive
from agent.contract import Claim
from api.cli import main
from api.settings import Settings
from recommend.corrections import correct
from recommend.errors import NoModelError
from store import corrections, logs, profiles
from store.database import Database
from store.errors import ConflictError, NotFoundError
from store.tables import CorrectionRow, UserRow
from tests.command_line import Ended
from tests.counting_recommender import CountingRecommender
from tests.small_world import NOW, fill, profiler, wrote

Limner = Callable[..., Ended]
MYSTERY = "Detective and mystery, partly 1990s"


@pytest.fixture
def filled(database: Database) -> Database:
    """The small world with ann and bob."""
    fill(database, ["ann", "bob"])
    return database


@pytest.fixture
def world(filled: Database) -> Database:
    """The same, where ann has a profile."""
    wrote(profiler(filled), ["ann"])
    return filled


def add(database: Database, user_id: str = "ann", action: corrections.Action = "reject", name: str = "Tents") -> int:
    with database.session() as session:
        return corrections.add(session, user_id, action, "interest", name, NOW, evidence=["ann-0000"], rho=0.0)


def live(database: Database, user_id: str = "ann") -> list[CorrectionRow]:
    with database.session() as session:
        return corrections.live(session, user_id)


def revision(database: Database, user_id: str = "ann") -> int:
    with database.session() as session:
        return session.get_one(UserRow, user_id).corrections_revision


def claims(database: Database, user_id: str = "ann") -> tuple[Claim, ...]:
    with database.session() as session:
        return archive.from_rows(profiles.load(session, user_id)).claims


def event_ids(database: Database, user_id: str = "ann") -> list[str]:
    with database.session() as session:
        return [e.event_id for e in logs.read_logs(session, [user_id])[0].events]


def test_what_is_stored_comes_back(filled: Database) -> None:
    with filled.session() as session:
        first = corrections.add(
            session, "ann", "less", "dislike", "Horror", NOW,
            statement="Dislikes horror.", claim_id="d1", evidence=["ann-0030", "ann-0031"], rho=0.3,
        )  # fmt: skip
        second = corrections.add(session, "ann", "add", "interest", "Tents", NOW, weight=2.5)
    rows = live(filled)
    assert [row.model_dump() for row in rows] == [
        {
            "correction_id": first, "user_id": "ann", "created_at": NOW, "action": "less", "name": "Horror",
            "statement": "Dislikes horror.", "kind": "dislike", "claim_id": "d1",
            "evidence": ["ann-0030", "ann-0031"], "rho": 0.3, "weight": None, "undone_at": None, "new_name": None,
            "new_statement": None,
        },
        {
            "correction_id": second, "user_id": "ann", "created_at": NOW, "action": "add", "name": "Tents",
            "statement": None, "kind": "interest", "claim_id": None, "evidence": [], "rho": None, "weight": 2.5,
            "undone_at": None, "new_name": None, "new_statement": None,
        },
    ]  # fmt: skip
    assert live(filled, "bob") == []
    assert (revision(filled), revision(filled, "bob")) == (2, 0)


def test_undone_by_id_or_the_latest_first(filled: Database) -> None:
    first, second, third = (add(filled, name=name) for name in ("One", "Two", "Three"))
    later = NOW + timedelta(hours=1)
    with filled.session() as session:
        assert corrections.undo(session, "ann", second, later).undone_at == later
    assert [row.correction_id for row in live(filled)] == [first, third]
    for expected in (third, first):
        with filled.session() as session:
            assert corrections.undo_last(session, "ann", later).correction_id == expected
    assert (live(filled), revision(filled)) == ([], 6)
    with pytest.raises(NotFoundError, match="nothing to undo"), filled.session() as session:
        corrections.undo_last(session, "ann", later)
    with pytest.raises(ConflictError, match="taken back before"), filled.session() as session:
        corrections.undo(session, "ann", second, later)
    assert revision(filled) == 6


def test_the_same_correction_is_refused_until_it_is_taken_back(filled: Database) -> None:
    number = add(filled)
    with pytest.raises(ConflictError, match=f"limner claim undo ann --id {number}"):
        add(filled, name="TENTS")
    assert revision(filled) == 1
    add(filled, action="less")
    with filled.session() as session:
        corrections.undo(session, "ann", number, NOW)
    assert add(filled) > number


def test_nobody_undoes_what_another_user_has_corrected(filled: Database) -> None:
    number = add(filled)
    with pytest.raises(NotFoundError, match=f"User bob has no correction {number}"), filled.session() as session:
        corrections.undo(session, "bob", number, NOW)
    with pytest.raises(NotFoundError, match="has no correction 999"), filled.session() as session:
        corrections.undo(session, "ann", 999, NOW)
    assert len(live(filled)) == 1


def test_an_unknown_user(filled: Database) -> None:
    with pytest.raises(NotFoundError, match="No user nobody in the store"):
        add(filled, "nobody")
    with pytest.raises(NotFoundError, match="No user nobody in the store"):
        live(filled, "nobody")
    for undo in (lambda s: corrections.undo(s, "nobody", 1, NOW), lambda s: corrections.undo_last(s, "nobody", NOW)):
        with pytest.raises(NotFoundError, match="No user nobody in the store"), filled.session() as session:
            undo(session)


def test_a_user_without_consent(filled: Database) -> None:
    number = add(filled)
    with filled.session() as session:
        session.get_one(UserRow, "ann").consent = False
    with pytest.raises(ConflictError, match="does not consent"):
        add(filled, name="Other")
    with pytest.raises(ConflictError, match="does not consent"), filled.session() as session:
        corrections.undo(session, "ann", number, NOW)
    with pytest.raises(NotFoundError, match="does not consent"):
        live(filled)
    assert revision(filled) == 1


@pytest.mark.parametrize("wrong", [{"rho": -0.1}, {"rho": 1.1}, {"rho": float("nan")}, {"weight": 0.0}], ids=str)
def test_numbers_out_of_range(filled: Database, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))), filled.session() as session:
        corrections.add(session, "ann", "less", "interest", "Tents", NOW, **wrong)


def test_the_revision_goes_back_with_the_transaction(filled: Database) -> None:
    def fail() -> None:
        with filled.session() as session:
            corrections.add(session, "ann", "add", "interest", "Tents", NOW)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (live(filled), revision(filled)) == ([], 0)


def test_corrections_made_at_once_are_all_counted(filled: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda n: add(filled, name=f"Claim {n}"), range(8)))
    assert sorted(numbers) == [row.correction_id for row in live(filled)]
    assert revision(filled) == 8


def test_they_go_with_the_user(filled: Database) -> None:
    add(filled)
    with filled.session() as session:
        session.execute(text("delete from users where user_id = 'ann'"))
        assert session.scalar(text("select count(*) from corrections")) == 0


# The command.


@pytest.fixture
def limner(
    world: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Limner:
    """The command in this process, with a recommender that counts."""

    def run(*args: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["limner", "claim", *args])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        return Ended(int(caught.value.code or 0), said.out, said.err)

    @contextmanager
    def recommender(_settings: Settings, opened: Database) -> Iterator[CountingRecommender]:
        yield CountingRecommender(opened)

    monkeypatch.setattr(api.runtime, "recommender", recommender, raising=False)
    monkeypatch.setattr(api.runtime, "now", lambda: NOW)
    monkeypatch.setenv("LIMNER_DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")
    return run


@contextmanager
def untrained(_settings: Settings, _opened: Database) -> Iterator[CountingRecommender]:
    """As there is before the first training."""
    raise NoModelError("There is no model yet. Train one with `limner train`.")
    yield


@contextmanager
def by_popularity(_settings: Settings, opened: Database) -> Iterator[CountingRecommender]:
    """The same, where what many like stands in for a model."""
    yield CountingRecommender(opened, model_id=None)


def test_reject_shows_the_change_and_undo_brings_everything_back(world: Database, limner: Limner) -> None:
    plain = CountingRecommender(world).top("ann", 10)
    assert {item.item_id[0] for item in plain.items} == {"k", "m"}
    done = json.loads(limner("reject", "ann", "i1", "--json").out)
    assert (done["correction"]["name"], done["correction"]["claim_id"], done["note"]) == (MYSTERY, "i1", None)
    assert {c["item_id"][0] for c in done["changes"] if c["after"] is None} == {"m"}
    evidence = {e.event_id for e in claims(world)[0].evidence}
    assert set(live(world)[0].evidence) == evidence
    assert set(correct(live(world), claims(world), event_ids(world)).scale) == evidence
    assert CountingRecommender(world).top("ann", 10) != plain
    undone = limner("undo", "ann")
    assert f"Taken back: reject {MYSTERY}" in undone.out
    assert "The Ash Garden" in undone.out
    assert CountingRecommender(world).top("ann", 10) == plain
    assert correct(live(world), claims(world), event_ids(world)) == correct([], claims(world), event_ids(world))


def test_what_a_person_reads(limner: Limner) -> None:
    said = limner("reject", "ann", MYSTERY.upper()).out
    assert f"Rejected: {MYSTERY} (correction 1; `limner claim undo ann` takes it back)" in said
    assert ["-", "8", "The Ash Garden"] in [line.strip().split(maxsplit=2) for line in said.splitlines()]
    assert "The top 10 stays as it was." in limner("less", "ann", "Horror and monsters, partly 1980s").out
    assert "has no effect on recommendations." in limner("pin", "ann", "i2").out
    listed = [line.split() for line in limner("list", "ann").out.splitlines()]
    assert [(line[0], line[3], line[4], line[-1]) for line in listed[1:]] == [
        ("1", "reject", "interest", "1990s"),
        ("2", "less", "dislike", "0.3"),
        ("3", "pin", "interest", "2010s"),
    ]
    assert "has no correction in force" in limner("list", "bob").out
    assert [row["action"] for row in json.loads(limner("list", "ann", "--json").out)["corrections"]] == [
        "reject", "less", "pin",
    ]  # fmt: skip


def test_add_raises_and_add_dislike_does_not(world: Database, limner: Limner) -> None:
    done = json.loads(limner("add", "ann", " Camping ", "--weight", "80", "--json").out)
    assert {c["item_id"][0] for c in done["changes"] if c["before"] is None} == {"t"}
    assert limner("undo", "ann", "--id", str(done["correction"]["correction_id"])).code == 0
    assert json.loads(limner("add", "ann", "Baking", "--dislike", "--json").out)["correction"]["kind"] == "dislike"
    (row,) = live(world)
    assert (row.name, row.kind, row.weight, row.evidence) == ("Baking", "dislike", 5.0, [])


def test_a_rejection_holds_when_the_profile_is_written_anew(world: Database, limner: Limner) -> None:
    limner("reject", "ann", "i1")
    (row,) = live(world)
    with world.session() as session:
        session.execute(text("update items set categories = '{Camping}' where item_id like 'm%'"))
    wrote(profiler(world, force=True), ["ann"])
    assert not [c for c in claims(world) if "amping" in c.name]
    assert correct(live(world), claims(world), event_ids(world)).scale == dict.fromkeys(row.evidence, 0.0)


@pytest.mark.parametrize("recommender", [untrained, by_popularity])
def test_without_a_model_the_correction_is_stored(
    world: Database, limner: Limner, monkeypatch: pytest.MonkeyPatch, recommender: object
) -> None:
    monkeypatch.setattr(api.runtime, "recommender", recommender, raising=False)
    result = limner("reject", "ann", "i1")
    assert result.code == 0
    assert "cannot be shown: there is no model yet. train one with `limner train`." in result.out.lower()
    assert [row.name for row in live(world)] == [MYSTERY]
    done = json.loads(limner("undo", "ann", "--json").out)
    assert (done["changes"], "no model" in done["note"], live(world)) == (None, True, [])


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["reject", "ann", "Jazz"], 1, f"The profile has no claim 'Jazz'. It has: i1 ({MYSTERY})"),
        (["pin", "nobody", "i1"], 1, "No user nobody in the store"),
        (["less", "ann", "i1", "--rho", "2"], 2, "Invalid value for '--rho'"),
        (["rewrite", "ann", "i1"], 2, "say what to change: --name, --statement or both"),
        (["rewrite", "ann", "i1", "--name", "a\x1bb"], 2, "--name must have no control characters"),
        (["rewrite", "ann", "i1", "--statement", "x" * 601], 2, "--statement must have 1 to 600 characters"),
        (["rewrite", "ann", "i9", "--name", "Jazz"], 1, "The profile has no claim 'i9'"),
        (["add", "ann", "  "], 2, "TEXT must have 1 to 600 characters"),
        (["undo", "ann"], 1, "User ann has no correction in force"),
        (["undo", "ann", "--id", "7"], 1, "User ann has no correction 7"),
        (["list", "nobody"], 1, "No user nobody in the store"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_arguments(world: Database, limner: Limner, args: list[str], code: int, said: str) -> None:
    result = limner(*args)
    assert (result.code, said in result.err) == (code, True)
    assert live(world) == []


def test_the_same_twice(limner: Limner) -> None:
    assert limner("reject", "ann", "i1").code == 0
    result = limner("reject", "ann", "i1")
    assert (result.code, "made this correction already" in result.err) == (1, True)
