"""Applies events to a scope, also those of a decision in progress; it never refuses an event.

Events change one private copy in place, which is frozen at the end: the cost is linear in the
number of events, however many cells there are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from rollout.engine.decide.commands import BeginNextAttempt, NarrowCells
from rollout.engine.decide.scope import Scope
from rollout.engine.decide.scope_builder import ScopeBuilder
from rollout.engine.events import ENGINE, LedgerEvent, Narrowed, ProposalVoided
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.facts import StoredAlarm
from rollout.kernel.policy.policy import Policy


def apply_event(scope: Scope, event: LedgerEvent) -> Scope:
    """Return the scope after `event`."""
    return apply_events((event,), scope)


def apply_events(events: Iterable[LedgerEvent], scope: Scope | None = None) -> Scope:
    """Return the scope after `events`, from the empty one by default."""
    start, builder = Scope() if scope is None else scope, None
    for event in events:
        builder = builder or ScopeBuilder(start)
        _apply_to_scope(event, builder)
    return start if builder is None else builder.build()


def _apply_to_scope(event: LedgerEvent, builder: ScopeBuilder) -> None:
    """Apply one event; only a correction sets the scope's time back."""
    previous_at = builder.at
    builder.at = event.at if previous_at is None else max(previous_at, event.at)
    builder.effective_at = event.compute_effective_time(builder.effective_at)
    event.apply(builder)
    builder.revision += 1


def list_effective_times(
    events: Iterable[LedgerEvent],
) -> Iterator[tuple[LedgerEvent, datetime]]:
    """Yield the events of a ledger, from its first, with the time from which each holds."""
    previous: datetime | None = None
    for event in events:
        previous = event.compute_effective_time(previous)
        yield event, previous


class PendingEvents:
    """The events emitted so far and the scope after them.

    This is the only mutable state in the core; it never leaves its decision.
    """

    def __init__(
        self, scope: Scope, policy: Policy, at: datetime, slot: datetime | None = None
    ) -> None:
        """Begin a decision at `at`; `slot` is that of a tick's evidence, which its events cite."""
        self.initial_scope = scope
        self.scope = scope
        self.policy = policy
        self.at, self._slot = at, slot
        self.events: list[LedgerEvent] = []

    def emit(self, event: LedgerEvent) -> None:
        """Add an event and apply it."""
        event = event if self._slot is None else replace(event, slot=self._slot)
        self.events.append(event)
        self.scope = apply_event(self.scope, event)

    def void_proposal(
        self,
        proposal: str | None,
        cause: str,
        about: str = "",
        *,
        by: str = ENGINE,
        incidents: tuple[str, ...] = (),
        alarms: tuple[StoredAlarm, ...] = (),
    ) -> None:
        """Void an open proposal; None has no effect."""
        if proposal is not None:
            self.emit(
                ProposalVoided(
                    at=self.at,
                    by=by,
                    proposal=proposal,
                    cause=cause,
                    about=about,
                    incidents=incidents,
                    alarms=alarms,
                )
            )

    def narrow(
        self,
        command: NarrowCells | BeginNextAttempt,
        cell: Cell,
        version: str,
        from_stage: str,
        to_stage: str,
        *,
        restart: bool = False,
    ) -> None:
        """End the grants above a stage, as a user asks."""
        self.emit(
            Narrowed(
                at=self.at,
                by=command.by.name,
                cell=cell,
                version=version,
                from_stage=from_stage,
                to_stage=to_stage,
                restart=restart,
                reason=command.reason,
            )
        )

    @property
    def next_incident_id(self) -> str:
        """Return the id of the next incident."""
        return f"I-{self.scope.incident_count + 1}"

    def changes_evidence(self, cell: Cell, version: str) -> bool:
        """Return whether the events change which evidence counts in the cell."""
        if self.initial_scope is self.scope:
            return False
        return _get_evidence_basis(self.initial_scope, cell, version) != _get_evidence_basis(
            self.scope, cell, version
        )


def _get_evidence_basis(scope: Scope, cell: Cell, version: str) -> tuple[object, ...]:
    state = scope.get_cell_state(cell, version)
    return (state.grants, state.attempt, state.changed_at)
