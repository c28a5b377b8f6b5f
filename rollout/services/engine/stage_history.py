"""What held when: the policies, attempts and stages of a live rollout, slot by slot.

A unit belongs to what was in force when it occurred, and not when somebody came to count it. All
of it follows from the ledger, and costs what happened: neither slots without events nor cells in
which nothing happens are looked at.
"""

import heapq
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.policy.record_definition import definition, redefined
from rollout.core.scope.events import (
    Approved,
    CellEvent,
    Event,
    IncidentAcknowledged,
    IncidentOpened,
    Narrowed,
    PolicyApplied,
    ProposalExpired,
    ProposalRaised,
    ProposalRejected,
    ProposalVoided,
    ReportSealed,
    Stopped,
    VersionFirstUsed,
)
from rollout.core.scope.projection import fold
from rollout.core.scope.scope import Scope, acting
from rollout.replay.fast_forward import ending_slots
from rollout.tally.slots import instant, slot_after
from rollout.tally.stage_history import Shares, Timeline, bands, shares_of
from rollout.tally.unit_arrays import Ints

NO_STAGE = (
    VersionFirstUsed,
    ProposalRaised,
    Approved,
    ProposalRejected,
    ProposalVoided,
    ProposalExpired,
    IncidentOpened,
    IncidentAcknowledged,
    ReportSealed,
)
EVERY_BAND = 2**31  # in shadow everything is seen, under whatever shares
Levels = tuple[float, ...]


@dataclass(frozen=True)
class Era:
    """A policy and the first slot in which it was in force. `row`: where its shares begin."""

    policy: Policy
    since: int
    row: int

    @cached_property
    def shares(self) -> Shares:
        """Return its own shares."""
        return shares_of(self.policy)


class Past:
    """What the ledger says of earlier slots. Take events in their order, then ask."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._eras: list[Era] = []
        self._versions: list[str] = []
        self._restarts: dict[tuple[Cell, str], list[int]] = defaultdict(list)
        self._scope = Scope()
        self._waiting: list[tuple[int, Event]] = []
        self._wakes: list[tuple[int, Cell]] = []
        self._endings: list[int] = []
        self._marked: int | None = None
        self._timelines: dict[Cell, Timeline] = {}
        self._meanings: dict[Cell, Mapping[str, Levels]] = {}
        self._definitions: dict[Cell, str] = {}
        self._shares: Shares | None = None

    def take(self, events: Iterable[Event], policy_of: Callable[[str], Policy]) -> None:
        """Take what happened next. `policy_of` gives the policy of a hash."""
        for event in events:
            if isinstance(event, PolicyApplied):
                self._begin_era(policy_of(event.policy_hash), event)
            if isinstance(event, VersionFirstUsed):
                self._versions.append(event.version)
            if isinstance(event, Narrowed) and event.restart:
                self._restart(event, (event.cell,), (event.version,))
            slot = 0 if not self._eras else slot_after(event.at, self._policy.tick)
            self._waiting.append((slot, event))

    @property
    def _policy(self) -> Policy:
        return self._eras[-1].policy

    def _begin_era(self, policy: Policy, event: PolicyApplied) -> None:
        same_period = next((e for e in self._eras if _alike(e.policy, policy)), None)
        row = self._next_row() if same_period is None else same_period.row
        since = max(
            [
                slot_after(event.at, policy.tick),
                *(policy_period.since for policy_period in self._eras[-1:]),
            ]
        )
        self._eras.append(Era(policy, since, row))
        self._restart(event, dict.fromkeys((*event.cleared, *event.restarted)), self._versions)
        self._endings = sorted({*self._endings, *ending_slots(policy)})
        self._meanings, self._definitions, self._shares = {}, {}, None

    def _next_row(self) -> int:
        rows = {policy_period.row: len(policy_period.policy.stages) for policy_period in self._eras}
        return max((row + stages for row, stages in rows.items()), default=0)

    def _restart(self, event: Event, cells: Iterable[Cell], versions: Iterable[str]) -> None:
        for cell in cells:
            for version in versions:
                slots = self._restarts[cell, version]
                slots.append(max([slot_after(event.at, self._policy.tick), *slots[-1:]]))

    @property
    def eras(self) -> tuple[Era, ...]:
        """Return the policies that were in force, in order."""
        return tuple(self._eras)

    # Asked of single units

    def attempt(self, cell: Cell, version: str, occurred: int) -> int:
        """Return the attempt that was in force in the slot in which a unit occurred."""
        return 1 + bisect_right(self._restarts.get((cell, version), ()), occurred)

    def bands(self, occurred: Ints, draws: NDArray[np.float64]) -> Ints:
        """Return under which share each draw lies, of the policy in force when it occurred."""
        buckets = np.zeros(len(draws), dtype=np.int64)
        period_numbers = self._eras_at(occurred)
        for number in np.unique(period_numbers):
            in_period = period_numbers == number
            buckets[in_period] = bands(self._eras[number].shares, draws[in_period])
        return buckets

    def _eras_at(self, occurred: Ints) -> Ints:
        """Return the number of the era of each slot; before the first policy it is the first."""
        since = np.array([policy_period.since for policy_period in self._eras])
        return np.maximum(np.searchsorted(since, occurred, side="right") - 1, 0)

    @property
    def shares(self) -> Shares:
        """Return the shares of all eras: row 0 is shadow, then come the rungs of one after another.

        A timeline of `of` names these rows.
        """
        if self._shares is None:
            shares_by_row = {
                policy_period.row: policy_period.shares for policy_period in reversed(self._eras)
            }
            ordered_shares = [shares_by_row[row] for row in sorted(shares_by_row)]
            full_share = np.array([EVERY_BAND])
            self._shares = Shares(
                seen=np.concatenate([full_share, *(shares.seen[1:] for shares in ordered_shares)]),
                blind=np.concatenate(
                    [full_share, *(shares.blind[1:] for shares in ordered_shares)]
                ),
                decides=np.concatenate(
                    [[False], *(shares.decides[1:] for shares in ordered_shares)]
                ),
            )
        return self._shares

    def definition(self, cell: Cell) -> str:
        """Return what a record in a cell is under the policy in force; "" where it has no cell."""
        if cell not in self._definitions:
            is_known = cell in self._policy.known
            self._definitions[cell] = definition(self._policy, cell) if is_known else ""
        return self._definitions[cell]

    def meanings(self, cell: Cell) -> Mapping[str, Levels]:
        """Return the definitions that mean what the policy in force means, with their costs.

        Labels appended to a list change no earlier record: evidence goes on under a definition
        with another hash, and with other cost levels.
        """
        if cell not in self._meanings:
            self._meanings[cell] = dict(self._same(cell))
        return self._meanings[cell]

    def _same(self, cell: Cell) -> Iterable[tuple[str, Levels]]:
        newer_policy, newer_definition = self._policy, self.definition(cell)
        cost_levels = {newer_definition: newer_policy.cost_levels}
        for policy_period in reversed(self._eras[:-1]):
            older_policy = policy_period.policy
            if cell not in older_policy.known:
                break
            older_definition = definition(older_policy, cell)
            if older_definition != newer_definition and redefined(older_policy, newer_policy, cell):
                break
            cost_levels.setdefault(older_definition, older_policy.cost_levels)
            newer_policy, newer_definition = older_policy, older_definition
        return cost_levels.items()

    # Stages

    def of(self, cell: Cell) -> Timeline:
        """Return one cell's stages, as rows of `shares`."""
        return self._timelines.get(cell) or Timeline()

    def mark(self, until: int, scope: Scope | None = None) -> set[Cell]:
        """Note the stages up to and with a slot; return the cells whose stage has changed.

        What was decided in a slot holds in it.

        Args:
            until: the slot.
            scope: the fold of all that was taken, where the caller has it: one is kept, not two.
        """
        changed_cells = set()
        while (slot := self._next()) is not None and slot <= until:
            changed_cells |= self._mark(slot, scope)
            self._marked = slot
        self._marked = until if self._marked is None else max(self._marked, until)
        return changed_cells

    def _next(self) -> int | None:
        """Return the next slot in which a stage may change."""
        end_index = bisect_right(self._endings, -1 if self._marked is None else self._marked)
        candidate_slots = [
            *(slot for slot, _ in self._waiting[:1]),
            *(slot for slot, _ in self._wakes[:1]),
        ]
        candidate_slots += self._endings[end_index : end_index + 1]
        if not candidate_slots:
            return None
        return (
            min(candidate_slots)
            if self._marked is None
            else max(min(candidate_slots), self._marked + 1)
        )

    def _mark(self, slot: int, scope: Scope | None) -> set[Cell]:
        cells = self._taken(slot, scope)
        while self._wakes and self._wakes[0][0] <= slot:
            cells.add(heapq.heappop(self._wakes)[1])
        if slot in self._endings:
            cells |= self._looked_at()
        return {cell for cell in cells if self._note(cell, slot)}

    def _taken(self, slot: int, scope: Scope | None) -> set[Cell]:
        """Apply what had happened by the slot; return the cells that it is about."""
        events = [
            event
            for _, event in takewhile(lambda pending_event: pending_event[0] <= slot, self._waiting)
        ]
        del self._waiting[: len(events)]
        if scope is not None and scope.revision == self._scope.revision + len(events):
            self._scope = scope
        else:
            self._scope = fold(events, self._scope)
        return {cell for event in events for cell in self._about(event)}

    def _about(self, event: Event) -> set[Cell]:
        if isinstance(event, NO_STAGE):
            return set()
        if isinstance(event, CellEvent):
            return {event.cell}
        return set(event.cells) if isinstance(event, Stopped) else self._looked_at()

    def _looked_at(self) -> set[Cell]:
        granted_cells = {
            cell for (cell, _), cell_state in self._scope.cells.items() if cell_state.grants
        }
        return granted_cells | set(self._timelines)

    def _note(self, cell: Cell, slot: int) -> bool:
        policy_period = self._eras[int(self._eras_at(np.array([slot]))[0])]
        at = instant(slot, policy_period.policy.tick)
        acting_grant = acting(self._scope, policy_period.policy, cell, at)
        old_history = self.of(cell)
        new_history = old_history.after(
            slot, 0 if acting_grant is None else policy_period.row + acting_grant[1]
        )
        self._wake(cell, slot, policy_period.policy)
        if new_history is old_history:
            return False
        self._timelines[cell] = new_history
        return True

    def _wake(self, cell: Cell, slot: int, policy: Policy) -> None:
        """Come back when the next of the cell's grants ends: no event says so by itself."""
        acting_version = self._scope.holder(cell)
        grants = () if acting_version is None else self._scope.state(cell, acting_version).grants
        end_slots = (slot_after(grant.until, policy.tick) for grant in grants)
        next_end = min((end_slot for end_slot in end_slots if end_slot > slot), default=None)
        if next_end is not None:
            heapq.heappush(self._wakes, (next_end, cell))


def _alike(one: Policy, other: Policy) -> bool:
    """Say whether two policies show the same of every unit."""

    def shown(policy: Policy) -> object:
        return policy.cuts, [
            (stage.blind, stage.seen, stage.model_decides) for stage in policy.stages
        ]

    return shown(one) == shown(other)
