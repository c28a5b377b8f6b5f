"""The rule of familiar cases in words, as proposals and promises show it."""

from rollout.engine.evidence.gate_series import UnfamiliarUnits
from rollout.engine.words.rule_text import describe_familiar_cases, describe_unfamiliar_share
from rollout.features.reports.figures.report_identity import describe_promises
from rollout.kernel.policy.familiarity import FamiliarAttribute, FamiliarityRule
from rollout.kernel.policy.policy import EvidenceRules
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
