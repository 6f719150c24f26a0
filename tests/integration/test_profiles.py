"""Profiles of a small world by the template: written, checked, kept up to date, compared, and put together again."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from agent import archive
from agent.check import check_profiles
from agent.contract import Profile
from agent.diff import diff
from agent.errors import CheckError
from agent.evidence import EvidenceSettings
from agent.profiling import Report
from store import logs, profiles
from store.database import Database
from store.errors import ConflictError, NotFoundError
from store.tables import EventRow, UserRow
from tests.scripted_llm import ScriptedLLM
from tests.small_world import EVERYONE, NOW, RATERS, SHOPPER, START, event, fill, profiler, shopping, wrote


def write(database: Database, users: Sequence[str] = EVERYONE, **settings: Any) -> Report:
    return wrote(profiler(database, **settings), users)


def read(database: Database, user_id: str, version: int | None = None) -> Profile:
    with database.session() as session:
        return archive.from_rows(profiles.load(session, user_id, version))


def execute(database: Database, statement: str, **values: object) -> int:
    with database.session() as session:
        return int(session.execute(text(statement), values).rowcount)  # type: ignore[attr-defined]


def claim_vectors(database: Database) -> int:
    with database.session() as session:
        return int(session.scalar(text("select count(*) from embeddings where kind = 'claim'")) or 0)


def add_user(database: Database, user_id: str, events: Sequence[EventRow]) -> None:
    with database.session() as session:
        session.add(UserRow(user_id=user_id, log_revision=1))
        session.flush()
        session.add_all(events)


@pytest.fixture
def world(database: Database) -> Database:
    """The small world, with everyone's first profile by the template."""
    fill(database)
    report = write(database)
    assert (sorted(report.written), report.failed) == (sorted(EVERYONE), {})
    return database


def test_everyone_has_a_profile_that_follows_from_the_log(world: Database) -> None:
    done = list(check_profiles(world, EVERYONE))[-1]
    assert (done.profiles, done.stale) == (len(EVERYONE), 0)
    assert done.claims == sum(len(read(world, user_id).claims) for user_id in EVERYONE)
    ann = read(world, "ann")
    assert [c.name for c in ann.interests] == [
        "Detective and mystery, partly 1990s",
        "Baking and cooking, partly 2010s",
    ]
    assert [c.name for c in ann.dislikes] == ["Horror and monsters, partly 1980s"]
    assert [c.trend for c in ann.interests] == ["fading", "steady"]
    assert sum(c.strength for c in ann.interests) == pytest.approx(1.0)
    assert ann.dislikes[0].strength == pytest.approx(-1.0)
    assert ann.provenance.created_at == NOW


def test_a_claim_cites_what_it_is_about(world: Database) -> None:
    with world.session() as session:
        of_event = {e.event_id: e.item_id for log in logs.read_logs(session, EVERYONE) for e in log.events}
    for claim in (claim for user_id in EVERYONE for claim in read(world, user_id).claims):
        groups = {(of_event[e.event_id] or "t")[0] for e in claim.evidence}
        assert len(groups) == 1  # the search names tents
        assert {*claim.name.lower().replace(",", "").split()} & {
            "m": {"mystery"}, "k": {"cooking"}, "t": {"tents"}, "h": {"horror"},
        }[groups.pop()]  # fmt: skip


def test_no_two_claims_of_a_profile_have_the_same_name(world: Database) -> None:
    for user_id in EVERYONE:
        names = [(c.kind, c.name.lower()) for c in read(world, user_id).claims]
        assert len(names) == len(set(names))


def test_no_two_claims_by_the_model_have_the_same_name(world: Database, scripted: ScriptedLLM) -> None:
    report = wrote(profiler(world, scripted.url))
    assert len(report.written) == len(EVERYONE)
    for user_id in EVERYONE:
        names = [(c.kind, c.name.lower()) for c in read(world, user_id).claims]
        assert len(names) == len(set(names))


def test_items_are_called_as_their_catalogue_calls_them(world: Database, scripted: ScriptedLLM) -> None:
    for group, noun in (("m", "films"), ("k", "cookbooks")):
        execute(
            world, "update items set attributes = attributes || jsonb_build_object('noun', cast(:noun as text)) "
            "where item_id like :like", noun=noun, like=f"{group}%",
        )  # fmt: skip
    wrote(profiler(world, scripted.url), ["ann"])
    asked = "\n".join(request.messages[-1]["content"] for request in scripted.requests)
    for group in ("likes these films", "likes these cookbooks", "dislikes"):
        assert f"The person {group}:\n[1]" in asked


CLAIM = "(select min(claim_pk) from claims join profiles using (profile_id) where user_id = 'ann' and active)"
FAULTS = (
    ("update evidence set weight = weight - 0.001 where claim_pk = @ and position = 0", "the weight"),
    ("update evidence set counter = true where claim_pk = @ and position = 0", "the weight"),
    ("update evidence set event_id = 'bob-0000' where claim_pk = @ and position = 0", "no event of this user"),
    ("delete from evidence where claim_pk = @ and position = 0", "the strength"),
    ("delete from evidence where claim_pk = @ and position > 0", "not supported"),
    ("delete from evidence where claim_pk = @", "does not validate"),
    ("update claims set strength = strength + 0.001 where claim_pk = @", "the strength"),
    ("update claims set strength = -strength where claim_pk = @", "the strength"),
    ("update claims set confidence = confidence - 0.001 where claim_pk = @", "the confidence"),
    ("update claims set trend = 'rising' where claim_pk = @", "the trend"),
    ("update claims set trend = null where claim_pk = @", "the trend"),
    ("update claims set kind = 'dislike' where claim_pk = @", "the weight"),
    ("update profiles set log = log || '{\"as_of\": \"2026-01-01T00:00:00Z\"}' where user_id = 'ann'", "the weight"),
    ("update events set value = 3.5 where event_id = 'ann-0000'", "the weight"),
)


def test_a_planted_fault_is_found(world: Database) -> None:
    for fault, said in FAULTS:
        write(world, ["ann"], force=True)
        assert list(check_profiles(world, EVERYONE))[-1].profiles == len(EVERYONE), f"before: {fault}"
        assert execute(world, fault.replace("@", CLAIM)) > 0, fault
        with pytest.raises(CheckError, match="ann") as caught:
            list(check_profiles(world, EVERYONE))
        assert said in str(caught.value), fault


def test_a_profile_of_an_older_log_counts_as_stale_but_may_not_cite_what_is_not_there(world: Database) -> None:
    execute(world, "update users set log_revision = 2 where user_id = 'ann'")
    assert list(check_profiles(world, EVERYONE))[-1].stale == 1
    fault = f"update evidence set event_id = 'bob-0000' where claim_pk = {CLAIM} and position = 0"  # noqa: S608
    execute(world, fault)
    with pytest.raises(CheckError, match="no event of this user"):
        list(check_profiles(world, EVERYONE))


def test_exactly_one_version_is_active_and_versions_rise(world: Database) -> None:
    for _ in range(3):
        assert len(write(world, force=True).written) == len(EVERYONE)
    with world.session() as session:
        for user_id in EVERYONE:
            rows = profiles.versions(session, user_id)
            assert [(row.version, row.active) for row in rows] == [
                (1, False), (2, False), (3, False), (4, True),
            ]  # fmt: skip
        assert profiles.active_users(session) == sorted(EVERYONE)


def test_unchanged_users_are_left_alone(world: Database) -> None:
    report = write(world)
    assert (report.written, sorted(report.unchanged)) == ([], sorted(EVERYONE))
    assert read(world, "ann").version == 1


def test_a_profile_is_written_anew_when_the_log_grows(world: Database) -> None:
    late = START + timedelta(days=40)
    with world.session() as session:
        session.add_all(event("ann", 900 + n, "purchase", f"t{n + 1}", late) for n in range(4))
        session.get_one(UserRow, "ann").log_revision += 1
    report = write(world)
    assert (report.written, len(report.unchanged)) == (["ann"], len(EVERYONE) - 1)
    before, after = read(world, "ann", 1), read(world, "ann")
    changes = diff(before, after)
    assert [c.after.name for c in changes if c.before is None and c.after] == ["Camping and tents, partly 2020s"]
    moved = {c.after.name: c.what for c in changes if c.before is not None and c.after is not None}
    assert set(moved) >= {c.name for c in before.interests}
    assert all(moved[c.name][0].startswith("strength") for c in before.interests)
    assert not any(c.after is None for c in changes)
    assert diff(after, before)[-1].what == ("gone",)
    assert diff(before, before) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"evidence": EvidenceSettings(half_life_days=30.0)},
        {"evidence": EvidenceSettings(session_gap_minutes=5.0)},
        {"language": "zh"},
        {"force": True},
    ],
    ids=["half life", "session gap", "language", "force"],
)
def test_what_makes_every_profile_be_written_anew(world: Database, settings: dict[str, Any]) -> None:
    report = write(world, **settings)
    assert (sorted(report.written), report.unchanged) == (sorted(EVERYONE), [])
    assert list(check_profiles(world, EVERYONE))[-1].stale == 0
    assert read(world, "ann").language == settings.get("language", "en")


def test_a_new_title_makes_the_profiles_that_name_the_item_be_written_anew(world: Database) -> None:
    execute(world, "update items set title = 'Ten Bells' where item_id = 'm2'")
    with world.session() as session:
        readers = [
            log.user.user_id for log in logs.read_logs(session, EVERYONE) if any(e.item_id == "m2" for e in log.events)
        ]
    report = write(world)
    assert sorted(report.written) == sorted(readers) == ["ann", "cid", "dee", "eli"]


def test_the_model_writes_where_the_template_did(world: Database, scripted: ScriptedLLM) -> None:
    assert len(wrote(profiler(world, scripted.url)).written) == len(EVERYONE)
    assert len(wrote(profiler(world, scripted.url)).unchanged) == len(EVERYONE)
    assert list(check_profiles(world, EVERYONE))[-1].profiles == len(EVERYONE)
    ann = read(world, "ann")
    assert ann.provenance.writer == "llm"
    assert {c.wording for c in ann.claims} == {"llm"}
    # Words differ, arithmetic does not.
    assert {w for c in diff(read(world, "ann", 1), ann) for w in c.what} == {"wording"}


def test_without_consent_there_is_no_profile(database: Database) -> None:
    fill(database, ["ann", "bob"])
    execute(database, "update users set consent = false where user_id = 'ann'")
    report = write(database, ["ann", "bob"])
    assert (report.written, report.failed) == (["bob"], {})
    with database.session() as session:
        assert profiles.versions(session, "ann") == []


def test_consent_withdrawn_while_the_profile_is_written_counts(world: Database) -> None:
    rows = archive.to_rows(read(world, "ann"))
    execute(world, "update users set consent = false where user_id = 'ann'")
    with pytest.raises(ConflictError, match="withdrawn consent"), world.session() as session:
        profiles.save(session, rows, log_revision=1)
    execute(world, "update users set consent = true where user_id = 'ann'")
    assert read(world, "ann").version == 1


def test_a_profile_is_out_of_sight_while_consent_is_withdrawn(world: Database) -> None:
    before = claim_vectors(world)
    execute(world, "update users set consent = false where user_id = 'ann'")
    with pytest.raises(NotFoundError, match="does not consent"):
        read(world, "ann")
    with world.session() as session:
        assert "ann" not in profiles.active_users(session)
        profiles.forget_old_claim_vectors(session)
    assert claim_vectors(world) < before  # no search finds what the user has withdrawn


def test_a_profile_of_an_older_log_does_not_replace_one_of_a_newer(world: Database) -> None:
    with pytest.raises(ConflictError, match="later log"), world.session() as session:
        profiles.save(session, archive.to_rows(read(world, "ann")), log_revision=0)


def test_a_user_without_events_fails_alone(database: Database) -> None:
    fill(database, ["ann"])
    add_user(database, "nobody", [])
    report = write(database, ["ann", "nobody"])
    assert report.written == ["ann"]
    assert "no events" in report.failed["nobody"]
    with database.session() as session:
        (attempt,) = profiles.failures(session, "nobody")
    assert attempt.reason == report.failed["nobody"]


def test_neutral_ratings_make_an_empty_profile(database: Database) -> None:
    fill(database, ["ann"])
    add_user(
        database,
        "neutral",
        [event("neutral", n, "rating", f"m{n}", START + timedelta(days=n), value=3.0) for n in range(1, 9)],
    )
    assert write(database, ["neutral"]).written == ["neutral"]
    profile = read(database, "neutral")
    assert (profile.claims, profile.summary, profile.tags) == ((), (), ())
    assert profile.log.events_read == 8
    assert list(check_profiles(database, ["neutral"]))[-1].claims == 0


def test_a_log_of_5000_events(database: Database) -> None:
    fill(database, [])
    catalogue = [f"{group}{n}" for group in "mk" for n in range(1, 8)]
    add_user(
        database,
        "avid",
        [
            event(
                "avid",
                n,
                ("view", "click", "like")[n % 3],
                catalogue[n % len(catalogue)],
                START + timedelta(minutes=31 * n),
            )
            for n in range(5_000)
        ],
    )
    assert write(database, ["avid"]).written == ["avid"]
    profile = read(database, "avid")
    assert sum(len(c.evidence) for c in profile.interests) == 5_000
    assert list(check_profiles(database, ["avid"]))[-1] == (1, len(profile.claims), 0)


def test_rows_and_back(world: Database) -> None:
    for user_id in EVERYONE:
        profile = read(world, user_id)
        assert archive.from_rows(archive.to_rows(profile)) == profile
        assert Profile.model_validate_json(profile.model_dump_json()) == profile
    assert {c.kind for c in read(world, SHOPPER).claims} == {"interest", "intent"}


def test_old_versions_can_still_be_read(world: Database) -> None:
    first = read(world, "ann")
    write(world, language="zh")
    assert read(world, "ann", 1) == first
    assert read(world, "ann").language == "zh"


# Intents.


def _sam(database: Database, events: Sequence[EventRow]) -> Profile:
    fill(database, [])
    add_user(database, SHOPPER, events)
    assert write(database, [SHOPPER]).written == [SHOPPER]
    return read(database, SHOPPER)


def _until(kind: str) -> list[EventRow]:
    events = shopping(bought=True)
    return events[: [e.type for e in events].index(kind, 8)]


@pytest.mark.parametrize(
    ("events", "stage"),
    [(shopping(), "deciding"), (_until("add_to_cart"), "comparing")],
    ids=["in the cart", "before"],
)
def test_a_shopper_wants_a_tent(database: Database, events: list[EventRow], stage: str) -> None:
    (intent,) = _sam(database, events).intents
    assert (intent.stage, intent.trend) == (stage, None)
    assert "tents" in intent.name.lower()
    assert f"{SHOPPER}-0100" in {e.event_id for e in intent.evidence}  # the search, which names no item
    assert list(check_profiles(database, [SHOPPER]))[-1].profiles == 1


def test_looking_again_at_what_was_looked_at_before_is_returning(database: Database) -> None:
    early = [
        event(SHOPPER, 50, "view", "t1", START + timedelta(days=20)),
        event(SHOPPER, 51, "view", "k5", START + timedelta(days=40)),
    ]
    events = _until("add_to_cart")
    (intent,) = _sam(database, sorted([*events, *early], key=lambda e: e.ts)).intents
    assert intent.stage == "returning"


def test_what_was_bought_is_no_need_any_more(database: Database) -> None:
    assert _sam(database, shopping(bought=True)).intents == ()


def test_what_is_looked_for_after_a_purchase_is_a_need_again(database: Database) -> None:
    events = shopping(bought=True)
    later = events[-1].ts
    more = [event(SHOPPER, 200 + n, "view", f"t{n}", later + timedelta(minutes=n)) for n in (4, 5, 6)]
    (intent,) = _sam(database, [*events, *more]).intents
    assert {e.event_id for e in intent.evidence} == {e.event_id for e in more}
    assert intent.stage == "comparing"


def test_a_purchase_of_another_kind_leaves_the_need(database: Database) -> None:
    events = shopping()
    other = event(SHOPPER, 300, "purchase", "k6", events[-1].ts + timedelta(minutes=1))
    (intent,) = _sam(database, [*events, other]).intents
    assert "tents" in intent.name.lower()


def test_raters_need_nothing(world: Database) -> None:
    assert all(read(world, user_id).intents == () for user_id in RATERS if user_id)
