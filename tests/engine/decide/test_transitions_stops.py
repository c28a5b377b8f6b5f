"""Stops, which need one operator, and resumes, which need approvals (model.md §2)."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.decide.stops import StopTarget, resolve_target
from rollout.kernel.errors import (
    UnknownProposalError,
    UserRequiredError,
)
from rollout.kernel.policy.policy import Freeze, Gate, Where
from tests.factories import (
    AGREEMENT,
    BOT,
    CREEK,
    CREEK_NIGHT,
    CY,
    DAN,
    DAY,
    LAKE,
    RolloutDriver,
    autonomous,
    gates,
    kinds,
    policy,
    supervised,
)


@pytest.mark.parametrize("drill", [False, True])
def test_one_operator_stops_and_the_grants_stay(drill):
    rollout = autonomous()
    (stopped,) = rollout.stop(drill=drill)
    assert (stopped.cells, stopped.by, stopped.drill) == ((CREEK,), "bo", drill)
    assert rollout.stage() == "shadow"
    assert len(rollout.scope.get_cell_state(CREEK, "v1").grants) == 2


def test_repeating_a_stop_answers_what_holds():
    rollout = autonomous()
    rollout.stop(CREEK, LAKE)
    assert rollout.stop(CREEK) == ()
    assert [e.cells for e in rollout.stop(CREEK, CREEK_NIGHT)] == [(CREEK_NIGHT,)]


def test_a_stopped_cell_comes_back_by_an_approved_resume_alone():
    rollout = autonomous()
    rollout.stop()
    (raised,) = rollout.ask_resume()
    assert (raised.kind, raised.needs) == ("resume", ("operator", "safety"))
    assert rollout.ask_resume() == ()
    rollout.approve(raised, DAN)
    rollout.tick()
    assert rollout.stage() == "shadow"
    rollout.approve(raised, CY)
    assert kinds(rollout.tick()) == ["Resumed"]
    assert rollout.stage() == "autonomous"


def test_a_resume_asks_whom_the_highest_gate_that_comes_back_asks():
    rollout = autonomous()
    rollout.widen(LAKE)
    rollout.stop(CREEK, LAKE)
    rollout.stop(CREEK_NIGHT)
    first, second = rollout.scope.stops
    assert rollout.ask_resume(first)[0].needs == ("operator", "safety")
    assert rollout.ask_resume(second)[0].needs == ("operator", "operator")


def test_a_resume_asks_whom_the_highest_gate_asks_where_its_own_is_gone():
    rollout = autonomous()
    rollout.stop(CREEK)
    elsewhere = replace(gates()[1], where=Where(sites=("lake",)))
    rollout.edit(policy(gates=(gates()[0], elsewhere)))
    assert rollout.ask_resume()[0].needs == ("operator", "safety")


def test_a_resume_of_several_cells_asks_everybody_whom_one_of_them_asks():
    money = Gate("supervised", (AGREEMENT,), 0.05, approvals=("finance", "operator"))
    other = replace(money, approvals=("operator", "safety"))
    here = replace(money, where=replace(money.where, sites=("creek",)))
    rollout = RolloutDriver(policy(gates=(here, other)))
    for cell, people in ((CREEK, ("finance", "operator")), (LAKE, ("operator", "safety"))):
        found = [Actor(f"p-{group}", (group,)) for group in people]
        rollout.approve(rollout.raised(cell), *found)
        rollout.tick()
    rollout.stop(CREEK, LAKE)
    assert sorted(rollout.ask_resume()[0].needs) == ["finance", "operator", "safety"]


def test_what_lapsed_while_stopped_does_not_come_back():
    rollout = autonomous()
    rollout.stop()
    rollout.after(80 * DAY)
    rollout.ask_resume()
    rollout.approve(rollout.open("resume"), DAN, CY)
    rollout.tick()
    rollout.stop()
    rollout.after(10 * DAY)
    rollout.ask_resume()
    rollout.approve(rollout.open("resume"), DAN, Actor("eve"))
    assert "Resumed" in kinds(rollout.tick())
    assert rollout.stage() == "shadow"


def test_of_two_overlapping_stops_each_needs_its_own_resume():
    rollout = autonomous()
    rollout.stop(CREEK)
    first = next(iter(rollout.scope.stops))
    rollout.ask_resume(first)
    rollout.stop(CREEK, LAKE)  # the first is about to be taken back, so this one counts
    rollout.approve(rollout.open("resume"), DAN, CY)
    assert kinds(rollout.tick()) == ["Resumed"]
    assert rollout.stage() == "shadow"


def test_a_resume_waits_for_a_freeze_but_for_no_wave():
    rollout = autonomous(policy(freezes=(Freeze("Jun 02", "fair"),)))
    rollout.stop()
    rollout.at = datetime(2027, 6, 2, 6, tzinfo=UTC)
    rollout.ask_resume()
    rollout.approve(rollout.open("resume"), DAN, CY)
    assert rollout.tick() == ()
    rollout.after(DAY)
    assert kinds(rollout.tick()) == ["Resumed"]


def test_a_resume_goes_on_where_a_stopped_site_is_removed():
    rollout = supervised()
    rollout.widen(LAKE)
    rollout.stop(CREEK, LAKE)
    later = policy(sites=rollout.policy.sites[:1], freezes=(Freeze("Dec 24", "fair"),))
    rollout.edit(later)
    rollout.ask_resume()
    rollout.approve(rollout.open("resume"), DAN, Actor("eve"))
    assert kinds(rollout.tick()) == ["Resumed"]


def test_a_resume_of_no_stop_is_refused_by_name():
    rollout = autonomous()
    with pytest.raises(UnknownProposalError, match="those that do: none"):
        rollout.ask_resume("S-1")


def test_keys_ask_for_no_resume():
    rollout = autonomous()
    rollout.stop()
    with pytest.raises(UserRequiredError):
        rollout.ask_resume(by=BOT)


def test_a_stop_by_windows_alone_reaches_them_at_every_site():
    operator = Caller("bo", role_assignments=(AssignedRole("operator"),))
    resolved = resolve_target(StopTarget(windows=("night",)), policy(), operator)
    assert {cell.window for cell in resolved.cells} == {"night"}
    assert resolved.sites == ("creek", "lake")
    assert resolved.excluded == ()
