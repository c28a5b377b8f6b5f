"""The facts of what stages decided: who, at what price, and what comes next."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from rollout.engine.events import AttemptsBegan, Narrowed
from rollout.engine.words.event_kinds import is_in_timeline
from rollout.features.reports.figures import funnel
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.figures.funnel import COLUMNS
from rollout.features.reports.figures.methods import find_block_crossing, find_rate_crossing
from rollout.features.reports.inputs.inputs import (
    HUMAN,
    HUMAN_CONFIRMS,
    MODEL,
    assign_deciders,
    compute_stage_histories,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.gates import compute_yearly_share
from rollout.kernel.policy_files.reader import parse_policy
from tests.features.reports.alike_cases import FIVE, often


def test_each_case_is_decided_by_whom_its_stage_says(told):
    inputs, facts = told
    placed = assign_deciders(inputs)
    shares = {
        rung: placed.filter(placed["rung"] == rung)["decider"].value_counts(normalize=True)
        for rung in (0, 1, 2)
    }
    assert set(shares[0]["decider"]) == {HUMAN}
    supervised = dict(shares[1].iter_rows())
    assert set(supervised) == {HUMAN, HUMAN_CONFIRMS}
    assert supervised[HUMAN_CONFIRMS] == pytest.approx(0.5, abs=0.15)
    assert set(shares[2]["decider"]) == {MODEL}
    audited = placed.filter("audited")
    assert set(audited["decider"]) == {MODEL}
    assert audited.height / facts.model_cost.cases == pytest.approx(0.3, abs=0.12)


def test_a_model_that_does_not_answer_decides_nothing(case, replay_of):
    good = often(case, 120, "g", human="bear", model={"v1": "bear"})
    silent = often(case, 20, "s-silent", 600, human="bear")
    failed = often(case, 20, "s-failed", 620, human="bear", model={"v1": None})
    placed = assign_deciders(replay_of([*good, *failed, *silent]))
    late = placed.filter(placed["case_key"].str.starts_with("s"))
    assert set(late["rung"]) - {0}
    assert set(late["decider"]) == {HUMAN}


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


def test_a_report_of_a_span_counts_its_changes_and_keeps_the_true_start(told):
    inputs, facts = told
    *_, supervised, shadow = facts.stages[0].intervals
    later = replace(inputs, first=supervised.since + timedelta(hours=1))
    creek = compute_stage_histories(later)[0]
    assert (creek.widened, creek.narrowed, creek.was_above_shadow) == (0, 1, True)
    last = replace(inputs, first=shadow.since + timedelta(minutes=1))
    creek = compute_stage_histories(last)[0]
    assert (creek.widened, creek.narrowed, creek.was_above_shadow) == (0, 0, False)
    assert creek.since == shadow.since
    assert creek.intervals[0].since == last.first


def test_hindsight_finds_when_it_began_and_what_seeing_all_would_have_saved(told):
    _, facts = told
    first, second = facts.hindsights
    assert first.began_at.isoformat() == "2026-03-06T07:00:00+00:00"
    assert first.began_at < first.seen_at < first.narrowed_at
    assert first.sampled_bad_records.n < first.all_bad_records.n
    assert first.cost.wrong.rate == 1.0
    assert first.cost_if_seen.wrong.count < first.cost.wrong.count
    assert (second.from_stage, second.to_stage, second.cost.cases) == ("supervised", "shadow", 0)
    assert second.began_at == second.changed_at


def test_the_price_is_the_models_alone_and_stands_beside_peoples(told):
    inputs, facts = told
    placed = assign_deciders(inputs)
    assert facts.model_cost.cases == placed.filter(placed["decider"] == MODEL).height
    assert facts.model_cost.known_cases == facts.model_cost.by_outcome == facts.model_cost.cases
    assert facts.model_cost.human_wrong == 0
    assert sum(row.cost.cases for row in facts.cell_model_costs) == facts.model_cost.cases
    bears_missed = facts.model_cost.cost - facts.model_cost.wrong.count
    assert bears_missed % 19 == 0  # a missed bear costs 20, any other wrong action 1


def test_what_the_engine_saw_is_part_of_what_there_was(told):
    _, facts = told
    for seen in facts.visible_agreements:
        assert seen.sampled.n <= seen.all.n
        assert seen.sampled.count <= seen.all.count


def test_paths_end_at_the_counts_that_decide(told):
    _, facts = told
    creek = facts.evidence[0]
    widening = next(path for path in creek.path if (path.attempt, path.to) == (1, "supervised"))
    assert widening.bound[-1] >= widening.threshold
    assert list(widening.n) == sorted(widening.n)
    assert sum(len(path.at) for path in creek.path) <= 400 + 2 * len(creek.path)
    assert creek.path[-1].n[-1] == creek.closed_units
    assert (creek.attempt, creek.attempts) == (3, 3)


def test_a_gates_minimum_counts_from_the_stage_below(replay_of, case):
    good = often(case, 60, "g", human="bear", model={"v1": "bear"})
    later = often(case, 9, "later", 288, human="bear", model={"v1": "bear"})
    evidence = compute_report_facts(replay_of([*good, *later])).evidence[0]
    assert (evidence.stage, evidence.gate.to) == ("supervised", "autonomous")
    assert 60 < evidence.decided_units < 69  # half of the later ones were blind
    assert f"{evidence.decided_units - 60} of 20 decided units" in evidence.gate.missing


@pytest.mark.slow
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
    by_version = {
        e.version: e for e in compute_report_facts(replay_of(both)).evidence if e.window == "day"
    }
    assert by_version["v1"].stage == "autonomous"
    assert by_version["v1"].gate is None
    challenger = by_version["v2"]
    assert (challenger.stage, challenger.acting, challenger.gate.to) == (
        "shadow", False, "autonomous",
    )  # fmt: skip
    assert "below the threshold" in challenger.next_step
    assert (challenger.versions, challenger.attempts) == (2, 2)


def test_an_attempt_before_its_first_unit_has_the_number_and_risk_that_it_would_get(
    replay_of, case
):
    """v2 restarts as number 2; then a third attempt begins, so its next one is number 4."""
    inputs = replay_of(often(case, 12, human="bear", model={"v1": "bear", "v2": "bear"}))
    cell = Cell("creek", "day")
    restart = Narrowed(
        at=inputs.last, by="policy", cell=cell, version="v2", from_stage="shadow",
        to_stage="shadow", reason="", guard="", restart=True,
    )  # fmt: skip
    third = AttemptsBegan(
        at=inputs.last, by="policy", cells=(cell,), versions=("v1",),
        years=(inputs.last.year,), numbers=(3,), releases=(1,), shares=("0.05",),
    )  # fmt: skip
    facts = compute_report_facts(replace(inputs, events=(*inputs.events, restart, third)))
    v2 = next(e for e in facts.evidence if (Cell(e.site, e.window), e.version) == (cell, "v2"))
    following = "no attempt yet; the next would be number 4 of the year in this cell"
    assert (v2.attempt_number, v2.attempt_text, v2.attempts) == (0, following, 3)
    assert v2.gate.risk == pytest.approx(0.0625 * compute_yearly_share(4, releases=1))


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
    facts = compute_report_facts(replay_of([*good, *bad], parse_policy(policy_text)))
    found = facts.naive_openings[0]
    assert (found.decided_cases, found.engine_opened_at) == (100, None)
    assert (found.wrong.count, found.wrong.n, found.human_wrong.count) == (60, 60, 0)


def test_a_rate_is_looked_at_from_a_hundred_cases_on():
    agrees = np.array([True] * 95 + [False] * 4 + [True] * 50)
    everywhere = np.ones(len(agrees), dtype=bool)
    assert find_rate_crossing(agrees, everywhere, 0.95) == 99
    assert find_rate_crossing(agrees[:99], everywhere[:99], 0.95) is None
    assert find_rate_crossing(agrees, np.arange(len(agrees)) >= 40, 0.95) == 139


def test_three_blocks_in_a_row_have_to_reach_the_line():
    good, bad = [True] * 50, [True] * 40 + [False] * 10
    agrees = np.array([*good, *good, *bad, *good, *good, *good])
    everywhere = np.ones(len(agrees), dtype=bool)
    assert find_block_crossing(agrees, everywhere, 0.95) == 299
    assert find_block_crossing(agrees[:290], everywhere[:290], 0.95) is None


@pytest.mark.slow
def test_weights_give_each_stage_its_share_of_what_was_shown(replay_of, case):
    """Good in shadow, where all is seen; worse above it, where half is."""
    good = often(case, 120, "g", human="bear", model={"v1": "bear"})
    after = [
        case(f"w{n}", case("x").at + (280 + n) * FIVE, human="bear",
             model={"v1": "no-bear" if n % 8 == 0 else "bear"})
        for n in range(400)
    ]  # fmt: skip
    inputs = replay_of([*good, *after])
    (seen,) = [s for s in compute_report_facts(inputs).visible_agreements if s.window == "night"]
    placed = assign_deciders(inputs).filter(pl.col("window") == "night")
    shown = placed.filter((pl.col("decider") == HUMAN) | pl.col("audited"))
    weight = pl.col("rung").replace_strict({0: 1.0, 1: 1 / 0.5, 2: 1 / 0.3})
    wrong = pl.col("case_key").is_in([f"w{n}" for n in range(0, 400, 8)])
    share = shown.select((weight * ~wrong).sum() / weight.sum()).item()
    assert set(shown["rung"]) == {0, 1, 2}
    assert (seen.sampled.n, seen.all.n) == (shown.height, placed.height)
    assert seen.weighted.rate == pytest.approx(share)
    assert seen.weighted.rate != pytest.approx(seen.sampled.rate, abs=1e-3)


def test_actions_change_by_what_the_model_alone_does(told):
    _, facts = told
    (figures,) = facts.agreements
    alarm = next(c for c in facts.actions if c.action == "sound-alarm")
    table = figures.action_matrix.table
    assert alarm.change.first_only - alarm.change.second_only == alarm.by_model - alarm.by_human
    assert (alarm.by_human, alarm.by_model) == (table[0].sum(), table[:, 0].sum())
    assert figures.action_matrix.costs[0][1] == 20.0


def test_the_timeline_tells_and_marks_what_is_simulated(told):
    _, facts = told
    told_of = [h for h in facts.events if is_in_timeline(h)]
    assert [h.kind for h in told_of] == [
        "PolicyApplied", "VersionFirstUsed", "Widened", "Widened", "Narrowed", "Narrowed",
    ]  # fmt: skip
    assert all(h.simulated for h in facts.events if h.kind in {"Approved", "Widened"})
    assert "simulated-1 and simulated-2 (simulated)" in told_of[2].text
    assert told_of[2].local == "Mon 2 Mar 19:00"  # Vienna's clock


def test_reasons_of_missing_decisions_have_one_order_whatever_a_join_gives(monkeypatch):
    for order in (["late", "unanswered"], ["unanswered", "late"]):
        rows = [("v1", "creek", "day", f"c-{reason}", reason) for reason in order]
        found = pl.DataFrame(rows, COLUMNS, orient="row")
        monkeypatch.setattr(funnel, "find_missing_reasons", lambda _, found=found: found)
        (counts,) = funnel.count_cell_reasons(None).values()
        assert list(counts) == ["late", "unanswered"]
