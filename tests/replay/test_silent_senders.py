"""A sender who predicts only where its model is right opens no gate (evidence rules, row b2)."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from rollout.core.scope.events import ProposalRaised, Widened
from rollout.replay.options import ReplayOptions
from tests.replay.silent_senders import (
    START,
    answer_rightly,
    build_history,
    parse,
    predict_agreeing_only,
)
from tests.replay.stories import prepared

RECALL = "{measure: recall, label: bear, at_least: 85%}"
MOST_OPENED = 0.0191  # an attempt's share of 5 % a year

pytestmark = pytest.mark.simulation


def replay_history(policy, history, delay=timedelta(hours=4)):
    return prepared(history, policy).run(ReplayOptions(approval_delay=delay)).events


def list_cells(events, kind=Widened):
    return {event.cell for event in events if isinstance(event, kind)}


def test_version_that_predicts_only_where_people_agree_opens_no_cell():
    policy = parse(8)
    history = build_history(policy, 20, predict_agreeing_only)
    assert list_cells(replay_history(policy, history)) == set()


def test_version_silent_on_a_label_that_it_would_miss_opens_no_recall_gate():
    def find_answers(rng, truth, _at):
        answers = answer_rightly(rng, truth, 1)
        is_missed = (truth == "bear") & (rng.random(len(truth)) >= 0.6)
        answers[is_missed] = None
        return answers

    policy = parse(60, require=RECALL)
    opened = list_cells(replay_history(policy, build_history(policy, 40, find_answers)))
    assert len(opened) <= MOST_OPENED * 60


def test_version_that_answers_all_cases_still_opens():
    policy = parse(40)

    def find_answers(rng, truth, _at):
        return answer_rightly(rng, truth, 0.98)

    opened = list_cells(replay_history(policy, build_history(policy, 45, find_answers)))
    assert len(opened) >= 0.95 * 40


def test_version_that_falls_silent_after_its_proposal_is_not_widened():
    policy = parse(40)

    def find_answers(rng, truth, _at):
        return answer_rightly(rng, truth, 0.98)

    history = build_history(policy, 45, find_answers)
    delay = timedelta(days=2)
    raised = {
        event.cell.site: event.at
        for event in replay_history(policy, history, delay)
        if isinstance(event, ProposalRaised)
    }
    sites = history.predictions.join(history.cases.select("case_key", "site"), on="case_key")
    until = sites["site"].replace_strict(raised, default=START + timedelta(days=45))
    is_sent = sites["at"].to_numpy() < until.to_numpy()
    predictions = sites.filter(pl.Series(is_sent)).select(history.predictions.columns)

    silent = replace(history, predictions=predictions)
    events = replay_history(policy, silent, delay)
    assert len(list_cells(events, ProposalRaised)) >= 0.95 * 40
    assert list_cells(events) == set()
    assert np.mean(is_sent) < 0.9


def test_version_that_is_silent_in_a_tenth_of_its_last_week_is_held_until_it_answers():
    """Few are missing in all, but not in the last seven days with units."""
    policy = parse(4)

    def find_answers(rng, truth, at):
        answers = answer_rightly(rng, truth, 1)
        answers[(at > 40) & (rng.random(len(truth)) < 0.15)] = None
        return answers

    history = build_history(policy, 60, find_answers, per_day=10)
    ready = prepared(history, policy)
    view = next(iter(ready.run(ReplayOptions(approval_delay=None)).views.values()))
    counts = view.attempt_window.count_at(ready.units.last_slot)
    assert counts.missing < 0.06 * counts.closed < counts.closed
    assert counts.recent_missing > 0.05 * counts.recent_closed
    assert counts.losses == {"not predicted": counts.missing}
