"""Events being decided: each later step of a decision sees what the earlier ones emitted."""

from datetime import datetime

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.events import Event, Narrowed
from rollout.core.scope.projection import evolve
from rollout.core.scope.scope import Scope


class Draft:
    """The scope as it would be after the events emitted so far.

    The one mutable thing in the core; it never leaves the decision that made it.
    """

    def __init__(self, scope: Scope, policy: Policy, at: datetime) -> None:
        self.before = scope
        self.scope = scope
        self.policy = policy
        self.at = at
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        """Add an event and apply it."""
        self.events.append(event)
        self.scope = evolve(self.scope, event)

    def moved(self, cell: Cell, version: str) -> bool:
        """Say whether the events so far changed what evidence of the cell would be counted."""
        return _basis(self.before, cell, version) != _basis(self.scope, cell, version)

    def narrowed(self, cell: Cell) -> bool:
        """Say whether the events so far took a grant away in the cell."""
        return any(isinstance(event, Narrowed) and event.cell == cell for event in self.events)


def _basis(scope: Scope, cell: Cell, version: str) -> tuple[object, ...]:
    state = scope.state(cell, version)
    return (state.grants, state.attempt, state.changed_at)
