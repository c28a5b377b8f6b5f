"""A model that is repaired under its own name: when its cell opens, and what the report says."""

from html import unescape
from math import exp

import numpy as np
import pytest

from rollout.core.scope.events import ProposalRaised
from rollout.core.statistics.evidence import compute_log_e
from rollout.reports.figures.facts import compute_report_facts
from rollout.reports.inputs import evidence_paths
from rollout.reports.pages.html_report import render_html_report
from rollout.reports.statistics.bounds import compute_block_bounds
from rollout.reports.text.value_text import FORGETTING_NOTE
from rollout.services.replay.replay_output import build_replay_inputs
from tests.replay.test_confidence_floors import replay_rows

pytestmark = pytest.mark.simulation
POLICY = """
rollout: mail
timezone: UTC
levers: [{id: desk, labels: [claims, sales]}]
sites: [lisbon]
stages: [{id: supervised, blind: 100%, lasts: 3650d}]
evidence: {unit: case, grace: 1m, outside: blind, forget: RULE}
gates:
  - to: supervised
    require: [{measure: agreement, at_least: 95%}]
    risk: 13.0619%  # of which the year's first attempt has .05
    minimum: {units: 100, days: 0}
    approvals: [operator]
tick: 15m
"""
BAD, GOOD = 2_500, 4_000


def draw_answers(seed):
    shares = np.array([0.93] * BAD + [0.985] * GOOD)
    return np.random.default_rng(seed).random(len(shares)) < shares


def replay_repair(folder, rule, seed):
    """Replay 2,500 letters at 93 %, then 4,000 at 98.5 %, 25 a slot."""
    answers = ["claims" if right else "sales" for right in draw_answers(seed)]
    rows = [(str(i), answer, "claims", 0.5) for i, answer in enumerate(answers)]
    return replay_rows(folder, POLICY.replace("RULE", rule), "v1", rows)


def count_since_repair(files):
    """Return the letters between the repair and the proposal."""
    raised = next(e for e in files.result.events if isinstance(e, ProposalRaised))
    return int(raised.readings[0].partition(" of ")[2].split(",")[0]) - BAD


def compute_since_repair(seed, block):
    """Return the same by the sum of e-values from each start, look by look."""
    agreed = np.concatenate([[0], np.cumsum(draw_answers(seed))]).tolist()
    for n in range(BAD, BAD + GOOD, 25):
        starts = range(0, n, block)
        total = 0.2 / len(starts) if len(starts) > 1 else 0.0
        for j, start in enumerate(starts, start=1):
            weight = 0.2 / (j * (j - 1)) if j > 1 else 0.8 if len(starts) > 1 else 1.0
            s = agreed[n] - agreed[start]
            total += weight * exp(compute_log_e(s, n - start - s, at_least=0.95))
        if total >= 20:
            return n - BAD
    raise AssertionError("it never opens")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_repaired_cell_opens_in_hundreds_of_letters_instead_of_thousands(tmp_path, seed):
    whole, forgetting = (
        count_since_repair(replay_repair(tmp_path, rule, seed)) for rule in ("never", "100 units")
    )
    assert whole == compute_since_repair(seed, block=BAD + GOOD)
    assert forgetting == compute_since_repair(seed, block=100)
    assert (forgetting < 1_000, whole > 2_000) == (True, True)


def test_curves_of_many_blocks_have_fewer_points(tmp_path, monkeypatch):
    inputs = build_replay_inputs(replay_repair(tmp_path, "50 units", 1))
    monkeypatch.setattr(evidence_paths, "MAX_BLOCK_STARTS", 2_600)
    starts_read = []
    monkeypatch.setattr(
        evidence_paths,
        "compute_block_bounds",
        lambda condition, sums, starts, risk, policy: (
            starts_read.append(len(sums))
            or compute_block_bounds(condition, sums, starts, risk, policy)
        ),
    )
    (path, *_) = compute_report_facts(inputs).evidence[0].path
    assert 5 <= len(path.at) <= 20  # of 130 blocks
    assert sum(starts_read) <= 2_600


def test_the_report_says_what_is_promised_and_what_the_bound_speaks_of(tmp_path):
    facts = compute_report_facts(build_replay_inputs(replay_repair(tmp_path, "100 units", 1)))
    (evidence,) = facts.evidence
    until_open, _ = evidence.path
    assert until_open.bound[-2] >= 0.95 > max(until_open.bound[:-2])  # then it was approved
    assert until_open.estimate[-1] < 0.95
    page = " ".join(unescape(render_html_report(facts)).replace("\xa0", " ").split())
    assert "As long as no stretch of a cell's units, from a block's start to now, has" in page
    assert "A block is 100 closed units." in page
    assert "a bad past is forgotten: 100 units" in page
    assert page.count(FORGETTING_NOTE) == 1
    whole = compute_report_facts(build_replay_inputs(replay_repair(tmp_path, "never", 1)))
    assert "forg" not in render_html_report(whole)
