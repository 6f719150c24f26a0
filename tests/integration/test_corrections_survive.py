"""What users have corrected stays so through every later summary, whatever happens to their log and whoever writes."""

import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from agent import archive
from agent.check import check_profiles
from agent.contract import Claim, Profile
from agent.corrections import is_about
from agent.diff import diff
from agent.errors import CheckError
from api.correcting import correct
from recommend import corrections as serving
from store import corrections, profiles
from store.database import Database
from store.errors import ConflictError
from store.tables import CorrectionRow, UserRow
from tests.scripted_llm import Reply, Request, ScriptedLLM, honest, saying
from tests.small_world import NOW, RATERS, SHOPPER, START, event, fill, items, profiler, wrote

Write = Callable[[], None]
LATER = START + timedelta(days=60)
MYSTERY = "Detective and mystery, partly 1990s"
OWN = '<b>What</b> I read on trains [1]; "always" & 100%'
OWN_NAME = "Train reading [2]"
CLAIM_WORDS = {"m": "mystery", "k": "cooking", "t": "tents", "h": "horror"}


def read(database: Database, user_id: str = "ann", version: int | None = None) -> Profile:
    with database.session() as session:
        return archive.from_rows(profiles.load(session, user_id, version))


def live(database: Database, user_id: str = "ann") -> list[CorrectionRow]:
    with database.session() as session:
        return corrections.live(session, user_id)


def said(database: Database, claim: str, action: corrections.Action, user_id: str = "ann", **words: Any) -> int:
    with database.session() as session:
        return correct(session, user_id, claim, action, **words)


def add(database: Database, name: str, user_id: str = "ann", kind: corrections.Kind = "interest", **more: Any) -> int:
    with database.session() as session:
        return corrections.add(session, user_id, "add", kind, name, NOW, **more)


def undo(database: Database, number: int, user_id: str = "ann") -> None:
    with database.session() as session:
        corrections.undo(session, user_id, number, NOW)


def execute(database: Database, statement: str, **values: object) -> None:
    with database.session() as session:
        session.execute(text(statement), values)


def more_events(database: Database, group: str, user_id: str = "ann", first: int = 900, value: float = 5.0) -> None:
    """Rate every item of a group once more."""
    with database.session() as session:
        found = [row.item_id for row in items() if row.item_id[0] == group]
        session.add_all(
            event(user_id, first + n, "rating", item, LATER + timedelta(days=n), value=value)
            for n, item in enumerate(found)
        )
        session.get_one(UserRow, user_id).log_revision += 1


def turn_round(database: Database, user_id: str = "ann") -> None:
    """Let all that a user did have happened in the opposite order."""
    execute(
        database,
        "update events set ts = (select min(ts) + (max(ts) - events.ts) from events e where e.user_id = :user)"
        " where user_id = :user",
        user=user_id,
    )
    execute(database, "update users set log_revision = log_revision + 1 where user_id = :user", user=user_id)


def forget(database: Database, events: Sequence[str], user_id: str = "ann") -> None:
    execute(database, "delete from events where event_id = any(:ids)", ids=list(events))
    execute(database, "update users set log_revision = log_revision + 1 where user_id = :user", user=user_id)


def checked(database: Database, user_id: str = "ann") -> None:
    assert list(check_profiles(database, [user_id]))[-1].stale == 0


def about(profile: Profile, group: str) -> list[Claim]:
    return [c for c in profile.claims if CLAIM_WORDS[group] in f"{c.name} {c.statement}".lower()]


def otherwise(request: Request, n: int) -> Reply:
    """Word everything truthfully, but never as the template or the honest model do."""
    return saying(
        name=lambda r: "Some " + _traits(r), sentence=lambda r: f"{_verb(r)} what is {_traits(r)}."
    )(request, n)  # fmt: skip


def _traits(request: Request) -> str:
    line = next(x for x in reversed(request.task.splitlines()) if x.startswith("Traits:"))
    return line.removeprefix("Traits: mainly ").split(";")[0]


def _verb(request: Request) -> str:
    return "Stays away from" if "The person dislikes" in request.task else "Returns to"


@pytest.fixture
def world(database: Database) -> Database:
    """The small world, with everyone's first profile by the template."""
    fill(database)
    wrote(profiler(database))
    return database


@pytest.fixture(params=["template", "llm"])
def write(request: pytest.FixtureRequest, world: Database, scripted: ScriptedLLM) -> Write:
    """Writes ann's profile anew, by the template or by a model that has other words each time."""

    def go() -> None:
        url = scripted.url if request.param == "llm" else None
        scripted.reset(summary_apart(otherwise))
        report = wrote(profiler(world, url), ["ann"])
        assert (report.written, report.failed) == (["ann"], {})

    return go


def summary_apart(script: Callable[[Request, int], Reply]) -> Callable[[Request, int], Reply]:
    return lambda request, n: (honest if request.schema == "SummaryWords" else script)(request, n)


# Rejected.


def test_a_rejected_claim_stays_out(world: Database, write: Write) -> None:
    before = read(world)
    said(world, "i1", "reject")
    for change in (lambda: None, lambda: more_events(world, "m"), lambda: turn_round(world)):
        change()
        write()
        profile = read(world)
        assert about(profile, "m") == []
        assert "mystery" not in " ".join(s.text for s in profile.summary).lower()
        assert len(profile.claims) == len(before.claims) - 1
        checked(world)
    assert read(world, version=2).tags == before.tags


def test_a_rejected_claim_is_known_by_its_meaning_when_all_its_events_are_others(world: Database) -> None:
    said(world, "i1", "reject")
    forget(world, live(world)[0].evidence)
    more_events(world, "m")
    execute(world, "update items set attributes = '{}' where item_id like 'm%'")
    wrote(profiler(world), ["ann"])
    assert about(read(world), "m") == []
    undo(world, 1)
    wrote(profiler(world), ["ann"])
    assert [c.name for c in about(read(world), "m")] == ["Detective and mystery"]


def test_what_a_model_gives_a_rejected_name_stays_out(world: Database, scripted: ScriptedLLM) -> None:
    said(world, "i2", "reject")  # baking and cooking
    execute(world, "update corrections set name = 'Detective stories', evidence = '[]'")
    scripted.reset(lambda r, n: saying(name="Detective stories")(r, n) if "mystery" in r.task else honest(r, n))
    wrote(profiler(world, scripted.url), ["ann"])
    profile = read(world)
    assert (about(profile, "m"), len(about(profile, "k"))) == ([], 1)
    assert "detective" not in " ".join(s.text for s in profile.summary).lower()
    checked(world)


def test_a_rejected_dislike_leaves_the_interest_of_that_name(world: Database) -> None:
    said(world, "d1", "reject")
    for first in (900, 920):
        more_events(world, "h", first=first)
    wrote(profiler(world), ["ann"])
    assert [c.kind for c in about(read(world), "h")] == ["interest"]


def test_everyone_rejects_everything_once(world: Database) -> None:
    for user_id in (*RATERS, SHOPPER):
        for claim in read(world, user_id, 1).claims:
            number = said(world, claim.claim_id, "reject", user_id)
            wrote(profiler(world), [user_id])
            (row,) = live(world, user_id)
            now = read(world, user_id)
            same = [c for c in now.claims if is_about(row, c.kind, c.name, {e.event_id for e in c.evidence})]
            assert same == []
            assert {(c.kind, c.name) for c in now.claims} < {(c.kind, c.name) for c in read(world, user_id, 1).claims}
            checked(world, user_id)
            undo(world, number, user_id)
            wrote(profiler(world), [user_id])
            assert read(world, user_id).claims == read(world, user_id, 1).claims


# Pinned and rewritten.


def test_pinned_words_are_never_overwritten(world: Database, write: Write) -> None:
    pinned = read(world).claims[0]
    number = said(world, "i1", "pin")
    for change in (lambda: None, lambda: more_events(world, "m"), lambda: turn_round(world)):
        change()
        write()
        profile = read(world)
        (claim,) = [c for c in profile.claims if c.locked]
        assert (claim.name, claim.statement, claim.wording) == (pinned.name, pinned.statement, "template")
        assert (claim.origin, claim.correction_id) == ("model", number)
        assert len(about(profile, "m")) == 1
        assert len(profile.claims) == 3
        checked(world)
    assert len(claim.evidence) > len(pinned.evidence)
    assert claim.strength != pinned.strength


def test_rewritten_words_stay_as_the_user_wrote_them(world: Database, write: Write) -> None:
    number = said(world, "i1", "rewrite", new_name=OWN_NAME, new_statement=OWN)
    for change in (lambda: None, lambda: more_events(world, "m"), lambda: turn_round(world)):
        change()
        write()
        profile = read(world)
        (claim,) = [c for c in profile.claims if c.locked]
        assert (claim.name, claim.statement, claim.wording) == (OWN_NAME, OWN, "user")
        assert (claim.origin, claim.correction_id) == ("model", number)
        assert claim.evidence
        assert about(profile, "m") == []
        sentences = [s.text for s in profile.summary if claim.claim_id in s.claim_ids]
        assert any("rain reading [2]" in s for s in sentences)
        assert not any("mystery" in s for s in sentences)
        checked(world)


def test_the_model_is_not_asked_for_what_the_user_has_fixed(world: Database, scripted: ScriptedLLM) -> None:
    said(world, "i1", "rewrite", new_name=OWN_NAME, new_statement=OWN)
    said(world, "d1", "pin")
    wrote(profiler(world, scripted.url), ["ann"])
    asked = "\n".join(r.task for r in scripted.requests)
    assert [r.schema for r in scripted.requests].count("ThemesWords") == 1
    assert not any(words in asked for words in (OWN, OWN_NAME, "Ash Garden", "Detective and mystery"))
    assert [c.wording for c in read(world).claims] == ["user", "llm", "template"]


def test_the_latest_words_count(world: Database) -> None:
    said(world, "i1", "pin")
    first = said(world, "i1", "rewrite", new_name="Whodunits")
    wrote(profiler(world), ["ann"])
    assert [(c.name, c.correction_id) for c in read(world).claims if c.locked] == [("Whodunits", first)]
    second = said(world, "whodunits", "rewrite", new_statement="I like to guess.")
    wrote(profiler(world), ["ann"])
    (claim,) = [c for c in read(world).claims if c.locked]
    assert (claim.name, claim.statement) == ("Whodunits", "I like to guess.")
    undo(world, second)
    wrote(profiler(world), ["ann"])
    assert [(c.name, c.correction_id) for c in read(world).claims if c.locked] == [("Whodunits", first)]
    said(world, "Whodunits", "reject")
    wrote(profiler(world), ["ann"])
    assert [c for c in read(world).claims if c.locked] == []
    assert about(read(world), "m") == []
    checked(world)


def test_another_claim_does_not_take_a_name_of_the_users(world: Database, write: Write) -> None:
    taken = read(world).interests[1].name
    said(world, "i1", "rewrite", new_name=taken)
    write()
    names = [c.name.lower() for c in read(world).interests]
    assert len(set(names)) == len(names)
    assert [c.name for c in read(world).interests if c.locked] == [taken]


def test_a_pinned_claim_outlives_its_theme_and_then_its_events(world: Database, write: Write) -> None:
    said(world, "i1", "pin")
    pinned = read(world).claims[0]
    forget(world, [e.event_id for e in pinned.evidence[1:]])
    write()
    (claim,) = [c for c in read(world).claims if c.locked]
    assert (claim.name, claim.statement, claim.origin) == (pinned.name, pinned.statement, "model")
    assert [e.event_id for e in claim.evidence] == [pinned.evidence[0].event_id]
    assert 0 < claim.strength < pinned.strength
    assert claim.confidence < pinned.confidence
    checked(world)
    assert read(world).interests[-1] == claim
    forget(world, [pinned.evidence[0].event_id])
    write()
    (claim,) = [c for c in read(world).claims if c.locked]
    assert (claim.name, claim.origin, claim.evidence, claim.confidence) == (pinned.name, "user", (), 1.0)
    checked(world)


def test_a_pinned_intent_outlives_the_need(world: Database) -> None:
    (intent,) = read(world, SHOPPER).intents
    said(world, intent.claim_id, "pin", SHOPPER)
    with world.session() as session:
        session.add(event(SHOPPER, 200, "purchase", "t1", LATER + timedelta(days=30)))
        session.get_one(UserRow, SHOPPER).log_revision += 1
    wrote(profiler(world), [SHOPPER])
    (kept,) = read(world, SHOPPER).intents
    assert (kept.name, kept.goal, kept.stage) == (intent.name, intent.statement, "exploring")
    assert {e.event_id for e in kept.evidence} == {e.event_id for e in intent.evidence}
    checked(world, SHOPPER)


# Added.


def test_an_added_claim_is_in_the_profile_and_counts_once(world: Database, write: Write) -> None:
    number = add(world, "Tents <i>", statement="I sleep outdoors.")
    disliked = add(world, "Camp cooking", kind="dislike")
    for change in (lambda: None, lambda: more_events(world, "m"), lambda: turn_round(world)):
        change()
        write()
        profile = read(world)
        claim, other = (next(c for c in profile.claims if c.claim_id == f"+{n}") for n in (number, disliked))
        assert (claim.name, claim.statement, claim.origin) == ("Tents <i>", "I sleep outdoors.", "user")
        assert (claim.locked, claim.evidence, claim.correction_id) == (True, (), number)
        assert (other.kind, other.name, other.statement) == ("dislike", "Camp cooking", "Camp cooking")
        checked(world)
        served = serving.correct(live(world), profile.claims, [])
        assert [(a.claim_id, a.sign * a.strength) for a in served.added] == [
            (claim.claim_id, claim.strength), (other.claim_id, other.strength),
        ]  # fmt: skip
        assert {c.origin for c in served.claims} == {"model"}
    undo(world, number)
    assert [a.claim_id for a in serving.correct(live(world), read(world).claims, []).added] == [f"+{disliked}"]
    write()
    assert [c.claim_id for c in read(world).claims if c.origin == "user"] == [f"+{disliked}"]


def test_an_added_claim_is_no_claim_of_the_models_to_correct(world: Database) -> None:
    number = add(world, "Tents")
    wrote(profiler(world), ["ann"])
    with pytest.raises(ConflictError, match=rf"take correction {number} back \(`limner claim undo ann --id {number}`"):
        said(world, f"+{number}", "reject")
    assert len(live(world)) == 1


def test_with_nothing_but_added_claims(world: Database) -> None:
    for claim in read(world).claims:
        said(world, claim.claim_id, "reject")
    add(world, "Tents")
    wrote(profiler(world), ["ann"])
    profile = read(world)
    assert [(c.name, c.strength) for c in profile.claims] == [("Tents", 0.2)]
    assert profile.summary == ()
    checked(world)


# All of them.


def test_a_correction_makes_the_profile_be_written_anew_once(world: Database) -> None:
    said(world, "i1", "pin")
    assert wrote(profiler(world), ["ann", "bob"]).written == ["ann"]
    assert wrote(profiler(world), ["ann", "bob"]).unchanged == ["ann", "bob"]
    assert read(world).provenance.corrections_revision == 1


def test_a_correction_made_while_the_profile_is_being_written_is_not_lost(
    world: Database, scripted: ScriptedLLM
) -> None:
    def meanwhile(request: Request, n: int) -> Reply:
        if n == 0:
            said(world, "i1", "rewrite", new_name="Whodunits", new_statement="I like to guess.")
        return honest(request, n)

    scripted.reset(meanwhile)
    report = wrote(profiler(world, scripted.url), ["ann"])
    assert (report.written, report.failed) == (["ann"], {})
    assert [(c.name, c.statement) for c in read(world).claims if c.locked] == [("Whodunits", "I like to guess.")]
    assert read(world).version == 2
    checked(world)


def test_who_keeps_on_correcting_keeps_the_old_profile(world: Database, scripted: ScriptedLLM) -> None:
    scripted.reset(lambda r, n: (add(world, f"Claim {n}"), honest(r, n))[1])
    report = wrote(profiler(world, scripted.url), ["ann"])
    assert "has made corrections 3 times while the profile was being written" in report.failed["ann"]
    assert read(world).version == 1


def test_own_claims_are_compared_between_versions(world: Database) -> None:
    said(world, "i1", "pin")
    number = add(world, "Tents")
    wrote(profiler(world), ["ann"])
    moved = {c.after.claim_id: c.what for c in diff(read(world, version=1), read(world)) if c.after}
    assert moved == {"i1": ("fixed by the user",), f"+{number}": ("new",)}
    wrote(profiler(world, force=True), ["ann"])
    assert diff(read(world, version=2), read(world)) == []
    before = read(world)
    forget(world, [e.event_id for e in before.claims[0].evidence])
    wrote(profiler(world), ["ann"])
    moved = {c.after.name: c.what for c in diff(before, read(world)) if c.before and c.after}
    assert "origin model to user" in moved[MYSTERY]


LOCKED = "(select claim_pk from claims join profiles using (profile_id) where active and claim_id = 'i1')"
FAULTS = (
    ("update claims set name = 'Other' where claim_pk in @", "has not the words that the user has fixed"),
    ("update claims set statement = 'Other.' where claim_pk in @", "has not the words that the user has fixed"),
    ("update claims set strength = strength + .01 where claim_pk in @", "has the strength"),
    ("update claims set strength = strength + .01 where claim_id = '+2'", "but the usual one is"),
    ("delete from claims where claim_id = '+2'", "no claim follows correction 2"),
    ("update claims set details = '{}' where claim_id = '+2'", "cites no correction"),
    (
        "update corrections set action = 'reject', name = 'baking and cooking, partly 2010s' where correction_id = 2",
        "was rejected by the user",
    ),
)


def test_a_planted_fault_is_found(world: Database) -> None:
    said(world, "i1", "pin")
    add(world, "Tents")
    for fault, found in FAULTS:
        wrote(profiler(world, force=True), ["ann"])
        checked(world)
        execute(world, fault.replace("@", LOCKED))
        with pytest.raises(CheckError) as caught:
            list(check_profiles(world, ["ann"]))
        assert found in str(caught.value), fault


def test_corrections_that_came_later_leave_a_profile_stale(world: Database) -> None:
    said(world, "i1", "reject")
    assert list(check_profiles(world, ["ann"]))[-1].stale == 1


def test_rows_and_back(world: Database) -> None:
    said(world, "i1", "rewrite", new_name=OWN_NAME, new_statement=OWN)
    add(world, "Tents")
    wrote(profiler(world), ["ann"])
    profile = read(world)
    assert archive.from_rows(archive.to_rows(profile)) == profile
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


def test_in_chinese_names_are_compared_letter_by_letter(world: Database) -> None:
    wrote(profiler(world, language="zh"), ["ann"])
    said(world, "i1", "reject")
    forget(world, live(world)[0].evidence)
    more_events(world, "m")
    wrote(profiler(world, language="zh"), ["ann"])
    left = [c.name.lower() for c in read(world).interests]
    assert left
    assert not any("mystery" in name for name in left)


@pytest.mark.parametrize("seed", range(4))
def test_any_corrections_hold_and_undone_leave_no_trace(world: Database, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    users = sorted(RATERS)
    for step in range(4):
        for user_id in users:
            _correct_something(world, user_id, rng, step)
            if rng.random() < 0.5:
                more_events(world, rng.choice("mkth"), user_id, 900 + 20 * step, rng.choice([1.0, 5.0]))
        wrote(profiler(world), users)
        for user_id in users:
            _hold(read(world, user_id), live(world, user_id))
            checked(world, user_id)
    for user_id in users:
        for row in live(world, user_id):
            undo(world, row.correction_id or 0, user_id)
    wrote(profiler(world), users)
    with_corrections_undone = {user_id: read(world, user_id).claims for user_id in users}
    execute(world, "delete from corrections")
    wrote(profiler(world, force=True), users)
    assert {user_id: read(world, user_id).claims for user_id in users} == with_corrections_undone
    assert not any(c.locked for found in with_corrections_undone.values() for c in found)


def _correct_something(world: Database, user_id: str, rng: random.Random, step: int) -> None:
    claims = [c for c in read(world, user_id).claims if not c.claim_id.startswith("+")]
    action = rng.choice(["reject", "pin", "rewrite", "add", "undo"])
    try:
        if action == "add" or not claims:
            add(world, f"Likes thing {step}", user_id, rng.choice(["interest", "dislike"]))
        elif action == "undo":
            if rows := live(world, user_id):
                undo(world, rng.choice(rows).correction_id or 0, user_id)
        else:
            words = {"new_name": f"Own {step}", "new_statement": f"I say {step}."} if action == "rewrite" else {}
            said(world, rng.choice(claims).claim_id, action, user_id, **words)
    except ConflictError:
        pass  # the same correction is in force


def _hold(profile: Profile, rows: list[CorrectionRow]) -> None:
    rejects = [row for row in rows if row.action == "reject"]
    by_id = {row.correction_id: row for row in rows}
    for claim in profile.claims:
        row = by_id.get(claim.correction_id)
        if claim.locked:
            assert row is not None
            name, statement = row.new_name or row.name, row.new_statement or row.statement or row.name
            assert (claim.name, claim.statement) == (name, statement)
        else:
            evidence = {e.event_id for e in claim.evidence}
            assert not any(is_about(r, claim.kind, claim.name, evidence) for r in rejects)
    assert {row.correction_id for row in rows if row.action == "add"} == {
        c.correction_id for c in profile.claims if c.claim_id.startswith("+")
    }
    fixed = [row for row in rows if row.action in {"pin", "rewrite"}]
    if fixed and fixed[-1].correction_id == max(row.correction_id or 0 for row in rows):
        assert fixed[-1].correction_id in {c.correction_id for c in profile.claims} or any(
            r.name in {fixed[-1].name, fixed[-1].new_name} or set(r.evidence) & set(fixed[-1].evidence) for r in rejects
        )
