"""A mutable copy of a scope, to which the projection applies events."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar

from rollout.engine.decide.scope import CellState, Scope, build_initial_state, set_cell_state
from rollout.engine.decide.widening_steps import get_acting_floor, raise_floors
from rollout.kernel.calendar.instants import Cell

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


class ScopeBuilder:
    """A mutable copy of a scope's parts."""

    def __init__(self, scope: Scope) -> None:
        self.policy_number, self.policy_hash = scope.policy_number, scope.policy_hash
        self.proposal_count, self.incident_count = scope.proposal_count, scope.incident_count
        self.at, self.revision = scope.at, scope.revision
        self.era, self.effective_at = scope.era, scope.effective_at
        self.confirmed_ahead = scope.confirmed_ahead
        self.versions = copy_mapping(scope.versions)
        self.cells = copy_mapping(scope.cells)
        self.proposals = copy_mapping(scope.proposals)
        self.stops = copy_mapping(scope.stops)
        self.widened_at = copy_mapping(scope.widened_at)
        self.returned_at = copy_mapping(scope.returned_at)
        self.open_incidents = copy_mapping(scope.open_incidents)
        self.spoken_against = copy_mapping(scope.spoken_against)
        self.attempt_years = copy_mapping(scope.attempt_years)
        self.cell_values = copy_mapping(scope.cell_values)
        self.aliases = copy_mapping(scope.aliases)
        self.holders = copy_mapping(scope._holders)  # noqa: SLF001 - kept for `Scope.holder` alone

    def build(self) -> Scope:
        """Return the frozen scope; the builder must not be used after it."""
        return Scope(
            policy_number=self.policy_number,
            policy_hash=self.policy_hash,
            versions=MappingProxyType(self.versions),
            cells=MappingProxyType(self.cells),
            proposals=MappingProxyType(self.proposals),
            stops=MappingProxyType(self.stops),
            widened_at=MappingProxyType(self.widened_at),
            returned_at=MappingProxyType(self.returned_at),
            proposal_count=self.proposal_count,
            incident_count=self.incident_count,
            open_incidents=MappingProxyType(self.open_incidents),
            spoken_against=MappingProxyType(self.spoken_against),
            attempt_years=MappingProxyType(self.attempt_years),
            cell_values=MappingProxyType(self.cell_values),
            aliases=MappingProxyType(self.aliases),
            confirmed_ahead=self.confirmed_ahead,
            at=self.at,
            effective_at=self.effective_at,
            revision=self.revision,
            era=self.era,
            _holders=self.holders,
        )

    def get_effective_time(self) -> datetime:
        """Return from when the event that is applied holds for units."""
        assert self.effective_at is not None  # noqa: S101 - each event sets it first
        return self.effective_at

    def get_cell_state(self, cell: Cell, version: str) -> CellState:
        """Return the state of `version` in `cell`."""
        state = self.cells.get((cell, version))
        if state is not None:
            return state
        return build_initial_state(self.versions[version].first_seen)

    def begin_attempt(self, cell: Cell, version: str, number: int, share: float) -> None:
        """Give the attempt of a version in a cell its number and share."""
        state = self.cells.get((cell, version))
        if state is None:
            state = build_initial_state(self.versions[version].first_seen, share, number)
        else:
            state = replace(state, number=number, risk_share=share)
        self.set_cell_state(cell, version, state)

    def set_cell_state(self, cell: Cell, version: str, state: CellState) -> None:
        """Replace one cell's state."""
        set_cell_state(self.cells, self.holders, cell, version, state)

    def change_cell_state(self, cell: Cell, version: str, **changes: Any) -> None:
        """Replace parts of one cell's state."""
        self.set_cell_state(cell, version, replace(self.get_cell_state(cell, version), **changes))

    def close_proposal(self, proposal_id: str) -> None:
        """Remove a proposal, also from its cell; ignore a closed one."""
        proposal = self.proposals.pop(proposal_id, None)
        if proposal is not None and proposal.cell is not None:
            self.change_cell_state(proposal.cell, proposal.version, proposal=None)

    def cut_grants(self, cell: Cell, version: str, kept_count: int, at: datetime) -> None:
        """Keep the lowest `kept_count` grants; units count so from `at` on.

        If any is removed, minimums restart, and detectors but those of guards in alarm.
        """
        state = self.get_cell_state(cell, version)
        if len(state.grants) <= kept_count:
            return
        alarms = state.suspended_by | state.reported_guards
        detectors = state.detectors.restart(state.current_start, at, alarms)
        grants = raise_floors(state.grants[:kept_count], get_acting_floor(state) or "0")
        state = replace(state, grants=grants, changed_at=at, detectors=detectors)
        if not kept_count:
            state = replace(state, suspended_by=frozenset(), reported_guards=frozenset())
        self.set_cell_state(cell, version, state)

    def record_returns(self, cells: Iterable[Cell], at: datetime) -> None:
        """Note that what withheld the grants of cells ended; something else may still do."""
        self.returned_at |= dict.fromkeys(cells, at)

    def move_back_in_time(self, to: datetime) -> None:
        """Move the times of cells and versions back; those of cells' states stay."""
        for name, version in self.versions.items():
            self.versions[name] = replace(version, first_seen=min(version.first_seen, to))
        self.widened_at = {cell: min(at, to) for cell, at in self.widened_at.items()}
        self.returned_at = {cell: min(at, to) for cell, at in self.returned_at.items()}
        self.spoken_against = {v: spoken.move_back(to) for v, spoken in self.spoken_against.items()}
        self.at = to


def copy_mapping(mapping: Mapping[KeyT, ValueT]) -> dict[KeyT, ValueT]:
    """Return a copy; a dict's or proxy's own copy is 100 times faster."""
    if isinstance(mapping, dict | MappingProxyType):
        return mapping.copy()
    return dict(mapping)


def add_entry(mapping: Mapping[KeyT, ValueT], key: KeyT, value: ValueT) -> Mapping[KeyT, ValueT]:
    """Return a frozen copy of a mapping with one more entry."""
    return MappingProxyType({**mapping, key: value})
