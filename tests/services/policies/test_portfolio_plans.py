"""The plan, report and overview of a policy with a portfolio: the promise and what a cell needs."""

import re

from rollout.core.policy.counting_rules import CURRENT_RULES
from rollout.core.statistics.forecast import forecast_opening
from rollout.formats.policy.reader import parse_policy
from rollout.reports.figures.report_identity import describe_promises, summarize_policy
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


FLOORED = POLICY.replace("{unit: case}", "{unit: case, confidence_floors: [0%, 80%, 90%]}")
FLOORED_PROMISE = (
    "Of the widenings to supervised in this list of 200 cells, each at 3 confidence floors, the"
    " share of wrong ones is, at every look and in expectation, at most 5 % for the attempts that"
    " begin in a year; cells without data count in the list. A cell that is widened to a lower"
    " floor counts at both."
)


def test_with_floors_the_plan_counts_each_cell_at_each_floor():
    printed = plan(FLOORED)
    assert f"a portfolio promises: {FLOORED_PROMISE}" in printed
    one, half, whole = (
        forecast_opening(0.98, at_least=0.95, alpha=0.05 * SHARE * opened / 600).median
        for opened in (1, 300, 600)
    )
    assert one > forecast(1)
    assert (half, whole) == (forecast(100), forecast(200))  # the floors cost no equal part
    assert (
        f"decisions in a cell at 98 % (agreement): {one} if 1 of 600 pairs of cell and floor open;"
        f" {half} if 300 of 600 open; {whole} if 600 of 600 open; the forecast is for half of them"
    ) in printed
    assert f"about {half} decisions" in printed
    shared = "each has 1/3 of the risk"
    listed = "a portfolio asks of each cell at each floor"
    assert f"at or above a floor, since {shared} and {listed}; the promise" in printed
    both = FLOORED.replace("risk: 1%", "portfolio: {false_share: 1%}")
    assert f"since {listed}; the promise" in plan(both)
    assert f"since {shared}; the promise" in plan(
        FLOORED.replace("portfolio: {false_share: 5%}", "risk: 5%")
    )


def test_with_floors_the_report_promises_a_share_of_the_list_and_a_chance_at_each_floor():
    listed, alone = describe_promises(parse_policy(FLOORED), CURRENT_RULES)
    assert listed.startswith(
        "If the true average of a cell's units so far at or above a confidence floor does not meet"
        " “agreement at least 95 %”, the chance that the gate to supervised ever opens there at"
        " that floor is at most 5\xa0%"
    )
    assert listed.endswith(FLOORED_PROMISE)
    assert alone.startswith("If the true average of a cell's units so far does not meet")
    gate = summarize_policy(parse_policy(FLOORED)).gates[0]
    assert "in a portfolio of 200 cells, each at 3 confidence floors, of whose widenings" in gate
