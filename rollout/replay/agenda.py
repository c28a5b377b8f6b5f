"""When a replay next has to decide: each cell's next slot, found anew where something moved."""

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet

from rollout.core.events import (
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
from rollout.core.places import Cell
from rollout.core.policy import Policy
from rollout.core.scope import Scope
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
        happened = tuple(events)
        cells = {cell for event in happened if (cell := self._cell(event)) is not None}
        if any(isinstance(event, EVERYWHERE) for event in happened):
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
        ending = next((at for at in self._endings if at >= slot), NEVER)
        return min((ending, *self._of_evidence.values(), *self._of_time.values()), default=NEVER)

    def due(self, scope: Scope, slot: int) -> set[Cell]:
        """Return the cells in which something may follow in this very slot."""
        self._refresh(scope, slot)
        if slot in self._endings:
            return set(self._keys)
        tables = (self._of_evidence, self._of_time)
        return {key[0] for table in tables for key, at in table.items() if at == slot}

    def stirred(self, events: Iterable[Event], scope: Scope, slot: int) -> set[Cell]:
        """Return the cells that events of this slot make matter in it.

        A guard's reach brings other cells into play, a wave may open with what is applied, and a
        stop that ends names no cells.

        Args:
            events: what was decided so far.
            scope: what they make of the scope.
            slot: the slot that is being decided.
        """
        happened = tuple(events)
        cells = {cell for event in happened if (cell := self._cell(event)) is not None}
        if any(isinstance(event, Resumed) for event in happened):
            cells |= set(self._keys)  # what a stop withheld may go on in the same slot
        opened = (key for key in self._waiting if self._interest(key, scope, slot).at == slot)
        return cells.union(cell for cell, _ in opened)

    def _refresh(self, scope: Scope, slot: int) -> None:
        for key, at in self._of_evidence.items():
            if at < slot or key in self._waiting:
                self._read_evidence(key, scope, slot)
        for key, at in self._of_time.items():
            if at < slot:
                times = timed_slots(scope, self._policy, *key)
                self._of_time[key] = min((t for t in times if t >= slot), default=NEVER)

    def _read_evidence(self, key: Key, scope: Scope, slot: int) -> None:
        found = self._interest(key, scope, slot)
        self._of_evidence[key] = NEVER if found.at is None else found.at
        (self._waiting.add if found.waits else self._waiting.discard)(key)
