"""One person's name in several spellings, and names of two people."""

import pytest

from rollout.engine.records.reviews import find_reviewer_fault, fold_name

ANA = "\u00c1na"


@pytest.mark.parametrize(
    "name",
    [
        "\u00e1NA",
        " \u00c1na\u00a0",
        "A\u0301na",  # decomposed
        "\u200b\u00c1n\u200da\ufeff",  # invisible
        "\u00c1\uff4e\uff41",  # of full width
    ],
)
def test_a_person_is_one_in_every_spelling(name):
    assert fold_name(name) == fold_name(ANA) == fold_name(fold_name(name))
    assert find_reviewer_fault(name, {fold_name(ANA)}, ()).startswith(f"reviewer {name} is")
    assert find_reviewer_fault(name, (), {ANA})


def test_an_accent_makes_another_person():
    assert fold_name(ANA) != fold_name("Ana")


def test_the_invisible_alone_changes_no_name_of_plain_letters():
    assert fold_name("ana\u200b ") == fold_name("Ana")
