"""Of several names of a version, the first answer to a case counts, under the first name."""

import pytest

from rollout.engine.evidence.frames import merge_renamed_predictions
from tests.engine.evidence.histories import cases, decisions, predictions, records

FIRST_NAMES = {"v1b": "v1", "v1c": "v1"}


@pytest.mark.parametrize(
    ("answers", "version", "counted"),
    [
        ([("v1", 3), ("v1b", 2)], "v1", "v1b 2"),
        ([("v1c", 2), ("v1b", 2)], "v1", "v1b 2"),
        ([("v1b", 2), ("v1", None)], "v1", "v1 None"),
        ([("v2", 1)], "v2", "v2 1"),
    ],
    ids=["earlier", "older name", "without a time", "another version"],
)
def test_one_answer_a_case_and_version(answers, version, counted):
    said = [("a", f"{name} {at}", {"version": name, "at": at}) for name, at in answers]
    of_b = ("b", "fox", {"version": "v1b", "at": 9})
    history = records(cases(("a", 1), ("b", 2)), predictions(of_b, *said), decisions())
    merged = merge_renamed_predictions(history, FIRST_NAMES).predictions
    rows = merged.select("case_key", "version", "value:alarm").rows()
    assert rows == [("b", "v1", "fox"), ("a", version, counted)]
    assert merged.columns == history.predictions.columns
