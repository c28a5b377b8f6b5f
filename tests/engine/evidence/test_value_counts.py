"""Counts of unfamiliar units and of each value, with numbers counted by hand."""

import numpy as np

from rollout.engine.evidence.gate_series import (
    UnfamiliarUnits,
    ValueCounts,
    count_unfamiliar_units,
    count_values,
)
from rollout.engine.evidence.stage_history import FamiliarHistory, find_familiar_units
from rollout.engine.evidence.unit_arrays import UnitClasses
from rollout.kernel.policy.familiarity import FAMILIAR, FEW, ValueReading
from rollout.kernel.units import CASELESS, UnitClass
from tests.engine.evidence.test_value_series import CLASSES, FORM, RULE, build_rows
from tests.factories import policy

OTHER = ("form", "b")
A, B, BOTH, NONE = 0, 2, 4, 6  # classes of agreeing units
HISTORY = FamiliarHistory().extend(4, {FORM: FAMILIAR}).extend(7, {FORM: FEW})
ROWS = build_rows([(1, A), (2, A), (3, B), (5, A), (5, BOTH), (6, NONE), (6, A), (8, A)])


def test_each_value_is_counted_and_what_went_to_humans_while_the_version_acted():
    readings = {FORM: ValueReading(FAMILIAR, judged=4, agreed=3)}
    levels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    found = count_values(ROWS, levels, CLASSES, HISTORY, readings, RULE)
    assert found == (
        ValueCounts(FORM, readings[FORM], met=6, to_humans=1),  # of slot 7, when it was none
        ValueCounts(OTHER, ValueReading(FEW), met=2, to_humans=1),
    )
    assert found[0].mistaken == 1


def test_a_unit_is_unfamiliar_by_any_value_and_counts_only_if_its_values_are_stored():
    assert count_unfamiliar_units(ROWS, CLASSES, HISTORY) == UnfamiliarUnits(7, 5, FORM, 3)
    assert count_unfamiliar_units(build_rows([(1, NONE)]), CLASSES, HISTORY) == UnfamiliarUnits(
        0, 0
    )


def test_a_unit_whose_case_nobody_sent_counts_whatever_its_values():
    """Else a sender withholds the bad cases, and without values no gate misses them."""
    unsent = UnitClass("alarm", CASELESS, "", attribute_values='[{"form":"(none)"}]')
    classes = UnitClasses((unsent, *CLASSES.classes), policy())
    found = find_familiar_units(build_rows([(1, 0), (1, A + 1)]), classes, HISTORY)
    assert found.tolist() == [True, False]


def test_values_of_a_former_rule_are_not_listed():
    former = UnitClasses(
        (UnitClass("alarm", "bear", "bear", attribute_values='[{"ink":"x"}]'),), policy()
    )
    rows = build_rows([(1, 0)])
    assert count_values(rows, np.ones(1), former, FamiliarHistory(), {}, RULE) == ()
