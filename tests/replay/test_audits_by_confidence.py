"""Audits by confidence in a replay: who is audited, what the average is, and what reports weigh."""

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest

from rollout.core.scope.events import Narrowed, Widened
from rollout.core.statistics.sampling import compute_sampling_value
from rollout.reports.figures.audits import build_sampling_frame
from rollout.reports.figures.label_sources import build_assignments
from rollout.reports.inputs.decided_by import MODEL, assign_deciders
from rollout.services.replay.replay_output import build_replay_inputs
from tests.replay.test_confidence_floors import replay_rows

LEAST, UNSURE, COUNT = 0.1, 1.0, 6000
POLICY = """
rollout: mail
timezone: UTC
levers: [{id: desk, labels: [claims, sales]}]
sites: [lisbon]
stages: [{id: autonomous, blind: 5%, audit: {least: 10%, below: {90%: 100%}}, lasts: 3650d}]
evidence: {unit: case, grace: 1m, outside: blind}
gates:
  - to: autonomous
    require: [{measure: agreement, at_least: 90%}]
    minimum: {units: 100, days: 0}
    approvals: [operator]
guards: [{measure: agreement, at_least: 93%, then: one-stage, false_alarm_every: 10000}]
tick: 15m
"""


def build_letters(rates, later):
    """Return letters, a tenth unsure, that are wrong as often as the rates of sure and unsure say.

    `later` are the rates of the second half. Every third unsure letter has no confidence.
    """
    rng = np.random.default_rng(5)
    unsure = (rng.random(COUNT) < 0.1).astype(int)
    half = (np.arange(COUNT) * 2 >= COUNT).astype(int)
    wrong = rng.random(COUNT) < np.array([rates, later])[half, unsure]
    sure = [None if n % 3 == 0 else 0.5 for n in range(COUNT)]
    return [
        (str(n), "sales" if wrong[n] else "claims", "claims", sure[n] if unsure[n] else 0.95)
        for n in range(COUNT)
    ]


@cache
def replay(folder, later=(0.01, 0.3), policy=POLICY):
    return replay_rows(folder, policy, "v1", build_letters((0.01, 0.3), later))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("letters")


def list_alarms(result):
    return [event for event in result.events if isinstance(event, Narrowed) and event.guard]


@pytest.mark.slow
def test_the_average_of_all_cases_is_watched_and_not_that_of_the_audited(folder):
    """The truth is 96.1 %, that among audited cases 84 %: a threshold of 93 % is kept."""
    assert any(isinstance(event, Widened) for event in replay(folder).result.events)
    assert list_alarms(replay(folder).result) == []
    assert len(list_alarms(replay(folder, (0.01, 0.9)).result)) == 1


@pytest.mark.slow
def test_each_case_is_audited_by_its_confidence_and_reports_weigh_it(folder):
    replayed = replay(folder)
    inputs = build_replay_inputs(replayed)
    decided = assign_deciders(inputs).filter(pl.col("rung") == 1)
    sure = {row["case_key"]: row["confidence"] for row in inputs.records.predictions.to_dicts()}
    audited = 0
    for row in decided.to_dicts():
        share = LEAST if (sure[row["case_key"]] or 0) >= 0.9 else UNSURE
        reviewed = 0.05 + 0.95 * share
        value = compute_sampling_value(inputs.salt, "stage", row["case_key"])
        assert row["reviewed_share"] == pytest.approx(reviewed)
        assert row["audited"] == (0.05 <= value < reviewed)
        assert (row["decider"] == MODEL) == (value >= 0.05)
        audited += row["audited"]
    assert audited > 300
    chances = build_sampling_frame(inputs, decided)
    assert chances["chance"].to_list() == chances["reviewed_share"].to_list()
    live = build_assignments(replace(inputs, is_simulated=False))
    shares = live.filter(pl.col("share").is_not_null())["share"].unique().sort().to_list()
    assert shares == [LEAST, UNSURE]
