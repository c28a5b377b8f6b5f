"""Counted units and outcomes of single cells, in memory while the ledger is read again.

A version's evidence in a cell is read up to the slot that is asked for, and further when a later
slot is. Of cells that were not asked for lately it is dropped, so memory grows with the evidence of
one version in one cell, and not with the rollout's.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.policy.pools import find_widest_pool, list_pooled_cells
from rollout.core.policy.wave_conditions import WAVE_POOL
from rollout.store.counting.counted_outcomes import LINES_PER_READ, CountedOutcomes
from rollout.store.counting.counted_units import CountedUnits
from rollout.store.counting.unit_digests import CellVersion
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.tally.outcome_buffer import CountedOutcome, OutcomeBuffer
from rollout.tally.unit_buffer import DefinitionLevels, UnitBuffer

MAX_HELD_ROWS: Final = 50_000


class RecountedCell:
    """The evidence of one version in one cell, with what counts of its pool, up to a slot."""

    def __init__(
        self, policy: Policy, key: CellVersion, definition_levels: DefinitionLevels
    ) -> None:
        self.units, self.outcomes = UnitBuffer(policy, definition_levels), OutcomeBuffer()
        self.row_count = 0
        self._key, self._last_slot = key, -1
        pool = find_widest_pool(policy)
        self._pool_cells = frozenset(list_pooled_cells(policy, key[0], pool))
        self._has_outcomes = bool(policy.outcomes)
        unit_cells = self._pool_cells if pool == WAVE_POOL else {key[0]}
        self._unit_keys = sorted((cell, key[1]) for cell in unit_cells)

    def advance(self, transaction: Transaction, rollout: Rollout, slot: int) -> None:
        """Read what was counted up to a slot."""
        if slot <= self._last_slot:
            return
        unit_store = CountedUnits(transaction, rollout)
        for key in self._unit_keys:
            for frame in unit_store.load_frames(after=self._last_slot, until=slot, key=key):
                self.row_count += frame.height
                self.units.add(frame)
        if self._has_outcomes:
            lines = self._list_outcomes(CountedOutcomes(transaction, rollout), slot)
            while part := list(islice(lines, LINES_PER_READ)):
                self.row_count += len(part)
                self.outcomes.add(part)
        self._last_slot = slot

    def _list_outcomes(self, outcomes: CountedOutcomes, slot: int) -> Iterator[CountedOutcome]:
        _, version = self._key
        lines = outcomes.read_lines(after=self._last_slot, until=slot, version=version)
        return (line for line in lines if Cell(line.site, line.window) in self._pool_cells)


class RecountedEvidence:
    """The evidence of the cells that were asked for last, under one policy."""

    def __init__(
        self, rollout: Rollout, policy: Policy, definition_levels: DefinitionLevels
    ) -> None:
        self._rollout, self._policy, self._definition_levels = rollout, policy, definition_levels
        self._cells: dict[CellVersion, RecountedCell] = {}

    def load(self, transaction: Transaction, key: CellVersion, slot: int) -> RecountedCell:
        """Return a version's evidence in a cell, up to a slot or a later one asked for before."""
        evidence = self._cells.pop(key, None)
        if evidence is None:
            evidence = RecountedCell(self._policy, key, self._definition_levels)
        evidence.advance(transaction, self._rollout, slot)
        self._drop_cells(MAX_HELD_ROWS - evidence.row_count)
        self._cells[key] = evidence
        return evidence

    def _drop_cells(self, row_count: int) -> None:
        """Drop the cells not asked for lately until the others hold at most so many rows."""
        row_total = sum(evidence.row_count for evidence in self._cells.values())
        for key in list(self._cells):
            if row_total <= row_count:
                return
            row_total -= self._cells.pop(key).row_count
