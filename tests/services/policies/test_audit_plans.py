"""What `plan` tells about audits by confidence: the simulated table, from records."""

import pytest

from rollout.core.statistics.forecast import (
    AuditedGroup,
    estimate_detection_records,
    estimate_weighted_records,
)
from rollout.formats.policy.reader import parse_policy
from rollout.services.policies.audit_plans import compute_reviewed_share
from rollout.services.policies.planning import build_policy_plan, format_plan
from rollout.services.policies.traffic import compute_recorded_traffic
from rollout.services.replay.requests import read_request_records
from tests.docs.audits_table import BY_CONFIDENCE, UNIFORM, build_audits, simulate
from tests.replay.test_confidence_floors import write_rows

POLICY = """
rollout: mail
timezone: UTC
levers: [{id: desk, labels: [claims, sales]}]
sites: [lisbon]
stages: [{id: autonomous, audit: {least: 5%, below: {90%: 50%}}}]
evidence: {unit: case, grace: 1m, outside: blind}
gates:
  - {to: autonomous, require: [{measure: agreement, at_least: 97%}]}
guards: [{measure: agreement, at_least: 95%}]
"""


def build_plan(folder, text=POLICY):
    """Return the plan on 1,000 records, of which a tenth is below .9 and 20 have no confidence."""
    rows = [
        (str(n), "claims", "claims", None if n < 20 else 0.5 if n < 100 else 0.95)
        for n in range(1000)
    ]
    policy = parse_policy(text)
    records = read_request_records(write_rows(folder, text, "v1", rows), policy)
    return format_plan(build_policy_plan(policy, compute_recorded_traffic(records, policy)))


def test_the_plan_has_gain_and_price_in_reviews(tmp_path):
    text = build_plan(tmp_path)
    section = text.partition("AUDITS BY CONFIDENCE at autonomous\n")[2].partition("\n\n")[0]
    cases, price, gain = section.splitlines()
    assert cases == "  cases: 10 % below confidence 0.9; reviewed blind: 9.5 % of all"
    assert price == (
        "  price: gates count 5 % of all, so they wait 1.9 times as long as with 9.5 % whatever the"
        " confidence; guards and renewals count all, weighted by the audits' shares"
    )
    assert gain == (
        "  agreement at least 95 %, fallen to 90 %: noticed after about 103 reviews if unsure cases"
        " alone got worse, 455 if all did; with 9.5 % whatever the confidence after 287"
    )


def test_without_records_the_plan_asks_for_them_and_without_such_audits_is_silent(tmp_path):
    unknown = format_plan(build_policy_plan(parse_policy(POLICY)))
    assert "AUDITS BY CONFIDENCE at autonomous\n  gain and price: unknown; pass rec" in unknown
    plain = POLICY.replace("{least: 5%, below: {90%: 50%}}", "9.5%")
    assert "AUDITS BY CONFIDENCE" not in build_plan(tmp_path, plain)


def test_a_grants_minimum_counts_all_audits_and_not_those_of_the_least_share(tmp_path):
    """1,000 units a day for 30 hours: 119 audits of which the least share would draw 62."""
    short = POLICY.replace("audit: ", "lasts: 30h, audit: ")
    assert "its renewal needs 100" not in build_plan(tmp_path, short)
    plain = short.replace("{least: 5%, below: {90%: 50%}}", "5%")
    assert "about 62 decided units" in build_plan(tmp_path, plain)
    stage = parse_policy(POLICY).stages[0]
    assert compute_reviewed_share(stage, ()) == 0.05


@pytest.mark.parametrize(
    ("reference", "level"), [(0.98, 0.9), (0.95, 0.8), (0.9, 0.5), (0.98, 0.0)]
)
def test_a_single_group_of_weight_one_is_the_plain_detector(reference, level):
    group = AuditedGroup(1.0, 1 - level, 1.0)
    plain = estimate_detection_records(reference, 10_000, level)
    assert estimate_weighted_records(reference, 10_000, (group,)) == pytest.approx(plain)


@pytest.mark.slow
@pytest.mark.parametrize("rates", [(0.01, 0.6), (0.04, 0.6), (0.1, 0.1)])
@pytest.mark.parametrize("stage", [UNIFORM, BY_CONFIDENCE], ids=["uniform", "by confidence"])
def test_the_estimate_is_the_simulated_mean(stage, rates):
    audits = build_audits(stage)
    counts = audits.shares * [0.9, 0.1]
    groups = [
        AuditedGroup(*parts)
        for parts in zip(counts / counts.sum(), rates, audits.weights, strict=True)
    ]
    first, _ = simulate(audits, rates, runs=150, records=5000, seed=1)
    estimate = estimate_weighted_records(0.95, 10_000, groups)
    assert estimate == pytest.approx(float(first.clip(max=5000).mean()), rel=0.3)
