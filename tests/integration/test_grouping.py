"""How many themes go to the model in one call, and how many of a profile's claims go to it at all."""

import json

import pytest

from agent import archive
from agent.contract import Profile
from agent.writer import WriterSettings
from store import profiles
from store.database import Database
from tests import scripted_llm as llm
from tests.scripted_llm import Reply, Request, ScriptedLLM, answer, completion
from tests.small_world import fill, profiler, wrote


def read(database: Database, user_id: str) -> Profile:
    with database.session() as session:
        return archive.from_rows(profiles.load(session, user_id))


def write(database: Database, scripted: ScriptedLLM, **asked: int) -> Profile:
    """Write ann's profile: two likes and a dislike, each with words of its own."""
    report = wrote(profiler(database, scripted.url, WriterSettings(**asked)), ["ann"])
    assert report.written == ["ann"], report
    return read(database, "ann")


def said(profile: Profile) -> list[tuple[str, str, str]]:
    return [(c.name, c.statement, c.wording) for c in profile.claims]


def themes(scripted: ScriptedLLM) -> list[int]:
    """The number of themes in each request."""
    return [r.task.count("Traits:") for r in scripted.requests if r.schema == "ThemesWords"]


@pytest.mark.parametrize(("size", "calls"), [(1, [1, 1, 1]), (2, [2, 1]), (12, [3])])
def test_the_size_of_a_call_changes_nothing_but_the_calls(
    database: Database, scripted: ScriptedLLM, size: int, calls: list[int]
) -> None:
    fill(database, ["ann"])
    alone = write(database, scripted)
    scripted.reset()
    grouped = wrote(profiler(database, scripted.url, WriterSettings(themes_per_call=size), force=True), ["ann"])
    assert said(read(database, "ann")) == said(alone)
    assert (grouped.first_try, grouped.repaired, grouped.fallback) == (4, 0, 0)
    assert sorted(themes(scripted), reverse=True) == calls


def test_only_the_refused_one_of_a_call_is_asked_for_again(database: Database, scripted: ScriptedLLM) -> None:
    def second_invents(request: Request, n: int) -> Reply:
        found = answer(request)
        if len(found.get("groups", [])) > 1:
            found["groups"][1]["statement"] = "Enjoys stories close to The Vermilion Orchard by Odalys Brandt."
        return completion(request, json.dumps(found))

    fill(database, ["ann"])
    scripted.reset(second_invents)
    profile = write(database, scripted, themes_per_call=12)
    assert themes(scripted) == [3, 1]
    assert "Vermilion" in scripted.requests[-1].text  # the model is shown what it is to mend
    assert {c.wording for c in profile.claims} == {"llm"}
    assert (profile.quality.first_try, profile.quality.repaired, profile.quality.fallback) == (3, 1, 0)


@pytest.mark.parametrize("bad", [llm.malformed, llm.cut_off], ids=["malformed", "cut off"])
def test_after_an_unreadable_call_each_is_asked_for_alone(
    database: Database, scripted: ScriptedLLM, bad: llm.Script
) -> None:
    fill(database, ["ann"])
    scripted.reset(lambda request, n: (bad if request.task.count("Traits:") > 1 else llm.honest)(request, n))
    profile = write(database, scripted, themes_per_call=12)
    assert themes(scripted) == [3, 1, 1, 1]
    assert {c.wording for c in profile.claims} == {"llm"}
    assert (profile.quality.first_try, profile.quality.repaired) == (1, 3)  # the summary was right at once


def test_too_few_entries_are_no_answer(database: Database, scripted: ScriptedLLM) -> None:
    def forgetful(request: Request, n: int) -> Reply:
        found = answer(request)
        found["groups"] = found["groups"][:1] if "groups" in found else []
        return completion(request, json.dumps(found if found["groups"] else answer(request)))

    fill(database, ["ann"])
    scripted.reset(forgetful)
    write(database, scripted, themes_per_call=12)
    assert themes(scripted) == [3, 1, 1, 1]


def test_the_model_words_the_strongest_claims_only(database: Database, scripted: ScriptedLLM) -> None:
    fill(database, ["ann"])
    profile = write(database, scripted, max_claims=2)
    strongest = sorted(profile.claims, key=lambda c: -abs(c.strength))
    assert [c.wording for c in strongest] == ["llm", "llm", "template"]
    assert themes(scripted) == [1, 1]
    assert (profile.quality.first_try, profile.quality.fallback) == (3, 0)  # one not asked for is no refused wording


def test_another_way_of_asking_is_another_profile(database: Database, scripted: ScriptedLLM) -> None:
    fill(database, ["ann"])
    write(database, scripted)
    assert wrote(profiler(database, scripted.url, WriterSettings()), ["ann"]).unchanged == ["ann"]
    assert wrote(profiler(database, scripted.url, WriterSettings(max_claims=1)), ["ann"]).written == ["ann"]
    assert read(database, "ann").provenance.sampling["max_claims"] == 1
