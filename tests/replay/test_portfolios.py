"""Portfolios in a replay: openings against a recount by brute force, skipped slots, places kept."""

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import combinations
from math import exp, log

import pytest

from rollout.core.policy.gates import read_gate
from rollout.core.scope.events import (
    ProposalRaised,
    ProposalVoided,
    TakenOver,
    Widened,
)
from rollout.core.scope.projection import apply_event
from rollout.core.scope.scope import Scope
from rollout.core.statistics.evidence import compute_log_e
from rollout.tally.slots import find_slot_before
from tests.replay.stories import (
    a_history,
    prepared,
    replay_changed_story,
    replay_with_and_without_skips,
)
from tests.replay.test_confidence_floors import told

SEEDS = range(24)


@cache
def replay(seed, *, skip=True, is_listed=True):
    def list_cells(policy):
        waves = None if policy.waves is None else replace(policy.waves, at_once=None)
        gates = tuple(replace(gate, has_portfolio=is_listed) for gate in policy.gates)
        return replace(policy, waves=waves, gates=gates)

    return replay_changed_story(seed, list_cells, skip=skip)


def list_floored(seeds):
    """Return the seeds of policies that may have several confidence floors."""
    return [seed for seed in seeds if told(seed) is not None]


@cache
def replay_floored(seed, *, skip=True):
    """Replay a story in which each cell is in a list at each of four floors."""
    policy, story, course = told(seed)
    gates = tuple(replace(gate, has_portfolio=True) for gate in policy.gates)
    policy = replace(policy, gates=gates)
    ready = prepared(a_history(story, policy), policy, course.salt)
    return ready.run(replace(course, skip_idle_slots=skip))


def list_raised(events):
    return [event for event in events if isinstance(event, ProposalRaised) and event.portfolio]


def open_by_trial(scores, size, placed):
    """Return the largest number of questions that a list opens, by trying all sets of them."""
    for k in range(len(scores), 0, -1):
        for chosen in combinations(scores, k):
            if all(exp(score) >= size / (placed + k) * (1 - 1e-12) for score in chosen):
                return placed + k
    return placed


def check_list(event, scope, tick_events):
    """Compare a proposal's rank with the places before its look and all proposals after it."""
    taken = scope.portfolios.get(event.portfolio, ())
    siblings = [e for e in list_raised(tick_events) if e.portfolio == event.portfolio]
    questions = {place.question for place in taken}
    scores = [
        p.place.score
        for p in scope.proposals.values()
        if p.place is not None
        and p.place.portfolio == event.portfolio
        and p.place.question not in questions
    ]
    for other in siblings:
        question = (
            other.cell,
            other.version,
            scope.get_cell_state(other.cell, other.version).attempt,
            other.confidence_floor,
        )
        scores += [] if question in questions else [float(other.portfolio_score)]
    size = event.portfolio_cells * max(1, event.portfolio_floors)
    assert event.portfolio_opened == open_by_trial(scores, size, len(taken))
    assert float(event.portfolio_score) >= log(size / event.portfolio_opened)
    assert 1 <= event.portfolio_rank <= event.portfolio_opened


def group_by_tick(events):
    ticks = {}
    for number, event in enumerate(events):
        ticks.setdefault(number if event.slot is None else event.slot, []).append(event)
    return ticks.values()


def check_result(result):
    found, scope = Counter(), Scope()
    for tick_events in group_by_tick(result.events):
        raising_scope = None
        for event in tick_events:
            if isinstance(event, ProposalRaised) and event.portfolio:
                raising_scope = raising_scope or scope
                check_list(event, raising_scope, tick_events)
                found["raised"] += 1
                found["shared"] += event.portfolio_opened > 1
            scope = apply_event(scope, event)
        applied = [e for e in tick_events if isinstance(e, Widened | TakenOver)]
        for event in applied:
            found["applied"] += 1
            places = [place for places in scope.portfolios.values() for place in places]
            (place,) = [
                p
                for p in places
                if (p.cell, p.version) == (event.cell, event.version)
                and p.floor == next(iter(event.confidence_floors), "")
                and p.portfolio.startswith(f"{event.to_stage} ")
            ][-1:]
            count = len(scope.portfolios[place.portfolio])  # after the tick: they need each other
            assert place.score >= log(place.size / count)
            found["together"] += place.score < log(place.size / max(1, count - len(applied)))
        found["voided"] += sum(
            isinstance(event, ProposalVoided) and "portfolio has changed" in event.reason
            for event in tick_events
        )
    return found


def test_a_list_opens_what_brute_force_opens_and_widened_cells_satisfy_it_without_the_others():
    found = sum((check_result(replay(seed)) for seed in SEEDS), Counter())
    assert min(found["raised"], found["applied"], found["shared"]) > 20
    assert min(found["together"], found["voided"]) > 0


def test_a_list_with_floors_opens_what_brute_force_opens():
    found = sum((check_result(replay_floored(seed)) for seed in list_floored(range(60))), Counter())
    assert min(found["raised"], found["applied"], found["shared"]) > 20
    assert min(found["together"], found["voided"]) > 0


@pytest.mark.slow
def test_skipping_slots_changes_no_ledger_with_floors():
    events = replay_with_and_without_skips(replay_floored, (0, 24, 53))
    raised = list_raised(events)
    assert {event.portfolio_floors for event in raised} == {4}
    assert len({event.confidence_floor for event in raised}) > 1
    assert {type(event).__name__ for event in events} >= {"Widened", "Narrowed", "ProposalVoided"}


@pytest.mark.simulation
def test_skipping_slots_changes_no_ledger_with_floors_of_many_stories():
    events = replay_with_and_without_skips(replay_floored, list_floored(range(12, 60)))
    kinds = {type(event).__name__ for event in events}
    assert kinds >= {"Widened", "Renewed", "Narrowed", "ProposalVoided"}


def test_a_score_is_the_least_evidence_of_a_gates_conditions():
    compared = 0
    for seed in SEEDS:
        result = replay(seed)
        for event in list_raised(result.events):
            view = result.views[event.cell, event.version]
            level = view.policy.stage_ids.index(event.to_stage)
            conditions = view.policy.list_conditions(level, event.cell)
            if not all(c.measure in {"agreement", "recall", "precision"} for c in conditions):
                continue
            lines = [line for line in event.readings if "log E " in line]
            scores = []
            for condition, line in zip(conditions, lines, strict=True):
                agreed, total = line.partition(": ")[2].partition(",")[0].split(" of ")
                failed = int(total) - int(agreed)
                log_e = compute_log_e(int(agreed), failed, at_least=condition.line)
                gate = view.policy.find_gate(level, event.cell)
                scores.append(log_e + log(gate.risk) + log(float(event.risk_weight)))
            assert 0 <= max(0, min(scores)) - float(event.portfolio_score) < 2e-6
            compared += 1
    assert compared > 20


@pytest.mark.slow
def test_skipping_slots_changes_no_ledger():
    kinds = {type(event).__name__ for event in replay_with_and_without_skips(replay, range(10))}
    assert kinds >= {"Widened", "ProposalRaised", "ProposalVoided"}


@pytest.mark.simulation
def test_skipping_slots_changes_no_ledger_of_many_stories():
    kinds = {type(event).__name__ for event in replay_with_and_without_skips(replay, range(10, 70))}
    assert kinds >= {"Widened", "Renewed", "TakenOver", "Narrowed", "ProposalVoided"}


def test_no_cell_is_proposed_before_its_gate_alone_would_be():
    compared = 0
    for seed in SEEDS:
        result = replay(seed)
        for event in list_raised(result.events):
            view = result.views[event.cell, event.version]
            if view.state.attempt_since > event.at or view.state.grants:
                continue
            slot = find_slot_before(event.slot, view.policy.tick)
            counts = view.read_evidence(slot).attempt
            level = view.policy.stage_ids.index(event.to_stage)
            share = float(event.risk_weight)
            reading = read_gate(view.policy, event.cell, level, share, counts, counts)
            assert reading.is_met
            compared += 1
    assert compared > 5
