"""Gates by slice: each value by itself, named where it holds the gate."""

from dataclasses import replace

from rollout.kernel.facts import MANY_VALUES
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.cell_evidence import (
    MAX_SLICE_VALUES,
    SliceCounts,
    list_recorded_attributes,
    list_slice_attributes,
)
from rollout.kernel.policy.gates import read_gate
from rollout.kernel.populations import EachValue
from rollout.kernel.words import say_reading, say_requirement
from tests.factories import CREEK, counted, gates, policy
from tests.looser import say_looser_rules

BY_GROUP = Condition(MEASURES["agreement"], 0.9, population=EachValue("group"))
POLICY = policy(gates=gates(supervised={"require": (BY_GROUP,)}), slices=("site_kind",))


def read(**values):
    counts = replace(counted(400), slices={BY_GROUP.key: values})
    return read_gate(POLICY, CREEK, 1, 1.0, counts, counts)


def test_every_value_passes_by_itself_at_the_gates_whole_risk():
    reading = read(new=SliceCounts(120, 2), old=SliceCounts(300, 5))
    lines = [say_reading(item.store(POLICY)) for item in reading.readings]
    assert reading.is_met
    assert lines[0].startswith("agreement of group=new at least 90 %: 120 of 122, log E ")
    assert {item.risk for item in reading.readings} == {0.05}


def test_one_bad_value_holds_what_the_average_would_open():
    reading = read(new=SliceCounts(30, 20), old=SliceCounts(3000, 5))
    assert not reading.is_met
    assert reading.has_turned


def test_a_value_seen_once_holds_the_gate_with_its_name_and_a_remedy():
    reading = read(new=SliceCounts(1, 0), old=SliceCounts(3000, 5))
    (text,) = map(say_requirement, reading.unmet_requirements)
    assert text.startswith("1 of 30 decided units with group=new; wait for more, or leave")
    assert not reading.is_met


def test_undecided_units_are_no_part_of_a_values_minimum():
    reading = read(new=SliceCounts(200, 5, missing=5), old=SliceCounts(29, 1, missing=1))
    assert say_requirement(reading.unmet_requirements[0]).startswith(
        "29 of 30 decided units with group=old"
    )


def test_a_hundred_values_are_read_each_by_itself_and_more_hold_the_gate():
    values = {f"v{number}": SliceCounts(200, 0) for number in range(MAX_SLICE_VALUES)}
    reading = read(**values)
    assert (reading.is_met, len(reading.readings)) == (True, 100)
    (lack,) = read(**values, other=SliceCounts(200, 0)).unmet_requirements
    assert (lack.kind, lack.actual, lack.needed) == (MANY_VALUES, 101, 100)


def test_without_a_unit_the_gate_is_closed():
    reading = read()
    assert [say_requirement(lack) for lack in reading.unmet_requirements] == [
        "no unit for agreement of each group at least 90 %"
    ]
    assert not reading.is_met


def test_reports_slices_are_recorded_before_a_gate_asks_for_them():
    assert list_slice_attributes(POLICY) == ("group",)
    assert list_recorded_attributes(POLICY) == ("group", "site_kind")


def test_a_lower_threshold_and_a_dropped_slice_loosen():
    lower = replace(BY_GROUP, threshold=0.8)
    changed = replace(POLICY, gates=gates(supervised={"require": (lower,)}))
    assert say_looser_rules(POLICY, changed)
    assert not [text for text in say_looser_rules(changed, POLICY) if "agreement" in text]
    dropped = replace(POLICY, gates=gates())
    assert any("each group" in text for text in map(str, say_looser_rules(POLICY, dropped)))
