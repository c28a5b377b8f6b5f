"""The facts of what people and versions said, and the traps of `../shared/reports.md`."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.figures.funnel import (
    NO_PREDICTION,
    ONLY_ASSISTED,
    UNANSWERED,
    UNSURE,
    compute_funnels,
)
from rollout.features.reports.figures.reviewer_agreement import Reviewer, list_visible_standouts
from rollout.features.reports.inputs.inputs import NOT_DRAWN, UNFAMILIAR
from rollout.features.reports.inputs.pairs import compare_answers
from rollout.features.reports.pages.json_report import to_plain_values
from rollout.kernel.policy.familiarity import encode_case_values
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.statistics.intervals import (
    EXACT_METHOD,
    clopper_pearson,
    compute_share,
    compute_weighted_share,
)
from tests.features.reports.alike_cases import FIVE, often

pytestmark = pytest.mark.slow


@pytest.fixture
def ten_bears_each(case):
    """A thousand cases: people see ten bears, the model ten others."""
    quiet = {"human": "no-bear", "model": {"v1": "no-bear"}}
    return [
        *often(case, 10, "h", human="bear", model={"v1": "no-bear"}),
        *often(case, 10, "m", 10, human="no-bear", model={"v1": "bear"}),
        *often(case, 980, "n", 20, **quiet),
    ]


def test_ten_bears_each_look_well_and_are_worse_than_chance(replay_of, ten_bears_each):
    (figures,) = compute_report_facts(replay_of(ten_bears_each)).agreements
    assert figures.agreement.rate == 0.98
    assert figures.kappa.value == pytest.approx(-0.01, abs=5e-4)
    bear = next(row for row in figures.labels if row.label == "bear")
    assert (bear.human, bear.model, bear.both, bear.recall.rate) == (10, 10, 0, 0.0)


def test_a_model_that_never_fires_looks_well_and_a_recall_gate_holds_it(replay_of, case):
    policy = parse_policy(
        """
rollout: never
timezone: UTC
levers: [{id: alarm, labels: [bear, no-bear]}]
sites: [creek]
evidence: {unit: case}
gates:
  - to: supervised
    require: [{measure: agreement, at_least: 90%}, {measure: recall, label: bear, at_least: 80%}]
    minimum: {units: 100, days: 1}
"""
    )
    cases = [
        *often(case, 10, "b", human="bear", model={"v1": "no-bear"}),
        *often(case, 990, "n", 10, human="no-bear", model={"v1": "no-bear"}),
    ]
    facts = compute_report_facts(replay_of(cases, policy))
    assert facts.agreements[0].agreement.rate == 0.99
    (evidence,) = facts.evidence
    met = {c.measure: c.met for c in evidence.gate.conditions}
    assert met == {"agreement": True, "recall": False}
    assert facts.stages[0].widened == 0


def test_no_data_is_not_zero(replay_of, case):
    facts = compute_report_facts(replay_of([case("a", human="bear", model={"v1": "bear"})]))
    (figures,) = facts.agreements
    assert figures.assisted.rate is None
    assert figures.labels[0].recall.rate == 1.0
    assert facts.model_cost.wrong.rate is None
    assert facts.model_cost.human_wrong is None
    assert facts.divergences.outcome_known is None
    assert facts.reviewer_agreement.reviewers[0].with_outcome.rate is None


def test_assisted_verdicts_never_enter_evidence(replay_of, case):
    """True agreement .85; who sees the answer adopts it in 35 % of conflicts: .90."""
    blind = [
        *often(case, 85, "g", human="bear", model={"v1": "bear"}),
        *often(case, 15, "w", 85, human="bear", model={"v1": "no-bear"}),
    ]
    saw = {"exposure": "assisted", "human": "bear"}
    assisted = [
        *often(case, 90, "ag", 100, model={"v1": "bear"}, **saw),
        *often(case, 10, "aw", 190, model={"v1": "no-bear"}, **saw),
    ]
    facts = compute_report_facts(replay_of([*blind, *assisted]))
    (figures,) = facts.agreements
    assert (figures.agreement.n, figures.agreement.rate) == (100, 0.85)
    assert (figures.assisted.n, figures.assisted.rate) == (100, 0.9)
    assert facts.evidence[0].decided_units + facts.evidence[1].decided_units == 100
    assert facts.funnels[0].steps[-1].lost == {ONLY_ASSISTED: 100}


def test_weighing_audits_by_their_chance_tells_a_bad_stratum_from_a_bad_model():
    """Of 100,000 cases 10 % are unsure, all read, 70 % right; 2 % of the rest, 99 % right."""
    errors = [1] * 3000 + [0] * 7000 + [1] * 18 + [0] * 1782
    chances = [1.0] * 10_000 + [0.02] * 1800
    assert 1 - np.mean(errors) == pytest.approx(0.744, abs=5e-4)
    assert 1 - compute_weighted_share(errors, chances).rate == pytest.approx(0.961)


def test_every_step_of_the_funnel_loses_what_its_reasons_say(told):
    _, facts = told
    for funnel in facts.funnels:
        for before, after in zip(funnel.steps, funnel.steps[1:], strict=False):
            assert before.remaining - after.remaining == sum(after.lost.values())


def test_the_funnel_ends_with_the_units_that_the_engine_counted(told):
    """In every attempt: the views select by stage and sampling value, as gates do."""
    inputs, facts = told
    for funnel in facts.funnels:
        seen = decided = 0
        for (_, version), view in inputs.evidence_views.items():
            if version == funnel.version:
                rows, kinds = view.rows.gate, view.unit_classes
                rows = rows.select(kinds.is_whole_unit[rows.unit_class] & view.find_reviewed(rows))
                seen += len(rows)
                decided += int((~kinds.is_missing[rows.unit_class]).sum())
        assert [step.remaining for step in funnel.steps[-2:]] == [seen, decided]
    assert any(funnel.steps[-2].lost == {NOT_DRAWN: 171} for funnel in facts.funnels)


def test_units_with_values_that_the_version_never_met_end_before_decisions(replay_of, case):
    inputs = replay_of(often(case, 6, "a", human="bear", model={"v1": "bear"}))
    values = pl.lit(f"[{encode_case_values([('form', 'new')])}]")
    unfamiliar = replace(inputs, units=inputs.units.with_columns(attribute_values=values))
    (funnel,) = compute_funnels(unfamiliar, ["v1"])
    assert [step.lost for step in funnel.steps[-2:]] == [{UNFAMILIAR: 6}, {}]


def test_missing_verdicts_have_their_reasons_and_widen_the_bounds(replay_of, case):
    cases = [
        *often(case, 6, "a", human="bear", model={"v1": "bear"}),
        *often(case, 2, "w", 6, human="no-bear", model={"v1": "bear"}),
        case("nobody", model={"v1": "bear"}),
        case("unsure", human=[("ana", None)], model={"v1": "bear"}),
        case("unasked", human="bear"),
    ]
    (funnel,) = compute_report_facts(replay_of(cases)).funnels
    assert funnel.steps[-1].lost == {UNANSWERED: 1, UNSURE: 1}
    assert funnel.steps[3].lost == {NO_PREDICTION: 1}
    assert funnel.bounds == (clopper_pearson(6, 10)[0], clopper_pearson(8, 10)[1])


def test_people_who_differ_make_no_single_label(replay_of, case):
    cases = [
        case("a", human=[("ana", "bear"), ("bo", "no-bear")], model={"v1": "bear"}),
        case("b", human=[("ana", "bear"), ("bo", "bear")], model={"v1": "bear"}),
    ]
    facts = compute_report_facts(replay_of(cases))
    (figures,) = facts.agreements
    assert (figures.agreement.n, figures.unjudged) == (1, 1)
    (ceiling,) = facts.reviewer_agreement.ceilings
    assert (ceiling.reviewers.cases, ceiling.reviewers.pairwise) == (2, 0.5)
    assert ceiling.model.rate == 0.75


def test_slices_are_by_the_hour_as_written_even_without_a_time(replay_of, case):
    known = case("k", human="bear", model={"v1": "bear"})
    odd = case("odd", None, human="bear", model={"v1": "no-bear"}, hour=5)
    facts = compute_report_facts(replay_of([known, odd]))
    (figures,) = facts.agreements
    assert {s.name: s.agreement.n for s in figures.by_day_night} == {"day": 1, "night": 1}
    assert facts.funnels[0].steps[1].lost == {"no time": 1}
    assert facts.evidence[0].decided_units == 1


def test_a_careless_person_stands_out_among_others_in_the_same_cell(replay_of, case):
    cases = [
        case(
            f"c{n}", case("x").at + n * FIVE,
            human=[(("ana", "bo", "cy")[n % 3], "no-bear" if n % 15 == 1 else "bear")],
            model={"v1": "bear"}, outcome="bear",
        )
        for n in range(900)
    ]  # fmt: skip
    first, *others = compute_report_facts(replay_of(cases)).reviewer_agreement.reviewers
    assert (first.reviewer, first.clearly_below_in) == ("bo", ("outcome", "model"))
    assert [other.clearly_below_in for other in others] == [(), ()]


def test_a_single_error_among_flawless_people_makes_nobody_stand_out(replay_of, case):
    cases = [
        case(
            f"c{n}", case("x").at + n * FIVE,
            human=[(("ana", "bo", "cy")[n % 3], "no-bear" if n == 400 else "bear")],
            model={"v1": "bear"}, outcome="bear",
        )
        for n in range(900)
    ]  # fmt: skip
    reviewers = compute_report_facts(replay_of(cases)).reviewer_agreement.reviewers
    assert sorted(reviewer.with_outcome.count for reviewer in reviewers) == [299, 300, 300]
    assert [reviewer.clearly_below_in for reviewer in reviewers] == [(), (), ()]


def test_an_outlier_is_listed_only_with_a_share_below_the_others():
    def reviewer(name, right, n, stands_out=()):
        share, none = compute_share(right, n), compute_share(0, 0)
        return Reviewer(name, n, 0, share, none, none, stands_out)

    easy, poor = reviewer("nag-5", 62, 63, ("model",)), reviewer("bo", 5, 63, ("model",))
    others = reviewer("ana", 954, 1000)
    assert list_visible_standouts((easy, others)) == []
    assert [row[:2] for row in list_visible_standouts((easy, poor, others))] == [(poor, "model")]


def test_who_reads_the_hard_cell_does_not_stand_out(replay_of, case):
    """Nights are hard for everybody; dan reads most of the nights and few of the days."""
    day, night = case("x").at, case("x").at + timedelta(hours=9)
    cases = [
        case(
            f"{part}{n}",
            at + timedelta(days=n // 30, minutes=5 * (n % 30)),
            human=[(people[n % 10], "no-bear" if n % 7 in wrong else "bear")],
            model={"v1": "bear"},
            outcome="bear",
        )
        for part, at, people, wrong in (
            ("d", day, ["dan", *["ana", "bo", "eve"] * 3], ()),
            ("n", night, ["eve", "ana", *["dan"] * 8], (0, 3)),
        )
        for n in range(840)
    ]
    assert all(
        r.clearly_below_in == ()
        for r in compute_report_facts(replay_of(cases)).reviewer_agreement.reviewers
    )


def test_divergences_stand_by_cost_and_then_by_confidence(told):
    _, facts = told
    top = facts.divergences.top
    assert [row.cost for row in top] == sorted((row.cost for row in top), reverse=True)
    assert top[0].human_action == "sound-alarm"
    assert facts.divergences.count == sum(
        a.agreement.n - a.agreement.count for a in facts.agreements
    )


def test_numbers_agree_within_their_tolerance_and_cost_by_their_gap():
    policy = parse_policy(
        """
rollout: door
timezone: UTC
levers:
  - id: heat
    number: {in: C, from: 0, to: 40, tolerance: 1}
    costs: [{off: 5, cost: 3}, {cost: 1}]
sites: [a]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 90%}]}]
"""
    )
    (lever,) = policy.levers
    assert compare_answers(lever, "20", "20.5") == (True, "20", "20.5", True, 0.0)
    costs = {
        said: compare_answers(lever, "20", said)[::4] for said in ("23", "30", "(failed)", "99")
    }
    assert costs == {"23": (False, 1), "30": (False, 3), "(failed)": (False, 3), "99": (False, 3)}


def test_no_interval_takes_cases_of_one_episode_as_independent(replay_of, case, bears):
    """Five hundred cases in 100 episodes: every share of more than 100 is over episodes."""
    policy = replace(
        bears,
        evidence=replace(bears.evidence, unit="episode"),
        levers=tuple(replace(lever, answer_within=FIVE) for lever in bears.levers),
    )
    first = case("x").at
    made = [
        case(
            f"c{n:03}",
            first + n * timedelta(minutes=20),
            human="bear",
            model={"v1": "bear" if n // 5 % 6 else "no-bear"},
            outcome="bear" if n // 5 % 4 else "no-bear",
            episode=f"e{n // 5}",
        )
        for n in range(500)
    ]
    values = to_plain_values(compute_report_facts(replay_of(made, policy)))
    plain = dict(find_plain_shares(values, 100))
    assert plain == {}


def find_plain_shares(value, units, path=""):
    """Yield the path and number of each share of more cases than units whose method names none."""
    if isinstance(value, dict):
        if value.get("method") == EXACT_METHOD and value["n"] > units:
            yield path, value["n"]
        for name, part in value.items():
            yield from find_plain_shares(part, units, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for part in value:
            yield from find_plain_shares(part, units, path)
