"""Simulated cases fit any shipped policy, and agree as often as asked."""

import csv
import io
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from rollout.features.demo.simulated_cases import (
    CASE_PREFIX,
    MAX_CASES,
    CaseSimulator,
    LiveCases,
    build_history_files,
    build_live_records,
    compute_label_shares,
    parse_fault,
    plan_history,
)
from rollout.kernel.atomic_files import find_package_data
from rollout.kernel.policy_files.reader import load_policy, parse_policy
from rollout.kernel.units import do_sets_agree, is_label_set
from tests.engine.slots.logos import POLICY as SPONSORS
from tests.shipped_policies import SHIPPED_POLICIES

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
QUICKSTART = find_package_data("config") / "policies" / "quickstart.yaml"


def rng():
    return np.random.default_rng(7)


def simulate(simulator, site):
    return simulator.simulate_case("k", site, NOW, 0.8, timedelta(seconds=3))


def get_predicted(case):
    return case.predictions[0].answers


def get_decided(case):
    return case.decisions[0].answers


def test_cases_of_sets_fit_the_policy_and_agree_as_asked():
    policy = parse_policy(SPONSORS)
    (lever,), simulator = policy.levers, CaseSimulator(policy, rng(), "test")
    cases = [simulate(simulator, "stadium") for _ in range(400)]
    pairs = [(get_decided(case)["logos"], get_predicted(case)["logos"]) for case in cases]
    assert all(is_label_set(text, lever.labels) for pair in pairs for text in pair)
    agreed = sum(do_sets_agree(*pair, lever.overlap) for pair in pairs)
    assert 290 < agreed < 350
    assert len({human for human, _ in pairs}) > 50


@pytest.mark.parametrize("path", SHIPPED_POLICIES.values(), ids=SHIPPED_POLICIES)
def test_cases_fit_the_policy_and_agree_as_asked(path):
    policy = load_policy(path)
    simulator = CaseSimulator(policy, rng(), "test")
    cases = [simulate(simulator, policy.sites[0].id) for _ in range(400)]
    agreed = 0
    for case in cases:
        same = []
        for lever in policy.levers:
            model, human = get_predicted(case)[lever.id], get_decided(case)[lever.id]
            if lever.many:
                assert is_label_set(model, lever.labels)
                assert is_label_set(human, lever.labels)
                same.append(do_sets_agree(human, model, lever.overlap))
            elif lever.number is None:
                assert {model, human} <= set(lever.labels)
                same.append(model == human)
            else:
                distance = lever.number.tolerance.compute_distance(float(human))
                assert lever.number.low <= float(human) <= lever.number.high
                same.append(abs(float(model) - float(human)) <= distance)
        agreed += all(same)
        assert (case.episode is None) is (policy.evidence.unit == "case")
    assert 0.74 < agreed / len(cases) < 0.86
    for window in policy.windows:
        for attribute, values in window.when.items():
            assert any(case.attributes[attribute] in values for case in cases)


@pytest.mark.parametrize("path", SHIPPED_POLICIES.values(), ids=SHIPPED_POLICIES)
def test_a_history_is_long_enough_and_received_before_the_import(path):
    policy = load_policy(path)
    plan = plan_history(policy, NOW)
    assert plan.cases_per_site * len(policy.sites) <= MAX_CASES
    days = [gate.minimum.days for gate in policy.gates if gate.to == policy.stage_ids[1]]
    assert (plan.until - plan.since).days >= min(60, max(days, default=0))
    small = type(plan)(plan.since, plan.until, 5)
    files = build_history_files(policy, small, rng())
    cases = list(csv.DictReader(io.StringIO(files["cases.csv"].decode())))
    assert len(cases) == 5 * len(policy.sites)
    assert all(row["case_key"].startswith(CASE_PREFIX) for row in cases)
    received = [datetime.fromisoformat(row["received_at"]) for row in cases]
    occurred = [datetime.fromisoformat(row["occurred_at"]) for row in cases]
    assert all(at < after < NOW for at, after in zip(occurred, received, strict=True))
    decisions = list(csv.DictReader(io.StringIO(files["decisions.csv"].decode())))
    assert len(decisions) >= len(cases) * policy.evidence.verdicts
    per_case = {(row["case_key"], row["reviewer"]) for row in decisions}
    assert len(per_case) == len(decisions)  # nobody decides a case twice
    assert {row["exposure"] for row in decisions} == {"blind"}


def test_labels_are_as_frequent_as_the_policy_expects():
    text = QUICKSTART.read_text("utf-8").replace("agreement: 97%}", "labels: {damaged: 10%}}")
    policy = parse_policy(text)
    assert compute_label_shares(policy, policy.levers[0]) == pytest.approx([0.9, 0.1])


def traffic(fault=None):
    policy = load_policy(QUICKSTART)
    planted = parse_fault(fault, policy) if fault else None
    return LiveCases(policy, rng(), "simulated-1", 0.97, planted)


def answered(decider="human", exposure="blind"):
    return {"decider": decider, "exposure": exposure, "permit": "p"}


def list_effects(case, answer, *, audited=False):
    return list(build_live_records(load_policy(QUICKSTART)).list_effects(case, [answer], audited))


def test_a_human_decides_as_the_answer_says_and_the_action_follows():
    case = traffic().create_cases(NOW, timedelta(0), 5.0)[0]
    (question,) = build_live_records(load_policy(QUICKSTART)).build_questions(case)
    assert (question["at"], "received_at" in question) == (NOW.isoformat(), False)
    (at, account, decision), (_, _, action) = list_effects(case, answered(exposure="assisted"))
    assert NOW < at < NOW + timedelta(seconds=10)
    assert account == "ramp-a-decisions"
    assert (decision["kind"], decision["exposure"]) == ("decision", "assisted")
    assert (action["kind"], action["by"]) == ("action", "person")
    label = get_decided(case)["parcel"]
    assert action["action"] == {"sound": "forward", "damaged": "repack"}[label]


def test_the_model_acts_with_its_permit_and_an_audit_is_decided_blind():
    case = traffic().create_cases(NOW, timedelta(0), 5.0)[0]
    ((at, account, action),) = list_effects(case, answered("model"))
    assert (at, account, action["permit"]) == (NOW, "ramp-a-model", "p")
    effects = list_effects(case, answered("model"), audited=True)
    assert [(account, item["kind"]) for _, account, item in effects] == [
        ("ramp-a-model", "action"),
        ("ramp-a-decisions", "decision"),
    ]


def test_a_drift_begins_at_its_time_at_the_first_site_alone():
    one = traffic("drift@2m")
    before, after = timedelta(seconds=119), timedelta(seconds=120)
    assert one.get_agreement("ramp-a", before) == one.get_agreement("ramp-b", after) == 0.97
    assert one.get_agreement("ramp-a", after) == pytest.approx(0.57)


@pytest.mark.parametrize("text", ["flood@2m", "drift", "drift@soon", "drift@"])
def test_another_fault_is_refused_with_the_form_to_write(text):
    with pytest.raises(ValueError, match="write drift@2m"):
        traffic(text)
