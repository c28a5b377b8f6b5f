"""When each attribute value first occurred among a cell's closed units."""

import json
from dataclasses import replace

import numpy as np

from rollout.engine.evidence.stored_units import KNOWN_SPAN, MAX_VALUES, FirstValues
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.familiarity import FamiliarAttribute, FamiliarityRule
from tests.engine.evidence.stored_units import build_stored_units
from tests.factories import policy as bears_policy

POLICY = replace(bears_policy(), slices=("lens", "plate"))
CREEK = Cell("creek", "day")
WEEK = KNOWN_SPAN // POLICY.tick
UNIT = {
    "track": "gate", "version": "v1", "site": "creek", "window": "day", "definition": "now",
    "lever": "alarm", "predicted": "bear", "decided": "bear", "second": "", "level": 0,
    "slot": 2**20, "day": 0, "bucket": 0, "reviewer": None,
}  # fmt: skip


def build(*rows):
    """Return units of creek by day: slot, lens, and what else differs."""
    return [
        UNIT
        | {
            "unit": f"u{number}",
            "occurred": slot,
            "slices": json.dumps({"lens": lens, "plate": None}),
        }
        | (more[0] if more else {})
        for number, (slot, lens, *more) in enumerate(rows)
    ]


def add(first_values, rows):
    first_values.add(build_stored_units(rows).list_sliced_units())


def find(*parts, policy=POLICY, cell=CREEK):
    first_values = FirstValues()
    for rows in parts:
        add(first_values, rows)
    return [value[1:] for value in first_values.find_new(policy, (cell,)).get(cell, ())]


def test_a_value_that_a_cell_meets_after_a_week_is_new_from_its_first_unit_on():
    units = build((0, "old"), (3, "rare"), (WEEK - 1, "late"), (WEEK + 9, "new"), (WEEK, "new"))
    assert find(units) == [("new", WEEK)]
    assert find(units, cell=Cell("creek", "night")) == []


def test_other_tracks_and_units_without_values_are_no_first_ones():
    first, new = (0, "old"), (WEEK + 9, "new")
    guard = (WEEK + 2, "new", {"track": "guard"})
    assert find(build(first, guard, new)) == [("new", WEEK + 9)]
    for slices in (None, ""):
        assert find([{**row, "slices": slices} for row in build(first, new)]) == []


def test_erased_cases_leave_no_value():
    erased = (WEEK + 1, "(erased 1)", {"is_erased": True})
    shared = (WEEK + 1, "new", {"is_erased": True})
    assert find(build((0, "old"), erased, shared, (WEEK + 5, "new"))) == [("new", WEEK + 5)]


def test_keys_of_cases_and_familiar_values_are_never_new():
    values = [(slot * WEEK // 4, f"x{slot}") for slot in range(MAX_VALUES + 1)]
    assert len(find(build(*values[:-1]))) == MAX_VALUES - 4
    assert find(build(*values)) == []
    assert find(build(*values), build((WEEK, "x5"))) == []
    rule = FamiliarityRule((FamiliarAttribute(("lens",)),))
    familiar = replace(POLICY, evidence=replace(POLICY.evidence, familiar=rule))
    assert find(build((0, "old"), (WEEK, "new")), policy=familiar) == []
    assert find(build((0, "old"), (WEEK, "new")), policy=replace(POLICY, slices=())) == []


def test_parts_in_any_order_and_a_snapshot_have_the_same_first_units():
    random = np.random.default_rng(5)
    rows = [
        (int(slot), f"x{slot // WEEK * 3 + slot % 3}") for slot in random.integers(0, 9 * WEEK, 400)
    ]
    whole, parts, restored = FirstValues(), FirstValues(), FirstValues()
    add(whole, build(*rows))
    for start in reversed(range(0, 400, 7)):
        add(parts, build(*rows[start : start + 7]))
    restored.restore(json.loads(json.dumps(whole.encode())))
    assert whole.encode() == parts.encode() == restored.encode() != []
    assert restored.find_new(POLICY, (CREEK,)) == whole.find_new(POLICY, (CREEK,)) != {}
