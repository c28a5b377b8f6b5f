"""What a copy with the measure of `f1_measure.py` says of it, as JSON."""

import json
import sys

from rollout.features.policies.planning import build_policy_plan, format_plan
from rollout.features.policies.traffic import build_expected_traffic
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.kernel.policy_files.document import build_policy_schema
from rollout.kernel.policy_files.reader import parse_policy
from tests.features.reports.alike_cases import often
from tests.features.reports.conftest import Case, inputs_of

POLICY = """
rollout: forest
timezone: UTC
levers: [{id: alarm, labels: [bear, fox]}]
sites: [creek]
evidence: {unit: case}
gates:
  - to: supervised
    require: [{measure: f1, label: bear, at_least: 60%}]
    minimum: {units: 100, days: 1}
expect: {units_per_day: 200, agreement: 90%, labels: {bear: 30%}}
"""


def main():
    policy = parse_policy(POLICY)
    both = {"human": "bear", "model": {"v1": "bear"}}
    cases = [
        *often(Case, 60, "b", **both),
        *often(Case, 20, "m", 60, human="bear", model={"v1": "fox"}),
        *often(Case, 20, "f", 80, human="fox", model={"v1": "bear"}),
        *often(Case, 100, "n", 100, human="fox", model={"v1": "fox"}),
    ]
    (evidence,) = compute_report_facts(inputs_of(cases, policy)).evidence
    (condition,) = evidence.gate.conditions
    traffic = build_expected_traffic(policy)
    (cell,) = policy.cells
    rate = traffic.get_cell_traffic(cell).get_rate(policy.list_conditions(1, cell)[0])
    json.dump(
        {
            "condition": condition.condition,
            "counts": condition.counts,
            "estimate": condition.estimate,
            "bound": condition.bound,
            "met": condition.met,
            "next": evidence.next_step,
            "guards": [str(guard.condition) for guard in policy.guards],
            "rate": [rate.share, rate.value],
            "plan": format_plan(build_policy_plan(policy, traffic)),
            "schema": "f1" in json.dumps(build_policy_schema()),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
