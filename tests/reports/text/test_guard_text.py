"""What an alarm counted, in words that are true of each measure's counts."""

import pytest

from rollout.reports.text.guard_text import format_guard_reason, name_counted_records

COUNTED = [
    ("agreement at least 90 %", "blind decisions disagree"),
    ("agreement (picture) at least 90 %", "blind decisions disagree"),
    (
        "recall of bear (picture) at least 80 %",
        "blind decisions for bear were predicted otherwise",
    ),
    (
        "precision of bear at least 80 %",
        "predictions of bear disagree with the blind decision",
    ),
    ("cost at most 0.2", "units have a cost"),
    ("override at most 5 %", "assisted decisions override the model"),
    (
        "action_change of siren at most 2",
        "cases get siren from the model only",
    ),
    ("harm of bite at most 0", "outcomes name bite"),
    ("harm at most 0", "outcomes name a harm"),
]


@pytest.mark.parametrize(("guard", "text"), COUNTED)
def test_each_measure_counts_in_its_own_words(guard, text):
    assert name_counted_records(guard) == text
    assert format_guard_reason(f"{guard}: 15 of 1820 records against it") == (
        f"{guard}: 15 of 1,820 {text}"
    )


def test_other_reasons_stay():
    reason = "failures at most 2 %: 3 of 4 answers failed"
    assert format_guard_reason(reason) == reason
    assert format_guard_reason("v1: 3 of 4 records against it") == "v1: 3 of 4 records against it"
