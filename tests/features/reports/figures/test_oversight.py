"""Stops, drills, incidents and silences, as an auditor asks for them."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.engine.events import IncidentAcknowledged, IncidentOpened, Resumed, Stopped
from rollout.features.reports.figures.oversight import compute_oversight
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.facts import FORBIDDEN, Trigger
from rollout.kernel.words import say_cause

HOUR = timedelta(hours=1)
CREEK = Cell("creek", "day")


@pytest.fixture
def begun(replay_of, case):
    first = case("x").at
    cases = [case(f"c{n}", first + n * HOUR, human="bear", model={"v1": "bear"}) for n in (0, 1, 9)]
    return replay_of(cases), first


def after(inputs, *events):
    return replace(inputs, events=(*inputs.events, *events))


def test_without_a_stop_there_is_no_date_instead_of_a_zero(begun):
    told = compute_oversight(begun[0])
    assert (told.stops, told.last_stop, told.last_drill, told.incidents) == ((), None, None, ())


def test_a_drill_is_not_a_stop_in_earnest_and_a_resume_belongs_to_its_own_stop(begun):
    inputs, at = begun
    told = compute_oversight(
        after(
            inputs,
            Stopped(at=at, by="ana", stop="S-1", cells=(CREEK,), drill=True),
            Stopped(at=at + HOUR, by="bo", stop="S-2", cells=(CREEK,), reason="smoke"),
            Resumed(at=at + 2 * HOUR, by="policy", stop="S-1", proposal="P-1"),
        )
    )
    assert (told.last_drill, told.last_stop) == (at, at + HOUR)
    drill, earnest = told.stops
    assert (drill.resumed_at, earnest.resumed_at) == (at + 2 * HOUR, None)
    assert (earnest.by, earnest.cells, earnest.reason) == ("bo", 1, "smoke")


def test_an_incident_says_who_has_seen_it_or_that_nobody_has(begun):
    inputs, at = begun
    trigger = Trigger(FORBIDDEN, {"later": "case"})
    kept = {"kind": "unauthorized", "effect": "recorded", "trigger": trigger, "cell": CREEK}
    told = compute_oversight(
        after(
            inputs,
            IncidentOpened(at=at, by="policy", incident="I-1", **kept),
            IncidentOpened(at=at + HOUR, by="policy", incident="I-2", **kept),
            IncidentAcknowledged(at=at + 2 * HOUR, by="ana", incident="I-2", note="snow"),
        )
    )
    unseen, seen = told.incidents
    assert (unseen.acknowledged_by, unseen.acknowledged_at) == (None, None)
    assert (seen.acknowledged_by, seen.acknowledged_at, seen.note) == ("ana", at + 2 * HOUR, "snow")
    assert (seen.site, seen.window) == ("creek", "day")
    assert seen.trigger == {"kind": "forbidden", "values": {"later": "case"}}
    assert seen.reason == say_cause("", trigger)


def test_the_longest_silence_counts_from_the_beginning_and_to_the_end(begun):
    inputs, first = begun
    inputs = replace(inputs, first=first, last=first + 10 * HOUR)
    (silence,) = compute_oversight(inputs).silences
    assert (silence.site, silence.hours) == ("creek", 8.0)
    assert (silence.since, silence.until) == (first + HOUR, first + 9 * HOUR)
    longer = compute_oversight(replace(inputs, last=first + 100 * HOUR)).silences[0]
    assert longer.since == first + 9 * HOUR
