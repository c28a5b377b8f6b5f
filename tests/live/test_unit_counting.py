"""What is queued without resolving is what resolving queues, and no unit is ever left out."""

import random
from datetime import timedelta

import pytest

from rollout.data.counting.count_queue import CountQueue
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.records import RecordStore
from rollout.engine.decide.commands import Actor
from rollout.engine.records.records import Case, Decision, Outcome, Prediction
from rollout.kernel.calendar.instants import to_instant
from rollout.live.evidence.unit_counting import queue_new_cases, resolve_case_units
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.data.conftest import database, other, url
from tests.factories import HOUR, MINUTE, NOON

__all__ = ["database", "other", "url"]

POLICY = """
rollout: ramps
timezone: UTC
levers: [{{id: parcel, labels: [damaged, sound]}}]
sites: [ramp-a]
evidence: {{unit: case, grace: 6h, outside: {outside}, verdicts: {verdicts}}}
gates: [{{to: supervised, require: [{{measure: agreement, at_least: 95%}}]}}]
"""
EVER = NOON + timedelta(days=30)


def a_history(seed):
    """Return records of some cases in batches, in any order, with corrections and repeats."""
    chance = random.Random(seed)  # noqa: S311 - a seeded test
    records = []
    for n in range(6):
        key, occurred = f"c{n}", NOON - chance.choice([0, 1, 14, 15, 300, 2000]) * MINUTE
        site = chance.choice(["ramp-a", "ramp-a", "ramp-a", "moon"])
        records.append(Case(key=key, site=site, occurred_at=occurred, window="always"))
        if chance.random() < 0.2:
            later = occurred + MINUTE
            records.append(
                Case(key=key, site="ramp-a", occurred_at=later, window="always", revision=2)
            )
        for version in chance.sample(["v1", "v2"], chance.choice([0, 1, 1, 2])):
            at = chance.choice([None, occurred + MINUTE, occurred + 20 * MINUTE])
            records.append(Prediction(key=key, version=version, answers={"parcel": "sound"}, at=at))
        for reviewer in chance.sample(["ana", "bo", "cy"], chance.choice([0, 1, 1, 2, 3])):
            claim = chance.choice(["blind", "blind", "assisted", "unknown", "revealed"])
            records.append(
                Decision(
                    key=key,
                    reviewer=reviewer,
                    answers={"parcel": "sound"},
                    exposure=claim,
                    claims=claim,
                    submitted_at=chance.choice([None, occurred + chance.choice([2, 40]) * MINUTE]),
                )
            )
    chance.shuffle(records)
    cuts = sorted(chance.sample(range(len(records)), 2))
    return records[: cuts[0]], records[cuts[0] : cuts[1]], records[cuts[1] :]


def kept(database, batches):
    """Keep the batches an hour apart; return what is queued, and what resolving gives."""
    for hours, batch in enumerate(batches):
        at = NOON + hours * HOUR
        with database.begin_write() as transaction:
            stood = load_rollout_state(transaction, "ramps")
            answers = RecordStore(transaction, stood.rollout).store(batch, received_at=at)
            queue_new_cases(transaction, stood, answers, at)
    with database.begin_write() as transaction:
        keys = ExternalKeys(transaction, stood.rollout)
        numbers = keys.find_ids([f"c{n}" for n in range(6)])
        units = resolve_case_units(transaction, stood, set(numbers.values()))
        found = units.select("slot", "case_key", "track").unique().iter_rows()
        resolved = {
            (to_instant(slot, stood.policy.tick), numbers[key], track) for slot, key, track in found
        }
        waiting = CountQueue(transaction, stood.rollout).list_due(until=EVER, limit=10_000)
        return {(due.at, due.case_id, due.track) for due in waiting}, resolved


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("outside", "verdicts"), [("blind", 1), ("unknown", 3)])
def test_every_unit_is_queued_for_the_slot_in_which_it_counts(database, seed, outside, verdicts):
    apply_policy(database, POLICY.format(outside=outside, verdicts=verdicts), Actor("zoe"), NOON)
    queued, resolved = kept(database, a_history(seed))
    assert resolved
    assert resolved <= queued


@pytest.mark.parametrize("batches", [1, 2])
def test_a_late_case_whose_outcome_came_first_is_counted(database, batches):
    """Its first decision is the outcome, so it is due a grace later: nothing else queues it."""
    apply_policy(database, POLICY.format(outside="unknown", verdicts=1), Actor("zoe"), NOON)
    case = Case(key="c0", site="ramp-a", occurred_at=NOON - 10 * HOUR, window="always")
    prediction = Prediction(key="c0", version="v1", answers={"parcel": "sound"})
    outcome = Outcome(key="c0", at=NOON - HOUR, answers={"parcel": "damaged"})
    sent = [[outcome], [case, prediction]] if batches == 2 else [[outcome, case, prediction]]
    queued, resolved = kept(database, sent)
    assert {track for _, _, track in resolved} == {"gate"}
    assert resolved <= queued


def test_of_plain_pairs_it_is_the_same_and_nothing_more(database):
    apply_policy(database, POLICY.format(outside="unknown", verdicts=1), Actor("zoe"), NOON)
    pairs = []
    for n in range(6):
        key, occurred = f"c{n}", NOON - n * 7 * MINUTE
        pairs += [
            Case(key=key, site="ramp-a", occurred_at=occurred, window="always"),
            Prediction(key=key, version="v1", answers={"parcel": "sound"}),
            Decision(
                key=key,
                reviewer="ana",
                answers={"parcel": "sound"},
                exposure=("blind", "assisted")[n % 2],
                submitted_at=occurred + n * 11 * MINUTE,
            ),
        ]
    queued, resolved = kept(database, [pairs])
    assert queued == resolved
    assert {track for _, _, track in queued} == {"gate", "guard", "assisted"}


def test_of_several_revisions_in_one_batch_the_highest_says_when(database):
    apply_policy(database, POLICY.format(outside="unknown", verdicts=1), Actor("zoe"), NOON)
    right = Case(key="c0", site="ramp-a", occurred_at=NOON, window="always", revision=2)
    wrong = Case(key="c0", site="moon", occurred_at=NOON - HOUR, window="always")
    said = Prediction(key="c0", version="v1", answers={"parcel": "sound"})
    queued, resolved = kept(database, [[right, wrong, said]])
    assert queued
    assert queued == resolved
