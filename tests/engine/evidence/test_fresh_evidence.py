"""What is read beside a gate before a widening: units inside their grace whose answer is known."""

from datetime import timedelta

import numpy as np
import pytest

from rollout.engine.decide.projection import apply_events
from rollout.engine.events import VersionFirstUsed
from rollout.engine.evidence.evidence_view import (
    EvidenceView,
    order_by_receipt,
    read_fresh_evidence,
)
from rollout.engine.evidence.stage_history import StageHistory, build_stage_shares
from rollout.engine.evidence.unit_arrays import CellUnitArrays, UnitArrays, UnitClasses
from rollout.kernel.calendar.instants import find_slot_before
from rollout.kernel.policy.policy import Guard
from rollout.kernel.units import NOT_PREDICTED, UnitClass
from tests.engine.evidence.histories import AGREEMENT, HOUR, START, a_policy, evidence

GUARD = Guard(AGREEMENT, "one-stage")
POLICY = evidence(a_policy(guards=(GUARD,)), grace=3 * HOUR)
(CELL,) = POLICY.cells
AGREES, DIFFERS, UNANSWERED = 0, 1, 2
CLASSES = UnitClasses(
    (
        *(UnitClass("alarm", "bear", decided) for decided in ("bear", "fox")),
        UnitClass("alarm", NOT_PREDICTED, "bear"),
    ),
    POLICY,
)
FIRST = find_slot_before(START, timedelta(hours=1))


def build_units(slots, classes):
    slots = FIRST + np.array(slots, dtype=np.int64)
    zeros = np.zeros(len(slots), dtype=np.int64)
    return UnitArrays(slots, slots - 1, np.array(classes, dtype=np.int64), zeros, zeros, zeros)


def read(counted, fresh, certain, slot=30):
    """Return the evidence at a slot: classes of units up to it, and of those that close later."""
    slots = [*range(slot - len(counted) + 1, slot + 1), *(slot + 1 for _ in fresh)]
    rows = build_units(slots, [*counted, *fresh])
    certain_slots = np.concatenate(
        [rows.slot[: len(counted)], FIRST + np.array(certain, dtype=np.int64)]
    )
    state = apply_events([VersionFirstUsed(at=START, by="policy", version="v1")])
    view = EvidenceView(
        cell=CELL,
        version="v1",
        rows=CellUnitArrays(gate=rows, guard=rows, gate_known=certain_slots),
        unit_classes=CLASSES,
        policy=POLICY,
        state=state.get_cell_state(CELL, "v1"),
        first_seen=START,
        stage_history=StageHistory(),
        shares=build_stage_shares(POLICY),
        find_buckets=lambda rows: rows.unit,
        feeds=None,
    )
    return read_fresh_evidence(view, FIRST + slot)


@pytest.mark.parametrize(("certain", "count"), [(30, 1), (31, 0)])
def test_a_unit_is_fresh_from_the_slot_that_knows_its_answer(certain, count):
    reading = read([AGREES] * 5, [DIFFERS], [certain])
    assert reading.fresh.closed == count
    assert reading.attempt.counts[AGREEMENT.key] == (5, count)


def test_who_falls_silent_at_the_end_has_missing_units_in_all_and_lately():
    attempt = read([AGREES] * 5, [UNANSWERED, AGREES, UNANSWERED], [28, 29, 30]).attempt
    assert (attempt.closed, attempt.missing) == (8, 2)
    assert (attempt.recent_closed, attempt.recent_missing) == (8, 2)
    assert attempt.counts[AGREEMENT.key] == (6, 2)


@pytest.mark.parametrize(
    ("counted", "alarms"),
    [([AGREES] * 60, ()), ([DIFFERS] * 60, (AGREEMENT,)), ([DIFFERS, *[AGREES] * 59], ())],
    ids=["agrees", "differs", "differed"],
)
def test_a_guard_that_is_in_alarm_over_the_attempt_is_told(counted, alarms):
    assert read(counted, [DIFFERS], [90], slot=90).alarms == alarms


@pytest.mark.parametrize(
    ("counted", "newest"),
    [(17, ()), (18, ((18, 20),)), (19, ((18, 20),))],
)
def test_the_newest_answers_end_with_the_fresh_ones_as_soon_as_there_are_twenty(counted, newest):
    reading = read([AGREES] * counted, [DIFFERS, DIFFERS], [29, 30])
    assert reading.newest[AGREEMENT.key] == newest


def test_fresh_units_count_in_the_order_in_which_they_could_be_read():
    rows = build_units([31, 32, 33], [AGREES, DIFFERS, AGREES])
    ordered = order_by_receipt(rows, FIRST + np.array([30, 28, 31]), FIRST + 30)
    assert (ordered.slot - FIRST).tolist() == [28, 30]
    assert ordered.unit_class.tolist() == [DIFFERS, AGREES]
