"""When a replay next has to decide: each cell's next slot, found anew where something moved."""

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.events import (
    Approved,
    CellEvent,
    Event,
    PolicyApplied,
    ProposalExpired,
    ProposalRaised,
    ProposalRejected,
    ProposalVoided,
    Resumed,
    Stopped,
    VersionRetired,
)
from rollout.core.scope.scope import Scope
from rollout.replay.fast_forward import Interest, ending_slots, timed_slots

Key = tuple[Cell, str]
NEVER = 2**62
EVERYWHERE = (Stopped, Resumed, VersionRetired, PolicyApplied)  # they name no single cell


class Agenda:
    """Next slots of interest by cell and version.

    Args:
        policy: the policy that is replayed.
        interest: says, for a key, a scope and a slot, when the key's evidence next matters.
    """

    def __init__(self, policy: Policy, interest: Callable[[Key, Scope, int], Interest]) -> None:
        self._policy, self._interest = policy, interest
        self._endings = ending_slots(policy)
        self._of_evidence: dict[Key, int] = {}
        self._of_time: dict[Key, int] = {}
        self._waiting: set[Key] = set()
        self._keys: dict[Cell, list[Key]] = {}
        self._cell_of: dict[str, Cell] = {}

    def add(self, keys: Iterable[Key]) -> None:
        """Take up cells and versions that are now known; those that were change nothing."""
        for key in keys:
            if key in self._of_evidence:
                continue
            self._keys.setdefault(key[0], []).append(key)
            self._forget(key)

    def touch(self, events: Iterable[Event]) -> set[Cell]:
        """Find anew whatever the events have moved; return their cells."""
        event_list = tuple(events)
        cells = {cell for event in event_list if (cell := self._cell(event)) is not None}
        if any(isinstance(event, EVERYWHERE) for event in event_list):
            cells |= set(self._keys)
        for cell in cells:
            self.forget(cell)
        return cells

    @property
    def waiting(self) -> AbstractSet[Key]:
        """Return the cells and versions that a wave holds, looked at in every slot."""
        return self._waiting

    def keys(self, cell: Cell) -> Sequence[Key]:
        """Return the versions known in a cell."""
        return self._keys.get(cell, ())

    def forget(self, cell: Cell) -> None:
        """Find anew when the cell's versions matter."""
        for key in self._keys.get(cell, ()):
            self._forget(key)

    def _cell(self, event: Event) -> Cell | None:
        """Return the cell that an event is about; a proposal's events name it by the proposal."""
        if isinstance(event, CellEvent):
            return event.cell
        if isinstance(event, ProposalRaised) and event.cell is not None:
            self._cell_of[event.proposal] = event.cell
            return event.cell
        if isinstance(event, Approved | ProposalExpired | ProposalVoided | ProposalRejected):
            return self._cell_of.get(event.proposal)
        return None

    def _forget(self, key: Key) -> None:
        self._of_evidence[key] = self._of_time[key] = -NEVER

    def next(self, scope: Scope, slot: int) -> int:
        """Return the first slot from `slot` on in which something may follow."""
        self._refresh(scope, slot)
        next_ending = next(
            (ending_slot for ending_slot in self._endings if ending_slot >= slot), NEVER
        )
        return min(
            (next_ending, *self._of_evidence.values(), *self._of_time.values()), default=NEVER
        )

    def due(self, scope: Scope, slot: int) -> set[Cell]:
        """Return the cells in which something may follow in this very slot."""
        self._refresh(scope, slot)
        if slot in self._endings:
            return set(self._keys)
        slot_tables = (self._of_evidence, self._of_time)
        return {
            key[0] for table in slot_tables for key, key_slot in table.items() if key_slot == slot
        }

    def stirred(self, events: Iterable[Event], scope: Scope, slot: int) -> set[Cell]:
        """Return the cells that events of this slot make matter in it.

        A guard's reach brings other cells into play, a wave may open with what is applied, and a
        stop that ends names no cells.

        Args:
            events: what was decided so far.
            scope: what they make of the scope.
            slot: the slot that is being decided.
        """
        event_list = tuple(events)
        cells = {cell for event in event_list if (cell := self._cell(event)) is not None}
        if any(isinstance(event, Resumed) for event in event_list):
            cells |= set(self._keys)  # what a stop withheld may go on in the same slot
        released_keys = (
            key for key in self._waiting if self._interest(key, scope, slot).at == slot
        )
        return cells.union(cell for cell, _ in released_keys)

    def _refresh(self, scope: Scope, slot: int) -> None:
        for key, key_slot in self._of_evidence.items():
            if key_slot < slot or key in self._waiting:
                self._read_evidence(key, scope, slot)
        for key, key_slot in self._of_time.items():
            if key_slot < slot:
                times = timed_slots(scope, self._policy, *key)
                self._of_time[key] = min(
                    (timed_slot for timed_slot in times if timed_slot >= slot), default=NEVER
                )

    def _read_evidence(self, key: Key, scope: Scope, slot: int) -> None:
        next_slot = self._interest(key, scope, slot)
        self._of_evidence[key] = NEVER if next_slot.at is None else next_slot.at
        (self._waiting.add if next_slot.waits else self._waiting.discard)(key)
