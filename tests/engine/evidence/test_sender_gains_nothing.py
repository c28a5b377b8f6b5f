"""Where another account registers every case, no sender of predictions makes a model look better.

Whatever it delays, leaves out or sends with the answer in sight, each decided case since its first
prediction is one unit, in the slot that it had if all had been sent at once, and agrees at most
where the prediction came first and is right. So the chance of opening is at most that of sending
all at once, which the gate bounds by its risk.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.evidence.histories import (
    a_policy,
    cases,
    decisions,
    predictions,
    records,
    resolved,
    track,
)
from tests.properties import examples

pytestmark = pytest.mark.slow

POLICY = a_policy()
SENT = ("before", "after", "days later", "never")
SENT_CASES = st.lists(
    st.tuples(st.booleans(), st.sampled_from(SENT), st.sampled_from(["bear", "fox"])),
    min_size=1,
    max_size=12,
)


def list_units(sent_cases, *, is_honest=False):
    """Return by case the slot of its unit, and whether it agrees."""
    rows = [(f"c{number:02}", 1 + number / 2, *sent) for number, sent in enumerate(sent_cases)]
    answers = []
    for key, at, is_right, when, human in rows:
        own = human if is_right else "none"
        if is_honest or when == "before":
            answers.append((key, own, {"received": at + 0.1}))
        elif when != "never":  # it has seen what people decided
            answers.append((key, human, {"received": at + (0.3 if when == "after" else 70)}))
    history = records(
        cases(*((key, at, {"received": at}) for key, at, *_ in rows)),
        predictions(*answers),
        decisions(*((key, human, {"at": at + 0.2}) for key, at, _, _, human in rows)),
    )
    units = track(resolved(history, POLICY))
    assert len({unit["case_key"] for unit in units}) == len(units)
    return {
        unit["case_key"]: (unit["slot"], unit["predicted"] == unit["decided"])
        for unit in units
        if unit["excluded"] is None
    }


@examples(given(SENT_CASES), fast=15, whole=150)
def test_no_delay_or_loss_adds_or_hides_unit(sent_cases):
    honest, others = list_units(sent_cases, is_honest=True), list_units(sent_cases)
    first = next((n for n, (_, when, _) in enumerate(sent_cases) if when == "before"), None)
    for number, (is_right, when, _) in enumerate(sent_cases):
        key = f"c{number:02}"
        if first is None or number < first:
            assert not others.get(key, (0, False))[1]
            continue
        slot, agrees = others[key]
        assert slot == honest[key][0]
        assert agrees == (is_right and when == "before")
