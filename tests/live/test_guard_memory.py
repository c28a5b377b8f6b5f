"""What guards observed: which of it they may still use."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rollout.live.evidence.guard_memory import GuardMemory, GuardObservations, LiveSiteSigns

TICK = 10
KEY = ("creek", "night", "v1")


@given(
    slots=st.lists(st.integers(-3, 8), max_size=8).map(sorted),
    since=st.integers(-40, 90),
    dropped=st.sets(st.integers(0, 8)),
)
def test_guards_use_what_became_known_a_slot_after_a_time_and_no_dropped_case(
    slots, since, dropped
):
    ids = np.arange(len(slots), dtype=np.int64)
    known = np.array(slots, dtype=np.int64)
    observed = GuardObservations(known, known, ids, np.zeros(len(slots), dtype=bool))
    memory = GuardMemory({"late": {KEY: observed}}, LiveSiteSigns())
    left_out = np.array(sorted(dropped), dtype=np.int64)
    used = memory.select(left_out, since=since, tick=TICK, silence_span=None)
    expected = [
        number for number, slot in enumerate(slots)
        if slot * TICK >= since + TICK and number not in dropped
    ]  # fmt: skip
    part = used.observations["late"][KEY]
    assert part.case_ids.tolist() == expected
    assert part.slots.tolist() == [slots[number] for number in expected]
