"""What reports and pages say of a gate that forgets: promise, bound, forecast, course."""

from dataclasses import replace
from functools import cache
from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.core.policy.block_readings import find_best_start, read_blocks
from rollout.core.policy.evidence_blocks import BlockRule
from rollout.core.policy.gates import is_gate_open, read_condition, read_gate
from rollout.core.policy.levers import CostRule, Lever
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import EvidenceRules
from rollout.core.statistics.evidence import compute_log_e
from rollout.core.statistics.forgetting import sum_from_starts
from rollout.reports.figures.report_identity import describe_promises
from rollout.reports.statistics.bounds import compute_block_bounds, compute_reading_bound
from tests.factories import AGREEMENT, CREEK, counted, gates, policy

COSTLY = policy(
    levers=(
        Lever(
            "alarm",
            labels=("bear", "none"),
            actions=("siren", "nothing"),
            costs=(CostRule(20.0, did="nothing", right="siren"), CostRule(1.0)),
        ),
    )
)
COST = Condition("cost", 0.3, at_least=False)
RISK = 0.05
ALL_BLOCKS = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 20)), min_size=1, max_size=12)
REPAIRED = ((450, 50), (450, 50), (395, 5), (395, 5))


# The promise


def promise(forget, **changes):
    rules = EvidenceRules(forget=forget)
    return describe_promises(policy(evidence=rules, **changes), rules=2)


def test_the_promise_is_about_stretches_from_a_blocks_start():
    assert promise(BlockRule(200))[0] == (
        "As long as no stretch of a cell's units, from a block's start to now, has a true average"
        " that meets “agreement at least 95 %”, the chance that the gate to supervised ever opens"
        " there is at most 5\xa0% for all attempts that begin in the cell in a calendar year"
        " together, whatever versions they are of and at any number of looks. A block is 200 closed"
        " units. The average of all units may be worse: the gate forgets a bad past, but not a good"
        " one. The promise covers the time until the widening; guards watch the time after."
    )
    assert "A block is a week, counted from Monday 00:00 UTC." in promise(BlockRule())[0]


def test_of_several_conditions_each_may_rest_on_a_stretch_of_its_own():
    assert promise(BlockRule())[1].startswith(
        "As long as there is one of “agreement at least 97 % and agreement at least 95 %” for which"
        " no stretch of a cell's units, from a block's start to now, has a true average that meets"
        " it, the chance that the gate to autonomous ever opens there is at most 1"
    )


def test_without_forgetting_the_promise_is_about_all_units():
    assert promise(None)[0].startswith("If the true average of a cell's units so far does not meet")
    assert "forget" not in " ".join(promise(None))


# The bound


@given(ALL_BLOCKS, st.sampled_from([0.8, 0.9, 0.95]))
def test_the_bound_meets_the_threshold_where_the_gate_does(blocks, line):
    condition = replace(AGREEMENT, line=line)
    reading = read_condition(condition, sum_blocks(blocks), RISK, policy(), tuple(blocks))
    assert reading.is_met == (reading.compute_log_e(policy()) >= log(1 / RISK))
    bound = compute_reading_bound(reading, policy())
    assert (bound is not None and bound >= line) == reading.is_met


@given(ALL_BLOCKS)
def test_the_bound_of_a_cost_meets_the_threshold_where_the_gate_does(blocks):
    wide = tuple((agreed, differed, differed // 3) for agreed, differed in blocks)
    reading = read_condition(COST, sum_blocks(wide), RISK, COSTLY, wide)
    bound = compute_reading_bound(reading, COSTLY)
    assert (bound is not None and bound <= COST.line) == reading.is_met


def sum_blocks(blocks):
    return tuple(map(sum, zip(*blocks, strict=True)))


def test_bounds_of_several_looks_are_those_of_each():
    looks = [REPAIRED[: n + 1] for n in range(len(REPAIRED))]
    sums = np.concatenate([sum_from_starts(np.array(blocks)) for blocks in looks])
    starts = np.array([len(blocks) for blocks in looks])
    bounds = compute_block_bounds(AGREEMENT, sums, starts, RISK, policy())
    readings = [read_condition(AGREEMENT, sum_blocks(b), RISK, policy(), b) for b in looks]
    assert bounds.tolist() == pytest.approx([compute_reading_bound(r, policy()) for r in readings])
    assert bounds[-1] > 0.95 > sum_blocks(REPAIRED)[0] / sum(sum_blocks(REPAIRED))


# Forecast


@given(ALL_BLOCKS)
def test_the_agreements_of_the_best_start_are_enough(blocks):
    (agreed, disagreed), risk = find_best_start(tuple(blocks), 0.9, RISK)
    condition = replace(AGREEMENT, line=0.9)
    reading = read_condition(condition, (agreed, disagreed), risk, policy())
    if reading.is_met:
        assert read_blocks(condition, tuple(blocks), policy()) >= log(1 / RISK) - 1e-9
    assert (agreed, disagreed) in map(tuple, sum_from_starts(np.array(blocks)).tolist())


# The gate


@given(ALL_BLOCKS, st.floats(0.01, 1))
def test_the_quick_answer_is_the_whole_readings(blocks, share):
    seen = counted(*sum_blocks(blocks))
    seen = replace(seen, blocks={AGREEMENT.key: tuple(blocks)})
    easy = policy(gates=gates(supervised={"require": (replace(AGREEMENT, line=0.8),)}))
    reading = read_gate(easy, CREEK, 1, share, seen, counted(500))
    assert is_gate_open(easy, CREEK, 1, share, seen, counted(500)) == reading.is_met
    log_m = reading.readings[0].compute_log_e(easy)
    assert reading.readings[0].is_met == (log_m >= log(1 / (RISK * share)))
    assert reading.readings[0].has_turned == (log_m < -1e-12)


@cache
def repaired_reading():
    seen = replace(counted(*sum_blocks(REPAIRED)), blocks={AGREEMENT.key: REPAIRED})
    return read_gate(policy(), CREEK, 1, 1.0, seen, seen)


def test_a_repaired_cell_is_met_though_its_average_misses_the_threshold():
    reading = repaired_reading()
    assert reading.is_met
    assert not read_gate(
        policy(), CREEK, 1, 1.0, counted(*sum_blocks(REPAIRED)), counted(500)
    ).is_met
    starts = ((1690, 110, 0.8), (1240, 60, 0.1), (790, 10, 0.1 / 3), (395, 5, 0.1 / 6))
    terms = [w * exp(compute_log_e(s, f, at_least=0.95)) for s, f, w in starts]
    assert reading.readings[0].format(policy()) == (
        f"agreement at least 95 %: 1690 of 1800, log E {log(sum(terms) + 0.2 / 4):.6f} of 2.995732"
        " over blocks 450+50 450+50 395+5 395+5 (risk 0.05)"
    )
