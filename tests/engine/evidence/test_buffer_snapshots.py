"""A snapshot of counted evidence and what came after it are the same arrays as all at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.engine.evidence.outcome_buffer import SOURCE_FAULTS, CountedOutcome, OutcomeBuffer
from rollout.engine.evidence.unit_buffer import (
    FORM,
    BufferDigests,
    UnitBuffer,
    encode_buffers,
    restore_buffers,
)
from rollout.kernel.calendar.instants import Site
from tests.engine.evidence.histories import a_policy
from tests.engine.evidence.stored_units import build_stored_units
from tests.engine.evidence.test_unit_buffer import LEVELS, POLICY, unit

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


def build_units(policy=POLICY):
    return UnitBuffer(policy, lambda _cell: {"now": LEVELS})


def build_unit(slot, facts):
    site, track, version, decided, reviewer, bucket = facts
    names = {"site": site, "track": track, "version": version, "decided": decided}
    return unit(slot, reviewer=reviewer, bucket=bucket, **names)


def build_outcome(slot, facts):
    version, outcome, drawn, score, share, fault = facts
    names = {"outcome": outcome, "definition": "now", "drawn": drawn, "source_fault": fault}
    place = {"site": "creek", "window": "always", "bucket": slot % 3}
    return CountedOutcome(
        unit=slot, version=version, case_id=slot, slot=slot, occurred=slot - 1, **place,
        score=score, known_share=share, record_hashes=b"", **names,
    )  # fmt: skip


UNITS = st.lists(
    st.tuples(
        st.sampled_from(["creek", "lake"]),
        st.sampled_from(["gate", "guard", "assisted"]),
        st.sampled_from(["v1", "v2"]),
        st.sampled_from(["bear", "fox", "(missing)"]),
        st.sampled_from([None, "ana", "bo"]),
        st.integers(0, 2**31 - 1),
    ),
    max_size=30,
)
OUTCOMES = st.lists(
    st.tuples(
        st.sampled_from(["v1", "v2"]),
        st.sampled_from(["profit", "delay"]),
        st.sampled_from([None, "model blind 0.3", "human blind None"]),
        NUMBERS,
        NUMBERS,
        st.sampled_from([None, *SOURCE_FAULTS[1:]]),
    ),
    max_size=30,
)


def list_named_rows(units):
    """Return the rows of each series with their class and reviewer, as they lie."""
    classes, reviewers = units.unit_classes.classes, [*units.reviewers, None]
    return {
        key: [
            (slot, occurred, classes[number], reviewers[reviewer], day, bucket)
            for slot, occurred, number, reviewer, day, bucket in table.T.tolist()
        ]
        for key, table in units.list_series()
    }


def list_bytes(outcomes):
    """Return the bits of each outcome's columns."""
    return {
        key: [column.tobytes() for column in vars(part).values()]
        for key, part in outcomes.list_units()
    }


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(units=UNITS, outcomes=OUTCOMES, cut=st.integers(0, 31))
def test_a_snapshot_and_the_rest_are_all_of_it_wherever_it_was_cut(units, outcomes, cut):
    unit_rows = [build_unit(slot, facts) for slot, facts in enumerate(units, 1)]
    lines = [build_outcome(slot, facts) for slot, facts in enumerate(outcomes, 1)]
    whole, whole_outcomes = build_units(), OutcomeBuffer()
    first, first_outcomes = build_units(), OutcomeBuffer()
    for buffer, rows in ((whole, unit_rows), (first, unit_rows[:cut])):
        buffer.add(build_stored_units(rows))
    whole_outcomes.add(lines)
    first_outcomes.add(lines[:cut])
    body = encode_buffers(first, first_outcomes)
    restored, restored_outcomes = build_units(), OutcomeBuffer()
    assert restore_buffers(body, restored, restored_outcomes)
    assert encode_buffers(restored, restored_outcomes) == body
    restored.add(build_stored_units(unit_rows[cut:]))
    restored_outcomes.add(lines[cut:])
    assert list_named_rows(restored) == list_named_rows(whole)
    assert list_bytes(restored_outcomes) == list_bytes(whole_outcomes)
    counts = (whole.row_count, whole_outcomes.row_count)
    assert (restored.row_count, restored_outcomes.row_count) == counts == (len(units), len(lines))
    assert digest(restored, restored_outcomes) == digest(whole, whole_outcomes)


def digest(*parts):
    digests = BufferDigests()
    for units, outcomes in zip(parts[::2], parts[1::2], strict=True):
        digests.add(units, outcomes)
    return digests.sums


@pytest.mark.parametrize(
    "change",
    [
        {"slot": 9},
        {"occurred": 3},
        {"day": 1},
        {"bucket": 7},
        {"reviewer": "eve"},
        {"decided": "x"},
    ],
)
def test_a_digest_notices_each_column_and_no_order(change):
    rows = [unit(slot) for slot in (4, 5, 6)]
    parts, whole, other = [], build_units(), build_units()
    for row in reversed(rows):
        parts += [build_units(), OutcomeBuffer()]
        parts[-2].add(build_stored_units([row]))
    whole.add(build_stored_units(rows))
    other.add(build_stored_units([*rows[:-1], {**rows[-1], **change}]))
    assert digest(*parts) == digest(whole, OutcomeBuffer())
    assert digest(other, OutcomeBuffer()) != digest(whole, OutcomeBuffer())


def test_far_slots_are_restored():
    units, restored = build_units(), build_units()
    units.add(build_stored_units([unit(1), unit(2**40)]))
    assert restore_buffers(encode_buffers(units, OutcomeBuffer()), restored, OutcomeBuffer())
    ((_, table),) = restored.list_series()
    assert table[0].tolist() == [1, 2**40]
    assert table.dtype == np.int64


def test_another_form_restores_nothing():
    units = build_units()
    units.add(build_stored_units([unit(1)]))
    body = encode_buffers(units, OutcomeBuffer())
    assert body.startswith(FORM)
    restored = build_units()
    assert not restore_buffers(b"x" * len(FORM) + body[len(FORM) :], restored, OutcomeBuffer())
    assert not restored.row_count


def test_a_cell_that_the_policy_lacks_is_refused_before_anything_is_restored():
    units = build_units()
    units.add(build_stored_units([unit(1, site="lake")]))
    body = encode_buffers(units, OutcomeBuffer())
    restored = build_units(a_policy(sites=(Site("creek", "UTC"),)))
    with pytest.raises(ValueError, match="no cells"):
        restore_buffers(body, restored, OutcomeBuffer())
    assert not restored.row_count
