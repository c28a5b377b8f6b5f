"""Cells over HTTP: what is allowed now, what the evidence says, the same as the engine saw."""

from dataclasses import replace
from datetime import timedelta

import pytest

from api.app import create_app
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.records.record_import import import_records
from rollout.kernel.calendar.instants import to_instant
from rollout.kernel.policy.cell_evidence import VersionEvidence
from rollout.kernel.policy.gates import read_gate
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.clock import ManualClock
from rollout.live.evidence.evidence_reader import load_cell_evidence
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.api.bears import CREEK, V1, founded, tick, widened
from tests.api.conftest import Asking
from tests.api.test_shell import problem_of
from tests.data.snapshots import filled_once
from tests.engine.slots.stories import a_history
from tests.factories import DAY, NOON, TICK
from tests.live.test_live import BY_CASE, STORY, replayed

V1_STORY = "/v1/rollouts/story"


@pytest.fixture
def bears(database):
    founded(database, NOON)


@pytest.fixture
def story(database, clock):
    """Return a rollout whose records were counted, with the instant of the last tick."""
    last = count_story(database)
    clock.advance(last - clock.now())
    return last


@filled_once
def count_story(database):
    policy = parse_policy(BY_CASE)
    history = a_history(replace(STORY, slots=40), policy)
    slots, _ = replayed(history, policy, None)
    first, last = to_instant(slots[0], policy.tick), to_instant(slots[-20], policy.tick)
    apply_policy(database, BY_CASE, Actor("zoe"), first, salt=bytes(32), service_salt=bytes(32))
    import_records(database, "story", history, first)
    Ticker(database, "story", "one").tick(last)
    return last


def test_every_cell_says_what_is_allowed_and_what_comes_next(client, database, bears):
    widened(database, NOON)
    found = client.get(f"{V1}/cells").json()
    assert found["revision"] == client.get(V1).json()["revision"]
    by_cell = {(one["site"], one["window"]): one for one in found["items"]}
    assert len(by_cell) == 4
    assert by_cell["creek", "day"]["stage"] == "supervised"
    assert by_cell["creek", "day"]["until"] == (NOON + 90 * DAY).isoformat().replace("+00:00", "Z")
    assert by_cell["creek", "day"]["version"] == "v1"
    assert by_cell["lake", "night"]["stage"] == "shadow"
    assert by_cell["lake", "night"]["next_step"].startswith("supervised: 0 of 100 decided units")


def test_a_grant_that_has_ended_gives_nothing_though_no_tick_ran(client, clock, database, bears):
    widened(database, NOON)
    clock.advance(90 * DAY)
    assert client.get(f"{V1}/cells/creek/day").json()["status"]["stage"] == "shadow"


def test_pages_of_cells_go_on_where_the_one_before_ended(client, bears):
    first = client.get(f"{V1}/cells", params={"limit": 3}).json()
    second = client.get(f"{V1}/cells", params={"limit": 3, "after": first["next"]}).json()
    assert (len(first["items"]), len(second["items"]), second["next"]) == (3, 1, None)


def by_viewer(client, door):
    """Return a client of somebody who is asked for no reviews, so that each unit is shown."""
    door.let_in("vic", AssignedRole("viewer"))
    return client.by("vic")


@pytest.mark.slow
def test_a_cell_shows_the_evidence_that_the_engine_was_shown(client, door, database, story):
    client = by_viewer(client, door)
    found = client.get(f"{V1_STORY}/cells/s0/day").json()
    (evidence,) = (one for one in found["evidence"] if one["version"] == "v1")
    assert evidence["decided_units"] + evidence["undecided_units"] == evidence["closed_units"] > 0
    (condition,) = evidence["gate"]["conditions"]
    assert sum(condition["counts"]) == condition["n"]
    assert condition["log_e_needed"] == pytest.approx(2.525729)  # .4 of 20 %
    assert found["status"]["next_step"]
    assert "unaudited at most 10 % over 7d" in {guard["text"] for guard in found["guards"]}
    raised = client.get(f"{V1_STORY}/proposals").json()["items"]
    readings = [p["readings"][0] for p in raised if (p["site"], p["window"]) == ("s0", "day")]
    assert condition["counts"] in [reading["counts"] for reading in readings]
    assert {h["kind"] for h in found["history"]} == {"ProposalRaised"}


def test_what_is_read_for_people_is_what_the_ticker_decided_on(database, story):
    with database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "story")
    for proposal in stood.scope.proposals.values():
        share = stood.scope.get_cell_state(proposal.cell, proposal.version).risk_share
        known = load_cell_evidence(database, stood, proposal.cell, proposal.version)
        assert isinstance(known, VersionEvidence)
        reading = read_gate(stood.policy, proposal.cell, 1, share, known.attempt, known.entered)
        assert reading.is_met
    assert stood.scope.proposals


@pytest.mark.slow
def test_what_was_counted_later_is_seen_at_the_next_look(client, door, database, clock, story):
    client = by_viewer(client, door)
    before = client.get(f"{V1_STORY}/cells/s0/day").json()["evidence"][0]["closed_units"]
    Ticker(database, "story", "two").tick(story + timedelta(hours=30))
    clock.advance(timedelta(hours=30))
    assert client.get(f"{V1_STORY}/cells/s0/day").json()["evidence"][0]["closed_units"] > before


def test_a_cell_that_is_not_there_and_a_site_of_others(client, door, bears):
    assert problem_of(client.get(f"{V1}/cells/creek/dusk")) == (404, "unknown-cell")
    door.let_in("eve", AssignedRole("viewer", "bears", "lake"))
    assert problem_of(client.by("eve").get(f"{V1}/cells/creek/day")) == (403, "not-allowed")
    mine = client.get(f"{V1}/cells").json()["items"]
    assert {cell["site"] for cell in mine} == {"lake"}


def test_versions_stand_side_by_side_and_one_is_retired(client, door, database):
    founded(database, NOON, "v1", "v2")
    widened(database, NOON)
    found = client.get(f"{V1}/versions").json()["items"]
    assert [one["version"] for one in found] == ["v1", "v2"]
    assert found[0]["acting_cells"] == [{"site": "creek", "window": "day", "stage": "supervised"}]
    door.let_in("eve", AssignedRole("operator", "bears", "creek"))
    path = f"{V1}/versions/v1/retirement"
    assert problem_of(client.by("eve").post(path, json={})) == (403, "not-allowed")
    done = client.by("bo").post(path, json={"reason": "old"}).json()
    assert [e["kind"] for e in done["events"]] == ["VersionRetired"]
    assert client.post(path, json={}).json()["events"] == []
    assert client.get(f"{V1}/versions").json()["items"][0]["retired"]
    assert client.get(f"{V1}/cells/creek/day").json()["status"]["stage"] == "shadow"
    gone = client.post(f"{V1}/versions/v9/retirement", json={})
    assert problem_of(gone) == (404, "unknown-version")


def test_another_replica_answers_by_an_approval_within_a_second(client, database, other, door):
    founded(database, NOON)
    tick(database, NOON)
    clock = ManualClock(NOON)
    second = Asking(create_app(build_service(other, door, clock, entropy=bytes))).by("ana")
    assert second.get(f"{V1}/cells/creek/day").json()["status"]["stage"] == "shadow"
    watched = second.app.state.service.state_cache
    assert watched.load_rollout("bears").state.scope.get_holder(CREEK) is None
    evidence = client.get(f"{V1}/proposals/P-1").json()["evidence_hash"]
    for name in ("ana", "bo"):
        client.by(name).post(f"{V1}/proposals/P-1/approvals", json={"evidence_hash": evidence})
    tick(database, NOON + TICK)
    assert second.get(f"{V1}/cells/creek/day").json()["status"]["stage"] == "supervised"
    clock.advance(timedelta(seconds=0.6))
    assert watched.load_rollout("bears").state.scope.get_holder(CREEK) == "v1"
