"""What an alarm counted, in words that are true of each measure's counts."""

import pytest

from rollout.reports.text.guard_text import describe_counted_records, format_guard_reason

COUNTED = [
    ("agreement at least 90 %", "blind decisions disagree, too many of them recent"),
    ("agreement (picture) at least 90 %", "blind decisions disagree, too many of them recent"),
    (
        "recall of bear (picture) at least 80 %",
        "blind decisions for bear were predicted otherwise, too many of them recent",
    ),
    (
        "precision of bear at least 80 %",
        "predictions of bear disagree with the blind decision, too many of them recent",
    ),
    ("cost at most 0.2", "units have a cost, too much of it recent"),
    ("override at most 5 %", "assisted decisions override the model, too many of them recent"),
    (
        "action_change of siren at most 2",
        "cases get siren from the model only, too many of them recent",
    ),
    ("harm of bite at most 0", "outcomes name bite"),
    ("harm at most 0", "outcomes name a harm"),
]


@pytest.mark.parametrize(("guard", "text"), COUNTED)
def test_each_measure_counts_in_its_own_words(guard, text):
    assert describe_counted_records(guard) == text
    assert format_guard_reason(f"{guard}: 15 of 1820 records against it") == (
        f"{guard}: 15 of 1,820 {text}"
    )


def test_other_reasons_stay():
    reason = "failures at most 2 %: 3 of 4 answers failed"
    assert format_guard_reason(reason) == reason
    assert format_guard_reason("v1: 3 of 4 records against it") == "v1: 3 of 4 records against it"
