"""How people judge: time, runs, known cases, adjudications, overrides, and who is relied on."""

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.evidence.frames import build_gold_schema, unify_reviewers
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.figures.reviewers import (
    FEW_METHOD,
    NO_OTHER_REVIEWERS,
    compute_expected_runs,
    compute_median_time,
    compute_review_quality,
    find_longest_runs,
)
from rollout.features.reports.inputs.pairs import build_case_frame
from rollout.features.reports.pages.html_report import render_html_report
from tests.engine.evidence.histories import (
    SALT,
    a_policy,
    cases,
    decisions,
    evidence,
    hour,
    predictions,
    records,
)
from tests.features.reports.collects import count_collects

POLICY = evidence(a_policy(), outside="unknown")
SECOND = timedelta(seconds=1)
NOBODY = pl.DataFrame(schema={"case_key": pl.String, "version": pl.String})


def health(history, policy=POLICY, placed=NOBODY, last=999):
    found = place_cases(history, policy, SALT).cases
    facts = build_case_frame(history, found)
    inputs = SimpleNamespace(
        records=history, cases=found, case_facts=facts, policy=policy, last=hour(last)
    )
    return compute_review_quality(inputs, placed)


def person(found, name):
    return next(one for one in found.reviewers if one.reviewer == name)


def judged(*rows):
    """One decision a case, case by case in time: (reviewer, answer, {more})."""
    keys = [f"c{n:04}" for n in range(len(rows))]
    return records(
        cases(*((key, n / 10) for n, key in enumerate(keys))),
        decision_rows=decisions(
            *((key, said, {"reviewer": who, "at": n / 10 + 0.05, "seat": 1})
              for n, (key, (who, said)) in enumerate(zip(keys, rows, strict=True)))
        ),
    )  # fmt: skip


def timed(history, seconds):
    began = pl.col("at") - pl.Series([s * SECOND for s in seconds], dtype=pl.Duration("us"))
    return replace(history, decisions=history.decisions.with_columns(started_at=began))


def test_one_person_is_one_row_whatever_the_spelling():
    history = judged(("ana", "bear"), ("bo", "bear"), ("Ana", "bear"), (" ana", "bear"))
    gold = pl.DataFrame({"reviewer": ["ANA"]}, schema={"reviewer": pl.String})
    unified = unify_reviewers(replace(history, gold_decisions=gold))
    assert unified.decisions["reviewer"].to_list() == [" ana", "bo", " ana", " ana"]
    assert unified.gold_decisions["reviewer"].to_list() == [" ana"]
    found = health(replace(unified, gold_decisions=history.gold_decisions))
    assert {one.reviewer: one.blind for one in found.reviewers} == {" ana": 3, "bo": 1}


# Time


@pytest.mark.parametrize("n", [6, 7, 15, 40])
def test_the_interval_of_a_median_covers_it_in_at_least_95_of_100(n):
    rng = np.random.default_rng(n)
    drawn = np.sort(rng.lognormal(1.0, 2.0, (2000, n)), axis=1)
    spent = [compute_median_time(row.tolist()) for row in drawn]
    covered = np.mean([one.low <= np.exp(1.0) <= one.high for one in spent])
    assert 0.94 < covered <= 1


def test_five_times_are_too_few_for_an_interval_and_none_is_no_data():
    five = compute_median_time([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (five.value, five.low, five.method) == (3.0, None, FEW_METHOD)
    nobody = person(health(judged(("ana", "bear"))), "ana").decision_time
    assert (nobody.n, nobody.value, nobody.method) == (0, None, "no data")


def test_who_hurries_far_more_often_than_the_others_stands_out():
    rows = [(("ana", "bo", "cy")[n % 3], ("bear", "fox")[n % 2]) for n in range(300)]
    quick = [1.0 if n % 3 == 2 and n % 2 else 10.0 for n in range(300)]
    found = health(timed(judged(*rows), quick))
    assert found.hasty_below == 2.0
    assert (person(found, "cy").hasty.count, person(found, "cy").hasty.n) == (50, 100)
    assert {one.reviewer: one.warnings for one in found.reviewers} == {
        "cy": ("hasty",),
        "ana": (),
        "bo": (),
    }
    assert found.reviewers[0].reviewer == "cy"


def test_a_single_quick_answer_makes_nobody_stand_out():
    rows = [(("ana", "bo", "cy")[n % 3], ("bear", "fox")[n % 2]) for n in range(300)]
    found = health(timed(judged(*rows), [1.0 if n == 151 else 10.0 for n in range(300)]))
    assert person(found, "bo").hasty.count == 1
    assert [one.warnings for one in found.reviewers] == [(), (), ()]


def test_a_verdict_before_its_beginning_says_nothing():
    found = health(timed(judged(("ana", "bear"), ("ana", "fox")), [-5.0, 8.0]))
    assert person(found, "ana").decision_time.n == 1


# Runs


def draws(rng, n):
    return rng.choice(["bear", "fox", "none"], n, p=[0.1, 0.2, 0.7]).tolist()


def test_who_answers_the_same_again_and_again_stands_out_among_those_who_look():
    rng = np.random.default_rng(1)
    said = draws(rng, 600)
    rows = [(("ana", "bo", "cy")[n % 3], "none" if n % 3 == 2 else said[n]) for n in range(600)]
    found = health(judged(*rows))
    assert (person(found, "cy").answer_run.longest, person(found, "cy").answer_run.label) == (
        200,
        "none",
    )
    assert person(found, "cy").answer_run.chance < 1e-20
    assert [one.warnings for one in found.reviewers] == [("same answer",), (), ()]


def test_where_there_is_mostly_nothing_to_see_a_long_run_is_no_sign():
    rng = np.random.default_rng(2)
    said = rng.choice(["bear", "none"], 600, p=[0.01, 0.99]).tolist()
    found = health(judged(*((("ana", "bo", "cy")[n % 3], said[n]) for n in range(600))))
    assert max(one.answer_run.longest for one in found.reviewers) >= 30
    assert all(one.warnings == () for one in found.reviewers)


@pytest.mark.simulation
def test_among_people_who_answer_alike_hardly_ever_anybody_stands_out():
    rng, named = np.random.default_rng(3), 0
    for _ in range(40):
        said = draws(rng, 240)
        found = health(judged(*((f"p{n % 4}", said[n]) for n in range(240))))
        named += any("same answer" in one.warnings for one in found.reviewers)
    assert named <= 4


def test_a_single_reader_is_compared_with_nobody():
    run = person(health(judged(*[("ana", "bear")] * 30)), "ana").answer_run
    assert (run.longest, run.chance, run.method) == (30, None, NO_OTHER_REVIEWERS)


def test_runs_of_many_labels_need_no_more_frames_than_runs_of_two():
    def count(labels):
        history = judged(*((f"p{n % 3}", labels[n // 3 % len(labels)]) for n in range(60)))
        found = build_case_frame(history, place_cases(history, POLICY, SALT).cases)
        return count_collects(lambda: find_longest_runs(history, found, POLICY))

    assert count("abcdefghij") == count("ab")


def test_a_burst_is_one_answer_in_a_run():
    history = judged(*[("ana", "bear")] * 20, ("bo", "fox"))
    burst = history.cases.with_columns(episode=pl.lit("e"))
    by_episode = evidence(POLICY, unit="episode")
    assert person(health(replace(history, cases=burst), by_episode), "ana").answer_run.answers == 1


@pytest.mark.parametrize(("p", "length"), [(0.5, 9), (0.9, 60), (0.99, 550)])
def test_the_bound_on_a_run_lies_above_its_chance_and_not_far(p, length):
    rng = np.random.default_rng(4)
    hits = rng.random((3000, 600)) < p
    sums = np.cumsum(hits, axis=1)
    kept = np.maximum.accumulate(np.where(hits, 0, sums), axis=1)
    chance = np.mean((sums - kept).max(axis=1) >= length)
    bound = compute_expected_runs(np.full(600, p), length)
    assert chance - 0.02 < bound < 2 * chance + 0.05


# What can be checked


def test_known_cases_are_counted_by_who_got_them_right():
    rows = [
        {"case_key": f"k{n}", "reviewer": who, "value:alarm": said, "right:alarm": "bear",
         "unsure": said is None, "at": hour(1), "started_at": hour(1) - 9 * SECOND}
        for n in range(40)
        for who, said in (("ana", "bear"), ("bo", "fox" if n < 30 else "bear"), ("cy", None))
    ]  # fmt: skip
    known = pl.DataFrame(rows, schema=build_gold_schema(["alarm"]))
    history = replace(records(cases(*((f"k{n}", 0) for n in range(40)))), gold_decisions=known)
    found = health(history)
    assert found.known_cases == 40
    assert (person(found, "ana").gold_cases.count, person(found, "ana").gold_cases.n) == (40, 40)
    assert (person(found, "bo").gold_cases.count, person(found, "bo").warnings) == (
        10,
        ("known cases",),
    )
    assert person(found, "bo").decision_time.value == 9.0
    assert "cy" not in {one.reviewer for one in found.reviewers}


def test_adjudications_by_somebody_else_are_compared_with_blind_verdicts():
    rows = [
        ("a", "bear", {"reviewer": "ana", "seat": 1}),
        ("a", "fox", {"reviewer": "bo", "seat": 2}),
        ("a", "bear", {"reviewer": "cy", "exposure": "revealed"}),
        ("b", "fox", {"reviewer": "ana", "seat": 1}),
        ("b", "fox", {"reviewer": "ana", "exposure": "revealed"}),
    ]
    found = health(records(cases(("a", 0), ("b", 1)), decision_rows=decisions(*rows)))
    assert {
        one.reviewer: (one.adjudicated.count, one.adjudicated.n) for one in found.reviewers
    } == {
        "ana": (1, 1),
        "bo": (0, 1),
        "cy": (0, 0),
    }


def test_overrides_are_of_what_the_acting_version_proposed():
    said = [
        ("a", "bear", {"version": "v1"}),
        ("a", "fox", {"version": "v2"}),
        ("b", "bear", {"version": "v1"}),
        ("c", "bear", {"version": "v1"}),
        ("c", "fox", {"version": "v2"}),
        ("d", "bear", {"version": "v1"}),
    ]
    saw = [(key, "bear", {"reviewer": "ana", "exposure": "assisted"}) for key in "abcd"]
    history = records(cases(*((k, 0) for k in "abcd")), predictions(*said), decisions(*saw))
    placed = pl.DataFrame({"case_key": ["a", "b", "c", "d"], "version": ["v2", None, None, None]})
    one = person(health(history, placed=placed), "ana")
    assert (one.assisted, one.blind) == (4, 0)
    assert (one.overrides.count, one.overrides.n) == (1, 3)  # of c nobody knows what was shown


# Who is relied on


def twice(bo, days=3):
    """Three people of whom two read each case, a day's cases after the other; bo as told."""
    rows, where = [], []
    for n in range(30 * days):
        key, at = f"c{n}", n // 30 * 24 + 1 + n % 30 / 10
        where.append((key, at))
        for seat, who in enumerate((("ana", "bo"), ("bo", "cy"), ("ana", "cy"))[n % 3], start=1):
            answer = bo if who == "bo" else "bear"
            rows.append((key, answer, {"reviewer": who, "seat": seat, "at": at + 0.05}))
    return records(cases(*where), decision_rows=decisions(*rows))


def test_checks_are_told_with_a_bound_for_each_reviewer():
    found = health(twice("fox"))
    assert {one.reliability.checks.n for one in found.reviewers} == {60}
    bo = person(found, "bo")
    assert (bo.reliability.checks.count, bo.reliability.checks.n) == (0, 60)
    assert bo.reliability.at_most < 0.1


def test_a_report_knows_the_checks_of_the_days_before_its_end():
    early = person(health(twice("fox"), last=23), "bo")
    assert early.reliability.checks.n == 20


@pytest.mark.slow
def test_pages_say_what_is_not_known_of_reviewers(replay_of, case, bears):
    line = replace(bears.evidence, second_verdict=0.5)
    policy = replace(bears, evidence=line)
    first = case("x").at
    told = [
        case(f"c{n}", first + n * timedelta(minutes=20), model={"v1": "bear"},
             human=[("ana", "bear"), (("bo", "no-bear") if n % 2 else ("cy", "bear"))])
        for n in range(300)
    ]  # fmt: skip
    facts = compute_report_facts(replay_of(told, policy))
    page = render_html_report(facts)
    assert "The records don't say when reviews began" in page
    assert "No gold case has a decision: files contain none" in page
