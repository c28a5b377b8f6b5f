"""Units are counted again from the records that they rest on, each from its own."""

from contextlib import suppress
from datetime import timedelta

import pytest

from rollout import faults
from rollout.data.tables.tables import counted_units
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.features.records.ingest import ingest_items
from rollout.live.clock import ManualClock
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.policy_application import apply_policy
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.factories import HOUR, NOON
from tests.faults.kinds import Arm, Injected, raises

pytestmark = pytest.mark.slow

MINUTE = timedelta(minutes=1)
POLICY = """
rollout: bears
timezone: UTC
levers: [{id: alarm, labels: [bear, none], actions: {bear: siren, none: nothing}}]
sites: [creek]
evidence: {unit: case, grace: 1h, outside: blind,
  sources: {accounts: [{account: desk, reviewers: ["*"]}]}}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
tick: 1h
"""
BEAR = {"alarm": "bear"}
BOX = Caller("box", is_service_account=True, role_assignments=(AssignedRole("ingest"),))
DESK = Caller("desk", is_service_account=True, role_assignments=(AssignedRole("ingest-decisions"),))


def test_a_decision_between_two_passes_of_one_slot_is_no_difference(database):
    """A pass that broke off had counted the gate's unit; the next one counts the guard's."""
    apply_policy(database, POLICY, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    service = build_service(database, None, ManualClock(NOON))
    occurred_at, slot_at = NOON + 5 * MINUTE, NOON + 2 * HOUR
    case = Case(key="c", site="creek", occurred_at=occurred_at, window="always")
    prediction = Prediction(key="c", version="v1", answers=BEAR, at=occurred_at)
    ingest_items(service, BOX, "bears", [case, prediction], occurred_at)
    with (
        suppress(Injected),
        faults.install_action(Arm(0, raises), "tick.due-counted"),
    ):
        Ticker(database, "bears", "first").tick(slot_at)
    assert list_counted(database) == {"gate"}
    submitted_at = occurred_at + 58 * MINUTE
    decision = Decision(
        key="c", reviewer="dia", answers=BEAR, exposure="blind", submitted_at=submitted_at
    )
    ingest_items(service, DESK, "bears", [decision], slot_at - MINUTE)
    Ticker(database, "bears", "first").tick(slot_at + MINUTE)
    assert list_counted(database) == {"gate", "guard"}
    assert list(EvidenceCheck(database, "bears").check_all().faults) == []


def list_counted(database):
    """Return the tracks of the units, all of which are in one slot."""
    with database.begin_read() as transaction:
        rows = transaction.execute(counted_units.select()).all()
    assert len({row.slot for row in rows}) == 1
    return {row.track for row in rows}
