"""Renewals that weigh audits: recounted unit by unit in random stories, and uniform if all weigh 1.

The recount knows nothing of arrays, bands or buckets: it draws for each unit, and weighs it by the
shares of the stage that it met and the confidence of its prediction.
"""

from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache
from math import exp, log

import numpy as np
import pytest

from rollout.core.policy.audit_readings import WEIGHTED_MEASURES, find_audit_counts
from rollout.core.policy.gates import read_renewal
from rollout.core.policy.measures import MISSING
from rollout.core.policy.stages import UnsureShare
from rollout.core.scope.events import ProposalRaised, Renewed
from rollout.core.statistics.evidence import (
    compute_cost_log_e,
    compute_log_e,
    compute_weighted_log_e,
)
from rollout.core.statistics.sampling import compute_sampling_value
from rollout.tally.units import resolve_units
from tests.replay.stories import (
    build_changed_story,
    replay_with_and_without_skips,
)
from tests.tally.test_evidence_view import count_taken

LEAST = 0.2
UNSURE = (UnsureShare(0.3, 1.0), UnsureShare(0.8, 0.6))
ALIKE = (UnsureShare(0.3, LEAST), UnsureShare(0.8, LEAST))
SEEDS = (10, 224, 425, 522, 698)  # stories in which grants with several weights are read


@cache
def build_story(seed, unsure):
    """Return a story under a policy whose audits follow confidence, and its course."""

    def audit_unsure_cases(policy):
        stages = tuple(
            stage if stage.audit is None else replace(stage, audit=LEAST, unsure=unsure)
            for stage in policy.stages
        )
        return replace(policy, stages=stages, waves=None)

    return build_changed_story(seed, audit_unsure_cases)


@cache
def run(seed, unsure=UNSURE, *, skip=True):
    ready, course = build_story(seed, unsure)
    return ready.run(replace(course, skip_idle_slots=skip))


def replay(seed, *, skip=True):
    return run(seed, skip=skip)


def list_weighted_renewals(events):
    return [
        line
        for event in events
        if isinstance(event, ProposalRaised) and event.kind == "renewal"
        for line in event.readings
        if len({part.weight for part in find_audit_counts(line)}) > 1
    ]


@pytest.mark.slow
def test_skipping_slots_changes_no_ledger():
    events = replay_with_and_without_skips(replay, SEEDS)
    assert len(list_weighted_renewals(events)) > 10
    assert any(isinstance(event, Renewed) for event in events)


# Recounts


def list_audited(seed, view):
    """Return the closed units of the attempt that were drawn, each with its weight.

    The last is whether the least share alone would have drawn it.
    """
    (ready, course), history = build_story(seed, UNSURE), run(seed).stage_histories[view.cell]
    confidence = {
        (row["case_key"], row["version"]): row["confidence"]
        for row in ready.history.predictions.to_dicts()
    }
    first = view.find_first_slot(view.state.attempt_since) if view.state.attempt > 1 else 0
    frame = resolve_units(ready.placed.placed, view.policy).collect("polars").to_native()
    frame = frame.filter(
        track="gate", site=view.cell.site, window=view.cell.window, version=view.version
    )
    for row in frame.sort("slot").to_dicts():
        level = int(history.find_levels(np.array([row["occurred"]]))[0])
        stage = view.policy.get_stage(level) if level else None
        least = 1.0 if stage is None else stage.reviewed_share
        own = least
        if stage is not None:
            own = stage.find_reviewed_share(confidence[row["case_key"], view.version])
        value = compute_sampling_value(course.salt, "stage", row["unit"])
        if row["excluded"] is None and row["occurred"] >= first and value < own:
            yield row, least / own, value < least


def recount_log_e(condition, rows, policy):
    """Return counts of the least share's units, counts by weight, and ln of the mean of both E."""
    uniform = count_taken(condition, [row for row, _, is_least in rows if is_least], policy)
    groups = defaultdict(list)
    for row, weight, _ in rows:
        groups[weight].append(row)
    parts = {w: count_taken(condition, groups[w], policy) for w in sorted(groups, reverse=True)}
    parts = {weight: counts for weight, counts in parts.items() if any(counts)}
    losses, at_most = (0, 1), 1 - condition.line
    log_e = compute_log_e(*uniform, at_least=condition.line) if len(uniform) == 2 else 0
    if condition.measure == "cost":
        losses = [level / policy.largest_cost for level in policy.cost_levels]
        at_most = condition.line / policy.largest_cost
        log_e = compute_cost_log_e(losses, uniform, at_most=at_most)
    weighted = compute_weighted_log_e(
        [weight for weight, counts in parts.items() for _ in counts],
        [loss for _ in parts for loss in losses],
        [count for counts in parts.values() for count in counts],
        at_most=at_most,
    )
    return uniform, tuple(parts.items()), log((exp(log_e) + exp(weighted)) / 2)


@pytest.mark.slow
def test_a_renewal_reads_what_a_recount_of_its_units_gives():
    seen = sum(map(check_renewals, SEEDS), Counter())
    assert min(seen["met"], seen["unmet"], seen["2 weights"], seen["3 weights"]) > 50


def check_renewals(seed):
    """Compare series, readings and a recount; return how often renewals are met, and weigh."""
    result, seen = run(seed), Counter()
    for view in result.views.values():
        audited = list(list_audited(seed, view)) if view.state.grants else []
        for level, grant in enumerate(view.state.grants, start=1):
            first = view.find_first_slot(grant.evidence_start)
            span = [row for row in audited if row[0]["occurred"] >= first]
            series = view.get_renewal_series(level)
            for slot in range(result.first_slot, result.last_slot + 2):
                counts = view.read_evidence(slot).spans[grant.stage]
                reading = read_renewal(view.policy, view.cell, level, counts)
                assert (series.met.find_next(slot) == slot) == reading.is_met
                assert (series.turned.find_next(slot) == slot) == reading.has_turned
                seen["met" if reading.is_met else "unmet"] += 1
                known = [row for row in span if row[0]["slot"] <= slot]
                judged = [row for row, *_ in known if row["decided"] != MISSING]
                assert (counts.closed, counts.decided) == (len(known), len(judged))
                assert counts.reviewers == len({row["reviewer"] for row in judged})
                for part in reading.readings:
                    if part.condition.measure not in WEIGHTED_MEASURES:
                        assert part.audits == ()
                        continue
                    found = recount_log_e(part.condition, known, view.policy)
                    assert (part.counts, part.audits) == found[:2]
                    assert part.compute_log_e(view.policy) == pytest.approx(found[2], abs=1e-9)
                    if abs(found[2]) > 1e-9:
                        assert part.is_met == (found[2] > 0)
                    seen[f"{len(part.audits)} weights"] += 1
    return seen


@pytest.mark.slow
def test_shares_that_are_the_same_at_any_confidence_change_no_ledger():
    """All weights are 1: each event is that of the policy with one share, renewals included."""
    renewals = 0
    for seed in SEEDS:
        alike, uniform = run(seed, ALIKE), run(seed, ())
        assert alike.events == uniform.events
        raised = (event for event in alike.events if isinstance(event, ProposalRaised))
        renewals += sum(event.kind == "renewal" for event in raised)
    assert renewals > 5
