"""The names of form 2, held against the classes of the facts."""

import dataclasses
import typing

import pytest

from rollout.reports.figures.facts import ReportFacts
from rollout.reports.figures.report_forms import NEW_NAMES, NEW_VALUES, translate_report


def list_classes(hint):
    for argument in typing.get_args(hint):
        yield from list_classes(argument)
    if dataclasses.is_dataclass(hint):
        yield hint
        for field_type in typing.get_type_hints(hint).values():
            yield from list_classes(field_type)


FIELDS = {kind.__name__: set(kind.__dataclass_fields__) for kind in list_classes(ReportFacts)}


@pytest.mark.parametrize("name", NEW_NAMES)
def test_each_new_name_is_a_field_and_no_former_name_is(name):
    assert set(NEW_NAMES[name].values()) <= FIELDS[name]
    former_names = set(NEW_NAMES[name]) - set(NEW_NAMES[name].values())
    assert not former_names & FIELDS[name]


@pytest.mark.parametrize(("name", "field"), NEW_VALUES)
def test_each_field_with_new_values_is_there(name, field):
    assert field in FIELDS[name]


def test_names_change_in_rows_of_rows_and_in_optional_parts():
    report = {
        "schema": "rollout-report/1",
        "evidence": [{"gate": {"lacks": [], "conditions": [{"line": 0.8, "ninety": None}]}}],
        "calibrations": [{"against": "people", "said": "no confidences"}],
        "hindsights": [{"price": {"known": 3}, "price_if_seen": None}],
    }
    assert translate_report(report) == {
        "schema": "rollout-report/2",
        "evidence": [
            {
                "gate": {
                    "missing": [],
                    "conditions": [{"threshold": 0.8, "records_needed_p90": None}],
                }
            }
        ],
        "calibrations": [{"reference": "human", "missing_data": "no confidences"}],
        "hindsights": [{"cost": {"known_cases": 3}, "cost_if_seen": None}],
    }
