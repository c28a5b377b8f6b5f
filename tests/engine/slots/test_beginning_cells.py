"""A cell with its first units costs little: no gate is read that they can't open."""

from dataclasses import replace

import pytest

from rollout.engine.decide.scope import Scope
from rollout.engine.events import AttemptsBegan
from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.engine.slots.fast_forward import find_interest
from rollout.engine.slots.options import ReplayOptions
from tests.engine.evidence.histories import a_policy, cases, decisions, predictions, records
from tests.engine.slots.stories import prepared

PLAN = ReplayOptions(approval_delay=None)
MINIMUM = 5


@pytest.fixture
def gates_read(monkeypatch):
    """Return a list that grows with each gate that is evaluated over a history."""
    levels, compute = [], EvidenceView._compute_gate_series

    def note(view, stage_level, *parts):
        levels.append(stage_level)
        return compute(view, stage_level, *parts)

    monkeypatch.setattr(EvidenceView, "_compute_gate_series", note)
    return levels


def replay(count):
    """Replay so many cases of one hour."""
    keys = [f"c{number}" for number in range(count)]
    history = records(
        cases(*((key, 1.5) for key in keys)),
        predictions(*((key, "bear") for key in keys)),
        decisions(*((key, "bear") for key in keys)),
    )
    return prepared(history, a_policy()).run(PLAN)


@pytest.mark.parametrize(("count", "reads"), [(MINIMUM - 1, 0), (MINIMUM, 1)])
def test_a_gate_is_read_once_its_minimum_can_be_met(gates_read, count, reads):
    result = replay(count)
    assert sum(isinstance(event, AttemptsBegan) for event in result.events) == 1
    assert len(gates_read) == reads


def test_units_of_a_first_stage_are_counted_once():
    (view,) = replay(MINIMUM).views.values()
    assert view.entered_window is view.attempt_window
    evidence = view.read_evidence(2**40)
    assert evidence.entered is evidence.attempt
    assert evidence.attempt.closed == MINIMUM


@pytest.mark.parametrize(("later", "reads"), [(-3, 1), (0, 0), (2, 0)])
def test_a_cell_whose_attempt_begins_is_due_without_its_gate(gates_read, later, reads):
    result = replay(MINIMUM)
    (view,) = result.views.values()
    slot = view.attempt_window.find_first_evidence()
    before = Scope(versions=result.scope.versions)
    gates_read.clear()
    assert find_interest(replace(view), before, slot + later).slot == max(slot, slot + later)
    assert len(gates_read) == reads
