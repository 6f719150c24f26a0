"""The plan: who is written and why, before anything is; on a real database."""

import json
import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import typer
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text
from typer.testing import CliRunner

from agent.continuing import drift
from agent.drift import drifts
from agent.evidence import DEFAULT_TYPES, EvidenceSettings, total_weight
from agent.planning import Plan, Policy, Verdict, chosen, plan, verdicts, weighing_of
from api.commands import batch_plan
from store import since
from store.database import Database
from store.selection import Selection
from store.tables import UserRow
from tests.scripted_llm import MODEL, Script, ScriptedLLM, honest, malformed
from tests.small_world import CATEGORIES, EVERYONE, NOW, FakeEmbedder, event, fill, profiler, wrote

ALL = Selection(everyone=True)
LATER = NOW - timedelta(days=1)
WEIGHING = weighing_of(EvidenceSettings())


@pytest.fixture
def world(database: Database) -> Database:
    """Everyone, with the template's profiles."""
    fill(database)
    wrote(profiler(database))
    return database


def do(database: Database, query: str) -> Any:
    with database.session() as session:
        found = session.execute(text(query))
        return found.scalar() if found.returns_rows else None


def add(database: Database, user_id: str, items: Sequence[str | None], kind: str = "like") -> None:
    """Add events to a log, a minute apart."""
    with database.session() as session:
        for n, item in enumerate(items):
            session.add(event(user_id, 5_000 + n, kind, item, LATER + timedelta(minutes=n)))
        session.get_one(UserRow, user_id).log_revision += 1


def judged(database: Database, wanted: Selection = ALL, **policy: Any) -> dict[str, tuple[str | None, str | None]]:
    pages = verdicts(database, wanted, Policy(**policy), profiler(database).recipe, NOW)
    return {v.user_id: (v.reason, v.left) for page in pages for v in page}


def judged_one(database: Database, user_id: str = "ann", **policy: Any) -> str | None:
    """The one who is not as the others: why they are written, or left."""
    found = judged(database, **policy)
    assert {found[user] for user in found if user != user_id} == {(None, "unchanged")}
    reason, left = found[user_id]
    assert (reason is None) is (left is not None)
    return reason or left


def test_nothing_has_changed(world: Database) -> None:
    queries: list[str] = []
    sqlalchemy_event.listen(world.engine, "before_cursor_execute", lambda *a: queries.append(a[2]))
    assert judged(world) == dict.fromkeys(EVERYONE, (None, "unchanged"))
    assert list(chosen(world, ALL, Policy(), profiler(world).recipe, NOW)) == []


def test_there_is_no_profile(world: Database) -> None:
    do(world, "delete from profiles where user_id = 'ann'")
    assert judged_one(world) == "new"


def test_the_recipe_is_another(world: Database) -> None:
    recipe = profiler(world, evidence=EvidenceSettings(half_life_days=7)).recipe

    def found(policy: Policy) -> list[Verdict]:
        return [v for page in verdicts(world, ALL, policy, recipe, NOW) for v in page]

    assert {v.reason for v in found(Policy())} == {"recipe"}
    assert {v.left for v in found(Policy(on_recipe=False))} == {"recipe"}
    assert {v.reason for v in found(Policy(on_recipe=False, max_age_days=1e-9))} == {None}  # written just now
    do(world, "update profiles set created_at = created_at - interval '1 day'")
    assert {v.reason for v in found(Policy(on_recipe=False, max_age_days=0.5))} == {"age"}


def test_it_is_not_known_how_it_was_made(world: Database) -> None:
    do(world, "update profiles set key = null where user_id = 'ann'")
    assert judged_one(world) == "recipe"


def test_the_user_has_corrected_it_or_declared_something_else(world: Database) -> None:
    do(world, "update users set corrections_revision = 1 where user_id = 'ann'")
    assert judged_one(world) == "corrected"
    do(world, "update users set corrections_revision = 0, tz = 'Europe/Oslo' where user_id = 'ann'")
    assert judged_one(world) == "declared"


def test_an_item_has_changed(world: Database) -> None:
    do(world, "update items set title = 'Other' where item_id = 't8'")  # of bob, cid, dee and eli
    found = judged(world)
    assert {user for user, verdict in found.items() if verdict == (None, "items")} == {"bob", "cid", "dee", "eli"}
    assert judged(world, on_items=True)["bob"] == ("items", None)
    do(world, "update profiles set created_at = created_at - interval '100 days'")
    assert judged(world)["bob"] == ("age", None)
    assert judged(world)["ann"] == (None, "unchanged")  # as old, and nothing has changed


def test_much_new_evidence(world: Database) -> None:
    # Ann's log weighs 22.5: 4 times 1 and 4 times .5, then likewise 4 and 3 of the other group, 4 and 3 of what she
    # dislikes; and 15 views of .2.
    then = (4 + 2) + (4 + 1.5) + (4 + 1.5) + 15 * 0.2
    assert do(world, "select weight from profiles where user_id = 'ann'") == pytest.approx(then)
    add(world, "ann", ["m1", "m2", "t1", "t2"])  # 4 of 20
    assert judged_one(world, new_evidence=4 / then + 0.001) == "little new"
    assert judged_one(world, new_evidence=4 / then - 0.001) == "evidence"


def test_events_that_came_late_count_as_evidence(world: Database) -> None:
    add(world, "ann", ["m1"] * 10)
    do(world, "update events set ts = ts - interval '10 years' where event_id >= 'ann-5000' and event_id < 'ann-6'")
    assert judged_one(world) == "evidence"


def test_an_event_that_says_nothing_is_little_new(world: Database) -> None:
    add(world, "ann", ["m1"] * 50, kind="unheard of")
    assert judged_one(world) == "little new"


def test_age_counts_once_something_is_new(world: Database) -> None:
    add(world, "ann", ["m1"])
    assert judged_one(world) == "little new"
    do(world, "update profiles set created_at = created_at - interval '89 days'")
    assert judged_one(world) == "little new"
    do(world, "update profiles set created_at = created_at - interval '2 days'")
    assert judged_one(world) == "age"


def test_drift(world: Database) -> None:
    policy: dict[str, Any] = {"new_evidence": 9.0, "drift_events": 8}
    add(world, "ann", [f"t{n}" for n in range(1, 8)])  # tents are nothing to her yet
    assert judged_one(world, **policy) == "little new"  # seven of eight
    add_one = [f"t{n}" for n in (8, 1)]
    with world.session() as session:
        for n, item in enumerate(add_one):
            session.add(event("ann", 6_000 + n, "like", item, NOW + timedelta(minutes=n)))
    assert judged_one(world, **policy) == "drift"
    assert judged_one(world, **policy, max_drift=1.0) == "little new"
    assert judged(world, Selection(drifted=True), **policy) == {"ann": ("drift", None)}
    assert judged(world, Selection(drifted=True), max_drift=1.0) == {}
    assert judged(world, Selection(drifted=True, users=("bob",)), **policy) == {}


def test_the_same_tastes_are_no_drift(world: Database) -> None:
    add(world, "ann", [f"m{n}" for n in range(1, 9)] + [f"k{n}" for n in range(1, 8)])
    assert judged_one(world, new_evidence=9.0) == "little new"
    assert judged(world, Selection(drifted=True)) == {}


def drifted(database: Database, user_id: str = "ann") -> float:
    with database.session() as session:
        last = session.execute(
            text("select (log->>'last')::timestamptz from profiles where user_id = :u"), {"u": user_id}
        ).scalar_one()
    return drifts(database, {user_id: last}, FakeEmbedder.name, WEIGHING)[user_id]


def test_the_drift_by_hand(world: Database) -> None:
    with world.session() as session:
        rows = session.execute(
            text(
                "select claim_id, strength from claims join profiles using (profile_id)"
                " where user_id = 'ann' and kind = 'interest' order by strength desc"
            )
        ).all()
    shares: dict[str, float] = dict(map(tuple, rows))
    assert len(shares) == 2
    of_item = {"m": "", "k": ""}
    with world.session() as session:
        for group in of_item:
            of_item[group] = session.execute(
                text(
                    "select distinct claim_id from claims join profiles using (profile_id)"
                    " join evidence using (claim_pk) join events using (event_id)"
                    " where profiles.user_id = 'ann' and kind = 'interest' and not counter and item_id like :g"
                ),
                {"g": f"{group}%"},
            ).scalar_one()
    assert drifted(world) == 0.0
    # Three likes of mystery, one of cooking, two plays of a tent, one of them half: q = 3/4.75, 1/4.75, .75/4.75.
    add(world, "ann", ["m1", "m2", "m3", "k1", "t1"])
    do(world, "update events set type = 'play', value = 1 where event_id = 'ann-5004'")
    with world.session() as session:
        session.add(event("ann", 6_000, "play", "t2", NOW, value=0.5))
        session.add(event("ann", 6_001, "dislike", "m4", NOW))  # no like
        session.add(event("ann", 6_002, "search", None, NOW, text="tents"))  # of no item
    q = {of_item["m"]: 3 / 4.75, of_item["k"]: 1 / 4.75, "rest": 0.75 / 4.75}
    p = {**shares, "rest": 1 - sum(shares.values())}
    m = {key: (p[key] + q[key]) / 2 for key in p}
    kl = [sum(a[key] * math.log2(a[key] / m[key]) for key in p if a[key] > 0) for a in (p, q)]
    assert drifted(world) == pytest.approx(math.sqrt(sum(kl) / 2))
    assert drifted(world) == pytest.approx(drift(shares, {k: v for k, v in q.items() if k != "rest"}))


def test_an_item_that_is_like_those_of_an_interest_belongs_to_it(world: Database) -> None:
    with world.session() as session:
        session.execute(
            text("insert into items (item_id, title, categories) values ('n1', 'New', '{Mystery,Detective}')")
        )
    assert "mystery" in CATEGORIES
    add(world, "ann", ["n1"] * 5)
    unplaced = drifted(world)  # it has no vector yet
    profiler(world)  # embeds it
    assert drifted(world) < unplaced
    do(world, "update events set item_id = 'm1' where item_id = 'n1'")
    placed = drifted(world)
    do(world, "update events set item_id = 'n1' where event_id between 'ann-5000' and 'ann-5004'")
    assert drifted(world) == pytest.approx(placed)


def test_who_has_nothing_has_not_drifted(world: Database) -> None:
    do(world, "delete from claims")
    add(world, "ann", ["m1"])
    assert drifted(world) == 0.0
    assert drifts(world, {}, FakeEmbedder.name, WEIGHING) == {}


def test_sql_weighs_events_as_the_evidence_does(database: Database) -> None:
    fill(database, ["ann"])
    rng = np.random.default_rng(5)
    values = [None, math.nan, -3.0, 0.0, 0.4, 1.0, 2.5, 3.0, 4.0, 5.0, 9.0, math.inf]
    rows = [(str(rng.choice([*DEFAULT_TYPES, "unheard of"])), values[rng.integers(len(values))]) for _ in range(400)]
    with database.session() as session:
        session.execute(text("delete from events"))
        for n, (kind, value) in enumerate(rows):
            session.add(event("ann", n, kind, "m1", LATER, value=value))
    types, numbers = [kind for kind, _ in rows], [value for _, value in rows]
    for settings in (EvidenceSettings(), EvidenceSettings(neutral=2.0, best=4.5)):
        found = since.weighed(database, {"ann": NOW}, weighing_of(settings))["ann"]
        assert found.weight == pytest.approx(total_weight(types, numbers, settings))
        assert found.liked_since == 0


def test_the_plan_counts(world: Database) -> None:
    do(world, "delete from profiles where user_id = 'ann'")
    do(world, "update users set corrections_revision = 1 where user_id in ('bob', 'cid')")
    made = plan(world, ALL, Policy(), profiler(world).recipe, NOW)
    assert (made.selected, made.write, made.leave) == (6, {"corrected": 2, "new": 1}, {"unchanged": 3})
    assert made.estimate.profiles == 3
    listed = Selection(users=("ann", "dee", "nobody"))
    assert plan(world, listed, Policy(), profiler(world).recipe, NOW).missing == 1
    pages = list(chosen(world, ALL, Policy(), profiler(world).recipe, NOW))
    assert pages == [["ann", "bob", "cid"]]
    assert sorted(wrote(profiler(world), pages[0]).written) == pages[0]
    assert plan(world, ALL, Policy(), profiler(world).recipe, NOW).leave == {"unchanged": 6}


def test_pages_change_nothing(world: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    add(world, "ann", ["t1"] * 12)
    do(world, "delete from profiles where user_id = 'eli'")
    whole = judged(world)
    looks = since.looks
    monkeypatch.setattr(since, "looks", lambda *given: looks(*given, size=1))
    assert judged(world) == whole
    assert judged(world, Selection(users=EVERYONE)) == whole


def test_the_estimate_rests_on_the_accounts_of_the_same_writer_and_model(world: Database) -> None:
    recipe = profiler(world).recipe
    assert len(since.accounts(world, recipe.writer, recipe.model)) == len(EVERYONE)
    assert since.accounts(world, "llm", "another") == []
    first = since.accounts(world, "template", None)[0]
    assert (first.again, first.tokens_in, first.calls) == (False, 0, 0)
    wrote(profiler(world, force=True))
    assert sum(account.again for account in since.accounts(world, "template", None)) == len(EVERYONE)


def test_what_failed_attempts_have_cost_counts_for_the_profile_after_them(
    database: Database, scripted: ScriptedLLM
) -> None:
    fill(database, ["ann"])

    def spent() -> list[tuple[int, int, int]]:
        query = (
            "select sum(tokens_in)::int, sum(tokens_out)::int, count(*) from llm_calls group by attempt_id order by 1"
        )
        with database.session() as session:
            return [tuple(row) for row in session.execute(text(query))]

    def write(script: Script) -> None:
        scripted.reset(script)
        wrote(profiler(database, scripted.url, force=True), ["ann"])

    def accounted() -> list[tuple[int, int, int]]:
        found = since.accounts(database, "llm", MODEL)
        return [(account.tokens_in, account.tokens_out, account.calls) for account in found]

    for script in (malformed, malformed, honest):
        write(script)
    before = spent()
    assert len(before) == 3
    whole = tuple(map(sum, zip(*before, strict=True)))
    assert accounted() == [whole]
    write(honest)
    again = tuple(now - then for now, then in zip(map(sum, zip(*spent(), strict=True)), whole, strict=True))
    assert sorted(accounted()) == sorted([whole, again])


def command_line(monkeypatch: pytest.MonkeyPatch, database: Database, *options: str) -> Any:
    monkeypatch.setenv("LIMNER_DATABASE_URL", database.url)
    app = typer.Typer()
    app.command()(batch_plan.command)
    found = CliRunner().invoke(app, options)
    assert found.exit_code == 0, found.output
    return found.stdout


def test_the_command(world: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("LIMNER_HOME", str(tmp_path))
    monkeypatch.setenv("LIMNER_LLM__BASE_URL", "http://nowhere:1/v1")
    monkeypatch.setenv("LIMNER_BATCH__PRICE_IN", "1")
    made = Plan.model_validate_json(command_line(monkeypatch, world, "--all", "--json"))
    assert made.write == {"recipe": 6}
    assert made.estimate.cost is not None
    assert json.loads(command_line(monkeypatch, world, "--user", "ann", "--json"))["selected"] == 1
    said = command_line(monkeypatch, world, "--all")
    assert "prompt, model or settings are others" in said
    assert "Cost:" in said
    assert "measured" in said
    monkeypatch.setenv("LIMNER_BATCH__ON_RECIPE", "false")
    monkeypatch.setenv("LIMNER_BATCH__MAX_AGE_DAYS", "1e6")
    said = command_line(monkeypatch, world, "--all", "--writer", "template")
    assert "the policy waits" in said
    assert "Cost:" not in said
    assert "is selected" in command_line(monkeypatch, world, "--where", "no=one")
    listed = tmp_path / "users.txt"
    listed.write_text("ann\n\nnobody\n")
    assert "1 of the listed users" in command_line(monkeypatch, world, "--users-file", str(listed))
