"""Sets of labels: their text, their overlap, and what counts as recall and precision."""

import pytest

from rollout.kernel.measures import MEASURES
from rollout.kernel.units import (
    FAILED,
    MISSING,
    UnitClass,
    compute_overlap,
    do_sets_agree,
    read_label_set,
    split_label_set,
    split_pair,
)
from tests.features.reports.plain_coefficients import compute_masi_distance

LOGOS = ("nike", "puma", "ikea", "shell")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (["puma", "nike"], "nike;puma"),
        ("puma; nike", "nike;puma"),
        ("nike", "nike"),
        ([], "(none of them)"),
        ("(none of them)", "(none of them)"),
    ],
)
def test_an_answer_has_one_text_whatever_its_order(answer, text):
    assert read_label_set(answer, LOGOS, "logos") == text
    assert read_label_set(text, LOGOS, "logos") == text
    assert read_label_set(sorted(split_label_set(text)), LOGOS, "logos") == text


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("nike;nike", "logos: nike is written twice; write each label once"),
        (["adidas"], r"logos: adidas is none of its labels \(nike, puma, ikea, shell\)"),
        ("", r"logos: a label is blank; write `\[\]`"),
        ("nike;", "logos: a label is blank"),
    ],
)
def test_a_wrong_answer_is_refused_with_what_to_do(answer, problem):
    with pytest.raises(ValueError, match=problem):
        read_label_set(answer, LOGOS, "logos")


@pytest.mark.parametrize(  # made with nltk 3.10.4, whose distances of empty sets are undefined
    ("first", "second", "masi", "jaccard"),
    [
        ("ab", "a", 0.6666666666666667, 0.5),
        ("ab", "bc", 0.8888888888888888, 0.6666666666666666),
        ("abc", "ab", 0.5555555555555556, 0.3333333333333333),
        ("ab", "cd", 1.0, 1.0),
        ("abcd", "abce", 0.8, 0.4),
        ("a", "a", 0.0, 0.0),
        ("", "", 0.0, 0.0),
        ("", "a", 1.0, 1.0),
    ],
)
def test_distances_are_those_of_nltk(first, second, masi, jaccard):
    assert compute_masi_distance(first, second) == pytest.approx(masi, abs=1e-12)
    assert compute_masi_distance(second, first) == pytest.approx(masi, abs=1e-12)
    assert 1 - compute_overlap(first, second) == pytest.approx(jaccard, abs=1e-12)


def test_sets_agree_from_the_required_overlap_on():
    assert do_sets_agree("a;b;c;d", "a;b;c;d;e", 0.8)
    assert not do_sets_agree("a;b;c;d", "a;b;c;d;e", 0.81)
    assert not do_sets_agree("a;b;c;d", "a;b;c;d;e", 1.0)
    assert not do_sets_agree("(none of them)", "a", 0.01)


@pytest.mark.parametrize(
    ("decided", "predicted", "recall", "precision"),
    [
        ("nike;puma", "nike", True, True),
        ("nike;puma", "puma", False, None),
        ("puma", "nike;puma", None, False),
        ("(none of them)", "(none of them)", None, None),
        ("nike", FAILED, False, None),
        (MISSING, "nike", None, False),
        ("nike;puma ≈ puma", "nike;puma ≈ puma", False, None),
    ],
)
def test_a_label_counts_by_itself(decided, predicted, recall, precision):
    unit_class = UnitClass("logos", predicted, decided)
    found = [
        MEASURES[name].is_success(unit_class, "nike", many=True) for name in ("recall", "precision")
    ]
    assert found == [recall, precision]


def test_a_pair_that_agrees_keeps_both_sets():
    text = "a;b ≈ a;b;c"
    assert split_pair(text, text) == ("a;b", "a;b;c")
    assert split_pair("a", "b") == ("a", "b")
    assert UnitClass("logos", text, text).agrees
