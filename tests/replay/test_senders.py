"""However records are sent, a good model opens and a bad one doesn't.

A few seeds of benchmarks/senders.py.
"""

import numpy as np
import pytest

from benchmarks.senders import ADVERSE, NORMAL, find_first_days

SEEDS = range(2)
GOALS = {  # by name the median day of `evidence-rules.md`
    "at once": 19.9,
    "services race": 19.9,
    "decisions 2 h late": 21.6,
    "nightly": 19.5,
    "back every third day": 21.9,
    "offline for a week, 8 days": 28,
    "backlog of a day": 21.2,
}


def first_days(sending):
    return np.concatenate([find_first_days(sending, seed) for seed in SEEDS])


@pytest.mark.simulation
@pytest.mark.parametrize("sending", NORMAL, ids=lambda sending: sending.name)
def test_good_model_is_proposed_however_its_sender_is_late(sending):
    days = first_days(sending)
    assert np.isfinite(days).mean() > 0.95
    assert abs(np.median(days) - GOALS[sending.name]) < 4  # of 80 cells; of 800 within 1.5


@pytest.mark.simulation
@pytest.mark.parametrize("sending", ADVERSE, ids=lambda sending: sending.name)
def test_no_sender_opens_gate_more_often_than_its_risk(sending):
    days = first_days(sending)
    # of 80 cells; at a risk of 1.9 % more than 5 are seen once in 4,000 runs
    most = 12 if sending.name == "offline for a week, 50 hours" else 5  # a good model, .05
    assert np.isfinite(days).sum() <= most
