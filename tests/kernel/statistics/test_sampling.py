"""Draws: the published vector, the definition, and nothing that could steer one."""

import hashlib
import hmac

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rollout.kernel.statistics.sampling import (
    build_bucket_finder,
    compute_sampling_value,
    compute_sampling_values,
)

SALT = bytes(range(32))


@pytest.mark.parametrize(
    ("purpose", "expected"), [("audit", 0.9409394035030152), ("blind", 0.09866883163506401)]
)
def test_the_draw_is_the_published_one(purpose, expected):
    assert compute_sampling_value(SALT, purpose, "bear-alarm", "3", "creek-000123") == expected


@given(st.binary(min_size=1, max_size=100), st.text(), st.lists(st.text(), max_size=5))
@example(bytes(range(64)), "stage", ["a"])
@example(bytes(range(65)), "stage", ["a"])
def test_many_draws_are_the_single_ones_in_order(salt, purpose, keys):
    single = [compute_sampling_value(salt, purpose, key) for key in keys]
    assert compute_sampling_values(salt, purpose, keys).tolist() == single


@given(
    st.binary(min_size=1, max_size=100),
    st.lists(st.floats(min_value=0, max_value=1, exclude_min=True), max_size=4).map(sorted),
    st.lists(st.text(), min_size=1, max_size=5),
)
def test_a_bucket_is_the_number_of_edges_up_to_the_draw(salt, edges, keys):
    draws = [compute_sampling_value(salt, "stage", key) for key in keys]
    for every_edge in (edges, sorted({*edges, *draws} - {0.0}), [1.0]):  # at a draw, and beyond
        find_bucket = build_bucket_finder(salt, "stage", every_edge)
        wanted = [sum(edge <= draw for edge in every_edge) for draw in draws]
        assert [find_bucket(key) for key in keys] == wanted


@given(st.text(), st.text())
def test_a_draw_is_the_top_53_bits_of_the_message_s_code(purpose, key):
    message = purpose.encode() + b"\x1f" + key.encode()
    code = hmac.new(SALT, message, hashlib.sha256).hexdigest()
    bits = f"{int(code, 16):0256b}"[:53]
    assert compute_sampling_value(SALT, purpose, key) == int(bits, 2) / 2**53


def test_draws_spread_evenly_and_purposes_are_independent():
    keys = [f"creek-{i:06d}" for i in range(20_000)]
    stage, pick = (
        compute_sampling_values(SALT, "stage", keys),
        compute_sampling_values(SALT, "pick", keys),
    )
    assert 0 <= stage.min() < stage.max() < 1
    both = ((stage < 0.5) & (pick < 0.2)).mean()
    assert (stage < 0.1).mean() == pytest.approx(0.1, abs=0.007)
    assert both == pytest.approx(0.1, abs=0.007)


def test_no_keys_have_no_draws():
    assert compute_sampling_values(SALT, "stage", []).tolist() == []


@pytest.mark.parametrize(
    ("named", "ask"),
    [
        ("salt", lambda: compute_sampling_value(b"", "stage", "a")),
        ("salt", lambda: compute_sampling_values(b"", "stage", ["a"])),
        ("parts", lambda: compute_sampling_value(SALT, "stage")),
    ],
)
def test_an_argument_that_is_missing_is_named(named, ask):
    with pytest.raises(ValueError, match=f"^{named}"):
        ask()
