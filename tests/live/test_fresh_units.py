"""Which units are read beside a gate: those of the cell that close after the slot."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.commands import Actor
from rollout.kernel.calendar.instants import Cell, find_slot_before
from rollout.kernel.units import LATE_CASE
from rollout.live.evidence.fresh_units import FreshUnitReader
from rollout.live.evidence.stage_history import RolloutHistory
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.factories import HOUR, MINUTE, NOON
from tests.live.test_due_counting import TEXT, build_case, decide, predict, store

AT, GRACE = NOON + 6 * HOUR, 3 * HOUR
INSTANT = timedelta(microseconds=1)
WINDOWS = 'windows: [{id: day, hours: "06:00-17:00"}, {id: night, hours: 24/7}]\n'
CASES = {  # when a case occurs, in which window, at which site
    "closes at the slot": (AT - GRACE, "day", "creek"),
    "closes just after it": (AT - GRACE + INSTANT, "day", "creek"),
    "is new": (AT - 62 * MINUTE, "day", "creek"),
    "of another window": (AT - 2 * MINUTE, "night", "creek"),
    "of another site": (AT - 63 * MINUTE, "day", "lake"),
}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_fresh_units_are_those_of_the_cell_that_close_after_the_slot(database):
    text = TEXT.replace("UNIT", "case").replace("grace: 1h", "grace: 3h")
    text = text.replace("[creek]", "[creek, lake]").replace("stages:", f"{WINDOWS}stages:")
    apply_policy(database, text, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    for key, (occurred_at, window, site) in CASES.items():
        case = replace(build_case(key), occurred_at=occurred_at, window=window, site=site)
        decision = replace(decide(key, "ana", 0), submitted_at=occurred_at + MINUTE)
        own = predict(key) if (window, site) == ("day", "creek") else predict(key, label="none")
        predictions = [own, predict(key, "v2", "none")]
        store(database, case, *predictions, decision, at=occurred_at + MINUTE)
    history = RolloutHistory()
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "lake")
        slot = find_slot_before(AT, state.policy.tick)
        events = Ledger(transaction, state.rollout).list_events()
        history.add_events(tuple(events), lambda _: state.policy)
        reader = FreshUnitReader(transaction, state, history, slot)
        units = reader.read_units((Cell("creek", "day"), "v1"))
    assert (slot - units.rows.occurred).tolist() == [3, 2]
    assert [each.predicted for each in units.unit_classes.classes] == ["bear"]  # no other's


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_late_case_is_fresh_from_its_receipt_until_it_counts_as_missing(database):
    """It counts a grace after its decision, however long ago it occurred."""
    text = TEXT.replace("UNIT", "case").replace("grace: 1h", "grace: 3h")
    apply_policy(database, text, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    decided_at, received_at = AT - 160 * MINUTE, AT - 150 * MINUTE  # it occurred in `NOON`'s minute
    store(database, replace(decide("a", "ana", 0), submitted_at=decided_at), at=decided_at)
    store(database, build_case("a"), predict("a", label="none"), at=received_at)
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "lake")
        history, slot = RolloutHistory(), find_slot_before(AT, state.policy.tick)
        events = Ledger(transaction, state.rollout).list_events()
        history.add_events(tuple(events), lambda _: state.policy)
        reader = FreshUnitReader(transaction, state, history, slot)
        units = reader.read_units((state.policy.cells[0], "v1"))
    assert [each.predicted for each in units.unit_classes.classes] == [LATE_CASE]
    assert len(units.rows.slot) == 1
