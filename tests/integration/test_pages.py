"""The pages over HTTP: who may see them, what their forms need, and what a browser may load on them."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import itsdangerous.timed
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import text
from starlette.testclient import TestClient

import api.runtime
from api.commands import demo_server
from api.http.sessions import COOKIE, SECONDS, is_page
from api.pages import mapping
from store import keys, overview, timeline
from store.database import Database
from store.tables import UserRow
from store.vectors import ClaimVectors
from tests.http_client import audited, client, http, new_key, settings, small
from tests.integration.test_http_recommendations import World, top, trained, world
from tests.small_world import EVERYONE, NOW, START, FakeEmbedder, event, fill, profiler, wrote

__all__ = ["http", "small", "trained", "world"]  # fixtures

IDS = {"user_id": "ann", "claim_id": "i1", "item_id": "m1", "job_id": "none", "action": "pin", "correction_id": "1"}
OPEN = {"/sign-in", "/sign-out"}


def token(answer: httpx.Response) -> str:
    found = re.search(r'"X-CSRF-Token": "([0-9a-f]{64})"', answer.text)
    assert found is not None
    return found[1]


def sign_in(http: TestClient, key: str, then: str = "/") -> httpx.Response:
    page = http.get("/sign-in")
    return http.post("/sign-in", data={"key": key, "next": then, "csrf": token(page)}, follow_redirects=False)


def pages(app: FastAPI, *methods: str) -> Iterator[str]:
    """The paths of all pages with one of these methods."""
    for route in app.routes:
        if isinstance(route, APIRoute) and is_page(route.path) and route.methods & set(methods):
            yield re.sub(r"\{(\w+)\}", lambda found: IDS[found[1]], route.path)


def test_every_path_outside_the_interface_for_programs_is_a_page(small: FastAPI) -> None:
    found = {route.path for route in small.routes if isinstance(route, APIRoute)}
    assert {"/", "/users/{user_id}", "/jobs/{job_id}/cancel", "/sign-in"} <= found
    assert {path for path in found if not is_page(path) and not path.startswith("/v1/")} <= {
        "/livez", "/readyz", "/metrics"
    }  # fmt: skip


def test_a_browser_may_load_nothing_from_elsewhere(http: TestClient) -> None:
    answer = http.get("/users/ann")
    assert answer.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert answer.headers["cache-control"] == "private, no-store"
    assert "style=" not in answer.text
    for address in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
        assert address.startswith(("/", "#")), address
        assert not address.startswith("//")
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text):
        assert http.get(address).headers["cache-control"].endswith("immutable")


def test_without_a_key_in_the_database_this_machine_needs_none(http: TestClient, small: FastAPI) -> None:
    assert http.get("/").status_code == 200
    elsewhere = TestClient(small, "http://shop.example", client=("203.0.113.7", 50_000))
    assert elsewhere.get("/users", follow_redirects=False).headers["location"] == "/sign-in?next=%2Fusers"
    rebound = http.get("/", headers={"host": "evil.example"}, follow_redirects=False)
    assert rebound.status_code == 303


def test_no_form_is_taken_without_its_token(small: FastAPI, http: TestClient, database: Database) -> None:
    given = token(http.get("/"))
    stranger = client(small)
    theirs = token(stranger.get("/"))
    found = list(pages(small, "POST"))
    assert len(found) >= 8
    for path in found:
        for csrf in ("", theirs, given[:-1] + ("0" if given[-1] != "0" else "1")):
            refused = http.post(path, data={"csrf": csrf, "name": "a", "statement": "b", "what": "all"})
            assert (refused.status_code, "none of ours" in refused.text) == (403, True), path
    with database.session() as session:
        for table in ("corrections", "jobs"):
            assert session.scalar(text(f"select count(*) from {table}")) == 0  # noqa: S608
    assert http.post("/jobs", data={"csrf": given, "what": "all"}, follow_redirects=False).status_code == 303


def test_other_sites_and_other_bodies_are_refused(http: TestClient) -> None:
    csrf = token(http.get("/"))
    crossed = http.post("/jobs", data={"csrf": csrf, "what": "all"}, headers={"origin": "https://evil.example"})
    assert "Sign in" in crossed.text
    assert http.post("/jobs", json={"what": "all"}, headers={"X-CSRF-Token": csrf}).status_code == 415


def test_a_session_stands_for_its_key_until_it_is_revoked(small: FastAPI, database: Database) -> None:
    key = new_key(database, "write")
    http = client(small)
    assert http.get("/jobs", follow_redirects=False).headers["location"] == "/sign-in?next=%2Fjobs"
    wrong = sign_in(http, key[:-1] + ("a" if key[-1] != "a" else "b"))
    assert wrong.status_code == 401
    assert "unknown or revoked" in wrong.text
    anonymous = http.cookies[COOKIE]
    right = sign_in(http, key, "/jobs")
    assert (right.status_code, right.headers["location"]) == (303, "/jobs")
    said = right.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=lax", f"Max-Age={SECONDS}"} <= set(said.split("; "))
    assert "Secure" not in said
    secret = key.split("_", 2)[2]
    assert secret not in said
    assert http.cookies[COOKIE] != anonymous
    page = http.get("/jobs")
    assert "Start a job" in page.text
    refused = http.post("/jobs", data={"csrf": token(page), "what": "train"})
    assert refused.status_code == 403  # that needs the scope admin
    assert http.get("/v1/jobs").status_code == 401  # the interface for programs takes no session
    with database.session() as session:
        keys.revoke(session, key.split("_")[1], NOW)
    assert http.get("/jobs", follow_redirects=False).status_code == 303


def test_the_cookie_of_a_secure_connection_is_secure(small: FastAPI, database: Database) -> None:
    key = new_key(database, "read")
    http = TestClient(small, "https://limner.example", client=("203.0.113.7", 50_000))
    assert "Secure" in sign_in(http, key).headers["set-cookie"]
    assert http.get("/users").status_code == 200


def test_a_session_is_ended_by_signing_out_and_by_age(
    small: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    http, other, key = client(small), client(small), new_key(database, "read")
    sign_in(http, key)
    sign_in(other, key)
    signed = http.cookies[COOKIE]
    http.post("/sign-out", data={"csrf": token(http.get("/"))})
    assert http.get("/", follow_redirects=False).status_code == 303
    assert other.get("/", follow_redirects=False).status_code == 200  # other browsers with this key stay

    def status(cookie: str) -> int:
        return client(small).get("/", headers={"Cookie": f"{COOKIE}={cookie}"}, follow_redirects=False).status_code

    assert status(signed) == 303  # a copy of the cookie is worth nothing any more
    sign_in(http, new_key(database, "read"))
    signed = http.cookies[COOKIE]
    assert status(signed) == 200
    assert status(signed[:-2]) == 303
    now = itsdangerous.timed.time.time()
    monkeypatch.setattr(itsdangerous.timed.time, "time", lambda: now + SECONDS + 2)
    assert status(signed) == 303


@pytest.mark.parametrize(
    "elsewhere",
    ["//evil.example", "https://evil.example/", "/\\evil.example", "/\t/evil.example", "//[", "/v1/users", "x"],
)
def test_signing_in_leads_to_no_other_place(elsewhere: str, small: FastAPI, database: Database) -> None:
    assert sign_in(client(small), new_key(database, "read"), elsewhere).headers["location"] == "/"


def test_signing_in_leads_back_however_long_the_id_is(small: FastAPI, database: Database) -> None:
    key = new_key(database, "read")
    path = f"/users/{quote(chr(0x1F600) * 512, safe='')}"
    http = client(small)
    asked = http.get(path)
    assert asked.status_code == 200
    assert path in asked.text
    assert sign_in(http, key, path).headers["location"] == path


def test_a_key_of_a_users_own_sees_that_user_alone(small: FastAPI, database: Database) -> None:
    wrote(profiler(database))
    http = client(small)
    assert sign_in(http, new_key(database, "self:ann")).headers["location"] == "/users/ann"
    allowed, refused = set(), set()
    for path in pages(small, "GET"):
        (allowed if http.get(path).status_code != 403 else refused).add(path)
        other = path.replace("/ann", "/bob")
        assert other == path or http.get(other).status_code == 403
    own = {path for path in allowed if path.startswith("/users/ann")}
    assert allowed - own == {"/sign-in"}
    assert {"/", "/users", "/search", "/map", "/map/drawn", "/jobs", "/evaluation", "/items/m1"} <= refused
    csrf = token(http.get("/users/ann"))
    for path in pages(small, "POST"):
        if path not in OPEN and not path.startswith(("/users/ann/claims", "/users/ann/corrections")):
            assert http.post(path, data={"csrf": csrf, "what": "all"}).status_code == 403, path
        if (other := path.replace("/ann", "/bob")) != path:
            data = {"csrf": csrf, "name": "a", "statement": "b"}
            assert http.post(other, data=data).status_code == 403, path
    pinned = http.post("/users/ann/claims/i1/pin", headers={"X-CSRF-Token": csrf, "HX-Request": "true"})
    assert '<span class="badge">pinned</span>' in pinned.text


def test_who_does_not_consent_has_no_likeness(http: TestClient, database: Database) -> None:
    wrote(profiler(database))
    with database.session() as session:
        session.get_one(UserRow, "ann").consent = False
    page = http.get("/users/ann")
    assert "does not consent" in page.text
    assert "data-claim" not in page.text
    assert http.get("/users/ann/top").status_code == 403
    assert http.get("/users/ann/claims/i1/evidence").status_code == 403


def test_pages_of_persons_are_audited(http: TestClient, database: Database) -> None:
    wrote(profiler(database))
    http.get("/users/ann")
    http.post("/users/ann/claims/i1/reject", data={"csrf": token(http.get("/"))})
    http.get("/search?q=b")
    actions = [action for _, action, subject in audited(database) if subject is not None]
    assert actions[-4:-2] == ["likeness_page", "correct_claim_by_form"]
    assert "search_users_by_id" in actions


def test_problems_are_pages_for_people_and_parts_for_scripts(http: TestClient) -> None:
    page = http.get("/users/nobody%3Cscript%3E")
    assert page.status_code == 404
    assert "&lt;script&gt;" in page.text
    assert "<script>" not in page.text.replace('<script src="', "")
    part = http.get("/users/nobody", headers={"HX-Request": "true"})
    assert part.text.startswith('<p class="wrong"')
    assert http.get("/v1/users/nobody").headers["content-type"] == "application/problem+json"
    assert http.get("/nothing").headers["content-type"] == "application/problem+json"


def test_lists_are_paged(http: TestClient, database: Database) -> None:
    with database.session() as session:
        session.add_all(UserRow(user_id=f"zz{n:03}") for n in range(120))
    seen: list[str] = []
    path: str | None = "/users"
    while path is not None:
        page = http.get(path).text
        seen += re.findall(r'href="/users/([^"?]+)"', page)
        found = re.search(r'href="(/users\?after=[^"]+)" rel="next"', page)
        path = found[1] if found else None
    assert seen == sorted([*EVERYONE, *(f"zz{n:03}" for n in range(120))])


def test_evidence_comes_a_page_at_a_time(http: TestClient, database: Database) -> None:
    with database.session() as session:
        session.add_all(
            event("ann", 500 + n, "view", f"m{1 + n % 8}", START + timedelta(days=40, hours=n)) for n in range(60)
        )
        session.get_one(UserRow, "ann").log_revision += 1
    wrote(profiler(database))
    claims = http.get("/v1/users/ann/profile").json()["interests"]
    claim = max(claims, key=lambda c: len(c["evidence"]))
    swap = {"HX-Request": "true"}
    path: str | None = f"/users/ann/claims/{claim['claim_id']}/evidence"
    shown, requests = 0, 0
    while path is not None:
        part = http.get(path, headers=swap).text
        shown += part.count("<li>")
        requests += 1
        found = re.search(r'hx-get="([^"]+)"', part)
        path = found[1].replace("&amp;", "&") if found else None
    assert requests > 1
    assert shown == len(claim["evidence"])


def test_reports_are_listed_and_shown_locked_up(small: FastAPI, http: TestClient, tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "2026-11-21"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<h1>NDCG</h1><script>alert(1)</script>")
    (tmp_path / "reports" / "batch-1.html").write_text("of a run")
    (tmp_path / "secret.html").write_text("secret")
    (tmp_path / "reports" / "linked.html").symlink_to(tmp_path / "secret.html")
    page = http.get("/evaluation?name=2026-11-21%2Freport.html").text
    assert "2026-11-21/report.html" in page
    assert "sandbox" in page
    assert "batch-1" not in page
    report = http.get("/evaluation/report?name=2026-11-21%2Freport.html")
    assert "NDCG" in report.text
    policy = report.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "script-src" not in policy
    for name in ("../secret.html", "/etc/passwd", "linked.html", "batch-1.html", str(tmp_path / "secret.html")):
        assert http.get("/evaluation/report", params={"name": name}).status_code == 404


def test_search_by_id_takes_it_as_text(http: TestClient, database: Database) -> None:
    odd = "100%_\\'; drop table users;--"
    with database.session() as session:
        session.add_all([UserRow(user_id=odd), UserRow(user_id="100x")])
    page = http.get("/search", params={"q": "100%"}).text
    assert f"/users/{quote(odd, safe='')}" in page
    assert "/users/100x" not in page
    assert "/users/ann" in http.get("/search?q=an").text


def test_versions_are_compared(http: TestClient, database: Database) -> None:
    wrote(profiler(database))
    csrf = token(http.get("/"))
    http.post("/users/ann/claims", data={"csrf": csrf, "name": "Quiet <b>tents</b>", "kind": "interest"})
    wrote(profiler(database, force=True), ["ann"])
    page = http.get("/users/ann").text
    assert 'value="1" selected' in page
    assert "Quiet &lt;b&gt;tents&lt;/b&gt;" in page
    part = http.get("/users/ann/changes?from_version=1&to_version=2", headers={"HX-Request": "true"}).text
    assert '<span class="badge new">new</span>' in part
    same = http.get("/users/ann/changes?from_version=2&to_version=2", headers={"HX-Request": "true"}).text
    assert "No claim differs" in same


def test_the_week_is_in_local_time(database: Database) -> None:
    with database.session() as session:
        session.add(UserRow(user_id="w", tz="Europe/Paris"))
        monday = START.replace(month=7, day=7, hour=22, minute=30)  # 2025-07-07 22:30 UTC, a Monday
        rows = [event("w", 1, "view", None, monday), event("w", 2, "view", None, monday, ts_offset=-600)]
        session.add_all(rows)
        session.flush()
        week = timeline.week(session, "w")
    assert week[1][0] == 1  # Tuesday 0:30 in Paris
    assert week[0][12] == 1  # Monday 12:30 at the event's own offset
    assert sum(map(sum, week)) == 2


def test_segments_of_few_users_are_not_on_the_map() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8)
    sizes = (60, 40, 8)
    vectors = np.concatenate([c + rng.normal(0, 0.02, (n, 8)) for c, n in zip(centres, sizes, strict=True)])
    owner = np.repeat(np.arange(3), sizes)
    names = [("Tents", "Cooking", "Horror")[n] for n in owner]
    claims = ClaimVectors(
        [f"u{n}" for n in range(108)], ["i1"] * 108, names, np.full(108, 0.5), vectors.astype(np.float32),
        ["template"] * 108,
    )  # fmt: skip
    drawn = mapping.draw(claims, ["a"], ["A"], centres[:1].astype(np.float32), 0)
    assert drawn is not None
    assert [(s.names, s.users) for s in drawn.segments][:2] == [(["Tents"], 60), (["Cooking"], 40)]
    assert len(drawn.segments) == 2
    assert {point.user_id for point in drawn.users} == {f"u{n}" for n in range(100)}
    assert all(0 <= point.x <= 1 and 0 <= point.y <= 1 for point in (*drawn.users, *drawn.items))
    few = ClaimVectors(*(column[:19] for column in claims))
    assert mapping.draw(few, ["a"], ["A"], centres[:1].astype(np.float32), 0) is None
    own = claims._replace(names=["My secret" if n < 50 else name for n, name in enumerate(names)])
    own = own._replace(wordings=["user" if n < 50 or n >= 60 else "llm" for n in range(108)])
    drawn = mapping.draw(own, ["a"], ["A"], centres[:1].astype(np.float32), 0)
    assert drawn is not None
    assert [s.names for s in drawn.segments] == [["Tents"], ["Segment 2"]]  # nothing in a user's own words


def test_a_rejection_can_be_taken_back_when_the_profile_has_the_claim_no_more(
    http: TestClient, database: Database
) -> None:
    wrote(profiler(database))
    csrf = token(http.get("/"))
    name = http.get("/v1/users/ann/profile").json()["interests"][0]["name"]
    http.post("/users/ann/claims/i1/reject", data={"csrf": csrf})
    assert "Said before" not in http.get("/users/ann").text
    wrote(profiler(database, force=True), ["ann"])
    page = http.get("/users/ann").text
    [said] = re.findall(r'<ul class="said">(.*?)</ul>', page, re.DOTALL)
    assert name in said
    [undo] = re.findall(r'action="(/users/ann/corrections/\d+/undo)"', said)
    assert "Said before" not in http.post(undo, data={"csrf": csrf}).text


def test_the_overview_says_what_is_estimated(
    http: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote(profiler(database))
    page = http.get("/").text
    figures = dict(re.findall(r"<dt>(\w+)</dt><dd>([\d,]+)", page))
    assert {name: figures[name] for name in ("Users", "Items", "Profiles")} == {
        "Users": "6", "Items": "30", "Profiles": "6"
    }  # fmt: skip
    assert "≈" not in page
    monkeypatch.setattr(overview, "EXACT", 5)
    with database.session() as session:
        session.execute(text("analyze"))
        assert overview.count(session, "users") == (6, True)
        assert overview.profiles(session, NOW) == (6, {"template": 6}, [6, 0, 0, 0], False)
        assert overview.profiles(session, NOW + timedelta(days=8)).by_age == [0, 0, 6, 0]
    assert "≈" in http.get("/").text


def test_without_a_model_the_pages_say_what_to_do(http: TestClient, database: Database) -> None:
    wrote(profiler(database))
    listed = http.get("/users/ann/recommendations")
    assert listed.status_code == 503
    assert "limner train" in listed.text
    beside = http.get("/users/ann/top", headers={"HX-Request": "true"})
    assert beside.status_code == 200
    assert "limner train" in beside.text
    csrf = token(http.get("/"))
    assert http.post("/users/ann/claims/i1/reject", data={"csrf": csrf}).status_code == 200
    assert '<span class="badge con">rejected</span>' in http.get("/users/ann").text


def test_an_event_with_the_id_of_a_claim_is_switched_off_alone(world: World) -> None:
    first = top(world.http)[0]
    with world.database.session() as session:
        seen = event("ann", 900, "rating", first, START + timedelta(days=90), value=5.0)
        seen.event_id = "i1"
        session.add(seen)
        session.get_one(UserRow, "ann").log_revision += 1
    parts = world.http.get(f"/v1/users/ann/explanations/{first}").json()["parts"]
    assert {part.get("event_id") or part.get("claim_id") for part in parts} >= {"i1"}
    page = world.http.get(f"/users/ann/recommendations/{first}?without_event=i1").text
    boxes = re.findall(r'name="(without_\w+)" value="i1"[^>]*?( checked)?>', page)
    assert sorted(boxes) == [("without_claim", ""), ("without_event", " checked")]


def test_words_that_may_not_be_are_refused(http: TestClient, database: Database) -> None:
    csrf = token(http.get("/"))
    for name in ("", " ", "two\nlines", "x" * 601, "hid\u202eden"):
        refused = http.post("/users/ann/claims", data={"csrf": csrf, "name": name})
        assert refused.status_code == 422, name
    assert http.post("/users/ann/claims", data={"csrf": csrf, "name": "a", "statement": "x" * 601}).status_code == 422
    assert http.get("/v1/users/ann/corrections").json()["items"] == []


@pytest.mark.parametrize("users", ["u" * 513, "\n".join(map(str, range(10_001)))])
def test_more_users_than_a_job_takes_are_refused(users: str, http: TestClient) -> None:
    csrf = token(http.get("/jobs"))
    refused = http.post("/jobs", data={"csrf": csrf, "what": "listed", "users": users})
    assert refused.status_code == 422
    assert "at most 10,000 users" in refused.text


def test_a_form_of_too_many_fields_is_refused(http: TestClient) -> None:
    form = "&".join(f"a{n}=1" for n in range(2_000))
    refused = http.post("/jobs", content=form, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert refused.status_code == 422
    assert "JSON" not in refused.text


def test_the_demo_server_makes_what_is_missing_and_no_more(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
    monkeypatch.setattr(demo_server, "fetch_weights", lambda *_: None)
    database = Database(database_url)
    fill(database)
    chosen = settings(tmp_path, database_url=database_url)
    for _ in range(2):
        demo_server.prepare(chosen)
        counted = [database.execute(f"select count(*) from {table}")[0][0] for table in ("profiles", "models")]  # noqa: S608
        assert counted == [len(EVERYONE), 1]
    with database.session() as session:  # as if it had been interrupted
        session.execute(text("delete from profiles where user_id = 'bob'"))
    demo_server.prepare(chosen)
    assert database.execute("select count(*) from profiles")[0][0] == len(EVERYONE)
    database.close()


def test_a_look_at_the_map_is_one_row_of_the_audit(
    http: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "FEWEST", 2)
    wrote(profiler(database))
    assert http.get("/map").text.count("<circle") == 0
    assert database.execute("select * from audit") == []  # nobody is on the page before the map is drawn
    http.get("/map/drawn")
    rows = database.execute("select action, subject_hash, subjects from audit")
    assert rows == [("draw_map", None, len(EVERYONE))]


def test_the_map_forgets_who_is_erased_at_once(
    http: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "FEWEST", 2)
    wrote(profiler(database))
    drawn = http.get("/map/drawn").text
    assert 'href="/users/ann"' in drawn
    assert http.get("/map/drawn").text.count("<circle") == drawn.count("<circle") == len(EVERYONE)
    assert http.delete("/v1/users/ann").status_code == 204
    after = http.get("/map/drawn").text
    assert 'href="/users/ann"' not in after
    assert after.count("<circle") == len(EVERYONE) - 1
