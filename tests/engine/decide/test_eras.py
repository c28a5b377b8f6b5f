"""An era begins with everything stopped, and takes as many people as the gate that comes back.

So do cells whose evidence was changed, without an era.
"""

import pytest

from rollout.engine.decide.commands import AcceptRestore, Actor, StopAfterRollback, StopChangedCells
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import format_revision
from rollout.engine.events import EraBegan
from rollout.kernel.errors import NotAllowedError, UserRequiredError
from rollout.kernel.facts import LOST_HEAD, Trigger
from tests.factories import ANA, BO, CREEK, CREEK_NIGHT, CY, autonomous, kinds

LOST = {"trigger": Trigger(LOST_HEAD, {"revision": "57"}), "about": "box-7"}


def set_back(rollout, era=1):
    return rollout.do(StopAfterRollback(at=rollout.at, era=era, **LOST))


def accept(rollout, by=ANA, **more):
    return rollout.do(AcceptRestore(at=rollout.at, by=by, reason="the disk of Monday", **more))


def test_a_lost_head_stops_every_cell_and_begins_an_era():
    rollout = autonomous()
    assert rollout.stage() == "autonomous"
    events = set_back(rollout)
    assert kinds(events) == ["IncidentOpened", "EraBegan", "Stopped"]
    incident, era, stopped = events
    assert (incident.effect, incident.about) == ("every cell is stopped", "box-7")
    assert (era.era, era.by) == (2, "policy")
    assert set(stopped.cells) == set(rollout.policy.cells)
    assert (rollout.stage(), rollout.scope.era) == ("shadow", 2)


def test_a_second_client_with_a_head_of_the_lost_era_changes_nothing():
    rollout = autonomous()
    set_back(rollout)
    assert set_back(rollout) == ()
    assert rollout.scope.era == 2


def test_a_head_of_a_later_era_than_ours_ends_that_era_too():
    rollout = autonomous()
    set_back(rollout, era=4)
    assert rollout.scope.era == 5


def test_as_many_people_clear_it_as_the_highest_gate_that_comes_back_needs():
    rollout = autonomous()
    set_back(rollout)
    rollout.ask_resume(by=ANA)
    resume = rollout.open("resume")
    assert sorted(resume.needs) == ["operator", "safety"]
    rollout.approve(resume, BO)
    rollout.tick()
    assert rollout.stage() == "shadow"
    rollout.approve(resume, CY)
    rollout.tick()
    assert (rollout.stage(), rollout.scope.era) == ("autonomous", 2)


def test_open_proposals_end_because_the_lost_entries_may_have_rejected_them():
    rollout = autonomous()
    rollout.raised(CREEK_NIGHT)
    assert "ProposalVoided" in kinds(accept(rollout))
    assert not rollout.scope.proposals
    assert rollout.scope.get_cell_state(CREEK_NIGHT, "v1").proposal is None


def test_a_stop_whose_resume_was_open_is_not_trusted_to_hold():
    rollout = autonomous()
    rollout.stop(CREEK)
    rollout.ask_resume()
    rollout.approve(rollout.open("resume"), ANA, CY)
    accept(rollout)
    rollout.tick()
    assert rollout.stage() == "shadow"


def test_a_declared_restore_has_a_name_a_reason_and_no_incident():
    rollout = autonomous()
    era, stopped = accept(rollout, known_era=3)
    assert (era.by, era.reason, era.era) == ("ana", "the disk of Monday", 4)
    assert stopped.by == "ana"
    assert not rollout.scope.open_incidents


def test_what_is_stopped_already_is_not_stopped_twice():
    rollout = autonomous()
    accept(rollout)
    assert kinds(accept(rollout)) == ["EraBegan"]


def test_no_service_account_declares_a_restore():
    machine = Actor("box-7", (), is_service_account=True)
    with pytest.raises((NotAllowedError, UserRequiredError)):
        accept(autonomous(), by=machine)


def test_an_era_never_goes_back():
    rollout = autonomous()
    accept(rollout)
    older = apply_events([EraBegan(at=rollout.at, by="ana", era=1)], rollout.scope)
    assert older.era == 2


def test_a_revision_of_the_first_era_is_shown_as_before():
    assert (format_revision(1, 41), format_revision(3, 41)) == ("41", "3-41")


def find_changed(rollout, *cells):
    reason = "31 held, 32 counted"
    return rollout.do(StopChangedCells(at=rollout.at, cells=cells, cell=cells[0], reason=reason))


def test_changed_evidence_stops_its_cells_and_ends_their_proposals_alone():
    rollout = autonomous()
    rollout.raised(CREEK_NIGHT)
    incident, voided, stopped = find_changed(rollout, CREEK_NIGHT, CREEK)
    assert kinds((incident, voided, stopped)) == ["IncidentOpened", "ProposalVoided", "Stopped"]
    assert (incident.kind, incident.cell) == ("evidence_changed", CREEK_NIGHT)
    assert (incident.effect, incident.reason) == ("its cells are stopped", "31 held, 32 counted")
    assert (set(stopped.cells), stopped.by) == ({CREEK, CREEK_NIGHT}, "policy")
    assert (rollout.stage(), rollout.scope.era) == ("shadow", 1)
    rollout.tick()
    assert rollout.stage() == "shadow"
    assert find_changed(rollout, CREEK_NIGHT, CREEK) == ()


def test_changed_evidence_of_a_stopped_cell_is_told_once():
    rollout = autonomous()
    rollout.stop(CREEK)
    assert kinds(find_changed(rollout, CREEK)) == ["IncidentOpened"]
    assert find_changed(rollout, CREEK) == ()


def test_cells_of_changed_evidence_come_back_as_after_a_restore():
    rollout = autonomous()
    find_changed(rollout, CREEK)
    rollout.ask_resume(by=ANA)
    resume = rollout.open("resume")
    assert sorted(resume.needs) == ["operator", "safety"]
    rollout.approve(resume, BO, CY)
    rollout.tick()
    assert rollout.stage() == "autonomous"
    assert kinds(find_changed(rollout, CREEK)) == ["IncidentOpened", "Stopped"]
