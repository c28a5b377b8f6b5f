"""What may never happen however the records come: no data widens nothing, no event counts twice."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from rollout.core.draws import draw
from rollout.core.evidence import log_e_value
from rollout.core.gates import risk_of
from rollout.core.measures import Condition
from rollout.core.places import Site, Window
from rollout.core.policy import Minimum, Stage
from rollout.core.scope import CellState
from rollout.replay.engine import Course
from rollout.tally.rows import gather
from rollout.tally.sight import Sight
from rollout.tally.slots import slot_after
from rollout.tally.timeline import Timeline, shares_of
from rollout.tally.units import resolve
from tests.replay.stories import prepared
from tests.tally.histories import (
    ALARM,
    HOUR,
    SALT,
    START,
    a_gate,
    a_guard,
    a_policy,
    cases,
    decisions,
    evidence,
    hour,
    outcomes,
    predictions,
    records,
)

AT_ONCE = Course(approve_after=timedelta())
EASY = Minimum(units=0, days=0, reviewers=0)


def kinds(replayed):
    return [type(event).__name__ for event in replayed.events]


def moves(replayed, *names):
    return [event for event in replayed.events if type(event).__name__ in names]


def agreeing(numbers, apart=1.0, said="bear", verdict="bear", **more):
    """Cases with these numbers, so many hours apart, answered and judged at once."""
    keys = [(f"c{number}", number * apart) for number in numbers]
    return (
        [(key, at, more.get("case", {})) for key, at in keys],
        [(key, said, {}) for key, _ in keys],
        [(key, verdict, {"at": at + more.get("delay", 0.5)}) for key, at in keys],
    )


def history_of(*parts, outcome_rows=None):
    """Join the parts that `agreeing` returns to one history."""
    rows = [sum((list(part[i]) for part in parts), []) for i in range(3)]
    return records(
        cases(*rows[0]), predictions(*rows[1]), decisions(*rows[2]), outcome_rows=outcome_rows
    )


def run(policy, history, course=AT_ONCE):
    return prepared(history, policy, course.salt).run(course)


# No data


LENIENT = evidence(
    a_policy(
        gates=(a_gate("supervised", minimum=EASY), a_gate("autonomous", minimum=EASY)),
    ),
    missing_at_most=1.0,
)
RARE = Condition("recall", 0.1, at_least=True, label="bear")
NOTHING = {
    "no records": lambda rows: (rows[0][:0], rows[1][:0], rows[2][:0]),
    "cases alone": lambda rows: (rows[0], [], []),
    "predictions alone": lambda rows: (rows[0], rows[1], []),
    "decisions alone": lambda rows: (rows[0], [], rows[2]),
    "unsure people": lambda rows: (rows[0], rows[1], [(k, None, m) for k, _, m in rows[2]]),
    "failed answers": lambda rows: (rows[0], [(k, None, m) for k, _, m in rows[1]], rows[2]),
    "late verdicts": lambda rows: (
        rows[0],
        rows[1],
        [(k, said, {"at": more["at"] + 9}) for k, said, more in rows[2]],
    ),
    "late answers": lambda rows: (
        rows[0],
        [
            (k, said, {"at": more["at"] + 1})
            for (k, said, _), (_, _, more) in zip(*rows[1:], strict=True)
        ],
        rows[2],
    ),
    "seen answers": lambda rows: (
        rows[0],
        rows[1],
        [(k, said, more | {"exposure": "assisted"}) for k, said, more in rows[2]],
    ),
}


@pytest.mark.parametrize("what", NOTHING)
@pytest.mark.parametrize("require", [(), (RARE,)], ids=["agreement", "recall"])
def test_no_data_never_widens(what, require):
    gates = tuple(a_gate(s, *require, minimum=EASY) for s in ("supervised", "autonomous"))
    policy = replace(LENIENT, gates=gates)
    rows = NOTHING[what](agreeing(range(200)))
    replayed = run(policy, history_of(rows))
    assert not moves(replayed, "ProposalRaised", "Widened")


def test_the_same_records_whole_widen_twice():
    assert kinds(run(LENIENT, history_of(agreeing(range(200))))).count("Widened") >= 2


def test_a_class_that_never_came_opens_no_gate_on_it():
    policy = replace(LENIENT, gates=(a_gate("supervised", RARE, minimum=EASY),))
    history = history_of(agreeing(range(200), said="fox", verdict="fox"))
    assert "ProposalRaised" not in kinds(run(policy, history))


@pytest.mark.parametrize(("least", "held"), [(0.04, True), (0.06, False)])
def test_the_missing_share_holds_a_gate_that_evidence_would_open(least, held):
    policy = evidence(LENIENT, missing_at_most=least)
    case_rows, said, given = agreeing(range(100))
    history = history_of((case_rows, said, given[:20] + given[25:]))  # 5 of 100
    replayed = run(policy, history)
    raised = [e.at for e in moves(replayed, "ProposalRaised")]
    late = hour(25 + 2)
    if held:
        first_share_below = next(n for n in range(26, 101) if 0.04 * n >= 5) if least else None
        assert first_share_below is None
    assert any(at > late for at in raised) or held
    sight = next(iter(replayed.sights.values()))
    assert sight.known(replayed.last_slot).attempt.missing == 5


def test_silence_above_shadow_lets_the_grant_lapse():
    stages = (Stage("supervised", blind=1.0, lasts=48 * HOUR),)
    policy = replace(LENIENT, stages=stages, gates=(a_gate("supervised"),))
    history = history_of(agreeing(range(24)), agreeing(range(200, 203)))
    assert kinds(run(policy, history)).count("Lapsed") == 1


# Attempts


FALLING = replace(
    LENIENT,
    stages=(Stage("supervised", blind=1.0),),
    gates=(a_gate("supervised", minimum=EASY),),
    guards=(a_guard("agreement", 0.7, at_least=True, false_alarm_every=50),),
)


def rising_and_falling(rounds=3):
    parts = []
    for turn in range(rounds):
        start = turn * 100
        parts += [agreeing(range(start, start + 70))]
        parts += [agreeing(range(start + 70, start + 80), said="fox")]
    return history_of(*parts)


def test_after_an_alarm_evidence_starts_from_zero_at_a_smaller_risk():
    replayed = run(FALLING, rising_and_falling())
    raised = [e for e in moves(replayed, "ProposalRaised") if e.kind == "widening"]
    alarms = [START - HOUR, *(e.at for e in moves(replayed, "Narrowed") if e.restart)]
    assert len(alarms) >= 3
    gate = FALLING.gates[0]
    for attempt, (since, proposal) in enumerate(zip(alarms, raised, strict=False), start=1):
        (reading,) = proposal.because
        agreed, n = (int(word) for word in reading.split(": ")[1].split(",")[0].split(" of "))
        assert reading.endswith(f"(risk {risk_of(gate, attempt):g})")
        assert n <= (proposal.at - since) / HOUR
        assert log_e_value(agreed, n - agreed, at_least=0.8) >= -np.log(risk_of(gate, attempt))
    assert risk_of(gate, 2) == gate.risk / 6


# One event, one narrowing


THREE = (
    Stage("first", blind=1.0),
    Stage("second", blind=1.0),
    Stage("third", blind=1.0),
)
LADDER = replace(
    FALLING,
    stages=THREE,
    gates=tuple(a_gate(stage.id, minimum=EASY) for stage in THREE),
)


def test_one_event_narrows_once():
    history = history_of(
        agreeing(range(100)), agreeing(range(100, 110), said="fox"), agreeing(range(110, 125))
    )
    replayed = run(LADDER, history)
    assert [e.to for e in moves(replayed, "Widened")][:3] == ["first", "second", "third"]
    narrowed = [e for e in moves(replayed, "Narrowed") if e.at <= hour(125)]
    assert len(narrowed) == 1 + _again(narrowed)


def _again(narrowed):
    """Return narrowings for units of the fall that came after the first one: a second event."""
    return sum(event.at < hour(112) for event in narrowed[1:])


@pytest.mark.parametrize("delay", [0, 0.5])
def test_units_in_one_slot_that_alarm_two_guards_narrow_once(delay):
    """All at one instant, a whole hour: the second guard may not count them after the change."""
    guards = (
        a_guard("agreement", 0.7, at_least=True, false_alarm_every=50),
        a_guard("precision", 0.7, at_least=True, label="fox", false_alarm_every=50),
    )
    good, bad, rest = agreeing(range(100)), agreeing(range(300, 312), said="fox"), None
    bad = (
        [(key, 100.0, more) for key, _, more in bad[0]],
        bad[1],
        [(key, said, {"at": 100.0 + delay}) for key, said, _ in bad[2]],
    )
    rest = agreeing(range(101, 110))
    replayed = run(replace(LADDER, guards=guards), history_of(good, bad, rest))
    narrowed = [e for e in moves(replayed, "Narrowed") if hour(99) <= e.at]
    assert {e.at for e in narrowed} == {hour(101)}
    assert not [e for e in narrowed if e.at > hour(101)]


def test_a_late_verdict_on_a_case_before_the_change_counts_no_more():
    late = agreeing(range(100, 112), said="fox", delay=30)
    history = history_of(
        agreeing(range(100)), agreeing(range(112, 124), said="fox"), late, agreeing(range(124, 170))
    )
    replayed = run(LADDER, history)
    first, *later = moves(replayed, "Narrowed")
    assert first.at < hour(124)
    assert not [e for e in later if hour(130) <= e.at < hour(150)]


def test_a_late_verdict_counts_for_guards_when_it_comes():
    late = agreeing(range(100, 112), said="fox", delay=30)
    replayed = run(LADDER, history_of(agreeing(range(100)), late, agreeing(range(112, 150))))
    (first, *_) = moves(replayed, "Narrowed")
    assert hour(130) < first.at <= hour(142)


def test_a_harm_narrows_once():
    guards = (a_guard("harm", 0, over=1000 * HOUR),)
    history = history_of(agreeing(range(200)), outcome_rows=outcomes(("c100", "bite", 104)))
    replayed = run(replace(LADDER, guards=guards), history)
    narrowed = moves(replayed, "Narrowed")
    assert [(e.at, e.came_from, e.to) for e in narrowed[:1]] == [(hour(104), "third", "second")]
    assert not [e for e in narrowed[1:] if e.at < hour(106)]


def test_harm_is_remembered_through_a_renewal():
    stages = (Stage("supervised", blind=1.0, lasts=50 * HOUR),)
    guards = (a_guard("harm", 1, "shadow", over=1000 * HOUR),)
    policy = replace(FALLING, stages=stages, guards=guards)
    harms = outcomes(("c30", "bite", 31), ("c100", "bite", 101))
    replayed = run(policy, history_of(agreeing(range(200)), outcome_rows=harms))
    renewed = [e.at for e in moves(replayed, "Renewed") if e.at < hour(101)]
    assert renewed
    assert [e.at for e in moves(replayed, "Narrowed")] == [hour(101)]


# Audits


def test_an_autonomous_cell_is_known_by_its_audits_alone():
    stages = (Stage("autonomous", audit=0.25),)
    policy = replace(LENIENT, stages=stages, gates=(a_gate("autonomous", minimum=EASY),))
    replayed = run(policy, history_of(agreeing(range(300))))
    since = moves(replayed, "Widened")[0].at
    later = [n for n in range(300) if hour(n) >= since]
    audited = [n for n in later if draw(SALT, "stage", f"c{n}") < 0.25]
    (sight,) = replayed.sights.values()
    known = sight.known(replayed.last_slot)
    assert known.entered.closed == len(audited) < len(later) / 2


def test_a_challenger_sees_what_the_acting_stage_shows():
    stages = (Stage("autonomous", audit=0.25),)
    policy = replace(LENIENT, stages=stages, gates=(a_gate("autonomous", minimum=EASY),))
    rows = agreeing(range(300))
    second = [(key, "fox", {"version": "v2"}) for key, _, _ in rows[1]]
    replayed = run(policy, history_of((rows[0], rows[1] + second, rows[2])))
    one, two = (s.known(replayed.last_slot).attempt for s in replayed.sights.values())
    assert one.closed == two.closed < 200


# Bursts


def bursts(line, runs, episodes, seed):
    """Cases of many sites in bursts of five identical frames, right as often as the line says."""
    rng = np.random.default_rng(seed)
    site, episode = np.divmod(np.arange(runs * episodes), episodes)
    right = rng.random(runs * episodes) < line
    frame = pl.DataFrame({"site": site, "episode": episode, "right": right})
    frame = frame.join(pl.DataFrame({"frame": range(5)}), how="cross").with_columns(
        case_key=pl.format("{}-{}-{}", "site", "episode", "frame"),
        site=pl.format("s{}", "site"),
        episode=pl.format("{}-{}", "site", "episode"),
        hours=pl.col("episode") + pl.col("frame") * 0.01,
    )
    said = pl.when("right").then(pl.lit("bear")).otherwise(pl.lit("fox"))
    at = (START + pl.duration(minutes=pl.col("hours") * 60)).cast(pl.Datetime("us", "UTC"))
    blank = records(cases())
    return replace(
        blank,
        cases=_fitted(blank.cases, frame.with_columns(occurred_at=at)),
        predictions=_fitted(
            blank.predictions, frame.with_columns(said.alias("value:alarm"), version=pl.lit("v1"))
        ),
        decisions=_fitted(
            blank.decisions,
            frame.with_columns(
                pl.lit("bear").alias("value:alarm"),
                reviewer=pl.lit("ana"),
                unsure=pl.lit(value=False),
                exposure=pl.lit("blind"),
            ),
        ),
    )


def _fitted(blank, frame):
    return pl.concat(
        [blank, frame.select(pl.col(set(blank.columns) & set(frame.columns)))], how="diagonal"
    )


def ever_open(history, policy):
    """Return the share of cells whose gate is ever met in shadow."""
    ready = prepared(history, policy)
    met = []
    for (cell, version), rows in ready.units.cells.items():
        state = CellState(attempt_since=START, changed_at=START)
        sight = Sight(
            cell=cell,
            version=version,
            rows=rows,
            kinds=ready.units.kinds,
            policy=policy,
            state=state,
            first_seen=START,
            timeline=Timeline(),
            shares=shares_of(policy),
            band_of=lambda rows: rows.unit,
            feeds=ready.feeds,
        )
        met.append(sight.gate_path(1, sight.attempt).met.any())
    return float(np.mean(met))


@pytest.mark.slow
def test_bursts_counted_by_episode_keep_the_promise_and_by_case_break_it():
    line, risk, runs = 0.9, 0.05, 300
    condition = Condition("agreement", line, at_least=True)
    policy = a_policy(
        sites=tuple(Site(f"s{i}", "UTC") for i in range(runs)),
        gates=(a_gate("supervised", condition, risk=risk, minimum=EASY),),
    )
    history = bursts(line, runs, 200, seed=11)
    by_episode = ever_open(history, evidence(policy, unit="episode"))
    by_case = ever_open(history, policy)
    assert by_episode <= risk + 3 * (risk * (1 - risk) / runs) ** 0.5
    assert by_case > 6 * risk
    assert ALARM
    assert Window
    assert gather
    assert resolve
    assert slot_after
