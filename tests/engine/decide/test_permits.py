"""A permit says what was answered, to nobody else's case, and can't be made up."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.decide import assignment
from rollout.engine.decide.assignment import (
    BOUND,
    Permit,
    build_permit_text,
    compute_answer_digest,
    sign_permit,
    sign_permits,
    verify_permit,
)
from tests.factories import NOON

ABOUT = ("ramps", "case-1", "v1")
KEYS = {1: bytes(32), 2: bytes([7]) * 32}
PERMIT = Permit("model", 7, NOON, timedelta(minutes=1))
TEXT = sign_permit(PERMIT, KEYS[2], 2, *ABOUT)


def test_a_permit_is_read_as_it_was_signed():
    assert verify_permit(TEXT, KEYS, *ABOUT) == PERMIT
    assert PERMIT.expires_at == NOON + timedelta(minutes=1)


def test_a_bound_permit_holds_for_its_answer_and_its_kind_alone():
    bound = replace(PERMIT, kind=BOUND, answer_digest="9c0e")
    text = sign_permit(bound, KEYS[2], 2, *ABOUT)
    assert verify_permit(text, KEYS, *ABOUT) == bound
    assert verify_permit(text.replace(".9c0e.", ".9c0f."), KEYS, *ABOUT) is None
    assert verify_permit("u" + text.replace(".9c0e.", ".")[1:], KEYS, *ABOUT) is None


@pytest.mark.parametrize(
    "about",
    [
        ("other", "case-1", "v1"),
        ("ramps", "case-2", "v1"),
        ("ramps", "case-1", "v2"),
        ("ramps", "case-1"),
        ("ramps", "case-16:v1"),
        ("ramps6:case-1", "v1"),
    ],
)
def test_a_permit_of_something_else_is_none(about):
    assert verify_permit(TEXT, KEYS, *about) is None


def test_a_permit_of_a_key_that_was_turned_away_is_none():
    assert verify_permit(TEXT, {1: KEYS[1]}, *ABOUT) is None
    assert verify_permit(TEXT, {1: KEYS[1], 2: KEYS[1]}, *ABOUT) is None


@given(st.integers(0, len(TEXT) - 1), st.characters())
def test_no_letter_of_a_permit_can_be_changed(place, letter):
    changed = TEXT[:place] + letter + TEXT[place + 1 :]
    assert (verify_permit(changed, KEYS, *ABOUT) is None) == (changed != TEXT)


@given(st.text(max_size=80))
def test_what_is_no_permit_is_none(text):
    assert verify_permit(text, KEYS, *ABOUT) is None


CASES = st.tuples(
    st.sampled_from([PERMIT, replace(PERMIT, decider="human"), replace(PERMIT, kind=BOUND)]),
    st.text(max_size=9) | st.just("\ud800"),
    st.sampled_from(["v1", "v2", "1:v", ""]),
)


@given(st.lists(CASES, max_size=9))
def test_permits_of_many_cases_are_those_of_each(cases):
    signed = [
        replace(permit, answer_digest="9c0e" * (permit.kind == BOUND)) for permit, *_ in cases
    ]
    one_by_one = [
        sign_permit(permit, KEYS[2], 2, "ramps", key, version)
        for permit, (_, key, version) in zip(signed, cases, strict=True)
    ]
    texts = [build_permit_text(permit, 2) for permit in signed]
    _, keys, versions = ([case[n] for case in cases] for n in range(3))
    digests = [permit.answer_digest for permit in signed]
    assert sign_permits(KEYS[2], "ramps", texts, keys, versions, digests) == one_by_one


def test_what_cases_share_is_hashed_once(monkeypatch):
    hashed, encode = [], assignment._encode_parts
    monkeypatch.setattr(
        assignment, "_encode_parts", lambda *parts: hashed.append(parts) or encode(*parts)
    )
    texts = [build_permit_text(PERMIT, 2), build_permit_text(replace(PERMIT, decider="human"), 2)]
    keys = [f"case-{n}" for n in range(100)]
    sign_permits(KEYS[2], "ramps", texts * 50, keys, ["v1"] * 100, [""] * 100)
    assert sorted(hashed) == sorted((text, "ramps") for text in texts)


def test_answers_in_another_order_are_the_same_and_others_are_not():
    first = compute_answer_digest({"alarm": "bear", "speed": "slow"})
    assert compute_answer_digest({"speed": "slow", "alarm": "bear"}) == first
    assert compute_answer_digest({"speed": "bear", "alarm": "slow"}) != first
