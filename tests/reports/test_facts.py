"""The facts of the story in conftest, and the traps of `../shared/reports.md`."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from rollout.core.evidence import log_e_audited
from rollout.formats.policy_yaml import load_policy
from rollout.reports.facts import facts_of
from rollout.reports.funnel import LEFT_OUT, NOBODY, NOT_ASKED, SEEN, UNSURE
from rollout.reports.intervals import weighted_share
from rollout.reports.naive import blocks_reach, rate_reaches
from rollout.reports.pairs import compare
from rollout.reports.standing import CONFIRM, MODEL, PERSON, standing
from rollout.reports.timeline_words import shown

FIVE = timedelta(minutes=5)


def often(case, count, prefix="c", start=0, **said):
    """Return `count` cases five minutes apart, all alike."""
    first = case("x").at
    numbers = range(start, start + count)
    return [case(f"{prefix}{n}", first + n * FIVE, **said) for n in numbers]


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
    (figures,) = facts_of(replay_of(ten_bears_each)).agreements
    assert figures.agreement.rate == 0.98
    assert figures.kappa.value == pytest.approx(-0.01, abs=5e-4)
    bear = next(row for row in figures.labels if row.label == "bear")
    assert (bear.human, bear.model, bear.both, bear.recall.rate) == (10, 10, 0, 0.0)


def test_a_model_that_never_fires_looks_well_and_a_recall_gate_holds_it(replay_of, case):
    policy = load_policy(
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
    facts = facts_of(replay_of(cases, policy))
    assert facts.agreements[0].agreement.rate == 0.99
    (evidence,) = facts.evidence
    met = {c.measure: c.met for c in evidence.gate.conditions}
    assert met == {"agreement": True, "recall": False}
    assert facts.stages[0].widened == 0


def test_no_data_is_not_zero(replay_of, case):
    facts = facts_of(replay_of([case("a", human="bear", model={"v1": "bear"})]))
    (figures,) = facts.agreements
    assert figures.assisted.rate is None
    assert figures.labels[0].recall.rate == 1.0
    assert facts.price.wrong.rate is None
    assert facts.price.people_wrong is None
    assert facts.divergences.outcome_known is None
    assert facts.people.reviewers[0].with_outcome.rate is None


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
    facts = facts_of(replay_of([*blind, *assisted]))
    (figures,) = facts.agreements
    assert (figures.agreement.n, figures.agreement.rate) == (100, 0.85)
    assert (figures.assisted.n, figures.assisted.rate) == (100, 0.9)
    assert facts.evidence[0].judged + facts.evidence[1].judged == 100
    assert facts.funnels[0].steps[-1].lost == {SEEN: 100}


def test_weighing_audits_by_their_chance_tells_a_bad_stratum_from_a_bad_model():
    """Of 100,000 cases 10 % are unsure, all read, 70 % right; 2 % of the rest, 99 % right."""
    errors = [1] * 3000 + [0] * 7000 + [1] * 18 + [0] * 1782
    chances = [1.0] * 10_000 + [0.02] * 1800
    assert 1 - np.mean(errors) == pytest.approx(0.744, abs=5e-4)
    assert 1 - weighted_share(errors, chances).rate == pytest.approx(0.961)
    found = {1.0: 3000, 0.02: 18}
    free = 100_000 - 3000 - 18
    assert log_e_audited(free, found, at_most=0.05, least_share=0.02) > np.log(20)
    assert log_e_audited(free, found, at_most=0.039, least_share=0.02) < np.log(20)


def test_every_step_of_the_funnel_loses_what_its_reasons_say(told):
    _, facts = told
    for funnel in facts.funnels:
        for before, after in zip(funnel.steps, funnel.steps[1:], strict=False):
            assert before.left - after.left == sum(after.lost.values())


def test_missing_verdicts_have_their_reasons_and_widen_the_bounds(replay_of, case):
    cases = [
        *often(case, 6, "a", human="bear", model={"v1": "bear"}),
        *often(case, 2, "w", 6, human="no-bear", model={"v1": "bear"}),
        case("nobody", model={"v1": "bear"}),
        case("unsure", human=[("ana", None)], model={"v1": "bear"}),
        case("unasked", human="bear"),
    ]
    (funnel,) = facts_of(replay_of(cases)).funnels
    assert funnel.steps[-1].lost == {NOBODY: 1, UNSURE: 1}
    assert funnel.steps[3].lost == {NOT_ASKED: 1}
    assert funnel.bounds == (0.6, 0.8)


def test_a_verdict_that_is_left_out_is_no_late_one(replay_of, case, bears):
    """Bo differs from everybody: from the second day on what he says is no evidence."""
    line = replace(
        bears.evidence, min_reviewer_agreement=0.8, second_verdict=1.0, outside_blind=True
    )
    first, said = case("x").at, []
    for n in range(90):
        day, nth = divmod(n, 30)
        at, other = first + timedelta(days=day, minutes=nth), ("ana", "cy", "di")[n % 3]
        answers = [("bo", "no-bear"), (other, "bear")]
        said.append(case(f"c{n:02}", at, model={"v1": "bear"}, human=answers))
    (funnel,) = facts_of(replay_of(said, replace(bears, evidence=line))).funnels
    assert funnel.steps[-1].lost == {LEFT_OUT: 60}


def test_people_who_differ_make_no_single_label(replay_of, case):
    cases = [
        case("a", human=[("ana", "bear"), ("bo", "no-bear")], model={"v1": "bear"}),
        case("b", human=[("ana", "bear"), ("bo", "bear")], model={"v1": "bear"}),
    ]
    facts = facts_of(replay_of(cases))
    (figures,) = facts.agreements
    assert (figures.agreement.n, figures.unjudged) == (1, 1)
    (ceiling,) = facts.people.ceilings
    assert (ceiling.people.cases, ceiling.people.pairwise) == (2, 0.5)
    assert ceiling.model.rate == 0.75


def test_slices_are_by_the_hour_as_written_even_without_a_time(replay_of, case):
    known = case("k", human="bear", model={"v1": "bear"})
    odd = case("odd", None, human="bear", model={"v1": "no-bear"}, hour=5)
    facts = facts_of(replay_of([known, odd]))
    (figures,) = facts.agreements
    assert {s.name: s.agreement.n for s in figures.by_day_night} == {"day": 1, "night": 1}
    assert facts.funnels[0].steps[1].lost == {"no time": 1}
    assert facts.evidence[0].judged == 1


def test_each_case_is_decided_by_whom_its_stage_says(told):
    inputs, facts = told
    placed = standing(inputs)
    shares = {
        rung: placed.filter(placed["rung"] == rung)["decider"].value_counts(normalize=True)
        for rung in (0, 1, 2)
    }
    assert set(shares[0]["decider"]) == {PERSON}
    supervised = dict(shares[1].iter_rows())
    assert set(supervised) == {PERSON, CONFIRM}
    assert supervised[CONFIRM] == pytest.approx(0.5, abs=0.15)
    assert set(shares[2]["decider"]) == {MODEL}
    audited = placed.filter("audited")
    assert set(audited["decider"]) == {MODEL}
    assert audited.height / facts.price.cases == pytest.approx(0.3, abs=0.12)


def test_a_model_that_does_not_answer_decides_nothing(case, replay_of):
    good = often(case, 120, "g", human="bear", model={"v1": "bear"})
    silent = often(case, 20, "s-silent", 600, human="bear")
    failed = often(case, 20, "s-failed", 620, human="bear", model={"v1": None})
    placed = standing(replay_of([*good, *failed, *silent]))
    late = placed.filter(placed["case_key"].str.starts_with("s"))
    assert set(late["rung"]) - {0}
    assert set(late["decider"]) == {PERSON}


def test_the_stages_of_the_creek_follow_each_other(told):
    inputs, facts = told
    creek = facts.stages[0]
    assert [i.stage for i in creek.intervals] == [
        "shadow", "supervised", "autonomous", "supervised", "shadow",
    ]  # fmt: skip
    assert [i.version for i in creek.intervals] == [None, "v1", "v1", "v1", None]
    assert creek.intervals[0].since == inputs.first
    assert creek.intervals[-1].until == inputs.last
    ends = [i.until for i in creek.intervals[:-1]]
    assert ends == [i.since for i in creek.intervals[1:]]
    assert (creek.widened, creek.narrowed, creek.grants) == (2, 2, ())


def test_hindsight_finds_when_it_began_and_what_seeing_all_would_have_saved(told):
    _, facts = told
    first, second = facts.hindsights
    assert first.began_at.isoformat() == "2026-03-06T07:00:00+00:00"
    assert first.began_at < first.seen_at < first.narrowed_at
    assert first.shown.n < first.all.n
    assert first.price.wrong.rate == 1.0
    assert first.price_if_seen.wrong.count < first.price.wrong.count
    assert (second.came_from, second.to, second.price.cases) == ("supervised", "shadow", 0)
    assert second.began_at == second.changed_at


def test_the_price_is_the_models_alone_and_stands_beside_peoples(told):
    inputs, facts = told
    placed = standing(inputs)
    assert facts.price.cases == placed.filter(placed["decider"] == MODEL).height
    assert facts.price.known == facts.price.by_outcome == facts.price.cases
    assert facts.price.people_wrong == 0
    assert sum(row.price.cases for row in facts.prices) == facts.price.cases
    bears_missed = facts.price.cost - facts.price.wrong.count
    assert bears_missed % 19 == 0  # a missed bear costs 20, any other wrong action 1


def test_what_the_engine_saw_is_part_of_what_there_was(told):
    _, facts = told
    for seen in facts.sighted:
        assert seen.shown.n <= seen.all.n
        assert seen.shown.count <= seen.all.count


def test_paths_end_at_the_counts_that_decide(told):
    _, facts = told
    creek = facts.evidence[0]
    widening = next(path for path in creek.path if (path.attempt, path.to) == (1, "supervised"))
    assert widening.bound[-1] >= widening.line
    assert list(widening.n) == sorted(widening.n)
    assert sum(len(path.at) for path in creek.path) <= 400 + 2 * len(creek.path)
    assert creek.path[-1].n[-1] == creek.closed
    assert (creek.attempt, creek.attempts) == (3, 3)


def test_a_gates_minimum_counts_from_the_stage_below(replay_of, case):
    good = often(case, 60, "g", human="bear", model={"v1": "bear"})
    later = often(case, 9, "later", 288, human="bear", model={"v1": "bear"})
    evidence = facts_of(replay_of([*good, *later])).evidence[0]
    assert (evidence.stage, evidence.gate.to) == ("supervised", "autonomous")
    assert 60 < evidence.judged < 69  # half of the later ones were blind
    assert f"{evidence.judged - 60} of 20 judged units" in evidence.gate.lacks


def test_a_challenger_is_held_against_the_acting_versions_gate(replay_of, case):
    """v1 is autonomous; v2, seen later and wrong half the time, has to meet that gate."""
    both = [
        case(
            f"c{n}",
            case("x").at + n * FIVE,
            human="bear",
            model={"v1": "bear"} | ({"v2": "bear" if n % 2 else "no-bear"} if n > 280 else {}),
        )
        for n in range(400)
    ]
    by_version = {e.version: e for e in facts_of(replay_of(both)).evidence if e.window == "day"}
    assert by_version["v1"].stage == "autonomous"
    assert by_version["v1"].gate is None
    challenger = by_version["v2"]
    assert (challenger.stage, challenger.acting, challenger.gate.to) == (
        "shadow", False, "autonomous",
    )  # fmt: skip
    assert "not on course" in challenger.decides_next
    assert (challenger.versions, challenger.attempts) == (2, 2)


def test_a_plain_rule_opens_a_cell_that_the_engine_holds(replay_of, case):
    good = often(case, 100, "g", human="bear", model={"v1": "bear"}, outcome="bear")
    bad = often(case, 60, "w", 100, human="bear", model={"v1": "no-bear"}, outcome="bear")
    policy_text = """
rollout: held
timezone: UTC
levers: [{id: alarm, labels: [bear, no-bear]}]
sites: [creek]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 90%}], minimum: {days: 7}}]
"""
    facts = facts_of(replay_of([*good, *bad], load_policy(policy_text)))
    found = facts.naive[0]
    assert (found.after, found.engine_at) == (100, None)
    assert (found.wrong.count, found.wrong.n, found.people_wrong.count) == (60, 60, 0)


def test_a_rate_is_looked_at_from_a_hundred_cases_on():
    agrees = np.array([True] * 95 + [False] * 4 + [True] * 50)
    everywhere = np.ones(len(agrees), dtype=bool)
    assert rate_reaches(agrees, everywhere, 0.95) == 99
    assert rate_reaches(agrees[:99], everywhere[:99], 0.95) is None
    assert rate_reaches(agrees, np.arange(len(agrees)) >= 40, 0.95) == 139


def test_three_blocks_in_a_row_have_to_reach_the_line():
    good, bad = [True] * 50, [True] * 40 + [False] * 10
    agrees = np.array([*good, *good, *bad, *good, *good, *good])
    everywhere = np.ones(len(agrees), dtype=bool)
    assert blocks_reach(agrees, everywhere, 0.95) == 299
    assert blocks_reach(agrees[:290], everywhere[:290], 0.95) is None


def test_a_careless_person_stands_out_among_others_in_the_same_cell(replay_of, case):
    cases = [
        case(
            f"c{n}", case("x").at + n * FIVE,
            human=[(("ana", "bo", "cy")[n % 3], "no-bear" if n % 15 == 1 else "bear")],
            model={"v1": "bear"}, outcome="bear",
        )
        for n in range(900)
    ]  # fmt: skip
    first, *others = facts_of(replay_of(cases)).people.reviewers
    assert (first.name, first.stands_out) == ("bo", ("outcome", "model"))
    assert [other.stands_out for other in others] == [(), ()]


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
    assert all(r.stands_out == () for r in facts_of(replay_of(cases)).people.reviewers)


def test_weights_give_each_stage_its_share_of_what_was_shown(replay_of, case):
    """Good in shadow, where all is seen; worse above it, where half is."""
    good = often(case, 120, "g", human="bear", model={"v1": "bear"})
    after = [
        case(f"w{n}", case("x").at + (280 + n) * FIVE, human="bear",
             model={"v1": "no-bear" if n % 8 == 0 else "bear"})
        for n in range(400)
    ]  # fmt: skip
    inputs = replay_of([*good, *after])
    (seen,) = [s for s in facts_of(inputs).sighted if s.window == "night"]
    placed = standing(inputs).filter(pl.col("window") == "night")
    shown = placed.filter((pl.col("decider") == PERSON) | pl.col("audited"))
    weight = pl.col("rung").replace_strict({0: 1.0, 1: 1 / 0.5, 2: 1 / 0.3})
    wrong = pl.col("case_key").is_in([f"w{n}" for n in range(0, 400, 8)])
    share = shown.select((weight * ~wrong).sum() / weight.sum()).item()
    assert set(shown["rung"]) == {0, 1, 2}
    assert (seen.shown.n, seen.all.n) == (shown.height, placed.height)
    assert seen.weighted.rate == pytest.approx(share)
    assert seen.weighted.rate != pytest.approx(seen.shown.rate, abs=1e-3)


def test_divergences_stand_by_cost_and_then_by_confidence(told):
    _, facts = told
    top = facts.divergences.top
    assert [row.cost for row in top] == sorted((row.cost for row in top), reverse=True)
    assert top[0].human_action == "sound-alarm"
    assert facts.divergences.count == sum(
        a.agreement.n - a.agreement.count for a in facts.agreements
    )


def test_actions_change_by_what_the_model_alone_does(told):
    _, facts = told
    (figures,) = facts.agreements
    alarm = next(c for c in facts.actions if c.action == "sound-alarm")
    table = figures.action_matrix.table
    assert alarm.change.first_only - alarm.change.second_only == alarm.by_model - alarm.by_people
    assert (alarm.by_people, alarm.by_model) == (table[0].sum(), table[:, 0].sum())
    assert figures.action_matrix.costs[0][1] == 20.0


def test_the_timeline_tells_and_marks_what_is_simulated(told):
    _, facts = told
    told_of = [h for h in facts.timeline if shown(h)]
    assert [h.kind for h in told_of] == [
        "PolicyApplied", "VersionSeen", "Widened", "Widened", "Narrowed", "Narrowed",
    ]  # fmt: skip
    assert all(h.simulated for h in facts.timeline if h.kind in {"Approved", "Widened"})
    assert "simulated-1 and simulated-2 (simulated)" in told_of[2].text
    assert told_of[2].local == "Mon 2 Mar 19:00"  # Vienna's clock


def test_numbers_agree_within_their_tolerance_and_cost_by_their_gap():
    policy = load_policy(
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
    assert compare(lever, "20", "20.5") == (True, "20", "20.5", True, 0.0)
    costs = {said: compare(lever, "20", said)[::4] for said in ("23", "30", "(failed)", "99")}
    assert costs == {"23": (False, 1), "30": (False, 3), "(failed)": (False, 3), "99": (False, 3)}
