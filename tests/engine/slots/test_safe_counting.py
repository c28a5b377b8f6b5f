"""What may never happen however the records come: no data widens nothing, no event counts twice."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from rollout.engine.decide.scope import CellState
from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.engine.evidence.stage_history import StageHistory, build_stage_shares
from rollout.engine.slots.options import ReplayOptions
from rollout.kernel.calendar.instants import Site
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.gates import compute_yearly_share
from rollout.kernel.policy.policy import Minimum, Stage
from rollout.kernel.statistics.evidence import compute_log_e
from rollout.kernel.statistics.sampling import compute_sampling_value
from tests.engine.evidence.histories import (
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
from tests.engine.slots.stories import prepared

AT_ONCE = ReplayOptions(approval_delay=timedelta())
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
    rows = [[row for part in parts for row in part[i]] for i in range(3)]
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
RARE = Condition(MEASURES["recall"], 0.1, label="bear")
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
        [(k, "bear", {"at": at + 1}) for k, at, _ in rows[0]],
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


@pytest.mark.parametrize(("at_most", "raised"), [(0.04, []), (0.06, [85])])
def test_the_missing_share_holds_a_gate_that_evidence_would_open(at_most, raised):
    case_rows, said, given = agreeing(range(100))
    history = history_of((case_rows, said, given[5:]))
    replayed = run(evidence(LENIENT, missing_at_most=at_most), history)
    assert [e.at for e in moves(replayed, "ProposalRaised")[:1]] == [hour(at) for at in raised]
    assert moves(run(LENIENT, history), "ProposalRaised")[0].at < hour(84)


def test_silence_above_shadow_lets_the_grant_lapse():
    stages = (Stage("supervised", blind=1.0, lasts=48 * HOUR),)
    policy = replace(LENIENT, stages=stages, gates=(a_gate("supervised"),))
    history = history_of(agreeing(range(24)), agreeing(range(200, 203)))
    assert kinds(run(policy, history)).count("GrantExpired") == 1


# Attempts


FALLING = replace(
    LENIENT,
    stages=(Stage("supervised", blind=1.0),),
    gates=(a_gate("supervised", minimum=EASY),),
    guards=(a_guard("agreement", 0.7, false_alarm_every=50),),
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
        (reading,) = proposal.readings
        agreed, n = reading.counts[0], sum(reading.counts)
        assert float(reading.risk) == gate.risk * compute_yearly_share(attempt)
        assert n <= (proposal.at - since) / HOUR
        assert compute_log_e(agreed, n - agreed, at_least=0.8) >= -np.log(
            gate.risk * compute_yearly_share(attempt)
        )


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


def burst(at, delay=0.5):
    """Twelve wrong answers at one instant, judged together."""
    rows, said, given = agreeing(range(1000, 1012), said="fox")
    return (
        [(key, at, {}) for key, _, _ in rows],
        said,
        [(key, label, {"at": at + delay}) for key, label, _ in given],
    )


def narrowed_at(*parts, policy=LADDER):
    return [e.at for e in moves(run(policy, history_of(*parts)), "Narrowed")]


def test_one_event_narrows_once():
    assert narrowed_at(agreeing(range(100)), burst(100.1), agreeing(range(101, 130))) == [hour(101)]


@pytest.mark.parametrize(("at", "delay"), [(100, 0), (100, 0.5), (100.3, 0.2)])
def test_an_event_that_alarms_two_guards_is_counted_by_neither_afterwards(at, delay):
    guards = (
        a_guard("agreement", 0.7, false_alarm_every=50),
        a_guard("precision", 0.7, label="fox", false_alarm_every=50),
    )
    policy = replace(LADDER, guards=guards)
    parts = agreeing(range(100)), burst(at, delay), agreeing(range(101, 130))
    assert set(narrowed_at(*parts, policy=policy)) == {hour(101)}


def test_a_late_verdict_on_a_case_before_the_change_counts_no_more():
    late = [[(key + "-late", *rest) for key, *rest in rows] for rows in burst(100.2, delay=20)]
    parts = agreeing(range(100)), burst(100.1), late, agreeing(range(101, 130))
    assert narrowed_at(*parts) == [hour(101)]


def test_a_late_verdict_counts_for_guards_when_it_comes():
    parts = agreeing(range(100)), burst(100.1, delay=20), agreeing(range(101, 130))
    assert narrowed_at(*parts) == [hour(121)]


def test_a_harm_narrows_once():
    guards = (a_guard("harm", 0, over=1000 * HOUR),)
    history = history_of(agreeing(range(200)), outcome_rows=outcomes(("c100", "bite", 104)))
    replayed = run(replace(LADDER, guards=guards), history)
    first, again = moves(replayed, "Narrowed", "Widened")[3:5]
    assert (first.at, first.from_stage, first.to_stage) == (hour(104), "third", "second")
    assert type(again).__name__ == "Widened"
    assert len(moves(replayed, "Narrowed")) == 1


def test_harm_of_a_lower_stage_counts_although_the_cell_has_widened_since():
    policy = replace(LADDER, guards=(a_guard("harm", 0, over=1000 * HOUR),))
    steps = [e.at for e in moves(run(policy, history_of(agreeing(range(200)))), "Widened")]
    first, last = ((at - START) // HOUR for at in (steps[0], steps[-1]))
    assert first + 1 < (steps[1] - START) // HOUR
    harm = outcomes((f"c{first + 1}", "bite", last + 2))
    replayed = run(policy, history_of(agreeing(range(200)), outcome_rows=harm))
    assert [e.at for e in moves(replayed, "Narrowed")] == [hour(last + 2)]


def test_harm_is_remembered_through_a_renewal():
    stages = (Stage("supervised", blind=1.0, lasts=50 * HOUR),)
    guards = (a_guard("harm", 1, "shadow", over=1000 * HOUR),)
    policy = replace(FALLING, stages=stages, guards=guards)
    harms = outcomes(("c30", "bite", 31), ("c100", "bite", 101))
    replayed = run(policy, history_of(agreeing(range(200)), outcome_rows=harms))
    renewed = [e.at for e in moves(replayed, "Renewed") if e.at < hour(101)]
    assert renewed
    assert [e.at for e in moves(replayed, "Narrowed")] == [hour(101)]


def list_late_harms(replayed):
    return [e.at for e in moves(replayed, "IncidentOpened") if e.effect == "late"]


ONE_STAGE = replace(LADDER, stages=THREE[:1], gates=LADDER.gates[:1])
TOLD_LATE = outcomes(
    ("c100", "bite", 104),  # narrows; the model acted on c90 and c91 before that
    ("c2", "bite", 105),  # people decided
    ("c90", "bite", 106),
    ("c90", "bite", 110),  # again: nothing new
    ("c106", "bite", 112),  # people decided again
    ("c91", "scratch", 500),
)


@pytest.mark.parametrize("then", ["shadow", "one-stage", "report"])
def test_each_harm_of_a_case_that_the_model_acted_on_is_told(then):
    guards = (a_guard("harm", 0, then, over=48 * HOUR),)
    history = history_of(agreeing(range(600)), outcome_rows=TOLD_LATE)
    replayed = run(replace(ONE_STAGE, guards=guards), history)
    told = moves(replayed, "IncidentOpened")
    assert all(e.fact == "harm" and e.version == "v1" for e in told)
    if then == "report":  # in alarm until two days after the last of them
        assert [e.at for e in told] == [hour(104), hour(500)]
    else:
        assert [e.at for e in told] == [hour(104), hour(106), hour(500)]
        assert list_late_harms(replayed) == [hour(106), hour(500)]
        assert len(moves(replayed, "Narrowed")) == 1


def test_a_late_harm_waits_for_the_reader_of_an_earlier_harm():
    guards = (a_guard("harm", 0, "shadow", over=480 * HOUR),)
    history = history_of(agreeing(range(600)), outcome_rows=TOLD_LATE)
    course = replace(AT_ONCE, approval_delay=20 * HOUR)
    replayed = run(replace(ONE_STAGE, guards=guards), history, course)
    assert list_late_harms(replayed) == [hour(124), hour(500)]
    assert not [e for e in moves(replayed, "Widened") if hour(104) <= e.at < hour(144)]


# Audits


def test_an_autonomous_cell_is_known_by_its_audits_alone():
    stages = (Stage("autonomous", audit=0.25),)
    policy = replace(LENIENT, stages=stages, gates=(a_gate("autonomous", minimum=EASY),))
    replayed = run(policy, history_of(agreeing(range(300))))
    since = moves(replayed, "Widened")[0].at
    later = [n for n in range(300) if hour(n) >= since]
    audited = [n for n in later if compute_sampling_value(SALT, "audit", f"c{n}") < 0.25]
    (sight,) = replayed.views.values()
    known = sight.read_evidence(replayed.last_slot)
    assert known.entered.closed == len(audited) < len(later) / 2


def test_a_challenger_sees_what_the_acting_stage_shows():
    stages = (Stage("autonomous", audit=0.25),)
    policy = replace(LENIENT, stages=stages, gates=(a_gate("autonomous", minimum=EASY),))
    rows = agreeing(range(300))
    second = [(key, "fox", {"version": "v2"}) for key, _, _ in rows[1]]
    replayed = run(policy, history_of((rows[0], rows[1] + second, rows[2])))
    one, two = (s.read_evidence(replayed.last_slot).attempt for s in replayed.views.values())
    assert one.closed == two.closed < 200


def reading_of(stage, guard):
    """Return the guard's last reading in a cell that stands on `stage`, and since when it does.

    Everybody saw each proposal too, whatever the draw said.
    """
    policy = replace(
        LENIENT, stages=(stage,), gates=(a_gate(stage.id, minimum=EASY),), guards=(guard,)
    )
    rows = agreeing(range(300))
    seen = [(key, "bear", {"at": at + 0.5, "exposure": "assisted"}) for key, at, _ in rows[0]]
    replayed = run(policy, history_of((rows[0], rows[1], rows[2] + seen)))
    (sight,) = replayed.views.values()
    (widened,) = moves(replayed, "Widened")
    return sight.read_evidence(replayed.last_slot).guards[guard.id].records, widened.at


def drawn_since(at, low, audit=1.0):
    """Count the units since an instant that no human decides blind, and with such an audit draw."""
    later = [f"c{n}" for n in range(300) if hour(n) >= at]
    others = [key for key in later if compute_sampling_value(SALT, "stage", key) >= low]
    return sum(compute_sampling_value(SALT, "audit", key) < audit for key in others)


def test_overrides_are_counted_where_a_person_confirms_what_was_not_drawn_blind():
    guard = a_guard("override", 0.5, "report")
    records_seen, since = reading_of(Stage("supervised", blind=0.5), guard)
    assert records_seen == drawn_since(since, 0.5, 1)
    assert reading_of(Stage("autonomous", blind=0.5, audit=0.5), guard)[0] == 0


def test_audits_are_what_the_model_decides_and_a_person_judges():
    guard = a_guard("unaudited", 0.5, "report", over=1000 * HOUR)
    records_seen, since = reading_of(Stage("autonomous", blind=0.5, audit=0.5), guard)
    assert records_seen == drawn_since(since, 0.5, 0.5)
    assert reading_of(Stage("supervised", blind=0.5), guard)[0] == 0


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
    known = [name for name in blank.columns if name in frame.columns]
    return pl.concat([blank, frame.select(known)], how="diagonal")


def ever_open(history, policy):
    """Return the share of cells whose gate is ever met in shadow."""
    ready = prepared(history, policy)
    met = []
    for (cell, version), rows in ready.units.cells.items():
        state = CellState(attempt_since=START, changed_at=START)
        sight = EvidenceView(
            cell=cell,
            version=version,
            rows=rows,
            unit_classes=ready.units.unit_classes,
            policy=policy,
            state=state,
            first_seen=START,
            stage_history=StageHistory(),
            shares=build_stage_shares(policy),
            find_buckets=lambda rows: rows.unit,
            feeds=ready.feeds,
        )
        met.append(sight.get_gate_series(1, sight.attempt_window).is_met.any())
    return float(np.mean(met))


@pytest.mark.simulation
def test_bursts_counted_by_episode_keep_the_promise_and_by_case_break_it():
    line, risk, runs = 0.9, 0.05, 300
    condition = Condition(MEASURES["agreement"], line)
    policy = a_policy(
        sites=tuple(Site(f"s{i}", "UTC") for i in range(runs)),
        gates=(a_gate("supervised", condition, risk=risk, minimum=EASY),),
    )
    history = bursts(line, runs, 200, seed=11)
    by_episode = ever_open(history, evidence(policy, unit="episode"))
    by_case = ever_open(history, policy)
    assert by_episode <= risk + 3 * (risk * (1 - risk) / runs) ** 0.5
    assert by_case > 6 * risk
