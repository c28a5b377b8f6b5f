"""No act under the old scope ends later than a lease after a stop, whatever the clocks do."""

from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout_client.client import EdgeClient
from rollout_client.leases import (
    MAX_CLOCK_DRIFT,
    ClockReading,
    compute_time_left,
)
from tests.client.edge_clients import (
    AFTER,
    BEFORE,
    LEASE,
    STALE,
    TAKES,
)
from tests.factories import HOUR, NOON


def chance(seed):
    return Random(seed)  # noqa: S311 - a simulation's, the same each time


@dataclass
class ClientWorld:
    """A service that is stopped at an instant, and a client whose clocks are as bad as they get.

    `now` is true time in seconds. The boot clock runs up to `MAX_CLOCK_DRIFT` off; the wall clock
    is off by minutes and set again now and then; the client also sleeps while it waits.
    """

    chance: Random
    stopped_at: float
    now: float = 0.0
    slept: float = 0.0
    awake_clock: bool = False  # the mutant's clock, which stands still in sleep
    rate: float = field(init=False)
    off: float = field(init=False)
    server_off: float = field(init=False)

    def __post_init__(self):
        self.rate = 1 + self.chance.uniform(-MAX_CLOCK_DRIFT, MAX_CLOCK_DRIFT)
        self.off = self.chance.uniform(-300, 300)
        self.server_off = self.chance.uniform(-5, 5)

    def pass_by(self, seconds, *, asleep=False):
        self.now += seconds
        self.slept += seconds if asleep else 0.0

    def read(self):
        counted = self.now - (self.slept if self.awake_clock else 0.0)
        return ClockReading(
            1_000 + counted * self.rate, NOON + HOUR + timedelta(seconds=self.now + self.off)
        )

    def read_seconds(self):
        reading = self.read()
        return reading.boot, reading.wall.timestamp()

    def fetch(self, head):
        self.pass_by(self.chance.expovariate(4))
        confirmed = self.now - self.chance.uniform(0, STALE.total_seconds())
        told = head.revision >= AFTER["revision"]  # a service that lacks it asks its database
        body = AFTER if told or confirmed >= self.stopped_at else BEFORE
        at = NOON + HOUR + timedelta(seconds=self.now + self.server_off)
        self.pass_by(self.chance.expovariate(4), asleep=self.chance.random() < 0.3)
        if self.chance.random() < 0.2:
            self.pass_by(self.chance.uniform(0, 90), asleep=True)
        return body | {"issued_at": at.isoformat()}

    def something_happens(self, client):
        kind = self.chance.random()
        near = 0 <= self.stopped_at + STALE.total_seconds() - self.now < 2
        if (client.is_renewal_due and kind < 0.3 and self.now < self.stopped_at) or (
            near and kind < 0.5
        ):
            client.renew()  # later nothing gets through: who gets through is told
        elif kind < 0.32:
            self.off = self.chance.uniform(-300, 300)  # somebody or NTP sets the clock
        elif kind < 0.34:
            self.pass_by(self.chance.uniform(0, 120), asleep=True)
        else:
            self.pass_by(self.chance.uniform(0, 1))

    def overrun(self, client_type):
        """Return by how many seconds an effect under the old scope came after T + s + L."""
        client = client_type("creek", self.fetch, self, TAKES)
        worst, end = -1e9, self.stopped_at + (STALE + LEASE).total_seconds()
        while self.now < self.stopped_at + 150:
            self.something_happens(client)
            at = NOON + HOUR + timedelta(seconds=self.now)
            if client.decide("creek", at, "v1", "k9").decider == "model":
                effect = self.now + self.chance.uniform(0, TAKES.total_seconds())
                worst = max(worst, effect - end)
        return worst


@pytest.mark.slow
@settings(max_examples=150)
@given(st.integers(0, 2**32), st.floats(0, 200))
def test_every_act_under_the_old_scope_ends_by_the_stop_plus_staleness_plus_lease(seed, stop):
    assert ClientWorld(chance(seed), stop).overrun(EdgeClient) <= 0


class ByInstant(EdgeClient):
    """The mutant that takes `fresh_until` for an instant of its own clock."""

    def _compute_time_left(self, held, now, site):
        return held.snapshot.issued_at + held.snapshot.leases[site] - now.wall - self.action_delay


class FromReceipt(EdgeClient):
    """The mutant that counts from when the answer came."""

    def renew(self):
        super().renew()
        object.__setattr__(self.snapshot, "requested_at", self.clocks.read())

    def _compute_time_left(self, held, now, site):
        return compute_time_left(
            held.snapshot.leases[site],
            held.requested_at,
            ClockReading(now.boot, held.requested_at.wall),
            self.action_delay,
        )


class NoTimeToAct(EdgeClient):
    """The mutant that forgets how long an act takes."""

    def _compute_time_left(self, held, now, site):
        return compute_time_left(
            held.snapshot.leases[site],
            held.requested_at,
            ClockReading(now.boot, held.requested_at.wall),
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant", "awake_clock"),
    [(ByInstant, False), (FromReceipt, True), (FromReceipt, False), (NoTimeToAct, False)],
    ids=["an instant", "awake from receipt", "boot from receipt", "no time to act"],
)
def test_a_mutant_of_the_lease_rule_is_caught(mutant, awake_clock):
    worlds = (ClientWorld(chance(n), 50 + n % 100, awake_clock=awake_clock) for n in range(120))
    assert max(world.overrun(mutant) for world in worlds) > 0


@pytest.mark.slow
def test_the_rule_itself_passes_where_the_mutants_fail():
    worlds = (ClientWorld(chance(n), 50 + n % 100) for n in range(120))
    assert max(world.overrun(EdgeClient) for world in worlds) <= 0
