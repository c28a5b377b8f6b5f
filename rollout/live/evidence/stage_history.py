"""Policies, attempts and stages of a live rollout, slot by slot.

A unit belongs to what was in force when it occurred, not when it was counted. All of it follows
from the ledger; slots without events and unchanged cells cost nothing.
"""

import heapq
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import takewhile

import numpy as np

from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import Scope, find_acting_version
from rollout.engine.decide.widening_steps import format_decided_floor
from rollout.engine.events import LedgerEvent, Reach
from rollout.engine.evidence.stage_history import (
    FamiliarHistories,
    StageHistory,
    StageShares,
    build_stage_shares,
    find_buckets,
)
from rollout.engine.slots.fast_forward import list_limit_slots
from rollout.kernel.arrays import Floats, Ints
from rollout.kernel.calendar.instants import SHADOW, Cell, find_slot_after, to_instant
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy.record_definition import compute_definition, is_redefined

FULL_SHARE_BOUND = 2**31  # above every bucket: in shadow humans decide all cases
CostLevels = tuple[float, ...]


@dataclass(frozen=True)
class LivePolicyPeriod:
    """A policy, its first slot, and its first row of stage shares."""

    policy: Policy
    first_slot: int
    first_row: int

    @cached_property
    def shares(self) -> StageShares:
        """Return the stage shares of this policy alone."""
        return build_stage_shares(self.policy)


class RolloutHistory:
    """Earlier slots of a rollout; add events in ledger order."""

    def __init__(self) -> None:
        self._policy_periods: list[LivePolicyPeriod] = []
        self._versions: list[str] = []
        self._restarts: dict[tuple[Cell, str], list[int]] = defaultdict(list)
        self._begun: set[tuple[Cell, str]] = set()
        self._scope = Scope()
        self._pending_events: list[tuple[int, LedgerEvent]] = []
        self._effective_at: datetime | None = None
        self._grant_ends: list[tuple[int, Cell]] = []
        self._limit_slots: list[int] = []
        self._noted_slot: int | None = None
        self._stage_histories: dict[Cell, StageHistory] = {}
        self._equivalent_definitions: dict[Cell, Mapping[str, CostLevels]] = {}
        self._definitions: dict[Cell, str] = {}
        self._shares: StageShares | None = None
        self.familiar_histories = FamiliarHistories()

    def add_events(self, events: Iterable[LedgerEvent], policy_of: Callable[[str], Policy]) -> None:
        """Add the next events; `policy_of` returns the policy of a hash."""
        for event in events:
            at = self._effective_at = event.compute_effective_time(self._effective_at)
            if event.applied_policy:
                self._begin_policy_period(policy_of(event.applied_policy), at)
            if event.first_version:
                self._versions.append(event.first_version)
            self._record_restart(at, set(event.list_restarted(self._versions, self._begun)))
            self._begun.update(event.list_begun())
            slot = 0 if not self._policy_periods else find_slot_after(at, self._policy.tick)
            self.familiar_histories.add_event(event, slot)
            self._pending_events.append((slot, event))

    @property
    def _policy(self) -> Policy:
        return self._policy_periods[-1].policy

    def _begin_policy_period(self, policy: Policy, at: datetime) -> None:
        same_period = next(
            (
                period
                for period in self._policy_periods
                if _have_same_exposure(period.policy, policy)
            ),
            None,
        )
        row = self._find_next_row() if same_period is None else same_period.first_row
        since = max(
            [
                find_slot_after(at, policy.tick),
                *(policy_period.first_slot for policy_period in self._policy_periods[-1:]),
            ]
        )
        self._policy_periods.append(LivePolicyPeriod(policy, since, row))
        self._limit_slots = sorted({*self._limit_slots, *list_limit_slots(policy)})
        self._equivalent_definitions, self._definitions, self._shares = {}, {}, None

    def _find_next_row(self) -> int:
        rows = {
            policy_period.first_row: len(policy_period.policy.stages)
            for policy_period in self._policy_periods
        }
        return max((row + stages for row, stages in rows.items()), default=0)

    def _record_restart(self, at: datetime, keys: set[tuple[Cell, str]]) -> None:
        for key in keys:
            slots = self._restarts[key]
            slots.append(max([find_slot_after(at, self._policy.tick), *slots[-1:]]))
        self._begun -= keys

    @property
    def policy_periods(self) -> tuple[LivePolicyPeriod, ...]:
        """Return the policies that were in force, in order."""
        return tuple(self._policy_periods)

    # Units

    def find_attempt(self, cell: Cell, version: str, occurred: int) -> int:
        """Return the attempt of a unit that occurred in a slot."""
        return 1 + bisect_right(self._restarts.get((cell, version), ()), occurred)

    def find_buckets(
        self,
        occurred: Ints,
        decider_draws: Floats,
        audit_draws: Floats | None = None,
    ) -> Ints:
        """Return the bucket of each unit's draws under the policy at its time."""
        buckets = np.zeros(len(decider_draws), dtype=np.int64)
        period_numbers = self._find_periods_at(occurred)
        for number in np.unique(period_numbers):
            in_period = period_numbers == number
            buckets[in_period] = find_buckets(
                self._policy_periods[number].shares,
                decider_draws[in_period],
                None if audit_draws is None else audit_draws[in_period],
            )
        return buckets

    def _find_periods_at(self, occurred: Ints) -> Ints:
        """Return each slot's policy period; the first before any policy."""
        since = np.array([policy_period.first_slot for policy_period in self._policy_periods])
        return np.maximum(np.searchsorted(since, occurred, side="right") - 1, 0)

    @property
    def stage_shares(self) -> StageShares:
        """Return the shares of all policy periods.

        Row 0 is shadow, then follow each period's stages. The values of `get_stage_history` are
        these rows.
        """
        if self._shares is None:
            shares_by_row = {
                policy_period.first_row: policy_period.shares
                for policy_period in reversed(self._policy_periods)
            }
            ordered_shares = [shares_by_row[row] for row in sorted(shares_by_row)]
            full_share = np.array([FULL_SHARE_BOUND])
            self._shares = StageShares(
                blind_buckets=np.concatenate(
                    [full_share, *(shares.blind_buckets[1:] for shares in ordered_shares)]
                ),
                audited_buckets=np.concatenate(
                    [[0], *(shares.audited_buckets[1:] for shares in ordered_shares)]
                ),
                audit_sizes=np.concatenate(
                    [[1], *(shares.audit_sizes[1:] for shares in ordered_shares)]
                ),
                model_decides=np.concatenate(
                    [[False], *(shares.model_decides[1:] for shares in ordered_shares)]
                ),
                model_shares=np.concatenate(
                    [[np.nan], *(shares.model_shares[1:] for shares in ordered_shares)]
                ),
                reviewed_shares=np.concatenate(
                    [[1.0], *(shares.reviewed_shares[1:] for shares in ordered_shares)]
                ),
                stage_ids=(
                    SHADOW,
                    *(name for shares in ordered_shares for name in shares.stage_ids[1:]),
                ),
            )
        return self._shares

    def find_definition(self, cell: Cell) -> str:
        """Return a cell's record definition now; "" outside the policy."""
        if cell not in self._definitions:
            is_known = cell in self._policy.cell_set
            self._definitions[cell] = compute_definition(self._policy, cell) if is_known else ""
        return self._definitions[cell]

    def find_equivalent_definitions(self, cell: Cell) -> Mapping[str, CostLevels]:
        """Return the cost levels of definitions that equal the current one.

        Labels appended to a list change no earlier record: evidence continues under a definition
        with another hash and other cost levels.
        """
        if cell not in self._equivalent_definitions:
            self._equivalent_definitions[cell] = dict(self._iterate_equivalent_definitions(cell))
        return self._equivalent_definitions[cell]

    def _iterate_equivalent_definitions(self, cell: Cell) -> Iterable[tuple[str, CostLevels]]:
        newer_policy, newer_definition = self._policy, self.find_definition(cell)
        cost_levels = {newer_definition: newer_policy.cost_levels}
        for policy_period in reversed(self._policy_periods[:-1]):
            older_policy = policy_period.policy
            if cell not in older_policy.cell_set:
                break
            older_definition = compute_definition(older_policy, cell)
            if older_definition != newer_definition and is_redefined(
                older_policy, newer_policy, cell
            ):
                break
            cost_levels.setdefault(older_definition, older_policy.cost_levels)
            newer_policy, newer_definition = older_policy, older_definition
        return cost_levels.items()

    # Stages

    def get_stage_history(self, cell: Cell) -> StageHistory:
        """Return one cell's stages, as rows of `stage_shares`."""
        return self._stage_histories.get(cell) or StageHistory()

    def advance_to(self, last_slot: int, scope: Scope | None = None) -> set[Cell]:
        """Record the stages through `last_slot`; return the cells that changed.

        What was decided in a slot holds in it. `scope` is the result of all events added so far, if
        the caller has it: then only one copy is kept.
        """
        changed_cells = set()
        while (slot := self._find_next_slot()) is not None and slot <= last_slot:
            changed_cells |= self._advance_slot(slot, scope)
            self._noted_slot = slot
        self._noted_slot = (
            last_slot if self._noted_slot is None else max(self._noted_slot, last_slot)
        )
        return changed_cells

    def _find_next_slot(self) -> int | None:
        """Return the next slot in which a stage may change."""
        end_index = bisect_right(
            self._limit_slots, -1 if self._noted_slot is None else self._noted_slot
        )
        candidate_slots = [
            *(slot for slot, _ in self._pending_events[:1]),
            *(slot for slot, _ in self._grant_ends[:1]),
        ]
        candidate_slots += self._limit_slots[end_index : end_index + 1]
        if not candidate_slots:
            return None
        return (
            min(candidate_slots)
            if self._noted_slot is None
            else max(min(candidate_slots), self._noted_slot + 1)
        )

    def _advance_slot(self, slot: int, scope: Scope | None) -> set[Cell]:
        cells = self._apply_pending(slot, scope)
        while self._grant_ends and self._grant_ends[0][0] <= slot:
            cells.add(heapq.heappop(self._grant_ends)[1])
        if slot in self._limit_slots:
            cells |= self._list_tracked_cells()
        return {cell for cell in cells if self._update_stage(cell, slot)}

    def _apply_pending(self, slot: int, scope: Scope | None) -> set[Cell]:
        """Apply the events up to the slot; return their cells."""
        events = [
            event
            for _, event in takewhile(
                lambda pending_event: pending_event[0] <= slot, self._pending_events
            )
        ]
        del self._pending_events[: len(events)]
        if scope is not None and scope.revision == self._scope.revision + len(events):
            self._scope = scope
        else:
            self._scope = apply_events(events, self._scope)
        return {cell for event in events for cell in self._list_cells(event)}

    def _list_cells(self, event: LedgerEvent) -> set[Cell]:
        if event.stage_reach is Reach.ALL:
            return self._list_tracked_cells()
        return set(event.list_cells()) if event.stage_reach is Reach.OWN else set()

    def _list_tracked_cells(self) -> set[Cell]:
        granted_cells = {
            cell for (cell, _), cell_state in self._scope.cells.items() if cell_state.grants
        }
        return granted_cells | set(self._stage_histories)

    def _update_stage(self, cell: Cell, slot: int) -> bool:
        policy_period = self._policy_periods[int(self._find_periods_at(np.array([slot]))[0])]
        at = to_instant(slot, policy_period.policy.tick)
        acting_grant = find_acting_version(self._scope, policy_period.policy, cell, at)
        old_history = self.get_stage_history(cell)
        version, row, floor = "", 0, ""
        if acting_grant is not None:
            version, stage_level = acting_grant
            row = policy_period.first_row + stage_level
            state = self._scope.get_cell_state(cell, version)
            floor = format_decided_floor(policy_period.policy, state, stage_level)
        new_history = old_history.extend(slot, row, version, floor)
        self._schedule_grant_end(cell, slot, policy_period.policy)
        if new_history is old_history:
            return False
        self._stage_histories[cell] = new_history
        return True

    def _schedule_grant_end(self, cell: Cell, slot: int, policy: Policy) -> None:
        """Schedule the end of the cell's next grant, which has no event."""
        acting_version = self._scope.get_holder(cell)
        grants = (
            ()
            if acting_version is None
            else self._scope.get_cell_state(cell, acting_version).grants
        )
        end_slots = (find_slot_after(grant.until, policy.tick) for grant in grants)
        next_end = min((end_slot for end_slot in end_slots if end_slot > slot), default=None)
        if next_end is not None:
            heapq.heappush(self._grant_ends, (next_end, cell))


def _have_same_exposure(first: Policy, second: Policy) -> bool:
    """Return whether two policies send every unit to the same review."""

    def list_exposures(policy: Policy) -> object:
        return [(stage.blind, stage.audit) for stage in policy.stages]

    return list_exposures(first) == list_exposures(second)
