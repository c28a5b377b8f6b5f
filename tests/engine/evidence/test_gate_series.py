"""A gate is evaluated where somebody asks, and says the same as one evaluated as a whole."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.evidence.gate_series import SLOTS_AT_ONCE, FlagSeries

ASKED = st.lists(
    st.tuples(st.integers(-5, 60), st.none() | st.integers(0, 70)), min_size=1, max_size=20
)


def list_flags(slots, flags, evaluated=None):
    """Return a series of these flags that notes each slot it evaluates."""
    flag_by_slot = dict(zip(slots, flags, strict=True))

    def evaluate(chosen):
        if evaluated is not None:
            evaluated.extend(chosen.tolist())
        return np.array([flag_by_slot[slot] for slot in chosen.tolist()], dtype=bool)

    return FlagSeries(np.array(slots), evaluate, first_part=2)


def find_plainly(slots, flags, slot, until):
    """Return the first slot with the flag by looking at each slot."""
    for at in range(slot, 80):
        if at == until:
            return until
        if at >= slots[0] and flags[np.searchsorted(slots, at, side="right") - 1]:
            return at
    return until


@given(
    flags=st.dictionaries(st.integers(0, 50), st.booleans(), min_size=1),
    asked=ASKED,
    reads_all=st.booleans(),
)
def test_the_next_slot_is_the_first_one_with_the_flag(flags, asked, reads_all):
    slots = [-100, *sorted(flags)]
    values = [False, *(flags[slot] for slot in sorted(flags))]
    series = list_flags(slots, values)
    for number, (slot, until) in enumerate(asked):
        end = None if until is None else max(until, slot)
        assert series.find_next(slot, end) == find_plainly(slots, values, slot, end)
        if reads_all and number == len(asked) // 2:
            assert series.flags.tolist() == values


def test_no_slot_is_evaluated_twice_or_beyond_the_answer():
    slots, evaluated = list(range(1000)), []
    series = list_flags(slots, [slot >= 300 for slot in slots], evaluated)
    assert [series.find_next(slot) for slot in (100, 101, 250, 299)] == [300] * 4
    assert evaluated == sorted(set(evaluated))
    assert min(evaluated) == 100
    assert len(evaluated) < 2 * 201 + 2
    assert series.find_next(700, 720) == 700


def test_nothing_at_or_after_the_last_slot_is_evaluated():
    evaluated = []
    series = list_flags(list(range(1000)), [False] * 1000, evaluated)
    assert series.find_next(100, 120) == 120
    assert len(evaluated) <= 2 * 20 + 2 < SLOTS_AT_ONCE
