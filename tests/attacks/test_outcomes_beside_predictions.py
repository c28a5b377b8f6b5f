"""A key that predicts one case of an episode, and sends the outcomes of another."""

import pytest

from rollout.data.counting.counts import CountedOutcomes
from rollout.data.ledger.ledger import Accounts
from rollout.engine.decide.commands import Actor
from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.evidence.outcome_buffer import OutcomeBuffer
from rollout.engine.evidence.outcome_resolution import resolve_outcome_units
from rollout.engine.records.records import Case, Outcome, Prediction
from rollout.engine.slots.record_feed import HistoryFeeds
from rollout.features.records.ingest import _Batch
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.evidence_sources import OWN_EPISODE_PREDICTION
from rollout.live.evidence.evidence_feeds import LiveGuardFeeds
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.evidence.unit_counting import open_stored_history
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.data.conftest import database, other, url
from tests.factories import HOUR, MINUTE, NOON

pytestmark = pytest.mark.slow

__all__ = ["database", "other", "url"]
POLICY = """
rollout: shop
timezone: UTC
levers: [{id: price, labels: [low, high]}]
sites: [kiosk, stall]
stages: [{id: trial, share: 30%}]
outcomes: [{id: profit, from: 0, to: 10, in: EUR, better: more, closes: 2h}]
evidence: {unit: episode, grace: 1h}
gates: [{to: trial, require: [{measure: agreement, at_least: 80%}]}]
guards: [{measure: harm, at_most: 0, over: 4h, then: shadow}]
tick: 30m
"""
CELL, SOLD = Cell("kiosk", "always"), NOON + MINUTE


def send(database, account, *records, at=SOLD):
    with database.begin_write() as transaction:
        batch = _Batch(transaction, load_rollout_state(transaction, "shop"), records, at)
        batch.set_sources(account)
        batch.store(Accounts(transaction).add_id(account), permit_signer=None)


def predict(key, version="v1"):
    return Prediction(key=key, version=version, answers={"price": "low"})


@pytest.fixture
def episode(database):
    """Return a database with an episode: `door` predicts its first case, `camera` the second."""
    apply_policy(database, POLICY, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    for key, at in (("a", SOLD), ("b", SOLD + MINUTE)):
        case = Case(key=key, site="kiosk", window="always", occurred_at=at, episode="night")
        send(database, "door", case)
    send(database, "door", predict("a"))
    send(database, "camera", predict("b", "v2"))
    return database


def read_stored(database):
    """Return the policy, all stored records, and their placement."""
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "shop")
        records = open_stored_history(transaction, state).load_records()
    return state.policy, records, place_cases(records, state.policy, state.rollout.salt)


def read_faults(database):
    """Return why the unit of v1 is no evidence: as a tick counted it, and in a replay."""
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "shop").rollout
        lines = list(CountedOutcomes(transaction, rollout).read_lines(after=-1, until=2**62))
    policy, records, placement = read_stored(database)
    units = resolve_outcome_units(records, placement, policy, policy.outcomes[0])
    counted = [line.source_fault for line in lines if line.version == "v1"]
    return counted, units.filter(version="v1")["source_fault"].to_list()


@pytest.mark.parametrize(("account", "fault"), [("camera", OWN_EPISODE_PREDICTION), ("till", None)])
def test_ticks_replay_and_doctor_judge_the_sender_by_the_episode(episode, account, fault):
    outcome = Outcome(key="a", at=SOLD + HOUR, values={"profit": 9.0})
    send(episode, account, outcome, at=SOLD + HOUR)
    Ticker(episode, "shop", "one").tick(SOLD + 4 * HOUR)
    assert read_faults(episode) == ([fault], [fault])
    assert EvidenceCheck(episode, "shop").check_all().faults == []
    # a prediction that arrives later changes nothing that was counted
    send(episode, "till", predict("b", "v3"), at=SOLD + 5 * HOUR)
    assert EvidenceCheck(episode, "shop").check_all().faults == []


def read_harms(database, feeds):
    """Return the slots of harms at the kiosk: as ticks hold them, and in a replay."""
    policy, records, placement = read_stored(database)
    guard = next(guard for guard in policy.guards if guard.condition.measure.name == "harm")
    replayed = HistoryFeeds(records, placement, policy)
    return [source.read_answers(CELL, "", guard)[0].tolist() for source in (feeds, replayed)]


def load(database, feeds, at):
    with database.begin_read() as transaction:
        return feeds.load_arrivals(transaction, load_rollout_state(transaction, "shop"), at)


def test_ticks_and_replay_keep_a_harm_that_such_a_key_takes_back(episode):
    feeds, harmed_at = LiveGuardFeeds(OutcomeBuffer()), SOLD + HOUR
    known_slots = []
    revisions = [("till", "burn", harmed_at), ("camera", "burn", SOLD), ("camera", None, harmed_at)]
    for number, (account, harm, at) in enumerate(revisions, 1):
        received_at = harmed_at + (number - 1) * HOUR
        outcome = Outcome(key="a", at=at, harm=harm, revision=number)
        send(episode, account, outcome, at=received_at)
        load(episode, feeds, received_at)
        slots, replayed_slots = read_harms(episode, feeds)
        assert slots == replayed_slots
        known_slots.append(slots)
    # the till's, whatever the camera says of it later and for which time
    assert len(known_slots[0]) == 1
    assert known_slots == [known_slots[0]] * 3


def test_ticks_and_replay_drop_a_harm_that_its_source_takes_back(episode):
    feeds = LiveGuardFeeds(OutcomeBuffer())
    for key in ("a", "b"):
        send(episode, "till", Outcome(key=key, at=SOLD + HOUR, harm="burn"), at=SOLD + HOUR)
    load(episode, feeds, SOLD + HOUR)
    assert [len(slots) for slots in read_harms(episode, feeds)] == [2, 2]
    send(episode, "till", Outcome(key="a", at=SOLD + HOUR, revision=2), at=SOLD + HOUR)
    assert load(episode, feeds, SOLD + HOUR) == {"kiosk"}
    slots, replayed_slots = read_harms(episode, feeds)
    assert (slots, len(slots)) == (replayed_slots, 1)


def test_ticks_keep_a_harm_whose_case_is_moved_away(episode):
    feeds = LiveGuardFeeds(OutcomeBuffer())
    send(episode, "till", Outcome(key="a", at=SOLD + HOUR, harm="burn"), at=SOLD + HOUR)
    load(episode, feeds, SOLD + HOUR)
    moved = Case(
        key="a", site="stall", window="always", occurred_at=SOLD, episode="night", revision=2
    )
    send(episode, "door", moved, at=SOLD + HOUR)
    load(episode, feeds, SOLD + HOUR)
    assert len(read_harms(episode, feeds)[0]) == 1
