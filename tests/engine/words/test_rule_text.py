"""The rule of familiar cases in words, and both errors of a renewal, by law and by simulation."""

import numpy as np
import pytest

from rollout.engine.evidence.gate_series import UnfamiliarUnits
from rollout.engine.words.rule_text import (
    describe_familiar_cases,
    describe_renewal_errors,
    describe_unfamiliar_share,
)
from rollout.features.reports.figures.report_identity import describe_promises
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.familiarity import FamiliarAttribute, FamiliarityRule
from rollout.kernel.policy.policy import EvidenceRules
from rollout.kernel.statistics.forecast import compute_renewal_chance
from rollout.kernel.statistics.gate_thresholds import get_gate_threshold
from tests.factories import policy

RULE = FamiliarityRule(tuple(FamiliarAttribute((n,)) for n in ("form", "scanner")), line=0.9)
FAMILIAR_ONLY = policy(evidence=EvidenceRules(familiar=RULE))


def test_the_sentence_names_attributes_number_and_share_and_who_decides_the_others():
    sentence = describe_familiar_cases(FAMILIAR_ONLY)
    assert sentence.replace("\N{NO-BREAK SPACE}", " ") == (
        "This speaks of cases whose form and scanner the version had met at least 20 times in the"
        " cell, agreeing in 90 % or more. Humans decide all others, which count for no gate and no"
        " guard."
    )
    assert describe_promises(FAMILIAR_ONLY)[-1] == sentence


def test_without_the_rule_there_is_no_sentence():
    assert describe_familiar_cases(policy()) == ""
    assert len(describe_promises(policy())) == len(policy().gates)


def test_the_share_of_a_month_has_its_counts_and_the_most_frequent_value():
    recent = UnfamiliarUnits(125_581, 3_893, ("form", "new"), 3_700)
    assert describe_unfamiliar_share(recent, 30).replace("\N{NO-BREAK SPACE}", " ") == (
        "In the last 30 days 3,893 of 125,581 units here (3.1 %) were not familiar, and humans"
        " decided them: 3,700 with form=new."
    )
    assert describe_unfamiliar_share(UnfamiliarUnits(9, 0), 30).endswith("were not familiar.")
    assert describe_unfamiliar_share(UnfamiliarUnits(0, 0), 30) == ""


def test_errors_of_a_hundred_audits_are_told_both_ways():
    assert describe_renewal_errors(Condition(MEASURES["agreement"], 0.95), 100) == (
        "with 100 audits a cell at the threshold is renewed in 22 %, one at 93 % in 7 %;"
        " a cell at 98 % lapses in 22 %"
    )


@pytest.mark.parametrize("rate", [0.85, 0.9, 0.96])
def test_exact_chance_is_that_of_simulated_grants(rate):
    rng, threshold, renewed = np.random.default_rng(7), get_gate_threshold(0.9, 1.0), 0
    for _ in range(2_000):
        agreed = np.cumsum(rng.random(60) < rate)
        renewed += any(
            threshold.is_met(int(agreed[k - 1]), int(k - agreed[k - 1])) for k in range(48, 61)
        )
    expected = compute_renewal_chance(60, at_least=0.9, rate=rate)
    assert renewed / 2_000 == pytest.approx(expected, abs=0.04)
