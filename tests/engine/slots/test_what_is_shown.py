"""No decision is used that the stage of that time would not have asked for."""

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest

from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import Scope, find_acting_version
from rollout.engine.evidence.stage_history import StageHistory, build_stage_shares, find_buckets
from rollout.kernel.calendar.instants import count_micros, to_instant
from rollout.kernel.policy.policy import Stage
from rollout.kernel.statistics.sampling import compute_sampling_values
from tests.engine.evidence.histories import a_policy as small_policy
from tests.engine.slots.stories import (
    LABELS,
    a_course,
    a_history,
    a_policy,
    a_story,
    prepared,
    seeded,
)

SEEDS = (10, 12, 57, 85, 96, 105, 116)


def told(seed):
    pick = seeded(seed)
    policy = a_policy(pick)
    story, course = a_story(pick, seed), a_course(pick, policy)
    return a_history(story, policy), policy, course


@cache
def replayed_once(seed):
    """Return a story's replay, and what it was made of, for all tests of the seed."""
    history, policy, course = told(seed)
    ready = prepared(history, policy, course.salt)
    return history, policy, course, ready, ready.run(course)


def hidden_cases(ready, replayed, salt):
    """Return the cases of the units for which no blind decision was asked on any track."""
    policy, cases = replayed.policy, ready.placed.cases
    rungs = np.zeros(cases.height, dtype=np.int64)
    occurred = (cases["occurred_us"] // count_micros(policy.tick)).to_numpy()
    for cell, timeline in replayed.stage_histories.items():
        here = ((cases["site"] == cell.site) & (cases["window"] == cell.window)).to_numpy()
        rungs[here] = timeline.find_levels(occurred[here])
    blind = np.array([1.0, *(stage.blind for stage in policy.stages)])
    audit = np.array([0.0, *(stage.audit or 0.0 for stage in policy.stages)])
    units = cases["unit"].to_list()
    decider_draws, audit_draws = (
        compute_sampling_values(salt, purpose, units) for purpose in ("stage", "audit")
    )
    is_hidden = (decider_draws >= blind[rungs]) & (audit_draws >= audit[rungs])
    return cases.filter(is_hidden)["case_key"]


def changed(history, keys, how):
    """Return the history with every blind decision on the cases `keys` changed."""
    hit = pl.col("case_key").is_in(keys.implode()) & (pl.col("exposure") == "blind")
    return replace(history, decisions=how(history.decisions, hit))


def other_label(decisions, hit):
    turned = dict(zip(LABELS, (*LABELS[1:], LABELS[0]), strict=True))
    values = [name for name in decisions.columns if name.startswith("value:")]
    return decisions.with_columns(
        pl.when(hit).then(pl.col(v).replace(turned)).otherwise(v).alias(v) for v in values
    )


def unsure(decisions, hit):
    values = [name for name in decisions.columns if name.startswith("value:")]
    blanked = [pl.when(~hit).then(pl.col(v)).alias(v) for v in values]
    return decisions.with_columns(*blanked, unsure=hit | pl.col("unsure"))


def other_person(decisions, hit):
    return decisions.with_columns(reviewer=pl.when(hit).then(pl.lit("dee")).otherwise("reviewer"))


def gone(decisions, hit):
    return decisions.filter(~hit)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("how", [other_label, unsure, other_person])
def test_verdicts_that_were_not_shown_change_nothing(seed, how):
    history, policy, course, ready, replayed = replayed_once(seed)
    keys = hidden_cases(ready, replayed, course.salt)
    assert len(keys)
    again = prepared(changed(history, keys, how), policy, course.salt).run(course)
    common = min(len(replayed.events), len(again.events))
    assert again.events[:common] == replayed.events[:common]
    assert (
        len(again.events) == len(replayed.events) or how is unsure
    )  # the last slot may be empty then


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS[:4])
def test_verdicts_that_were_not_shown_need_not_exist(seed):
    history, policy, course = told(seed)
    heard = tuple(g for g in policy.guards if g.condition.measure.name != "heartbeat")
    policy = replace(policy, guards=heard)
    ready = prepared(history, policy, course.salt)
    replayed = ready.run(course)
    keys = hidden_cases(ready, replayed, course.salt)
    again = prepared(changed(history, keys, gone), policy, course.salt).run(course)
    end = to_instant(min(again.last_slot, replayed.last_slot), policy.tick)
    ledgers = [[e for e in run.events if e.at <= end] for run in (replayed, again)]
    assert ledgers[0] == ledgers[1]


def test_a_verdict_that_was_shown_does_change_the_ledger():
    history, policy, course, ready, replayed = replayed_once(SEEDS[0])
    hidden = hidden_cases(ready, replayed, course.salt)
    keys = history.cases.filter(~pl.col("case_key").is_in(hidden.implode()))["case_key"]
    again = prepared(changed(history, keys, other_label), policy, course.salt).run(course)
    assert again.events != replayed.events


@pytest.mark.parametrize("seed", SEEDS[:4])
def test_a_timeline_is_the_stage_that_the_ledger_gives_at_each_slot(seed):
    _, policy, _, _, replayed = replayed_once(seed)
    scope, left = Scope(), list(replayed.events)
    for slot in range(replayed.first_slot, replayed.last_slot + 1):
        at = to_instant(slot, policy.tick)
        while left and left[0].at <= at:
            scope = apply_events([left.pop(0)], scope)
        for cell in policy.cells:
            here = find_acting_version(scope, policy, cell, at)
            rung = replayed.stage_histories[cell].find_levels(np.array([slot]))[0]
            assert rung == (0 if here is None else here[1]), (cell, at)


# Draws


def test_blind_below_the_blind_share_and_audited_by_a_draw_of_its_own():
    policy = small_policy(stages=(Stage("a", blind=0.25), Stage("b", blind=0.5, audit=0.1)))
    shares = build_stage_shares(policy)
    below = np.nextafter
    deciders = np.array([0.0, below(0.25, 0), 0.25, below(0.5, 0), 0.5, below(1, 0)])
    for audit_draw, is_audited in ((0.0, True), (below(0.1, 0), True), (0.1, False)):
        bucket = find_buckets(shares, deciders, np.full(6, audit_draw))
        levels = np.full(6, 2)
        is_blind = bucket < shares.blind_buckets[levels]
        assert is_blind.tolist() == [True] * 4 + [False] * 2
        assert shares.find_reviewed(bucket, levels).tolist() == [True] * 4 + [is_audited] * 2
        assert shares.find_reviewed(bucket, levels - 1).tolist() == [True] * 2 + [False] * 4
        assert shares.find_reviewed(bucket, levels - 2).all()


def test_without_a_blind_share_nobody_decides_unseen():
    policy = small_policy(stages=(Stage("b", blind=0.0, audit=1.0),))
    shares, levels = build_stage_shares(policy), np.ones(3, np.int64)
    draws = np.array([0.0, 0.5, np.nextafter(1, 0)])
    bucket = find_buckets(shares, draws, draws)
    assert not (bucket < shares.blind_buckets[1]).any()
    assert shares.find_reviewed(bucket, levels).all()
    assert shares.model_decides.tolist() == [False, True]


# Timelines


def test_a_timeline_holds_a_rung_from_its_slot_on():
    timeline = StageHistory().extend(5, 2).extend(8, 2).extend(9, 0)
    assert (timeline.slots, timeline.stage_levels) == ((5, 9), (2, 0))
    assert timeline.find_levels(np.array([4, 5, 8, 9, 30])).tolist() == [0, 2, 2, 0, 0]
    assert timeline.ever_left_shadow


def test_a_timeline_begins_in_shadow():
    timeline = StageHistory()
    assert timeline.extend(5, 0) is timeline
    assert not timeline.ever_left_shadow
    assert timeline.find_levels(np.array([5])).tolist() == [0]
