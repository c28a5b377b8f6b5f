"""Only the service makes the code of a head, and it names exactly one head."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.decide.assignment_table import IssuedHead, read_head_era, sign_head

HEAD = IssuedHead("bears", 1, 41, "9f2c")
SECRETS = {7: b"k" * 32, 8: b"j" * 32}
CODE = sign_head(HEAD, SECRETS[7], 7)


def read(code, head=HEAD, secrets=SECRETS):
    return read_head_era(code, secrets, head.rollout, head.revision, head.hash)


def test_the_code_of_a_head_names_its_era():
    assert read(CODE) == 1
    later = replace(HEAD, era=3)
    assert read(sign_head(later, SECRETS[8], 8)) == 3


@pytest.mark.parametrize(
    "head",
    [replace(HEAD, rollout="ramps"), replace(HEAD, revision=42), replace(HEAD, hash="9f2d")],
    ids=["another rollout", "a later row", "another hash"],
)
def test_a_code_proves_nothing_about_another_head(head):
    assert read(CODE, head) is None


def test_the_era_is_signed_too():
    number, _era, digits = CODE.split(".")
    assert read(f"{number}.2.{digits}") is None


def test_a_key_that_was_retired_proves_nothing():
    assert read(CODE, secrets={8: SECRETS[8], 9: SECRETS[7]}) is None


@pytest.mark.parametrize(
    "code", ["", "..", "7.1", f"{CODE}.1", f"7.1.{'0' * 32}", "7.1.ä", "٧.1.0", f"{'9' * 99}.1.0"]
)
def test_what_is_no_code_proves_nothing(code):
    assert read(code) is None


@given(st.text(max_size=60))
def test_no_text_but_the_code_is_one(text):
    assert text == CODE or read(text) is None


def test_a_hash_that_is_no_text_for_a_database_is_refused_and_not_raised():
    assert read(CODE, replace(HEAD, hash="\ud800")) is None
