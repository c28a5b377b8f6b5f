"""A stop in an outage, at a replica that last read an earlier policy."""

import pytest

from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import OPERATOR, AssignedRole, Caller
from rollout.engine.decide.stops import StopTarget
from rollout.features.access.authentication import Authenticator
from rollout.features.process.replica_safety import ReplicaSafety
from rollout.features.stops.stop_options import StopNotStoredError
from rollout.features.stops.stops import stop_at_once
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
