"""Edge client: keeps one snapshot, renews it and decides with it."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from threading import RLock
from typing import Any, Final

from rollout_client.assignments import LeaseBounds, LocalAssignment, build_local_assignment
from rollout_client.leases import (
    MAX_STEP_BACK,
    NO_TIME,
    ClockReading,
    Clocks,
    MachineClocks,
    compute_time_left,
    estimate_service_time,
)
from rollout_client.local_scope import InvalidSnapshotError, LocalScope, parse_head, parse_snapshot
from rollout_client.prepared_answers import PreparedAnswers, PresentEntry
from rollout_client.questions import LocalQuestion, answer_human
from rollout_client.seen_heads import HeadStore, LedgerHead, MemoryHeadStore

FetchScope = Callable[[LedgerHead], Mapping[str, Any]]
"""Returns the parsed body of GET `scope?form=table-1`.

Send the head as `ledger_revision`, `ledger_hash` and `ledger_code`.
"""

HUMAN_WITHOUT_SCOPE: Final = build_local_assignment(answer_human("no usable scope was read yet"))
HUMAN_UNTIL_NEWER_SCOPE: Final = build_local_assignment(
    answer_human("handed over to a human until a newer scope is read")
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


class HeldSnapshot:
    """A snapshot, and both clocks before it was requested and after the answer."""

    __slots__ = ("answered_at", "requested_at", "snapshot")

    def __init__(
        self, snapshot: LocalScope, requested_at: ClockReading, answered_at: ClockReading
    ) -> None:
        self.snapshot, self.requested_at, self.answered_at = snapshot, requested_at, answered_at


class EdgeClient:
    """One site's client. A restart forgets its lease.

    Args:
        fetch_scope: requests the scope from the service.
        action_delay: the longest time from a decision to its effect.
        head_store: stores the newest head; use a file to keep it over a restart.
        latch_store: stores the head at which cases were handed over; use a file here too.
    """

    def __init__(
        self,
        site: str,
        fetch_scope: FetchScope,
        clocks: Clocks | None = None,
        action_delay: timedelta = NO_TIME,
        head_store: HeadStore | None = None,
        latch_store: HeadStore | None = None,
    ) -> None:
        if action_delay < NO_TIME:
            raise ValueError(f"an action can't take {action_delay}")
        self.site, self.fetch_scope, self.action_delay = site, fetch_scope, action_delay
        self.clocks: Clocks = MachineClocks() if clocks is None else clocks
        self.head_store: HeadStore = MemoryHeadStore() if head_store is None else head_store
        self.latch_store: HeadStore = MemoryHeadStore() if latch_store is None else latch_store
        self.snapshot: HeldSnapshot | None = None
        self.latched_head = self.latch_store.load()  # that an earlier run has set
        self._hand_over = object()
        self._prepared: PreparedAnswers | None = None
        self._present: dict[tuple[str, str], PresentEntry] = {}
        self._lock = RLock()

    def renew(self) -> None:
        """Fetch the scope; if that fails, the last one stays for its lease.

        Once the service has answered with a head that follows the known one, the last snapshot is
        dropped: if the rest of the answer can't be used, a human decides.

        Raises:
            InvalidSnapshotError: the response is no usable snapshot.
            UnknownFormError: its table has a form that this program doesn't know.
            LedgerRolledBackError: the service lacks an entry that this client has seen; alert a
                user.
        """
        known_head, requested_at = self.head_store.load(), self.clocks.read()
        hand_over = self._hand_over
        body = self.fetch_scope(known_head)
        answered_at = self.clocks.read()
        head = parse_head(body)
        if not head.follows(known_head):
            raise LedgerRolledBackError(
                f"{known_head} was seen, and now the ledger ends with {head}"
            )
        with self._lock:
            if self._has_newer(head, requested_at):
                return
            self._drop()  # first: what follows may fail, such as a full disk
            if head != known_head:
                self.head_store.store(head)
            self._hold(HeldSnapshot(parse_snapshot(body), requested_at, answered_at), hand_over)

    def _has_newer(self, head: LedgerHead, requested_at: ClockReading) -> bool:
        """Return whether a renewal in another thread was faster, and has a newer answer."""
        if not head.follows(self.head_store.load()):
            return True
        snapshot = self.snapshot
        boot = None if snapshot is None else snapshot.requested_at.boot
        return boot is not None and requested_at.boot is not None and boot > requested_at.boot

    def _drop(self) -> None:
        """Let a human decide until a snapshot is held."""
        self.snapshot, self._prepared, self._present = None, None, {}

    def _hold(self, snapshot: HeldSnapshot, hand_over: object) -> None:
        """Decide by a snapshot, unless cases were handed over while it was fetched."""
        head, boot = snapshot.snapshot.head, snapshot.requested_at.boot
        with self._lock:
            if self._hand_over is not hand_over:  # the service can't know of the harm
                self._raise_latch(head)
                self.latch_store.store(self.latched_head)
            self.snapshot = snapshot
            scope, table = snapshot.snapshot, snapshot.snapshot.table
            if boot is None or table is None or scope.find_bucket is None:
                return
            if not head.is_newer_than(self.latched_head):
                return
            prepared = PreparedAnswers(
                scope,
                table,
                scope.find_bucket,
                boot,
                lambda site: self._compute_bounds(snapshot, site),
            )
            self._prepared, self._present = prepared, prepared.present

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
        with self._lock:
            self._hand_over = object()  # unlike any before: `renew` compares it
            if self.snapshot is not None:
                self._raise_latch(self.snapshot.snapshot.head)  # it holds even if a store fails
            self._prepared, self._present = None, {}
            try:
                self._raise_latch(self.head_store.load())
            finally:  # an unreadable head must not keep the latch from the disk
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

        Start an action of the model at once, and finish it within `action_delay`. A case that
        can't be read, such as a key that is no text, is answered too: a human decides.
        """
        try:
            entry = self._present.get((site, version))
            boot, wall = self.clocks.read_seconds()
            if entry is None or boot is None or not entry[0] <= boot < entry[1]:
                entry = self._find_present(site, version, boot)
            if entry is not None:
                (
                    _,
                    _,
                    wall_since,
                    wall_until,
                    earliest,
                    latest,
                    answer,
                    line,
                    find_bucket,
                    answer_case,
                ) = entry
                try:
                    fits = wall_since < wall < wall_until and earliest < at < latest and key  # type: ignore[operator]
                except TypeError:  # no time, or one without a zone
                    fits = False
                if fits:
                    if answer is not None:
                        return answer
                    if line is not None:
                        return line[find_bucket(key)]
                    return answer_case(site, at, key, episode, confidence, attributes)
            return self._decide_by_table(
                LocalQuestion(site, at, version, key, episode, confidence, attributes)
            )
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            return build_local_assignment(answer_human(f"the case can't be read: {error!r:.200}"))

    def decide_all(self, questions: Iterable[LocalQuestion]) -> list[LocalAssignment]:
        """Return who decides each of many cases, in their order."""
        decide = self.decide
        return [decide(*question) for question in questions]

    def _find_present(self, site: str, version: str, boot: float | None) -> PresentEntry | None:
        """Return the prepared answers of this second, or None where the table must be asked."""
        prepared = self._prepared
        if prepared is None or boot is None:
            return None
        entry = prepared.find_present(site, version, boot)
        return entry if prepared is self._prepared else None  # a hand-over meanwhile voids it

    def _decide_by_table(self, question: LocalQuestion) -> LocalAssignment:
        """Return who decides, by what the table says of this very instant."""
        snapshot, now = self.snapshot, self.clocks.read()
        if snapshot is None:
            return HUMAN_WITHOUT_SCOPE
        scope = snapshot.snapshot
        if not scope.head.is_newer_than(self.latched_head):
            return HUMAN_UNTIL_NEWER_SCOPE
        time_left = self._compute_time_left(snapshot, now, question.site)
        made = scope.decide(question, now=self._estimate_now(snapshot, now), time_left=time_left)
        fallbacks = () if scope.table is None else scope.table.fallbacks
        if now.boot is None:
            return build_local_assignment(made.answer, scope.head.revision, fallbacks)
        usable_until = now.boot + made.lease.total_seconds()
        bounds = self._compute_bounds(snapshot, question.site)
        return build_local_assignment(
            made.answer, scope.head.revision, fallbacks, usable_until, bounds
        )

    @property
    def permit(self) -> str:
        """Return the permit to send with actions, or ""."""
        snapshot = self.snapshot
        return "" if snapshot is None else snapshot.snapshot.permits.get(self.site, "")

    def build_action(self, key: str, lever: str, action: str, version: str) -> dict[str, Any]:
        """Return the record of an action that the model does now, with permit and time."""
        snapshot, now = self.snapshot, self.clocks.read()
        at = now.wall
        if snapshot is not None:
            at = estimate_service_time(snapshot.snapshot.issued_at, snapshot.answered_at, now)
        record = {"kind": "action", "key": key, "lever": lever, "action": action, "by": "model"}
        return record | {"at": at.isoformat(), "version": version, "permit": self.permit}

    def _compute_time_left(self, snapshot: HeldSnapshot, now: ClockReading, site: str) -> timedelta:
        lease = snapshot.snapshot.leases.get(site, NO_TIME)
        return compute_time_left(lease, snapshot.requested_at, now, self.action_delay)

    def _compute_bounds(self, snapshot: HeldSnapshot, site: str) -> LeaseBounds | None:
        """Return within which readings of the clocks the lease of a site is valid."""
        requested, lease = snapshot.requested_at, snapshot.snapshot.leases.get(site)
        if lease is None or requested.boot is None:
            return None
        time_left = self._compute_time_left(snapshot, requested, site)
        wall = requested.wall.timestamp()
        return LeaseBounds(
            self.clocks,
            boot_since=requested.boot,
            boot_until=requested.boot + time_left.total_seconds(),
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
