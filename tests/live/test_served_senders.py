"""Who corrects, copies, or asks anew once answers are seen opens no gate of a service.

A few cells of benchmarks/served_senders.py.
"""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.served_senders import SENDINGS, ServedRollout, find_served_days

pytestmark = pytest.mark.simulation

CELLS = 4


@pytest.mark.parametrize(
    "sending", [s for s in SENDINGS if not s.edits], ids=lambda sending: sending.name
)
def test_no_correction_or_copy_opens_a_gate(sending):
    quick = replace(sending, last_day=14)
    assert np.isinf(find_served_days(quick, 0, CELLS)).all()
    right = replace(quick, truth=1.0, passes_on=False)
    assert np.isfinite(find_served_days(right, 0, CELLS)).all()


@pytest.mark.parametrize("grace", [1, 6])
def test_edit_starts_anew_though_all_answers_so_far_agree(tmp_path, grace):
    sending = replace(
        next(sending for sending in SENDINGS if sending.edits),
        truth=0.99,
        levers=4,
        grace=grace,
        last_day=grace + 6,
        edits=1,
        edit_days=range(2, 3),
    )
    rollout = ServedRollout(tmp_path, sending, 20, 0)
    days, is_edited = rollout.run(), rollout.edits > 0
    assert 4 < is_edited.sum() < 16
    assert np.median(days[~is_edited]) == grace + 3
    assert days[is_edited].min() >= grace + 6  # counts what occurs after it, of the next share
