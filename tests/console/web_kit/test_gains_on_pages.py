"""What the model brought, as the pages of a cell and of a proposal show it."""

import re
from dataclasses import replace

import pytest

from api.cells.cell_gates import _describe_condition
from api.cells.pages import build_measure_readings
from api.proposals.proposal_text import build_condition_rows
from api.web_kit.figures import list_brief_grounds
from api.web_kit.page import create_environment
from rollout.features.cells.cells import Gain, GainArm
from rollout.features.proposals.proposal_evidence import ReadingComparison
from rollout.features.reports.inputs.cell_facts import ConditionFacts
from rollout.kernel.facts import StoredReading, to_facts
from rollout.kernel.policy.evidence_sources import OWN_PREDICTION
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.statistics.evidence import ConditionEvidence
from rollout.kernel.units import DECIDES, PROPOSES
from tests.engine.slots.pricing import POLICY

PRICING = parse_policy(POLICY)
CONDITION = PRICING.gates[1].require[0]
GAIN = Gain(
    *("shop", "always", "v1", "profit", "EUR", DECIDES, 5.0212, 1.214, 8.5, True),
    model=GainArm(131, 0, 25.5123),
    people=GainArm(1180, 12, 20.4911),
    without_arm=0,
    missing_reasons={},
    more_is_better=True,
)


def render(*gains):
    html = create_environment().get_template("evidence_parts.html.j2").module.gains(gains)
    return " ".join(re.sub(r"<[^>]*>", " ", str(html)).split())


def test_a_proposals_row_has_the_bound_both_arms_and_the_gain():
    frozen = ConditionEvidence(CONDITION, (131, 1180, 12), 5.02, 1.21, is_met=True)
    now = replace(frozen, counts=(140, 1260, 14), bound=1.4499)
    (row,) = build_condition_rows((ReadingComparison("", None, frozen, now),), PRICING)
    assert (row.name, row.bound, row.share) == (
        "Gain of profit, per unit",
        "+1.21 EUR",
        "+5.02 EUR",
    )
    assert row.counted == "131 by the model, 1,180 by humans, 12 unknown"
    assert (row.threshold, row.met) == ("0 EUR", True)
    assert row.now == "140 by the model, 1,260 by humans, 14 unknown, at least +1.44 EUR: met"
    by_proposals = replace(CONDITION, population=replace(CONDITION.population, arm=PROPOSES))
    frozen = replace(frozen, condition=by_proposals, bound=None)
    (row,) = build_condition_rows((ReadingComparison("", None, frozen, None),), PRICING)
    assert row.name == "Gain of profit by proposals, per unit"
    assert row.bound == "–"


def test_in_brief_a_gain_has_no_logarithm():
    stored = StoredReading(to_facts(CONDITION), (131, 1180, 12), "5.1", "0.01", "5.02", "1.21")
    assert list_brief_grounds([stored], [""], PRICING) == [
        (
            "gain of profit at least 0 EUR: +5.02 EUR a unit so far, at least +1.21 EUR at every"
            " look; 131 by the model, 1,180 by people, 12 without outcome"
        )
    ]


def test_a_cells_reading_has_the_gains_unit_and_no_share_of_100():
    passed = ConditionEvidence(CONDITION, (131, 1180, 12), 5.0212, 1.214, is_met=True)
    (reading,) = build_measure_readings(None, (passed,), "points")
    assert (reading.name, reading.estimate) == ("gain of profit in EUR per unit", "+5.02")
    assert (reading.bound, reading.threshold, reading.met) == ("at least +1.21", "0", True)
    assert reading.counts == "131 by the model, 1,180 by humans, 12 unknown"
    assert not reading.drawing


@pytest.mark.parametrize(
    ("bound", "text"),
    [(-0.3, "at least -0.30; the threshold is 0"), (None, "strength of evidence 0.5, needs 3.0")],
)
def test_a_gain_below_its_threshold_is_no_forecast(bound, text):
    facts = ConditionFacts(
        condition=str(CONDITION), name=CONDITION.name, unit="EUR", measure="gain", label=None,
        lever=None, threshold=0.0, at_least=True, n=400, counts=(40, 360, 0), estimate=-1.0,
        bound=bound, log_e=0.5, log_e_needed=3.0, met=False, records_needed_min=None,
        probability_below=None, records_needed_p50=None, records_needed_p90=None,
    )  # fmt: skip
    assert text in _describe_condition(facts).text


def test_the_table_has_both_arms_the_interval_and_what_is_unknown():
    page = render(GAIN)
    assert "profit, EUR 25.51 131 units 20.49 1,180 units, 12 unknown +5.02 +1.21 to +8.50" in page
    assert "The interval (95 %) holds however often anyone looks." in page
    assert "The model's share changed" not in page
    changed = render(replace(GAIN, has_one_share=False, arm=PROPOSES))
    assert "profit, EUR (the model proposes)" in changed
    assert "so it isn't the difference of the two means" in changed
    assert "in no arm" not in page
    assert "7 more units in no arm: more than chance" in render(replace(GAIN, without_arm=7))
    assert "counts as missing" not in page
    unsourced = render(replace(GAIN, missing_reasons={OWN_PREDICTION: 9}))
    assert f"profit: the value of 9 units counts as missing: {OWN_PREDICTION}." in unsourced
    assert "profit, EUR, less is better 25.51" in render(replace(GAIN, more_is_better=False))
    nothing = render(replace(GAIN, model=GainArm(0, 3, None), gain=None, unit=""))
    assert "profit no data 0 units, 3 unknown 20.49 1,180 units, 12 unknown no data" in nothing
