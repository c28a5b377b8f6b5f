"""A stop in an outage, at a replica that last read an earlier policy or before an edit of it."""

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import PendingStop
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import OPERATOR, AssignedRole, Caller
from rollout.engine.decide.stops import StopTarget
from rollout.engine.events import Resumed
from rollout.features.access.authentication import Authenticator
from rollout.features.process.replica_safety import ReplicaSafety
from rollout.features.stops.stop_options import StopNotStoredError
from rollout.features.stops.stops import append_pending_stop, stop_at_once
from rollout.kernel.calendar.instants import Cell
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from rollout.live.state_cache import MAX_STALENESS
from tests.api.stops.test_stops_in_outages import outage
from tests.data.conftest import database, other, url
from tests.factories import NOON

__all__ = ["database", "other", "url"]
POLICY = """
rollout: shop
timezone: UTC
levers: [{id: price, labels: [low, high]}]
sites: SITES
stages: [{id: trial, share: 30%}]
evidence: {unit: case}
gates: [{to: trial, require: [{measure: agreement, at_least: 80%}]}]
"""
SITES = {"renamed": "[{id: hill, was: creek}]", "added": "[creek, hill]"}


@pytest.mark.parametrize("change", SITES)
def test_it_stops_what_the_policy_in_force_has(database, other, monkeypatch, change):
    monkeypatch.setattr("rollout.engine.decide.policy_changes.list_looser_rules", lambda *_: ())
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: NOON - NOON)
    zoe, ana = Actor("zoe"), Caller("ana", role_assignments=(AssignedRole(OPERATOR),))
    apply_policy(
        database,
        POLICY.replace("SITES", "[creek]"),
        zoe,
        NOON,
        salt=bytes(32),
        service_salt=bytes(32),
    )
    clock = ManualClock(NOON)
    service = build_service(database, Authenticator(database, clock), clock)
    service.autonomy.require_writes(0)
    service.state_cache.load_rollout("shop")
    clock.since_boot += MAX_STALENESS + 1
    apply_policy(
        other,
        POLICY.replace("SITES", SITES[change]),
        zoe,
        NOON,
        salt=bytes(32),
        service_salt=bytes(32),
    )
    with outage(database), pytest.raises(StopNotStoredError):
        stop_at_once(service, ana, "shop", StopTarget(is_everything=True), at=NOON)
    ReplicaSafety(service, "one").run_pass()
    with other.begin_read() as transaction:
        state = load_rollout_state(transaction, "shop")
    (stop,) = state.scope.stops.values()
    assert stop.cells == state.policy.cell_set
    assert "hill" in {cell.site for cell in stop.cells}


def apply_sites(database, sites):
    text = POLICY.replace("SITES", sites)
    apply_policy(database, text, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))


def stop_after(database, monkeypatch, before, after):
    """Return a function that appends a stop of all sites before an edit, and returns the stops."""
    monkeypatch.setattr("rollout.engine.decide.policy_changes.list_looser_rules", lambda *_: ())
    apply_sites(database, f"[{', '.join(before)}]")
    cells = tuple(Cell(site, "always") for site in before)
    stop = PendingStop("x", "shop", cells, Actor("bo"), "fog", NOON, drill=False)
    apply_sites(database, after)

    def append():
        append_pending_stop(database, stop)
        with database.begin_read() as transaction:
            return tuple(load_rollout_state(transaction, "shop").scope.stops.values())

    return append


def test_a_stop_that_waits_follows_a_site_to_its_new_name(database, monkeypatch):
    append = stop_after(database, monkeypatch, ["creek"], SITES["renamed"])
    (stop,) = append()
    assert stop.cells == {Cell("hill", "always")}
    assert append() == (stop,)


def test_a_stop_that_was_resumed_stays_so_though_a_site_has_left_meanwhile(database, monkeypatch):
    append = stop_after(database, monkeypatch, ["creek", "lake"], "[creek]")
    (stop,) = append()
    with database.begin_write() as transaction:
        ledger = Ledger(transaction, Rollouts(transaction).find("shop"))
        resumed = Resumed(at=NOON, by="policy", stop=stop.id, proposal="P-9")
        ledger.append([resumed], after=ledger.load_head().revision)
    assert append() == ()
