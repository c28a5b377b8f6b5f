"""A box in the field: it keeps one snapshot, renews it in time, and decides by it meanwhile."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from rollout.client.clocks import Clocks, MachineClocks, Reading
from rollout.client.leases import left
from rollout.client.local_scope import Load, LocalScope, NoSnapshotError, read_scope
from rollout.client.seen_heads import Head, HeadInMemory, Heads
from rollout.core.scope.assignment import Assignment, Question

Fetch = Callable[[Head], Mapping[str, Any]]
"""Asks GET `scope` with the known head, `ledger_revision` and `ledger_hash`; the body, parsed."""

NO_SCOPE = Assignment(
    "human", "shadow", "blind", False, 1.0, "no scope was read yet", 0, timedelta(0)
)


class SetBackError(NoSnapshotError):
    """The service's ledger lacks a row that this box was told of: it was set back."""


@dataclass(frozen=True, slots=True)
class Held:
    """A snapshot, and both clocks as they were before it was asked for."""

    local: LocalScope
    sent: Reading


@dataclass(slots=True)
class Box:
    """One site's client. A lease is in memory alone: a restart forgets it.

    Attributes:
        site: where it stands.
        fetch: asks the service for the scope.
        load: reads a policy's text.
        clocks: of the machine.
        takes: the longest time from a decision to its effect.
        heads: where the highest head is kept, a file if it is to outlive a restart.
    """

    site: str
    fetch: Fetch
    load: Load
    clocks: Clocks = field(default_factory=MachineClocks)
    takes: timedelta = timedelta(0)
    heads: Heads = field(default_factory=HeadInMemory)
    held: Held | None = None

    def renew(self) -> None:
        """Ask for the scope; the one before stays, for as long as its lease, if that fails.

        Raises:
            NoSnapshotError: what came is none that can be decided by.
            SetBackError: the service lacks what this box has seen; its people have to look.
        """
        known_head, requested_at = self.heads.highest(), self.clocks.read()
        scope_snapshot = read_scope(self.fetch(known_head), self.load)
        if not scope_snapshot.head.follows(known_head):
            raise SetBackError(
                f"{known_head} was seen, and now the ledger ends with {scope_snapshot.head}"
            )
        if scope_snapshot.head != known_head:
            self.heads.keep(scope_snapshot.head)
        self.held = Held(scope_snapshot, requested_at)

    @property
    def due(self) -> bool:
        """Say whether it is time to renew: a third of the lease has passed, or nothing is held."""
        snapshot = self.held
        if snapshot is None:
            return True
        full_lease = snapshot.local.leases.get(self.site, timedelta(0))
        return self._left(snapshot, self.clocks.read(), self.site) <= full_lease * 2 / 3

    def decide(self, asked: Question) -> Assignment:
        """Say who decides a case: people when the lease is over or anything else is in doubt.

        Begin an act of the model at once, and have it done within `takes`.
        """
        snapshot, now = self.held, self.clocks.read()
        if snapshot is None:
            return NO_SCOPE
        time_left = self._left(snapshot, now, asked.site)
        return snapshot.local.assign(asked, now=self._now(snapshot, now), left=time_left)

    @property
    def permit(self) -> str:
        """Return what actions here bring back; "" where nothing is held."""
        return "" if self.held is None else self.held.local.permits.get(self.site, "")

    def _left(self, held: Held, now: Reading, site: str) -> timedelta:
        full_lease = held.local.leases.get(site, timedelta(0))
        return left(full_lease, held.sent, now, self.takes)

    def _now(self, held: Held, now: Reading) -> datetime:
        """Return the server's instant or a little later; the wall clock is not believed."""
        if now.boot is None or held.sent.boot is None:
            return now.wall
        return held.local.issued_at + timedelta(seconds=now.boot - held.sent.boot)
