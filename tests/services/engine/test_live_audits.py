"""Audits by confidence: live and replay narrow on the same weights, which the records give anew."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import func, select, text

from rollout.core.policy.audit_readings import find_audit_counts
from rollout.core.policy.stages import UnsureShare
from rollout.core.scope.events import Narrowed, ProposalRaised, Renewed
from rollout.services.engine.policy_application import apply_policy
from rollout.services.replay.requests import read_request_records
from rollout.store.tables.append_only import CLOSE_PURGE, OPEN_PURGE
from rollout.store.tables.tables import counted_units
from rollout.tally.audit_weights import NO_CONFIDENCE, UNRECORDED
from rollout.tally.slots import find_slot_before, to_instant
from tests.chance import list_unsealed_events
from tests.replay.test_confidence_floors import BANDS, write_rows
from tests.services.engine.test_live import (
    ANA,
    all_at_first,
    decide_live_and_replayed,
    find_evidence_faults,
    live,
    parse_policy,
    replayed,
)
from tests.services.engine.test_stage_history import (
    CREEK,
    HALF,
    POLICIES,
    applied,
    begun,
    slot,
    widened,
)

AFTER = timedelta(minutes=20)
SLOTS, PER_SLOT = 140, 25
AUDITS = "audit: {least: 10%, below: {60%: 100%, 80%: 50%}}"
POLICY = f"""
rollout: story
timezone: UTC
levers: [{{id: desk, labels: [claims, sales]}}]
sites: [lisbon]
stages: [{{id: autonomous, {AUDITS}, lasts: 3650d}}]
evidence: {{unit: case, grace: 1m, outside: blind}}
gates:
  - to: autonomous
    require: [{{measure: agreement, at_least: 90%}}]
    minimum: {{units: 100, days: 0}}
    approvals: [operator]
guards: [{{measure: agreement, at_least: 88%, then: one-stage, false_alarm_every: 1000}}]
tick: 15m
"""


def build_letters(folder):
    """Return records that agree at .97 until half of them are over, then less where unsure.

    Every ninth prediction has no confidence.
    """
    rng = np.random.default_rng(3)
    count = SLOTS * PER_SLOT
    bands = rng.choice(4, count, p=[0.2, 0.2, 0.3, 0.3])
    is_late = np.arange(count) * 2 >= count
    agrees = rng.random(count) < np.where(is_late & (bands < 2), 0.5, 0.97)
    rows = [
        (
            str(i),
            "claims" if agrees[i] else "sales",
            "claims",
            None if i % 9 == 0 else BANDS[bands[i]],
        )
        for i in range(count)
    ]
    request = write_rows(folder, POLICY, "v1", rows)
    return read_request_records(request, parse_policy(POLICY))


def list_alarms(events):
    return [event.at for event in events if isinstance(event, Narrowed) and event.guard]


@pytest.mark.simulation
@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_live_and_replay_narrow_on_the_same_weights(database, tmp_path):
    history = build_letters(tmp_path)
    found, expected = decide_live_and_replayed(database, POLICY, history, AFTER)
    assert len(list_alarms(expected)) == 1
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert find_evidence_faults(database) == []
    for share in ("10%", "30%"):  # the least, and about what is audited in all
        uniform = parse_policy(POLICY.replace(AUDITS, f"audit: {share}"))
        later = list_alarms(replayed(history, uniform, AFTER)[1])
        assert not later or later > list_alarms(expected)
    forge_bands(database)
    assert any("counted in confidence band" in fault for fault in find_evidence_faults(database))


def forge_bands(database, *conditions):
    """Give the units of the last sure case the band of the least sure, whose weight is smaller.

    A check names few faults, so it is one case.
    """
    with database.begin_write() as transaction:
        transaction.execute(text(OPEN_PURGE))
        sure = select(func.max(counted_units.c.case_id)).where(counted_units.c.band > SURE)
        sure = sure.where(*conditions)
        is_sure = counted_units.c.case_id == sure.scalar_subquery()
        forged = counted_units.update().where(is_sure).values(band=NO_CONFIDENCE)
        assert transaction.execute(forged).rowcount
        transaction.execute(text(CLOSE_PURGE))


RENEWED = POLICY.replace("lasts: 3650d", "lasts: 5h").replace("at_least: 88%", "at_least: 50%")


def list_weighted_renewals(events):
    """Return the proposals of renewals whose audits have several weights."""
    return [
        event
        for event in events
        if isinstance(event, ProposalRaised)
        and event.kind == "renewal"
        and len({part.weight for part in find_audit_counts(event.readings[0])}) > 1
    ]


@pytest.mark.simulation
@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_live_and_replay_renew_on_the_same_weights(database, tmp_path):
    found, expected = decide_live_and_replayed(database, RENEWED, build_letters(tmp_path), AFTER)
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert any(isinstance(event, Renewed) for event in found)
    renewal = list_weighted_renewals(found)[-1]
    assert find_evidence_faults(database) == []
    last_slot = find_slot_before(renewal.slot, parse_policy(RENEWED).tick)
    forge_bands(database, counted_units.c.bucket == 0, counted_units.c.slot <= last_slot)
    faults = find_evidence_faults(database)
    assert any("its readings are" in fault and "over audits" in fault for fault in faults)


@pytest.mark.simulation
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_renewals_weigh_audits_from_the_edit_on_that_asks_for_them(database, tmp_path):
    weighing = RENEWED.replace("units: 100", "units: 20")
    policy, history = parse_policy(weighing), build_letters(tmp_path)
    uniform = weighing.replace(AUDITS, "audit: 10%")
    slots = replayed(history, policy, AFTER)[0][: SLOTS // 2]
    start, edited = all_at_first(database, "story", history), slots[SLOTS // 4]

    def before_slot(slot, at):
        if slot == edited:
            apply_policy(database, weighing, ANA, at)
        return start(slot, at)

    events = live(database, uniform, slots, AFTER, before_slot=before_slot)
    edit = to_instant(edited, policy.tick)
    renewals = [e for e in events if isinstance(e, ProposalRaised) and e.kind == "renewal"]
    is_weighed = [bool(find_audit_counts(event.readings[0])) for event in renewals]
    assert is_weighed == [event.at >= edit for event in renewals]
    assert {True, False} == set(is_weighed)
    assert list_weighted_renewals(events)
    assert find_evidence_faults(database) == []


# An edit while units are under way

UNSURE = replace(
    HALF,
    hash="unsure",
    stages=(
        HALF.stages[0],
        replace(HALF.stages[1], audit=0.1, unsure=(UnsureShare(0.9, 0.8),)),
        *HALF.stages[2:],
    ),
)
BAND = NO_CONFIDENCE + 1  # of a confidence of 0 %
SURE = BAND + 80
AGAIN = replace(HALF, hash="half again")
ALL = POLICIES | {policy.hash: policy for policy in (UNSURE, AGAIN)}


def test_units_weigh_as_the_policy_of_their_time_drew_them():
    past = begun(
        widened(5, to="supervised"),
        widened(10, to="autonomous"),
        applied(20, UNSURE, 2),
        applied(30, AGAIN, 3),
        policies=ALL,
    )
    past.advance_to(slot(40))
    shares = past.stage_shares
    at = np.array([slot(n) for n in (2, 15, 25, 35)])
    levels = past.get_stage_history(CREEK).find_levels(at)
    weights = {
        band: shares.band_weights[levels, np.full(4, band)].tolist()
        for band in (UNRECORDED, NO_CONFIDENCE, BAND + 50, BAND + 90)
    }
    stage = UNSURE.stages[1]
    weight = stage.reviewed_share / stage.find_reviewed_share(0.5)
    assert weight < 1
    assert weights == {
        UNRECORDED: [1, 1, 1, 1],
        NO_CONFIDENCE: [1, 1, weight, 1],
        BAND + 50: [1, 1, weight, 1],
        BAND + 90: [1, 1, 1, 1],
    }


def test_a_unit_that_another_policy_counted_is_drawn_by_the_least_share_alone():
    """Its band was not recorded: what the larger share alone would have sampled is not counted."""
    events = widened(5, to="supervised"), widened(10, to="autonomous"), applied(20, UNSURE, 2)
    past = begun(*events, policies=ALL)
    past.advance_to(slot(40))
    stage, shares = UNSURE.stages[1], past.stage_shares
    values = np.array([stage.blind / 2, stage.reviewed_share - 0.01, stage.reviewed_share + 0.01])
    at = np.full(3, slot(25))
    levels, buckets = past.get_stage_history(CREEK).find_levels(at), past.find_buckets(at, values)
    counted = {
        band: shares.find_audited(levels, np.full(3, band), buckets).tolist()
        for band in (UNRECORDED, NO_CONFIDENCE, BAND + 90)
    }
    assert counted == {
        UNRECORDED: [True, True, False],
        NO_CONFIDENCE: [True, True, True],
        BAND + 90: [True, True, False],
    }


def test_policies_that_differ_in_a_confidence_alone_have_rows_of_their_own():
    stage = replace(UNSURE.stages[1], unsure=(UnsureShare(0.5, 0.8),))
    stages = (UNSURE.stages[0], stage, *UNSURE.stages[2:])
    other = replace(UNSURE, hash="other", stages=stages)
    events = applied(20, UNSURE, 2), applied(30, other, 3)
    past = begun(*events, policies=ALL | {other.hash: other})
    assert len(past.stage_shares.reviewed_buckets) == 1 + 3 * len(HALF.stages)
