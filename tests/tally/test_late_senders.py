"""What late senders look like, from the delays of their records."""

import pytest

from rollout.tally import late_senders
from rollout.tally.late_senders import find_late_senders
from tests.tally import histories

DAYS = 60
SECOND = 1 / 3600


def find(delays):
    """Return what predictions look like that come so many hours after a case a day.

    Each case is decided an hour after it occurred.
    """
    cases = [(f"c{day}", 24 * day, {}) for day in range(DAYS)]
    sent = [
        (key, "bear", {"at": at + delay}) for (key, at, _), delay in zip(cases, delays, strict=True)
    ]
    decided = [(key, "bear", {"at": at + 1}) for key, at, _ in cases]
    records = histories.records(
        histories.cases(*cases), histories.predictions(*sent), histories.decisions(*decided)
    )
    return find_late_senders(records)


@pytest.mark.parametrize(
    ("delays", "set_up", "within"),
    [
        ([14] * DAYS, late_senders.NIGHTS, "38h"),
        ([72 if day % 9 == 0 else 0.1 for day in range(DAYS)], late_senders.OFFLINE, "4d"),
        ([1 + (day % 40 - 5) * SECOND for day in range(DAYS)], late_senders.RACES, "2h"),
        ([24 * (DAYS + 5 - day) for day in range(DAYS)], late_senders.BACKTEST, ""),
    ],
    ids=["nights", "offline", "races", "backtest"],
)
def test_the_delays_of_predictions_say_which_set_up_it_looks_like(delays, set_up, within):
    late = find(delays)
    assert late.set_up == set_up
    lines = (f"grace: {within}", f"sources: {{vouched: [{{account: NAME, within: {within}}}]}}")
    assert late.policy_lines == (lines if within else ())


def test_predictions_before_their_decisions_look_like_nothing():
    assert find([0.5] * DAYS) is None
