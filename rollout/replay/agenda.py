"""Agenda of a replay: each cell's next slot that needs a decision."""

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.events import (
    LedgerEvent,
    Reach,
)
from rollout.core.scope.scope import Scope
from rollout.replay.fast_forward import SlotInterest, list_limit_slots, list_timed_slots

CellVersion = tuple[Cell, str]
NEVER_SLOT = 2**62


class Agenda:
    """Next slots of interest by cell and version.

    `find_next_slot` returns when a key's evidence next matters, from a scope and a slot on.
    """

    def __init__(
        self, policy: Policy, find_next_slot: Callable[[CellVersion, Scope, int], SlotInterest]
    ) -> None:
        self._policy, self._find_next_slot = policy, find_next_slot
        self._limit_slots = list_limit_slots(policy)
        self._evidence_slots: dict[CellVersion, int] = {}
        self._time_slots: dict[CellVersion, int] = {}
        self._held_keys: set[CellVersion] = set()
        self._keys_by_cell: dict[Cell, list[CellVersion]] = {}
        self._cells_by_proposal: dict[str, tuple[Cell, ...]] = {}

    def add_keys(self, keys: Iterable[CellVersion]) -> None:
        """Add cells and versions; known ones stay unchanged."""
        for key in keys:
            if key in self._evidence_slots:
                continue
            self._keys_by_cell.setdefault(key[0], []).append(key)
            self._forget_key(key)

    def apply_events(self, events: Iterable[LedgerEvent]) -> set[Cell]:
        """Reset the cells that the events changed, and return them."""
        event_list = tuple(events)
        cells = {cell for event in event_list for cell in self._find_cells(event)}
        if any(event.agenda_reach is Reach.ALL for event in event_list):
            cells |= set(self._keys_by_cell)
        for cell in cells:
            self.forget_cell(cell)
        return cells

    @property
    def held_keys(self) -> AbstractSet[CellVersion]:
        """Return the cells and versions that a wave holds.

        They are evaluated in every slot.
        """
        return self._held_keys

    def get_keys(self, cell: Cell) -> Sequence[CellVersion]:
        """Return the versions known in a cell."""
        return self._keys_by_cell.get(cell, ())

    def forget_cell(self, cell: Cell) -> None:
        """Reset the next slots of the cell's versions."""
        for key in self._keys_by_cell.get(cell, ()):
            self._forget_key(key)

    def _find_cells(self, event: LedgerEvent) -> tuple[Cell, ...]:
        """Return the cells of an event, also by its proposal."""
        if event.agenda_reach is not Reach.OWN:
            return ()
        cells = event.list_cells()
        if event.raises_proposal:
            self._cells_by_proposal[event.about_proposal] = cells
        return cells or self._cells_by_proposal.get(event.about_proposal, ())

    def _forget_key(self, key: CellVersion) -> None:
        self._evidence_slots[key] = self._time_slots[key] = -NEVER_SLOT

    def find_next_slot(self, scope: Scope, slot: int) -> int:
        """Return the first slot from `slot` on that may lead to events."""
        self._update_slots(scope, slot)
        next_limit = next(
            (limit_slot for limit_slot in self._limit_slots if limit_slot >= slot), NEVER_SLOT
        )
        return min(
            (next_limit, *self._evidence_slots.values(), *self._time_slots.values()),
            default=NEVER_SLOT,
        )

    def list_due_cells(self, scope: Scope, slot: int) -> set[Cell]:
        """Return the cells in which this slot may lead to events."""
        self._update_slots(scope, slot)
        if slot in self._limit_slots:
            return set(self._keys_by_cell)
        slot_tables = (self._evidence_slots, self._time_slots)
        return {
            key[0] for table in slot_tables for key, key_slot in table.items() if key_slot == slot
        }

    def find_affected_cells(
        self, events: Iterable[LedgerEvent], scope: Scope, slot: int
    ) -> set[Cell]:
        """Return the cells that this slot's events affect in the same slot.

        A guard may reach other cells, an applied proposal may open a wave, and the end of a stop
        names no cells.

        Args:
            events: what was decided so far.
            scope: the scope after these events.
            slot: the slot that is being decided.
        """
        event_list = tuple(events)
        cells = {cell for event in event_list for cell in self._find_cells(event)}
        if any(event.ends_stop for event in event_list):
            cells |= set(self._keys_by_cell)  # stopped cells may continue in the same slot
        released_keys = (
            key for key in self._held_keys if self._find_next_slot(key, scope, slot).slot == slot
        )
        return cells.union(cell for cell, _ in released_keys)

    def _update_slots(self, scope: Scope, slot: int) -> None:
        # keys that wait are passed over without hashing them: slots times cells are many
        passed_keys = [key for key, key_slot in self._evidence_slots.items() if key_slot < slot]
        for key in self._held_keys.union(passed_keys) if self._held_keys else passed_keys:
            self._update_evidence_slot(key, scope, slot)
        for key in [key for key, key_slot in self._time_slots.items() if key_slot < slot]:
            times = list_timed_slots(scope, self._policy, *key)
            self._time_slots[key] = min(
                (timed_slot for timed_slot in times if timed_slot >= slot), default=NEVER_SLOT
            )

    def _update_evidence_slot(self, key: CellVersion, scope: Scope, slot: int) -> None:
        next_slot = self._find_next_slot(key, scope, slot)
        self._evidence_slots[key] = NEVER_SLOT if next_slot.slot is None else next_slot.slot
        (self._held_keys.add if next_slot.is_held_by_wave else self._held_keys.discard)(key)
