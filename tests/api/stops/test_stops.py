"""Stops over HTTP: never too wide, never waiting, with how soon they hold where."""

from datetime import timedelta

import pytest

from rollout.engine.decide.permissions import AssignedRole
from tests.api.bears import CREEK, LAKE, POLICY, V1, founded, scope_of, tick, widened
from tests.api.test_shell import problem_of
from tests.factories import HOUR, NOON, TICK

NIGHTS = {"site": "creek", "window": "night"}


@pytest.fixture
def bears(database):
    founded(database, NOON)
    widened(database, NOON, CREEK, LAKE)


def stop(client, by="bo", **body):
    return client.by(by).post(f"{V1}/stops", json=body)


def stage(client, cell):
    return client.by("ana").get(f"{V1}/cells/{cell.site}/{cell.window}").json()["status"]["stage"]


@pytest.mark.slow
def test_a_stop_holds_at_once_and_says_how_soon_it_does_everywhere(client, bears):
    assert (stage(client, CREEK), stage(client, LAKE)) == ("supervised", "supervised")
    done = stop(client, all=True)
    assert done.status_code == 201
    found = done.json()
    assert len(found["cells"]) == 4
    reach = {one["site"]: one["within_seconds"] for one in found["stop_latency"]}
    assert reach == {"creek": 60.5, "lake": 12 * 3600 + 0.5}
    assert found["text"].endswith("creek within 1 min 1 s, lake within 12 h 1 min")
    assert (stage(client, CREEK), stage(client, LAKE)) == ("shadow", "shadow")
    assert client.get(f"{V1}/cells/creek/day").json()["status"]["withheld"] == "stopped"


def test_a_stop_once_more_answers_what_holds(client, bears):
    first = stop(client, sites=["creek"], reason="smoke").json()
    again = stop(client, "ana", sites=["creek"])
    assert again.status_code == 200
    assert again.json()["events"] == []
    assert again.json()["active_stops"] == first["active_stops"]
    assert again.json()["active_stops"][0]["reason"] == "smoke"
    assert again.json()["revision"] == first["revision"]
    assert first["stop"] == again.json()["stop"] == first["events"][0]["body"]["stop"]
    wider = stop(client, sites=["creek", "lake"]).json()
    assert wider["stop"] == wider["events"][0]["body"]["stop"] != first["stop"]


def test_an_operator_of_one_site_stops_that_and_is_told_what_was_left_out(client, door, bears):
    door.let_in("eve", AssignedRole("operator", "bears", "creek"))
    done = stop(client, "eve", all=True)
    assert done.status_code == 201
    assert {cell["site"] for cell in done.json()["cells"]} == {"creek"}
    left = done.json()["excluded"]
    assert left == [{"target": "lake", "reason": "eve is no operator there"}]
    assert (stage(client, CREEK), stage(client, LAKE)) == ("shadow", "supervised")
    assert problem_of(stop(client, "eve", sites=["lake"])) == (403, "not-allowed")


def test_what_is_not_there_does_not_hold_up_the_rest(client, bears):
    done = stop(client, sites=["creek", "nowhere"], cells=[{"site": "x", "window": "y"}])
    assert done.status_code == 201
    assert [one["target"] for one in done.json()["excluded"]] == ["x · y", "nowhere"]
    assert problem_of(stop(client, sites=["nowhere"])) == (404, "unknown-cell")
    assert problem_of(stop(client)) == (422, "refused")


def test_a_stop_may_be_of_one_cell_and_of_patterns(client, bears):
    assert stop(client, cells=[NIGHTS]).json()["cells"] == [NIGHTS]
    both = stop(client, sites=["l*"], windows=["n*"]).json()["cells"]
    assert both == [{"site": "lake", "window": "night"}]


def test_a_lease_that_was_longer_until_a_moment_ago_still_counts(client, clock, bears):
    shorter = POLICY.replace("lease: 12h", "lease: 1h")
    clock.advance(TICK)
    assert client.by("ana").put(f"{V1}/policy", content=shorter).status_code == 200
    clock.advance(HOUR)
    reach = {
        r["site"]: r["within_seconds"] for r in client.get(f"{V1}/stops").json()["stop_latency"]
    }
    assert reach["lake"] == 11 * 3600 + 0.5
    clock.advance(timedelta(days=1))
    reach = {
        r["site"]: r["within_seconds"] for r in client.get(f"{V1}/stops").json()["stop_latency"]
    }
    assert reach["lake"] == 3600.5


def test_a_drill_is_told_of_afterwards(client, bears):
    assert client.get(f"{V1}/stops").json()["last_drill"] is None
    stop(client, all=True, drill=True)
    found = client.get(f"{V1}/stops").json()
    assert found["last_drill"] == "2027-06-01T12:00:00Z"
    assert found["items"][0]["drill"]


def test_a_stop_ends_by_a_resume_that_others_approve(client, database, bears):
    held = stop(client, all=True).json()["active_stops"][0]
    path = f"{V1}/stops/{held['id']}/resume"
    asked = client.by("bo").post(path)
    assert asked.status_code == 201
    again = client.by("bo").post(path)
    assert (again.status_code, again.json()["proposal"]) == (200, asked.json()["proposal"])
    proposal = asked.json()["proposal"]
    yes = {"evidence_hash": asked.json()["evidence_hash"]}
    approvals = f"{V1}/proposals/{proposal}/approvals"
    assert problem_of(client.by("bo").post(approvals, json=yes)) == (403, "own-proposal")
    assert client.by("ana").post(approvals, json=yes).status_code == 200
    last = client.by("cy").post(approvals, json=yes).json()
    assert (last["approvals_missing"], last["text"]) == (
        0, "the last approval: the next tick applies it",
    )  # fmt: skip
    tick(database, NOON + TICK)
    assert client.get(f"{V1}/stops").json()["items"] == []
    assert stage(client, CREEK) == "supervised"
    assert problem_of(client.by("bo").post(path)) == (404, "unknown-stop")


def test_a_resume_asks_for_rights_at_every_site_of_the_stop(client, door, bears):
    held = stop(client, all=True).json()["active_stops"][0]
    door.let_in("eve", AssignedRole("operator", "bears", "creek"))
    asked = client.by("eve").post(f"{V1}/stops/{held['id']}/resume")
    assert problem_of(asked) == (403, "not-allowed")


def test_a_cell_goes_down_and_never_up(client, bears):
    down = {"sites": ["creek"], "to": "shadow", "reason": "fog"}
    done = client.by("bo").post(f"{V1}/narrowings", json=down)
    assert (done.status_code, stage(client, CREEK)) == (201, "shadow")
    assert client.by("bo").post(f"{V1}/narrowings", json=down).status_code == 200
    up = client.by("bo").post(f"{V1}/narrowings", json={"all": True, "to": "autonomous"})
    assert problem_of(up) == (409, "not-narrower")


def test_an_operator_begins_the_next_attempt_of_a_version(client, bears):
    body = {"sites": ["creek"], "version": "v1", "reason": "the box was offline"}
    begun = client.by("bo").post(f"{V1}/attempts", json=body)
    assert begun.status_code == 201
    assert {event["body"]["restart"] for event in begun.json()["events"]} == {True}
    again = client.by("bo").post(f"{V1}/attempts", json=body)
    assert problem_of(again) == (403, "not-eligible")  # no unit counts since
    assert client.by("vera").post(f"{V1}/attempts", json=body).status_code in {401, 403}


def test_a_stop_is_not_held_up_by_a_clock_that_is_behind(client, clock, database, bears):
    tick(database, NOON + 5 * HOUR)
    assert stop(client, all=True).status_code == 201
    assert stage(client, CREEK) == "shadow"
    assert scope_of(database).stops


def asked(client):
    question = {"site": "creek", "at": NOON.isoformat(), "key": "c-1", "version": "v1"}
    return client.by("ana").post(f"{V1}/assignments", json=question).json()


@pytest.mark.parametrize(("what", "body"), [("stops", {}), ("narrowings", {"to": "shadow"})])
def test_here_the_very_next_question_is_answered_under_it(client, bears, monkeypatch, what, body):
    """Other replicas read it within half a second; the one that took it knows at once."""
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))
    before = asked(client)
    done = client.by("bo").post(f"{V1}/{what}", json={"all": True, **body}).json()
    assert before["revision"] < asked(client)["revision"] == done["revision"]
