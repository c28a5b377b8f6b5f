import json
from dataclasses import replace
from datetime import timedelta
from math import inf

import polars as pl
import pytest

from rollout.features.policies.gate_forecast import (
    compute_evidence_need,
    compute_records_to_alarm,
    compute_renewal_chance,
    format_days,
)
from rollout.features.policies.gate_plans import (
    AgreementDrop,
    compute_false_alarms,
    describe_slices,
    plan_gates,
    plan_guards,
)
from rollout.features.policies.planning import build_policy_plan, format_plan
from rollout.features.policies.traffic import (
    CellTraffic,
    MeasureRate,
    RolloutTraffic,
    build_expected_traffic,
    compute_recorded_traffic,
    find_missing_columns,
)
from rollout.features.policies.traffic_warnings import list_traffic_warnings
from rollout.kernel.calendar.instants import Cell, Window
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.policy import Guard, Where
from rollout.kernel.policy_files.reader import load_policy, parse_policy
from rollout.kernel.populations import EachValue
from tests.engine.evidence import histories
from tests.shipped_policies import SHIPPED_POLICIES

BASE = """
rollout: bear-alarm
timezone: UTC
levers:
  - id: alarm
    labels: [bear, no-bear]
    costs: [{did: no-bear, right: bear, cost: 20}, {cost: 1}]
sites: [creek]
evidence: {unit: case, grace: 24h, missing_at_most: 0.5%}
gates:
  - to: supervised
    require: [{measure: agreement, at_least: 95%}, {measure: recall, label: bear, at_least: 80%}]
    minimum: {units: 200, days: 3}
  - to: autonomous
    require: [{measure: cost, at_most: 0.5}]
    minimum: {units: 60, days: 5}
"""
EXPECT = "expect: {units_per_day: 60, labels: {bear: 10%}, agreement: 98%, cost: 0.1}\n"
POLICY = parse_policy(BASE + EXPECT)
CELL = Cell("creek", "always")
FLOW = build_expected_traffic(POLICY).get_cell_traffic(CELL)
AGREEMENT = Condition(MEASURES["agreement"], 0.95)


def flowing(value, measure="agreement"):
    return CellTraffic(60.0, {(measure, None, None): MeasureRate(1.0, value)}, {}, 10.5)


# What a condition needs


def test_a_share_needs_what_its_exact_law_says():
    found = compute_evidence_need(AGREEMENT, 0.05, FLOW, POLICY)
    assert (found.min_records, found.expected_records, found.is_unreachable) == (74, 249, False)


@pytest.mark.parametrize("value", [0.95, 0.9, 0.9501])
def test_a_share_at_its_line_is_not_expected_to_open(value):
    found = compute_evidence_need(AGREEMENT, 0.05, flowing(value), POLICY)
    assert (found.expected_records, found.is_unreachable) == (None, True)


def test_without_an_expectation_there_is_only_the_least():
    found = compute_evidence_need(AGREEMENT, 0.05, flowing(None), POLICY)
    assert (found.min_records, found.expected_records, found.is_unreachable) == (74, None, False)


def test_a_cost_needs_less_the_cheaper_it_is():
    line = Condition(MEASURES["cost"], 0.5)
    dear, cheap = (
        compute_evidence_need(line, 0.01, flowing(value, "cost"), POLICY) for value in (0.3, 0.1)
    )
    assert dear.expected_records is not None
    assert cheap.expected_records is not None
    assert cheap.min_records <= cheap.expected_records < dear.expected_records
    assert compute_evidence_need(line, 0.01, flowing(0.6, "cost"), POLICY).is_unreachable


# Gates in days


def test_a_gate_waits_for_its_slowest_condition_and_the_grace():
    first = next(plan_gates(POLICY, build_expected_traffic(POLICY)))
    recall = first.condition_plans[1]
    assert recall.per_day == pytest.approx(6.0)
    assert first.days == pytest.approx(max(348 / 60, recall.expected_records / 6, 200 / 60, 3) + 1)


def test_evidence_of_the_stage_below_counts_on():
    second = list(plan_gates(POLICY, build_expected_traffic(POLICY)))[1]
    assert second.from_stage == "supervised"
    needed = {ask.condition.measure.name: ask.expected_records for ask in second.condition_plans}
    gathered = 60 * (348 / 60 + 1)
    waits = [(needed[measure] - gathered) / 30 for measure in ("agreement", "cost")] + [60 / 30, 5]
    assert second.days == pytest.approx(max(waits) + 1)


def test_a_gate_above_the_ceiling_is_not_planned():
    held = parse_policy(BASE + EXPECT + "limits: [{never_above: supervised}]\n")
    assert [row.gate.to for row in plan_gates(held, build_expected_traffic(held))] == ["supervised"]


def test_the_end_of_a_limit_that_opens_the_next_wave_is_said():
    sites = "sites: [creek, {id: lake, wave: 2}]\nwaves: {stage: supervised}\n"
    text = BASE.replace("sites: [creek]\n", sites) + "limits: [{sites: [creek], ends: 2027-10-31}"
    says = "limits: after 2027-10-31 the next wave no longer waits for creek"
    planned = [
        build_policy_plan(parse_policy(text + end)) for end in ("]", ", {ends: 2027-10-31}]")
    ]
    assert [says in map(str, each.warnings) for each in planned] == [True, False]


def test_cells_with_other_gates_are_planned_apart():
    own = """
  - {to: autonomous, windows: [night], require: [{measure: cost, at_most: 0.1}]}
  - to: autonomous
    require: [{measure: cost, at_most: 0.5}]"""
    text = BASE.replace("  - to: autonomous\n    require: [{measure: cost, at_most: 0.5}]", own[1:])
    text += 'windows: [{id: day, hours: "06:00-18:00"}, {id: night, hours: 24/7}]\n'
    policy = parse_policy(text + EXPECT)
    rows = list(plan_gates(policy, build_expected_traffic(policy)))
    found = [(row.gate.to, [cell.window for cell in row.cells]) for row in rows]
    both = ["day", "night"]
    assert sorted(found) == [
        ("autonomous", ["day"]),
        ("autonomous", ["night"]),
        ("supervised", both),
    ]


def test_without_traffic_there_is_no_date():
    policy = parse_policy(BASE)
    assert [row.days for row in plan_gates(policy, build_expected_traffic(policy))] == [None, None]
    assert "no date, because traffic or agreement is unknown" in format_plan(
        build_policy_plan(policy)
    )


def test_without_the_share_of_a_slice_or_a_label_there_is_no_date_and_the_plan_names_it():
    agreement = "{measure: agreement, at_least: 90%}"
    for condition, name in (
        ("{measure: agreement, slice: form, at_least: 90%}", "each form"),
        ("{measure: recall, label: no-bear, at_least: 90%}", "no-bear"),
    ):
        start, _, rest = BASE.partition("    require: [")
        own = f"{start}    require: [{agreement}, {condition}]{rest[rest.index(']') + 1 :]}"
        text = format_plan(build_policy_plan(parse_policy(own + EXPECT)))
        assert f"no date, because the share of {name} is unknown" in text


def test_an_expectation_below_the_line_never_opens():
    low = parse_policy(BASE + EXPECT.replace("98%", "90%"))
    said = build_policy_plan(low)
    assert [row.days for row in said.gate_plans] == [inf, inf]
    assert "not reachable at the expected 90 %" in format_plan(said)


# Guards in days


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("reference", "every", "to", "wrong_at_a_tenth"),
    [(0.98, 1e4, 0.9, 85), (0.98, 1e4, 0.5, 40), (0.95, 1e4, 0.0, 40), (0.95, 1e5, 0.9, 418)],
)
def test_a_fall_costs_what_was_simulated(reference, every, to, wrong_at_a_tenth):
    line = Condition(MEASURES["agreement"], reference)
    guard = Guard(line, "one-stage", false_alarm_every=every)
    policy = replace(POLICY, guards=(guard,))
    falls = next(iter(plan_guards(policy, build_expected_traffic(policy)))).drops
    found = next(fall for fall in falls if fall.agreement == to)
    assert found.wrong_actions == pytest.approx(wrong_at_a_tenth, rel=0.13)
    records = compute_records_to_alarm(guard, to, FLOW, policy)
    assert found.days == pytest.approx(records / 6)


def test_a_guard_never_alarms_on_what_is_above_its_line():
    guard = Guard(Condition(MEASURES["recall"], 0.7, label="bear"), "shadow")
    assert compute_records_to_alarm(guard, 0.9, FLOW, POLICY) is None
    assert compute_records_to_alarm(guard, 0.5, FLOW, POLICY) is not None


def test_overrides_are_seen_where_people_see_proposals():
    guard = Guard(Condition(MEASURES["override"], 0.1), "one-stage")
    seen = replace(POLICY, guards=(guard,), stages=POLICY.stages[:1], gates=POLICY.gates[:1])
    row = next(iter(plan_guards(seen, build_expected_traffic(seen))))
    assert row.per_day == 30
    assert [fall.agreement for fall in row.drops] == [0.5, 0.0]


def test_false_alarms_add_up_over_guards_and_cells():
    guard = Guard(AGREEMENT, "one-stage", false_alarm_every=3000)
    two = replace(POLICY, guards=(guard, replace(guard, then="report")))
    # at most half of 60 units a day are judged, twice, of which one in 3,000 alarms
    assert compute_false_alarms(
        tuple(plan_guards(two, build_expected_traffic(two)))
    ) == pytest.approx(60 / 3000)


def test_guards_on_spans_of_time_have_no_such_figures():
    text = BASE + EXPECT + "guards: [{measure: heartbeat, at_most: 2h}]\n"
    row = next(iter(plan_guards(parse_policy(text), build_expected_traffic(POLICY))))
    assert (row.drops, row.guard.condition.measure.name) == ((), "heartbeat")


# Renewal


def test_a_good_cell_is_nearly_always_renewed_and_a_bad_one_hardly_ever():
    chance = compute_renewal_chance(AGREEMENT, 300, flowing(0.98), POLICY)
    assert chance == pytest.approx(0.92, abs=0.005)  # model.md §2
    assert compute_renewal_chance(AGREEMENT, 300, flowing(0.93), POLICY) < 0.01


def test_a_cost_is_renewed_by_the_same_rule():
    line = Condition(MEASURES["cost"], 0.5)
    good, bad = (compute_renewal_chance(line, 600, flowing(v, "cost"), POLICY) for v in (0.1, 0.7))
    assert good is not None
    assert bad is not None
    assert bad < 0.1
    assert good > 0.9


def test_nothing_is_said_of_what_is_not_known():
    assert compute_renewal_chance(AGREEMENT, 300, flowing(None), POLICY) is None


# Traffic


def recorded(days=10, a_day=20, wrong_every=10):
    keys = [f"c{n}" for n in range(days * a_day)]
    truth = ["bear" if n % 5 == 0 else "none" for n in range(len(keys))]
    said = ["fox" if n % wrong_every == 3 else label for n, label in enumerate(truth)]
    return histories.records(
        histories.cases(*((key, 24 * (n // a_day)) for n, key in enumerate(keys))),
        histories.predictions(*zip(keys, said, strict=True)),
        histories.decisions(*zip(keys, truth, strict=True)),
    )


@pytest.mark.slow
def test_records_give_pace_rates_and_labels():
    policy = histories.a_policy()
    traffic = compute_recorded_traffic(recorded(), policy)
    flow = traffic.get_cell_traffic(policy.cells[0])
    assert flow.units_per_day == pytest.approx(200 / (9 + 1 / 24), rel=0.01)
    assert flow.get_rate(AGREEMENT).value == pytest.approx(0.9)
    assert flow.labels["bear"] == pytest.approx(0.2)
    assert "records of version v1" in traffic.source


def test_of_a_version_with_a_sample_the_drawn_cases_are_counted():
    """Those that are not drawn are no units, even if they were predicted."""
    history, policy = recorded(wrong_every=20), histories.a_policy()
    draws = [json.dumps({"v1": n % 2 == 1}) for n in range(200)]  # all wrong ones are drawn
    history = replace(history, cases=history.cases.with_columns(draws=pl.Series(draws)))
    flow = compute_recorded_traffic(history, policy).get_cell_traffic(policy.cells[0])
    assert flow.units_per_day == pytest.approx(100 / (9 + 1 / 24), rel=0.01)
    assert flow.get_rate(AGREEMENT).value == pytest.approx(0.9)


def test_a_missing_verdict_disagrees_in_the_records_too():
    history = recorded()
    half = replace(history, decisions=history.decisions.head(100))
    policy = histories.a_policy()
    flow = compute_recorded_traffic(half, policy).get_cell_traffic(policy.cells[0])
    assert flow.get_rate(AGREEMENT).value == pytest.approx(0.45)


def test_a_gate_that_missing_units_alone_keep_closed_is_warned_of():
    policy, history = histories.a_policy(), recorded()
    half = replace(history, decisions=history.decisions.head(100))
    whole, halved = (
        str(build_policy_plan(policy, compute_recorded_traffic(records, policy)).warnings)
        for records in (history, half)
    )
    assert "stays closed" not in whole
    assert "supervised stays closed in " in halved
    assert "up to 50 % of the recorded units are missing, missing_at_most is 5 %" in halved


def test_cells_that_the_records_do_not_have_are_unknown():
    assert RolloutTraffic("nothing", {}).get_cell_traffic(CELL).units_per_day is None
    empty = histories.records(histories.cases())
    assert compute_recorded_traffic(empty, histories.a_policy()).cells == {}


def test_records_replace_what_was_expected():
    policy = histories.a_policy()
    text = format_plan(build_policy_plan(policy, compute_recorded_traffic(recorded(), policy)))
    assert (
        "of version v1, 9 days (units without a decision count as disagreements): 22.1 units"
        in text
    )


def test_the_rarest_value_of_an_attribute_has_a_plain_share():
    condition = Condition(MEASURES["agreement"], 0.9, population=EachValue("form"))
    policy = histories.a_policy(gates=(histories.a_gate("supervised", condition),))
    text = format_plan(build_policy_plan(policy, compute_recorded_traffic(recorded(), policy)))
    assert "assumed: form=(none) is the rarest value, 100 % of units" in text


def test_columns_that_the_policy_names_and_no_case_has_are_warned_of():
    policy = replace(histories.a_policy(), slices=("form", "colour"))
    text = format_plan(build_policy_plan(policy, compute_recorded_traffic(recorded(), policy)))
    assert (
        "slices: no case has the columns `form` and `colour`: the report compares nothing" in text
    )


def test_a_windows_attribute_without_a_column_is_missing():
    dry = Window("dry", "24/7", when={"weather": ("dry",)})
    policy = replace(histories.a_policy(), windows=(dry,))
    assert find_missing_columns(policy, ["form"]) == {"windows": ("weather",)}
    assert find_missing_columns(policy, ["weather"]) == {}


def test_a_slice_needs_its_minimum_however_well_it_agrees(monkeypatch):
    condition = Condition(MEASURES["agreement"], 0.5, population=EachValue("form"))
    monkeypatch.setattr(EachValue, "minimum", 400)
    policy = histories.a_policy(gates=(histories.a_gate("supervised", condition),))
    text = format_plan(build_policy_plan(policy, compute_recorded_traffic(recorded(), policy)))
    assert "(400 decisions if all agree)" in text


def test_a_guard_by_slice_says_at_how_many_slices_it_looks():
    condition = Condition(MEASURES["agreement"], 0.8, population=EachValue("form"))
    guard = Guard(condition, "suspend")
    rates = {condition.key: MeasureRate(0.1, 0.9, slices=4)}
    traffic = RolloutTraffic("", {CELL: CellTraffic(90.0, rates, {}, 1.0)})
    assert describe_slices(guard, traffic) == "looks at 4 slices by form, and names one"
    assert describe_slices(guard, RolloutTraffic("", {})) == ""


def test_labels_of_all_cells_are_weighted_by_their_units():
    busy, quiet = (
        CellTraffic(90.0, {}, {"bear": 0.1}, 1.0),
        CellTraffic(10.0, {}, {"bear": 0.5}, 1.0),
    )
    traffic = RolloutTraffic("", {Cell("a", "day"): busy, Cell("b", "day"): quiet})
    assert traffic.labels == {"bear": pytest.approx(0.14)}


# Warnings that follow from traffic


def says(text):
    return [str(warning) for warning in build_policy_plan(parse_policy(text)).warnings]


def test_a_gate_of_more_than_a_year_is_warned_of():
    slow = BASE + EXPECT.replace("per_day: 60", "per_day: 0.4")
    assert any("supervised needs 2.4 years, over a year" in line for line in says(slow))
    assert not any("over a year" in line for line in says(BASE + EXPECT))


def test_a_gate_that_is_not_expected_to_open_is_warned_of():
    found = says(BASE + EXPECT.replace("98%", "90%"))
    assert any("supervised is not expected to open: agreement at least 95 %" in s for s in found)


def test_too_few_units_in_a_grant_are_warned_of():
    found = says(BASE + EXPECT.replace("per_day: 60", "per_day: 6"))
    assert "stages[1]: a grant of autonomous lasts 13 weeks: about 54 decided units in" in found[-2]
    assert "its renewal needs 60" in found[-2]


@pytest.mark.slow
def test_a_grant_that_may_well_not_be_renewed_is_warned_of():
    found = says(BASE + EXPECT.replace("98%", "95.4%"))
    weak = [line for line in found if "for a renewal is" in line]
    assert weak
    assert all("agreement at least 95 %" in line for line in weak)


def test_an_added_guard_is_no_concern_where_another_sees_a_total_failure_in_a_month():
    quiet = BASE + EXPECT.replace("per_day: 60", "per_day: 0.4")
    policy = parse_policy(quiet)
    traffic = build_expected_traffic(policy)
    plans = plan_guards(policy, traffic)
    added = next(plan for plan in plans if plan.guard.added and plan.drops)
    quick = AgreementDrop(0.0, 3.0, 1.0)
    other = replace(added, guard=replace(added.guard, added=False), drops=(quick,))
    bears = replace(added.guard.condition, measure=MEASURES["recall"], label="bear")
    about_bears = replace(added, guard=replace(added.guard, condition=bears))
    elsewhere = replace(other, guard=replace(other.guard, where=Where(sites=("nowhere",))))

    def warns(*others):
        return list(list_traffic_warnings(policy, traffic, (), others))

    assert "the added guard agreement" in str(warns(added)[0])
    assert warns(added, elsewhere)
    assert not warns(added, other)
    assert warns(about_bears, other), "a model can agree often and miss every bear"


def test_a_guard_that_sees_a_total_failure_late_is_warned_of():
    rare = EXPECT.replace("bear: 10%", "bear: 0.1%")
    guard = "guards: [{measure: recall, label: bear, at_least: 70%, then: shadow}]\n"
    found = [line for line in says(BASE + rare + guard) if "a total failure at" in line]
    assert found[0].startswith("guards[0]: recall of bear at least 70 %: a total failure at auto")
    assert not any("a total failure" in line for line in says(BASE + EXPECT + guard))


# Words


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (0.01, "1 hour"),
        (1.9, "46 hours"),
        (2, "2 days"),
        (21, "3 weeks"),
        (400, "1.1 years"),
        (inf, "never"),
    ],
)
def test_spans_are_said_as_people_do(days, text):
    assert format_days(days) == text


def test_spans_of_guards_are_said_in_their_own_unit():
    said = format_plan(
        build_policy_plan(parse_policy(BASE + "guards: [{measure: heartbeat, at_most: 36h}]\n"))
    )
    assert "heartbeat at most 36h: suspend" in said


def test_added_guards_are_printed_as_such():
    assert "agreement at least 93 %: narrows by one stage (added" in format_plan(
        build_policy_plan(POLICY)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bears", "mail-room"])
def test_the_plan_reads_well(name, snapshot):
    assert format_plan(build_policy_plan(load_policy(SHIPPED_POLICIES[name]))) == snapshot


@pytest.mark.parametrize("path", SHIPPED_POLICIES.values(), ids=SHIPPED_POLICIES)
def test_each_shipped_policy_can_be_planned(path):
    policy = load_policy(path)
    assert format_plan(build_policy_plan(policy)).startswith(f"Plan of {policy.rollout}: ")


def test_a_stage_without_a_gate_is_named():
    smallest = format_plan(build_policy_plan(load_policy(SHIPPED_POLICIES["smallest"])))
    assert smallest.startswith("Plan of parcel-damage: 2 cells, ")
    assert "supervised → autonomous (no gate to autonomous)\n" in smallest
    assert "unaudited at most 10 % (audits of autonomous without a decision in time)" in smallest
    assert "no gate" not in format_plan(build_policy_plan(POLICY))


def test_grace_is_part_of_the_date():
    late = replace(POLICY, evidence=replace(POLICY.evidence, grace=timedelta(days=9)))
    dates = [next(plan_gates(p, build_expected_traffic(p))).days for p in (POLICY, late)]
    assert dates[1] - dates[0] == pytest.approx(8)
