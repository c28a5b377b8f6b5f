"""Edge client: keeps one snapshot, renews it and decides with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from rollout.client.leases import (
    MAX_STEP_BACK,
    ClockReading,
    Clocks,
    MachineClocks,
    compute_time_left,
)
from rollout.client.local_scope import (
    InvalidSnapshotError,
    LeaseBounds,
    LoadPolicy,
    LocalAssignment,
    LocalScope,
    build_local_assignment,
    parse_snapshot,
)
from rollout.client.seen_heads import HeadStore, LedgerHead, MemoryHeadStore
from rollout.core.scope.assignment import Assignment, CaseQuestion, get_full_lease
from rollout.core.scope.assignment_table import EDGE_MARGIN, AssignmentTable

FetchScope = Callable[[LedgerHead], Mapping[str, Any]]
"""Returns the parsed body of GET `scope`.

Send the head as `ledger_revision`, `ledger_hash` and `ledger_code`.
"""

HUMAN_WITHOUT_SCOPE = LocalAssignment(
    "human", "shadow", "blind", False, 1.0, "no scope was read yet", 0, (), 0.0, None
)
HUMAN_UNTIL_NEWER_SCOPE = replace(
    HUMAN_WITHOUT_SCOPE, reason="handed over to a human until a newer scope is read"
)


def build_assignment_fields(assignment: LocalAssignment) -> dict[str, Any]:
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


@dataclass(frozen=True, slots=True)
class CompiledSnapshot:
    """A snapshot's assignments in seconds of the boot clock.

    They are used only while the client has this very snapshot and no later hand-over.
    """

    snapshot: HeldSnapshot
    hand_over: object
    read_seconds: Callable[[], tuple[float | None, float]]
    find_answer: Callable[..., LocalAssignment | None]  # of the table


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
    _hand_over: object = field(default_factory=object, init=False, repr=False)
    _compiled: CompiledSnapshot | None = field(default=None, init=False, repr=False)

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
        hand_over = self._hand_over
        scope_snapshot = parse_snapshot(self.fetch_scope(known_head), self.load_policy)
        if not scope_snapshot.head.follows(known_head):
            raise LedgerRolledBackError(
                f"{known_head} was seen, and now the ledger ends with {scope_snapshot.head}"
            )
        if scope_snapshot.head != known_head:
            self.head_store.store(scope_snapshot.head)
        if self._hand_over is not hand_over:  # while it was fetched: it can't know of the harm
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
        self._hand_over = object()  # unlike any before: `renew` compares it
        if self.snapshot is not None:
            self._raise_latch(self.snapshot.snapshot.head)  # it holds even if a store fails
        self._hand_over = object()  # what another thread compiled meanwhile is void
        self._raise_latch(self.head_store.load())
        self.latch_store.store(self.latched_head)

    def _raise_latch(self, head: LedgerHead) -> None:
        """Latch at a head, unless the latch is at a newer one."""
        if head.is_newer_than(self.latched_head):
            self.latched_head = head

    def decide(
        self,
        site: str,
        at: datetime | None,
        version: str,
        key: str,
        episode: str = "",
        confidence: float | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> LocalAssignment:
        """Return who decides a case; in doubt the human.

        Start an action of the model at once, and finish it within `action_delay`.
        """
        compiled = self._compiled
        if (
            compiled is None
            or compiled.snapshot is not self.snapshot
            or compiled.hand_over is not self._hand_over
        ):
            compiled = self._compile_snapshot()
        if compiled is not None:
            boot, wall = compiled.read_seconds()
            if boot is not None:
                answer = compiled.find_answer(
                    site, at, version, key, boot, episode, confidence, attributes
                )
                if (
                    answer is not None
                    and (bounds := answer.bounds) is not None
                    and bounds.boot_since <= boot < answer.usable_until - EDGE_MARGIN
                    and bounds.wall_since < wall < bounds.wall_until
                ):
                    return answer
        question = CaseQuestion(site, at, version, key, episode, confidence, attributes)
        return self._decide_by_rules(question)

    def _decide_by_rules(self, question: CaseQuestion) -> LocalAssignment:
        """Return who decides, by the rules themselves."""
        snapshot, now = self.snapshot, self.clocks.read()
        if snapshot is None:
            return HUMAN_WITHOUT_SCOPE
        if not snapshot.snapshot.head.is_newer_than(self.latched_head):
            return HUMAN_UNTIL_NEWER_SCOPE
        time_left = self._compute_time_left(snapshot, now, question.site)
        assignment = snapshot.snapshot.decide_assignment(
            question, now=self._estimate_now(snapshot, now), time_left=time_left
        )
        if now.boot is None:
            return build_local_assignment(assignment)
        usable_until = now.boot + assignment.lease.total_seconds()
        bounds = self._compute_bounds(snapshot, question.site)
        return build_local_assignment(assignment, usable_until, bounds)

    def _compile_snapshot(self) -> CompiledSnapshot | None:
        """Compile the present snapshot; drop the former one first.

        None if there is none to decide by.
        """
        self._compiled = None
        hand_over, snapshot, now = self._hand_over, self.snapshot, self.clocks.read()
        if snapshot is None or not snapshot.snapshot.head.is_newer_than(self.latched_head):
            return None
        requested, scope = snapshot.requested_at.boot, snapshot.snapshot
        if requested is None or now.boot is None or not scope.salt:
            return None

        bounds_by_site: dict[str, LeaseBounds | None] = {}

        def build_answer(site: str, assignment: Assignment, until: float) -> LocalAssignment:
            if site not in bounds_by_site:
                bounds_by_site[site] = self._compute_bounds(snapshot, site)
            bounds = bounds_by_site[site]
            if bounds is None:
                return build_local_assignment(assignment)
            return build_local_assignment(assignment, min(until, bounds.boot_until), bounds)

        base = scope.issued_at - timedelta(seconds=requested)
        table = AssignmentTable(scope.scope, scope.policy, scope.salt, base, build_answer)
        compiled = self._compiled = CompiledSnapshot(
            snapshot, hand_over, self.clocks.read_seconds, table.find_answer
        )
        return compiled

    @property
    def permit(self) -> str:
        """Return the permit to send with actions, or ""."""
        return "" if self.snapshot is None else self.snapshot.snapshot.permits.get(self.site, "")

    def _compute_time_left(self, snapshot: HeldSnapshot, now: ClockReading, site: str) -> timedelta:
        full_lease = snapshot.snapshot.leases.get(site, timedelta(0))
        return compute_time_left(full_lease, snapshot.requested_at, now, self.action_delay)

    def _compute_bounds(self, snapshot: HeldSnapshot, site: str) -> LeaseBounds | None:
        """Return within which readings of the clocks the lease of a site is valid."""
        requested, lease = snapshot.requested_at, snapshot.snapshot.leases.get(site)
        if lease is None or requested.boot is None:
            return None
        time_left = self._compute_time_left(snapshot, requested, site)
        policy = snapshot.snapshot.policy
        full_lease = get_full_lease(policy, policy.sites_by_id.get(site)).total_seconds()
        wall = requested.wall.timestamp()
        return LeaseBounds(
            self.clocks,
            boot_since=requested.boot,
            boot_until=requested.boot + min(time_left.total_seconds(), full_lease),
            wall_since=wall - MAX_STEP_BACK.total_seconds(),
            wall_until=wall + lease.total_seconds(),
        )

    def _estimate_now(self, snapshot: HeldSnapshot, now: ClockReading) -> datetime:
        """Return the server's time or slightly later, without the wall clock."""
        if now.boot is None or snapshot.requested_at.boot is None:
            return now.wall
        return snapshot.snapshot.issued_at + timedelta(
            seconds=now.boot - snapshot.requested_at.boot
        )
