"""The section `evidence.familiar`: what is read, and what each fault says."""

import pytest

from rollout.kernel.policy.familiarity import FamiliarAttribute, FamiliarityRule
from rollout.kernel.policy_files.reader import InvalidPolicyError, parse_policy

POLICY = """
rollout: story
timezone: UTC
levers: [{id: alarm, labels: [bear, none]}]
sites: [creek]
evidence: {unit: case, familiar: SECTION}
gates: [{to: supervised, require: [{measure: MEASURE, at_LIMIT}]}]
"""


def read(section, measure="agreement", limit="least: 90%"):
    text = POLICY.replace("SECTION", section).replace("MEASURE", measure)
    return parse_policy(text.replace("LIMIT", limit)).evidence.familiar


def test_names_combinations_and_bins_are_read():
    section = "{attributes: [form, [form, scanner], {of: light, cuts: [0, 20, 50]}], line: 80%}"
    assert read(section) == FamiliarityRule(
        (
            FamiliarAttribute(("form",)),
            FamiliarAttribute(("form", "scanner")),
            FamiliarAttribute(("light",), (0, 20, 50)),
        ),
        at_least=20,
        line=0.8,
    )


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        ("{attributes: []}", "names no attribute"),
        ("{attributes: form}", "names no attribute"),
        ("{attributes: [form, form]}", "names form twice"),
        ("{attributes: [[form]]}", "write an attribute, a list of attributes"),
        ("{attributes: [[form, form]]}", "write an attribute, a list of attributes"),
        ("{attributes: [{of: light}]}", "write an attribute, a list of attributes"),
        ("{attributes: [{of: light, cuts: [5, 1]}]}", "ascending order"),
        ("{attributes: [a, b, c, d, e, f, g, h, i]}", "at most 8"),
        ("{attributes: [form], at_least: 0}", "at_least"),
    ],
)
def test_each_fault_says_what_to_write(section, fault):
    with pytest.raises(InvalidPolicyError, match=fault):
        read(section)


def test_without_a_guard_of_agreement_the_line_is_asked_for():
    with pytest.raises(InvalidPolicyError, match="write line: 90%"):
        read("{attributes: [form]}", "cost", "most: 0.2")
    assert read("{attributes: [form], line: 90%}", "cost", "most: 0.2") is not None


def test_it_is_refused_beside_a_gain():
    policy = POLICY.replace("SECTION", "{attributes: [form]}").replace("MEASURE", "agreement")
    policy = policy.replace("LIMIT", "least: 90%") + (
        "outcomes: [{id: profit, from: -20, to: 60, in: EUR, better: more, closes: 14d}]\n"
        "stages: [{id: supervised, blind: 50%}, {id: trial, share: 10%}]\n"
        "guards: [{measure: gain, of: profit, at_least: -0.5}]\n"
    )
    with pytest.raises(InvalidPolicyError, match="leave out familiar, or the conditions on gain"):
        parse_policy(policy)
