"""Edge client: keeps one snapshot, renews it and decides with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from rollout.client.clocks import ClockReading, Clocks, MachineClocks
from rollout.client.leases import compute_time_left
from rollout.client.local_scope import (
    InvalidSnapshotError,
    LoadPolicy,
    LocalScope,
    parse_snapshot,
)
from rollout.client.seen_heads import HeadStore, LedgerHead, MemoryHeadStore
from rollout.core.scope.assignment import Assignment, CaseQuestion

FetchScope = Callable[[LedgerHead], Mapping[str, Any]]
"""Returns the parsed body of GET `scope`.

Send the head as `ledger_revision`, `ledger_hash` and `ledger_code`.
"""

HUMAN_WITHOUT_SCOPE = Assignment(
    "human", "shadow", "blind", False, 1.0, "no scope was read yet", 0, timedelta(0)
)
HUMAN_UNTIL_NEWER_SCOPE = replace(
    HUMAN_WITHOUT_SCOPE, reason="handed over to a human until a newer scope is read"
)


def build_assignment_fields(assignment: Assignment) -> dict[str, Any]:
    """Return the fields by which a prediction that is sent later carries its assignment."""
    return {
        "decider": assignment.decider,
        "exposure": assignment.exposure,
        "share": assignment.share,
        "scope_revision": assignment.revision,
    }


class LedgerRolledBackError(InvalidSnapshotError):
    """The service's ledger lacks an entry that this client has seen."""


@dataclass(frozen=True, slots=True)
class HeldSnapshot:
    """A snapshot, and both clocks as they were before it was requested."""

    snapshot: LocalScope
    requested_at: ClockReading


@dataclass(slots=True)
class EdgeClient:
    """One site's client. A restart forgets its lease.

    Attributes:
        fetch_scope: requests the scope from the service.
        load_policy: parses a policy's text.
        action_delay: the longest time from a decision to its effect.
        head_store: stores the newest head; use a file to keep it over a restart.
        latch_store: stores the head at which cases were handed over; use a file here too.
    """

    site: str
    fetch_scope: FetchScope
    load_policy: LoadPolicy
    clocks: Clocks = field(default_factory=MachineClocks)
    action_delay: timedelta = timedelta(0)
    head_store: HeadStore = field(default_factory=MemoryHeadStore)
    latch_store: HeadStore = field(default_factory=MemoryHeadStore)
    snapshot: HeldSnapshot | None = None
    latched_head: LedgerHead = field(init=False)
    _hand_overs: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        """Load the latch that an earlier run has set."""
        self.latched_head = self.latch_store.load()

    def renew(self) -> None:
        """Fetch the scope; on errors the last one stays for its lease.

        Raises:
            InvalidSnapshotError: the response is no usable snapshot.
            LedgerRolledBackError: the service lacks an entry that this client has seen; alert a
                user.
        """
        known_head, requested_at = self.head_store.load(), self.clocks.read()
        hand_overs = self._hand_overs
        scope_snapshot = parse_snapshot(self.fetch_scope(known_head), self.load_policy)
        if not scope_snapshot.head.follows(known_head):
            raise LedgerRolledBackError(
                f"{known_head} was seen, and now the ledger ends with {scope_snapshot.head}"
            )
        if scope_snapshot.head != known_head:
            self.head_store.store(scope_snapshot.head)
        if self._hand_overs != hand_overs:  # while it was fetched: it can't know of the harm
            self._raise_latch(scope_snapshot.head)
            self.latch_store.store(self.latched_head)
        self.snapshot = HeldSnapshot(scope_snapshot, requested_at)

    @property
    def is_renewal_due(self) -> bool:
        """Return whether a third of the lease has passed.

        True without a snapshot.
        """
        snapshot = self.snapshot
        if snapshot is None:
            return True
        full_lease = snapshot.snapshot.leases.get(self.site, timedelta(0))
        return (
            self._compute_time_left(snapshot, self.clocks.read(), self.site) <= full_lease * 2 / 3
        )

    def hand_over(self) -> None:
        """Let a human decide every case until a snapshot has a newer ledger head.

        For harm that the service has not heard of: send its record before the next `renew`.
        """
        self._hand_overs += 1
        if self.snapshot is not None:
            self._raise_latch(self.snapshot.snapshot.head)  # it holds even if a store fails
        self._raise_latch(self.head_store.load())
        self.latch_store.store(self.latched_head)

    def _raise_latch(self, head: LedgerHead) -> None:
        """Latch at a head, unless the latch is at a newer one."""
        if head.is_newer_than(self.latched_head):
            self.latched_head = head

    def decide(self, question: CaseQuestion) -> Assignment:
        """Return who decides a case; in doubt the human.

        Start an action of the model at once, and finish it within `action_delay`.
        """
        snapshot, now = self.snapshot, self.clocks.read()
        if snapshot is None:
            return HUMAN_WITHOUT_SCOPE
        if not snapshot.snapshot.head.is_newer_than(self.latched_head):
            return HUMAN_UNTIL_NEWER_SCOPE
        time_left = self._compute_time_left(snapshot, now, question.site)
        return snapshot.snapshot.decide_assignment(
            question, now=self._estimate_now(snapshot, now), time_left=time_left
        )

    @property
    def permit(self) -> str:
        """Return the permit to send with actions, or ""."""
        return "" if self.snapshot is None else self.snapshot.snapshot.permits.get(self.site, "")

    def _compute_time_left(self, snapshot: HeldSnapshot, now: ClockReading, site: str) -> timedelta:
        full_lease = snapshot.snapshot.leases.get(site, timedelta(0))
        return compute_time_left(full_lease, snapshot.requested_at, now, self.action_delay)

    def _estimate_now(self, snapshot: HeldSnapshot, now: ClockReading) -> datetime:
        """Return the server's time or slightly later, without the wall clock."""
        if now.boot is None or snapshot.requested_at.boot is None:
            return now.wall
        return snapshot.snapshot.issued_at + timedelta(
            seconds=now.boot - snapshot.requested_at.boot
        )
