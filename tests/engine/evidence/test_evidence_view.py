"""What the engine is shown, recounted row by row at every slot of random stories.

The recount knows nothing of arrays, bands or paths: it draws for each unit, asks on which stage
the cell had when the unit occurred, and counts with Python's own numbers.
"""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import NamedTuple

import polars as pl
import pytest

from rollout.engine.evidence.case_placement import resolve_natural_units
from rollout.engine.slots.engine import ReplayResult
from rollout.kernel.calendar.instants import find_slot_after, find_slot_before
from rollout.kernel.measures import MEASURES, Watch
from rollout.kernel.policy.cell_evidence import EvidenceCounts
from rollout.kernel.policy.gates import read_gate, read_renewal
from rollout.kernel.statistics.sampling import compute_sampling_value
from rollout.kernel.units import MISSING, SILENT, SILENT_REASONS, UNDECIDED
from tests.engine.evidence.plain_readings import Plain, in_alarm, within
from tests.engine.slots.stories import (
    Prepared,
    a_course,
    a_history,
    a_policy,
    a_story,
    prepared,
    seeded,
)

SEEDS = (18, 53, 127, 61, 87, 96, 113, 116)


class ReplayedStory(NamedTuple):
    """A story's end: what was replayed, its units as rows, its salt, and what it was made of."""

    replayed: ReplayResult
    frame: pl.DataFrame
    salt: bytes
    ready: Prepared


@cache
def story_of(seed):
    pick = seeded(seed)
    policy = a_policy(pick)
    story, course = a_story(pick, seed), a_course(pick, policy)
    ready = prepared(a_history(story, policy), policy, course.salt)
    frame = resolve_natural_units(ready.placed, policy)
    used = frame.filter(pl.col("excluded").is_null())
    return ReplayedStory(ready.run(course), used, course.salt, ready)


@pytest.fixture(params=SEEDS)
def told(request):
    return story_of(request.param)


def rows_of(frame, sight, track):
    mine = (pl.col("site") == sight.cell.site) & (pl.col("window") == sight.cell.window)
    mine &= (pl.col("version") == sight.version) & (pl.col("track") == track)
    return frame.filter(mine).to_dicts()


def rung_at(timeline, occurred):
    """Return the stage that held in a slot, by walking the timeline."""
    rung = 0
    for since, to in zip(timeline.slots, timeline.stage_levels, strict=True):
        if since <= occurred:
            rung = to
    return rung


def shown(row, sight, salt):
    """Say whether a person judged the unit blind, on the stage that it met."""
    rung = rung_at(sight.stage_history, row["occurred"])
    if rung == 0:
        return True
    stage = sight.policy.get_stage(rung)
    if compute_sampling_value(salt, "stage", row["unit"]) < stage.blind:
        return True
    return compute_sampling_value(salt, "audit", row["unit"]) < (stage.audit or 0)


def since(sight, at):
    tick = sight.policy.tick
    return find_slot_before(at, tick) if at == sight.first_seen else find_slot_after(at, tick)


def recount(rows, sight):
    """Count rows as a gate does."""
    whole = [row for row in rows if row["lever"] == sight.policy.whole_unit_lever]
    judged = [r for r in whole if r["decided"] != MISSING and r["predicted"] not in SILENT]
    recent = list_recent(whole)
    missing = [row for row in whole if row not in judged]
    reasons = [SILENT_REASONS.get(row["predicted"], UNDECIDED) for row in missing]
    return EvidenceCounts(
        closed=len(whole),
        missing=len(missing),
        recent_closed=len(recent),
        recent_missing=sum(row not in judged for row in recent),
        losses={reason: reasons.count(reason) for reason in reasons},
        days=len({row["day"] for row in judged}),
        reviewers=len({row["reviewer"] for row in judged}),
        counts={c.key: count_taken(c, rows, sight.policy) for c in sight.conditions},
    )


def list_recent(whole):
    """Return the units since the first one of the seventh last day."""
    whole = sorted(whole, key=lambda row: (row["slot"], row["occurred"], row["unit"]))
    newest, starts = -1, [0]
    for place, row in enumerate(whole):
        if row["day"] > newest:
            newest, starts = row["day"], [*starts, place][-7:] if place else [0]
    return whole[starts[0] :]


def count_taken(condition, rows, policy):
    rows = [row for row in rows if row["lever"] == (condition.lever or policy.whole_unit_lever)]
    if condition.measure.name == "cost":
        levels = policy.cost_levels
        return tuple(sum(r["level"] == i for r in rows) for i in range(len(levels)))
    if condition.measure.name == "recall":
        rows = [row for row in rows if row["decided"] == condition.label]
    if condition.measure.name == "precision":
        rows = [row for row in rows if row["predicted"] in SILENT | {condition.label}]
    agreed = sum(row["predicted"] == row["decided"] != MISSING for row in rows)
    return (agreed, len(rows) - agreed)


def every_slot(replayed):
    return range(replayed.first_slot, replayed.last_slot + 2)


@pytest.mark.slow
def test_counts_are_those_of_a_recount_at_every_slot(told):
    replayed, frame, salt, _ = told
    for sight in replayed.views.values():
        state = sight.state
        rows = [row for row in rows_of(frame, sight, "gate") if shown(row, sight, salt)]
        if state.attempt > 1:
            rows = [row for row in rows if row["occurred"] >= since(sight, state.attempt_since)]
        spans = {"attempt": rows, "entered": _from(rows, since(sight, state.changed_at))}
        spans |= {g.stage: _from(rows, since(sight, g.since)) for g in state.grants}
        for slot in every_slot(replayed):
            known = sight.read_evidence(slot)
            found = {"attempt": known.attempt, "entered": known.entered, **known.spans}
            for name, own in spans.items():
                assert found[name] == recount(_until(own, slot), sight), (sight.cell, name, slot)


def _from(rows, slot):
    return [row for row in rows if row["occurred"] >= slot]


def _until(rows, slot):
    return [row for row in rows if row["slot"] <= slot]


@pytest.mark.slow
def test_a_gate_path_says_what_the_gate_reads_at_every_slot(told):
    replayed = told.replayed
    for sight in replayed.views.values():
        for rung in range(1, len(sight.policy.stage_ids)):
            if sight.policy.find_gate(rung, sight.cell) is not None:
                _compare_gate(sight, rung, replayed)


def _compare_gate(sight, rung, replayed):
    share = sight.state.risk_share
    for name in ("attempt", "entered"):
        path = sight.get_gate_series(rung, getattr(sight, f"{name}_window"))
        for slot in every_slot(replayed):
            known = sight.read_evidence(slot)
            reading = read_gate(
                sight.policy, sight.cell, rung, share, known.attempt, getattr(known, name)
            )
            assert (path.met.find_next(slot) == slot) == reading.is_met
            assert (path.turned.find_next(slot) == slot) == reading.has_turned


def test_a_renewal_path_says_what_the_renewal_reads_at_every_slot(told):
    replayed = told.replayed
    for sight in replayed.views.values():
        for rung, grant in enumerate(sight.state.grants, start=1):
            path = sight.get_renewal_series(rung)
            for slot in every_slot(replayed):
                span = sight.read_evidence(slot).spans[grant.stage]
                reading = read_renewal(sight.policy, sight.cell, rung, span)
                assert (path.met.find_next(slot) == slot) == reading.is_met
                assert (path.turned.find_next(slot) == slot) == reading.has_turned


def test_the_next_slot_of_a_path_is_the_first_one_that_holds(told):
    replayed = told.replayed
    slots = every_slot(replayed)
    for sight in replayed.views.values():
        if sight.policy.find_gate(1, sight.cell) is not None:
            path = sight.get_gate_series(1, sight.attempt_window)
            met = [slot for slot in slots if path.met.find_next(slot) == slot]
            for slot in slots:
                later = [at for at in met if at >= slot]
                assert path.met.find_next(slot) == (later[0] if later else None)


def test_every_guard_reads_what_the_plainest_way_reads_at_every_slot(told):
    for sight in told.replayed.views.values():
        for guard in sight.policy.list_guards(sight.cell) if sight.state.grants else ():
            if guard.condition.measure.is_timed:
                continue  # test_episode_series.py and test_silence_series.py compare these
            path = sight.guard_series[guard.id]
            found = [path.read_at(s, sight.policy.tick).is_alarm for s in every_slot(told.replayed)]
            assert found == list(_alarms(guard, sight, told)), (sight.cell, guard.condition)


def _alarms(guard, sight, told):
    slots, tick = every_slot(told.replayed), sight.policy.tick
    if guard.condition.measure.watch is Watch.UNITS:
        return _detected(guard, sight, told)
    came = _came(guard, sight, told)
    windows = (within(guard, tick, slot, came) for slot in slots)
    return (in_alarm(guard, sum(window), len(window)) for window in windows)


def _detected(guard, sight, told):
    plain, rows = Plain(guard, sight.policy), _watched(guard, sight, told)
    for slot in every_slot(told.replayed):
        now = [SimpleNamespace(**row) for row in rows if row["slot"] == slot]
        if now:
            plain.see(now)
        yield plain.detector.is_alarm


def _watched(guard, sight, told):
    """Return the rows that a detector looks at: since the change, and since its last alarm."""
    if guard.condition.measure.name == "override":
        rows = [r for r in rows_of(told.frame, sight, "assisted") if confirmed(r, sight, told.salt)]
    else:
        rows = [r for r in rows_of(told.frame, sight, "guard") if shown(r, sight, told.salt)]
    rows = _from(rows, since(sight, sight.state.changed_at))
    alarm = sight.state.last_alarms.get(guard.id)
    if alarm is None:
        return rows
    return [row for row in rows if row["slot"] > find_slot_before(alarm, sight.policy.tick)]


def confirmed(row, sight, salt):
    """Say whether a person saw the proposal: not on a stage that decides, nor blind."""
    rung = rung_at(sight.stage_history, row["occurred"])
    stage = None if rung == 0 else sight.policy.get_stage(rung)
    return stage is not None and not stage.model_decides and not blind(row, stage, salt)


def blind(row, stage, salt):
    return compute_sampling_value(salt, "stage", row["unit"]) < stage.blind


def _came(guard, sight, told):
    """Return (slot, bad) of what a guard of harm looks at."""
    at = sight.state.grants[0].held_since
    alarm = sight.state.last_alarms.get(guard.id)
    if alarm is not None and guard.then != "report":
        at = max(at, alarm)
    return [(s, bad) for s, o, bad in _said(guard, sight, told.ready) if o >= since(sight, at)]


def _said(guard, sight, ready):
    """Yield (slot known, slot occurred, bad) of outcomes that name a harm."""
    tick = sight.policy.tick
    of = {row["case_key"]: row for row in ready.placed.cases.to_dicts()}
    for row in ready.history.outcomes.to_dicts():
        case = of[row["case_key"]]
        if (case["site"], case["window"]) == (sight.cell.site, sight.cell.window):
            occurred = find_slot_before(case["occurred_at"], tick)
            known = find_slot_after(max(row["at"], case["occurred_at"]), tick)
            yield max(known, occurred + 1), occurred, True


def test_the_stories_watch_by_every_measure():
    watched = {
        guard.condition.measure.name
        for seed in SEEDS
        for sight in story_of(seed).replayed.views.values()
        if sight.state.grants
        for guard in sight.policy.list_guards(sight.cell)
    }
    spans = {"missing", "unaudited", "latency_p95", "failures", "heartbeat", "harm"}
    detected = {name for name, measure in MEASURES.items() if measure.watch is Watch.UNITS}
    assert watched == detected | spans


def test_the_stories_reach_later_attempts_several_grants_and_every_measure():
    ends = [story_of(seed).replayed for seed in SEEDS]
    sights = [sight for end in ends for sight in end.views.values()]
    assert {sight.state.attempt for sight in sights} >= {1, 2}
    assert {len(sight.state.grants) for sight in sights} >= {0, 1, 2}
    asked = {c.measure.name for sight in sights for c in sight.conditions}
    assert asked == {"agreement", "recall", "precision", "cost"}
    assert {len(end.policy.levers) for end in ends} == {1, 2}


@pytest.mark.parametrize("first_renewed", [0, 1], ids=["all", "all but the first"])
def test_a_renewed_view_reads_what_a_new_one_does(told, first_renewed):
    for view in told.replayed.views.values():
        if not view.state.grants:
            continue
        week = view.policy.tick * 24 * 7
        kept = view.state.grants[:first_renewed]
        grants = kept + tuple(
            replace(grant, since=grant.since + week, until=grant.until + week, counts_since=None)
            for grant in view.state.grants[first_renewed:]
        )
        state = replace(view.state, grants=grants)
        slots = view.rows.gate.slot.tolist()[::20]
        for slot in slots:
            view.read_evidence(slot)  # which fills what a renewal keeps
        renewed, fresh = view.renew_grants(state), replace(view, state=state)
        for level in range(1, len(grants) + 1):
            if view.policy.find_gate(level, view.cell) is not None:
                view.get_renewal_series(level)
                first, again = (part.get_renewal_series(level) for part in (fresh, renewed))
                assert first.is_met.tolist() == again.is_met.tolist()
        after = [fresh.read_evidence(slot) for slot in slots]
        assert [renewed.read_evidence(slot) for slot in slots] == after
        for stage in [] if view.floor_views else [grant.stage for grant in kept]:
            assert renewed.grant_windows[stage] is view.grant_windows[stage]
