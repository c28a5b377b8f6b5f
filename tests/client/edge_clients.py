"""Clients of one site, with the scope and the clocks that a test gives them."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout_client.client import EdgeClient
from rollout_client.leases import (
    ClockReading,
)
from rollout_client.local_scope import parse_snapshot
from tests.client.local_answers import SALT, build_body
from tests.factories import HOUR, MINUTE, NOON, autonomous

SECOND = timedelta(seconds=1)
LEASE, STALE, TAKES = MINUTE, SECOND / 2, 2 * SECOND


def build_scope_body(
    rollout, *, issued_at=None, salt=SALT, number=None, sites=("creek", "lake"), lease=LEASE
):
    """Return a rollout's scope as the service sends it, as JSON."""
    return build_body(
        rollout.policy,
        rollout.scope,
        issued_at or rollout.at,
        dict.fromkeys(sites, lease),
        salt=salt,
        number=number,
    )


OPEN = autonomous()
STOPPED = autonomous()
STOPPED.stop()
BEFORE, AFTER = build_scope_body(OPEN), build_scope_body(STOPPED)


def local(rollout, **changed):
    return parse_snapshot(build_scope_body(rollout, **changed))


@dataclass
class MovableClocks:
    """Clocks that a test moves."""

    boot: float | None = 100.0
    wall: datetime = NOON + HOUR

    def read(self):
        return ClockReading(self.boot, self.wall)

    def read_seconds(self):
        return self.boot, self.wall.timestamp()

    def move(self, seconds):
        self.boot += seconds
        self.wall += timedelta(seconds=seconds)


def create_client(*bodies, clocks=None, **more):
    given_out = iter(bodies)
    return EdgeClient("creek", lambda _: next(given_out), clocks or MovableClocks(), **more)


def ask(client, key="k9", at=NOON + HOUR, site="creek", version="v1"):
    return client.decide(site, at, version, key)
