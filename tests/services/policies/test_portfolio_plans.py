"""The plan, report and overview of a policy with a portfolio: the promise and what a cell needs."""

import re

from rollout.core.policy.counting_rules import CURRENT_RULES
from rollout.core.statistics.forecast import forecast_opening
from rollout.formats.policy.reader import parse_policy
from rollout.reports.figures.report_identity import describe_promises
from rollout.services.policies.gate_risks import describe_fleet_risk
from rollout.services.policies.planning import build_policy_plan, format_plan

SITES = ", ".join(f"s{n}" for n in range(100))
POLICY = f"""
rollout: bears
timezone: UTC
levers: [{{id: alarm, labels: [bear, none]}}]
sites: [{SITES}]
windows: [{{id: day, hours: "06:00-18:00"}}, {{id: night}}]
stages: [{{id: supervised, blind: 20%}}, {{id: autonomous, audit: 10%}}]
evidence: {{unit: case}}
gates:
  - to: supervised
    require: [{{measure: agreement, at_least: 95%}}]
    portfolio: {{false_share: 5%}}
  - {{to: autonomous, require: [{{measure: agreement, at_least: 95%}}], risk: 1%}}
expect: {{units_per_day: 40, agreement: 98%}}
"""
SHARE = 0.382793384  # of a year's first attempt
PROMISE = (
    "Of the widenings to supervised in this list of 200 cells the share of wrong ones is, at every"
    " look and in expectation, at most 5 %"
)


def plan(text=POLICY):
    return "".join(format_plan(build_policy_plan(parse_policy(text))))


def forecast(opened):
    return forecast_opening(0.98, at_least=0.95, alpha=0.05 * SHARE * opened / 200).median


def test_the_plan_prints_the_promise_and_the_decisions_of_a_cell():
    printed = plan()
    assert f"a portfolio promises: {PROMISE}" in printed
    assert "risk 5 % per cell and year" not in printed
    assert "wrong widenings a year, if all 200 cells" in printed  # of the gate with a risk
    assert "all gates together" not in printed
    one, half, whole = (forecast(opened) for opened in (1, 100, 200))
    assert one > half > whole
    line = (
        f"decisions in a cell at 98 % (agreement): {one} if 1 of 200 open; {half} if 100 of 200"
        f" open; {whole} if 200 of 200 open; the forecast is for half of them"
    )
    assert line in printed
    assert f"about {half} decisions" in printed
    assert f"the first needs about {half} decisions" in printed


def test_a_risk_of_each_cell_is_told_as_ever():
    printed = plan(POLICY.replace("portfolio: {false_share: 5%}", "risk: 5%"))
    assert "portfolio" not in printed
    assert re.search(r"for at most one in 200 cells, write `risk: 0.5%`", printed)
    assert f"about {forecast(200)} decisions" in printed


def test_the_overview_sums_risks_and_names_the_lists_promise():
    sentences = describe_fleet_risk(parse_policy(POLICY))
    assert "at most 2 wrong widenings a year (gates of cells: 200 at 1 %)" in sentences
    assert sentences.endswith(
        f"{PROMISE} for the attempts that begin in a year; cells without data count in the list."
    )


def test_the_report_names_both_promises():
    listed, alone = describe_promises(parse_policy(POLICY), CURRENT_RULES)
    assert "the chance that the gate to supervised ever opens there is at most 5\xa0%" in listed
    assert PROMISE in listed
    assert "list of" not in alone
