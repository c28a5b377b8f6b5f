"""What a tick's digest covers of a unit's attribute values, and what a recount compares."""

import pytest

from rollout.data.counting.counted_units import UnitLine, create_seal, hash_values
from rollout.live.evidence.counted_check import find_slice_fault

LINE = UnitLine(1, "v1", "gate", 7, 3, 2, 1, 4, "[1]", 0, None, b"", "creek", "day")


def test_a_digest_covers_values_and_lines_without_any_are_as_before():
    assert LINE.text == b"(1, 'v1', 'gate', 7, 3, 2, 1, 4, '[1]', 0, None, b'')\n"
    texts = {LINE._replace(slices=text).text for text in (None, '{"a":"x"}', '{"a":"y"}')}
    assert len(texts) == 3


def test_a_digest_covers_the_confidence_band_with_and_without_values():
    for line in (LINE, LINE._replace(slices='{"a":"x"}', value_seal=bytes(16))):
        assert len({line._replace(band=band).text for band in (None, 0, 1)}) == 3


def test_a_digest_covers_a_hash_of_sealed_values_that_an_erasure_leaves():
    values = {"attribute_values": '[{"a":"x"}]', "slices": '{"a":"x"}'}
    seals = [create_seal(*values.values()) for _ in range(2)]
    lines = [LINE._replace(**values, value_seal=seal) for seal in seals]
    assert len({line.text for line in lines}) == 2  # equal values can't be told by their hashes
    for changed in ({"slices": '{"a":"y"}'}, {"attribute_values": None}):
        assert lines[0]._replace(**changed).text != lines[0].text
    erased = hash_values(seals[0], *values.values())
    assert LINE._replace(slices='{"a":"(erased 1)"}', value_seal=erased).text == lines[0].text
    assert create_seal(None, None) is None


@pytest.mark.parametrize(
    ("stored", "expected", "is_fault"),
    [
        ('{"a":"x"}', '{"a":"x"}', False),
        ('{"a":"x"}', '{"a":"y"}', True),
        ('{"a":"x"}', '{"a":null}', True),
        (None, '{"a":"x"}', False),  # counted before the attribute was recorded
        ('{"a":"x"}', '{"b":"y"}', False),  # another policy records another attribute
        ('{"a":"x"}', "", False),
    ],
)
def test_a_recount_compares_the_attributes_that_both_name(stored, expected, is_fault):
    assert bool(find_slice_fault(stored, expected)) == is_fault
