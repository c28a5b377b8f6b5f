"""What `plan` prints about unfamiliar cases: share by month, and each value's first day."""

from dataclasses import replace
from datetime import date

import numpy as np

from rollout.engine.evidence.tallied_units import TalliedUnits
from rollout.engine.evidence.unit_arrays import CellUnitArrays, UnitArrays, UnitClasses
from rollout.features.policies.traffic import forecast_familiarity, format_familiarity
from rollout.kernel.policy.familiarity import FamiliarAttribute, FamiliarityRule
from rollout.kernel.policy.policy import EvidenceRules
from rollout.kernel.units import UnitClass
from tests.factories import CREEK, policy

RULE = FamiliarityRule((FamiliarAttribute(("form",)),), at_least=3, line=0.6)
POLICY = policy(evidence=EvidenceRules(familiar=RULE))
CLASSES = UnitClasses(
    tuple(
        UnitClass("alarm", "bear", "bear", attribute_values=f'[{{"form":"{form}"}}]')
        for form in ("old", "new")
    ),
    POLICY,
)
MAY, JUNE = date(2027, 5, 31).toordinal(), date(2027, 6, 1).toordinal()


def build_units(rows) -> TalliedUnits:
    """Return one cell's units of (slot, class, day), counted at once."""
    slots, kinds, days = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    zeros = np.zeros(len(rows), dtype=np.int64)
    arrays = UnitArrays(slots, slots - 1, kinds, zeros, days, zeros)
    cells = {(CREEK, "v1"): CellUnitArrays(gate=arrays, guard=arrays)}
    return TalliedUnits(cells, CLASSES, (), (), 0, 99)


UNITS = build_units(
    [*[(slot, 0, MAY) for slot in range(1, 6)], *[(slot, slot % 2, JUNE) for slot in range(6, 10)]]
)


def test_the_first_units_of_each_value_are_unfamiliar_by_month():
    forecast = forecast_familiarity(UNITS, POLICY, "v1")
    assert forecast is not None
    assert forecast.months == (("2027-05", 5, 3), ("2027-06", 4, 2))
    assert forecast.first_days == (
        ("form=new", date(2027, 6, 1)),
        ("form=old", date(2027, 5, 31)),
    )
    lines = list(format_familiarity(POLICY, forecast))
    assert "  2027-05: 3 of 5 units (60.0\N{NO-BREAK SPACE}%) of v1" in lines
    assert "  form=new: first on 2027-06-01" in lines


def test_without_records_the_plan_asks_for_them_and_without_the_rule_it_is_silent():
    assert "add --predictions and --decisions" in list(format_familiarity(POLICY, None))[2]
    plain = replace(POLICY, evidence=EvidenceRules())
    assert list(format_familiarity(plain, None)) == []
    assert forecast_familiarity(UNITS, plain, "v1") is None
