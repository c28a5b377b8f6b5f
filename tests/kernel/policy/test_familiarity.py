"""Attribute values and their statuses: the vectors, and what may never make a value familiar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.familiarity import (
    FAMILIAR,
    FEW,
    MISTAKEN,
    NO_VALUE,
    UNREADABLE,
    FamiliarAttribute,
    FamiliarityRule,
    ValueReading,
    decode_unit_values,
    encode_case_values,
    find_bin,
    find_line,
    find_status,
    format_value,
    needs_incident,
    needs_record,
)

FORM, SCANNER = FamiliarAttribute(("form",)), FamiliarAttribute(("scanner",))
BOTH = FamiliarAttribute(("form", "scanner"))
LIGHT = FamiliarAttribute(("brightness",), (0, 20, 50, 100))
RULE = FamiliarityRule((FORM, SCANNER, BOTH, LIGHT))


@pytest.mark.parametrize(
    ("judged", "agreed", "total", "status"),
    [
        (20, 18, 20, FAMILIAR),
        (20, 17, 20, MISTAKEN),
        (19, 19, 19, FEW),
        (40, 36, 400, FAMILIAR),
        (40, 35, 400, MISTAKEN),
        (0, 0, 0, FEW),
    ],
)
def test_a_status_needs_enough_judged_units_and_enough_agreement(judged, agreed, total, status):
    assert find_status(judged, agreed, total, RULE, 0.9) == status


@pytest.mark.parametrize(
    ("text", "bin_text"),
    [
        ("50", "[50, 100]"),
        ("-1", "below 0"),
        ("0", "[0, 20)"),
        ("1e2", "[50, 100]"),
        ("100.5", "above 100"),
        (" 7 ", "[0, 20)"),
        *[(text, UNREADABLE) for text in ("", "dark", "nan", "inf", "1_0", "0x10", "1e999")],
    ],
)
def test_a_number_has_a_bin_and_what_is_none_has_no_familiar_one(text, bin_text):
    assert find_bin(text, LIGHT.cuts) == bin_text


def test_a_case_has_a_value_of_each_attribute_and_a_missing_one_is_a_value():
    case = {"form": "new", "brightness": "19", "size": "big"}
    assert dict(RULE.list_values(case)) == {
        "form": "new",
        "scanner": "(none)",
        "form + scanner": '["new", "(none)"]',
        "brightness": "[0, 20)",
    }
    assert dict(RULE.list_values(None))["brightness"] == "(none)"
    assert FORM.read_value({"form": "x" * 201}) == UNREADABLE
    assert FORM.read_value({"form": "x" * 200}) == "x" * 200
    assert FORM.read_value({"form": ""}) == NO_VALUE


def test_combinations_of_different_values_never_read_alike():
    pairs = [{"form": "a + b", "scanner": "c"}, {"form": "a", "scanner": "b + c"}]
    assert len({BOTH.read_value(pair) for pair in pairs}) == 2


@given(st.dictionaries(st.sampled_from(["form", "scanner", "brightness"]), st.text(max_size=9)))
def test_stored_values_are_read_back(case):
    values = RULE.list_values(case)
    assert decode_unit_values(f"[{encode_case_values(values)}]") == (frozenset(values),)


def test_only_a_case_of_familiar_values_alone_is_familiar():
    statuses = {("form", "old"): FAMILIAR, ("scanner", "clean"): FAMILIAR, ("form", "new"): FEW}
    rule = FamiliarityRule((FORM, SCANNER))
    assert rule.find_unfamiliar({"form": "old", "scanner": "clean"}, statuses) == ()
    for case in ({"form": "old"}, {"form": "new", "scanner": "clean"}, {}, None):
        assert rule.find_unfamiliar(case, statuses)
    assert rule.find_unfamiliar({"form": "old", "scanner": "clean"}, {}) == rule.list_values(
        {"form": "old", "scanner": "clean"}
    )


def test_the_line_is_the_rules_or_that_of_the_loosest_guard():
    guards = [Condition(MEASURES["agreement"], line) for line in (0.93, 0.9)]
    assert find_line(RULE, [*guards, Condition(MEASURES["cost"], 0.2)]) == 0.9
    assert find_line(FamiliarityRule((FORM,), line=0.8), guards) == 0.8
    assert find_line(RULE, ()) == 1.0


def test_a_new_value_is_recorded_early_only_where_the_version_acts():
    few = ValueReading(FEW, judged=5, agreed=5)
    assert needs_record("", few, is_acting=True)
    assert not needs_record("", few, is_acting=False)
    assert not needs_record("", ValueReading(FEW, judged=4), is_acting=True)
    assert needs_record(FAMILIAR, ValueReading(FEW), is_acting=False)
    assert not needs_record(FAMILIAR, ValueReading(FAMILIAR, 20, 20), is_acting=True)


def test_an_acting_version_has_an_incident_of_a_mistaken_value_once():
    wrong, value = ValueReading(MISTAKEN, judged=20, agreed=2), ("form", "new")
    assert needs_incident(value, wrong, frozenset({"form=old"}), is_acting=True)
    assert not needs_incident(value, wrong, frozenset({"form=new"}), is_acting=True)
    assert not needs_incident(value, wrong, frozenset(), is_acting=False)
    assert not needs_incident(value, ValueReading(FAMILIAR, 20, 20), frozenset(), is_acting=True)


@given(
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 90),
    st.integers(1, 20),
    st.floats(0.5, 1.0),
)
def test_fewer_agreements_fewer_units_or_a_stricter_rule_never_make_a_value_familiar(
    judged, agreed, total, at_least, line
):
    judged, agreed = min(judged, total), min(agreed, judged, total)
    rule = FamiliarityRule((FORM,), at_least)
    if find_status(judged, agreed, total, rule, line) != FAMILIAR:
        for stricter in (
            find_status(judged, max(agreed - 1, 0), total, rule, line),
            find_status(judged, agreed, total, FamiliarityRule((FORM,), at_least + 1), line),
            find_status(judged, agreed, total, rule, min(line + 0.05, 1.0)),
            find_status(0, 0, 0, rule, line),
        ):
            assert stricter != FAMILIAR


def test_bins_of_large_numbers_have_names_of_their_own():
    cuts = (1_700_000_000.0, 1_700_000_100.0, 1_700_000_200.0, 1_700_000_300.0)
    met, unmet = find_bin("1700000050", cuts), find_bin("1700000150", cuts)
    assert met != unmet
    assert (met, find_bin("0.5", (0.25, 1e6))) == (
        "[1.7e+09, 1700000100.0)",
        "[0.25, 1e+06]",
    )


@pytest.mark.parametrize("text", ["[draft", "[1]", "[]", "[{}]"])
def test_a_value_of_an_attribute_named_like_a_combination_is_put_in_words(text):
    assert format_value(("form + scanner", text)).startswith("form + scanner=")
