"""Statuses of values by slot: what they rest on, and what can never make one familiar."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from rollout.engine.evidence.gate_series import ValueSeries
from rollout.engine.evidence.stage_history import FamiliarHistory, find_familiar_units
from rollout.engine.evidence.unit_arrays import UnitArrays, UnitClasses
from rollout.kernel.policy.familiarity import (
    FAMILIAR,
    FEW,
    MISTAKEN,
    UNREADABLE,
    FamiliarAttribute,
    FamiliarityRule,
)
from rollout.kernel.units import UnitClass
from tests.factories import policy

RULE = FamiliarityRule((FamiliarAttribute(("form",)),), at_least=3)
FORM = ("form", "a")
TEXTS = ('[{"form":"a"}]', '[{"form":"b"}]', '[{"form":"a"},{"form":"b"}]', "")
CLASSES = UnitClasses(
    tuple(
        UnitClass("alarm", "bear", decided, attribute_values=text)
        for text in TEXTS
        for decided in ("bear", "none")
    ),
    policy(),
)
UNITS = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 7)), max_size=40).map(sorted)


def build_rows(units) -> UnitArrays:
    """Return units of (slot, class), each of which occurred in the slot before."""
    slots, kinds = (np.array([u[i] for u in units], dtype=np.int64) for i in (0, 1))
    zeros = np.zeros(len(units), dtype=np.int64)
    return UnitArrays(slots, slots - 1, kinds, zeros, zeros, zeros)


def read(units, slot, line=0.6):
    return ValueSeries(build_rows(units), CLASSES, RULE, line).read_at(slot)


def test_what_can_not_be_read_is_never_familiar_but_may_be_mistaken():
    text = f'[{{"form":"{UNREADABLE}"}}]'
    kinds = [UnitClass("alarm", "bear", d, attribute_values=text) for d in ("bear", "none")]
    classes = UnitClasses(tuple(kinds), policy())
    for kind, status in ((0, FEW), (1, MISTAKEN)):
        series = ValueSeries(build_rows([(1, kind)] * 3), classes, RULE, 0.6)
        assert series.read_at(1)["form", UNREADABLE].status == status


def list_familiar(units, slot):
    return {value for value, reading in read(units, slot).items() if reading.status == FAMILIAR}


@given(UNITS, st.integers(0, 13))
def test_a_status_depends_on_no_unit_that_counts_later(units, slot):
    earlier = [unit for unit in units if unit[0] <= slot]
    assert read(units, slot) == read(earlier, slot)
    assert all(occurred < slot for occurred in build_rows(earlier).occurred + 0)


@given(UNITS, st.integers(0, 13))
@example([*[(1, 1)] * 6, (1, 4)], 1)  # the one that agrees is first, and too old
def test_a_status_is_that_of_the_newest_units_counted_by_hand(units, slot):
    judged = sorted((s, kind % 2, kind) for s, kind in units)  # of one slot those that agree first
    own = [odd == 0 for s, odd, kind in judged if s <= slot and kind // 2 in {0, 2}]
    reading = read(units, slot).get(FORM)
    if not own:
        assert reading is None
        return
    assert reading is not None
    newest = own[-6:]
    assert (reading.judged, reading.agreed) == (len(newest), sum(newest))
    is_familiar = len(own) >= 3 and sum(newest) >= 0.6 * len(newest) - 1e-9
    assert (reading.status == FAMILIAR) == is_familiar
    assert (reading.status == FEW) == (len(own) < 3)


@given(UNITS)
def test_no_unit_makes_no_value_familiar_and_the_next_change_is_found(units):
    assert read([], 13) == {}
    series = ValueSeries(build_rows(units), CLASSES, RULE, 0.6)
    found = series.find_next_change(0, {}, frozenset(), is_acting=False)
    changes = [
        slot for slot in range(14) if any(r.status != FEW for r in read(units, slot).values())
    ]
    assert found == (changes[0] if changes else None)


@given(UNITS, st.data())
def test_fewer_agreeing_units_never_make_a_value_familiar_before_the_span_is_full(units, data):
    """Up to 2N units: later the newest of those that are left count, as if it were earlier."""
    units = units[:6]
    agreeing = [unit for unit in units if unit[1] % 2 == 0]
    if agreeing:
        fewer = list(units)
        fewer.remove(data.draw(st.sampled_from(agreeing)))
        assert list_familiar(fewer, 13) <= list_familiar(units, 13)


def test_without_room_for_an_incident_a_recorded_mistaken_value_needs_no_slot():
    series = ValueSeries(build_rows([(5, 1)] * 4), CLASSES, RULE, 0.6)
    found = [
        series.find_next_change(0, {FORM: MISTAKEN}, frozenset(), is_acting=True, has_room=has_room)
        for has_room in (True, False)
    ]
    assert found[0] is not None
    assert found[1] is None


def test_a_value_beyond_the_first_thousand_never_becomes_familiar(monkeypatch):
    monkeypatch.setattr("rollout.engine.evidence.gate_series.MAX_VALUES", 1)
    units = [(1, 0)] * 3 + [(2, 2)] * 3
    assert list_familiar(units, 5) == {("form", "a")}


def test_a_unit_is_familiar_where_all_its_cases_were_when_it_occurred():
    rows = build_rows([(5, 0), (5, 2), (5, 4), (5, 6), (8, 0), (11, 0)])
    history = FamiliarHistory().extend(4, {FORM: FAMILIAR}).extend(9, {FORM: FEW})
    assert find_familiar_units(rows, CLASSES, history).tolist() == [
        True, False, False, True, True, False,
    ]  # fmt: skip
    assert not find_familiar_units(rows, CLASSES, FamiliarHistory())[[0, 1, 2]].any()
