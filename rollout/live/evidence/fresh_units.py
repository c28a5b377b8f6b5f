"""Stored units inside their grace whose answer is known, of one cell and version.

They are resolved as they would be to count them, from the records of the site's last cases. That is
asked only of a cell whose gate is met, or in which an approved proposal is to be applied.
"""

from dataclasses import replace

import polars as pl

from rollout.data.database.session import Transaction
from rollout.data.records.case_pages import CasePages
from rollout.data.records.records import RejectedRecords
from rollout.engine.evidence.evidence_view import FreshUnits, order_by_receipt
from rollout.engine.evidence.tallied_units import build_units
from rollout.engine.evidence.unit_arrays import CellUnitArrays
from rollout.kernel.calendar.instants import Cell, to_instant
from rollout.kernel.policy.gates import UnplacedDecisions
from rollout.live.evidence.stage_history import RolloutHistory
from rollout.live.evidence.unit_counting import GATE, resolve_case_units
from rollout.live.rollout_state import RolloutState


class FreshUnitReader:
    """Reads the fresh units at one slot; the cases of a site are resolved once."""

    def __init__(
        self, transaction: Transaction, state: RolloutState, history: RolloutHistory, slot: int
    ) -> None:
        """Read in a transaction, for the state and its history."""
        self._transaction, self._state, self._history = transaction, state, history
        self._slot = slot
        self._units_by_site: dict[str, pl.DataFrame] = {}
        self._unplaced: UnplacedDecisions | None = None

    def read_units(self, key: tuple[Cell, str]) -> FreshUnits:
        """Return the fresh units of a version in a cell."""
        cell, version = key
        if cell.site not in self._units_by_site:
            self._units_by_site[cell.site] = self._resolve_site(cell.site)
        units = self._units_by_site[cell.site].filter(
            (pl.col("site") == cell.site)
            & (pl.col("window") == cell.window)
            & (pl.col("version") == version)
        )
        tallied = build_units(units, self._state.policy)
        arrays = tallied.cells.get(key, CellUnitArrays())
        if arrays.gate_known is None:
            return FreshUnits(arrays.gate, tallied.unit_classes, self._count_unplaced())
        rows = order_by_receipt(arrays.gate, arrays.gate_known, self._slot)
        decider_draws, audit_draws = self._state.draw_units(tallied.unit_keys.to_list())
        buckets = self._history.find_buckets(
            rows.occurred, decider_draws[rows.unit], audit_draws[rows.unit]
        )
        rows = replace(rows, unit=buckets)
        return FreshUnits(rows, tallied.unit_classes, self._count_unplaced())

    def _count_unplaced(self) -> UnplacedDecisions:
        """Return the decisions of the last days that belong to no cell, read once."""
        if self._unplaced is None:
            until = to_instant(self._slot, self._state.policy.tick)
            rejected = RejectedRecords(self._transaction, self._state.rollout)
            self._unplaced = rejected.count_unplaced_decisions(until)
        return self._unplaced

    def _resolve_site(self, site: str) -> pl.DataFrame:
        """Return the units of a site that close after the slot.

        A case that came late counts as missing a grace after its decision, whenever it occurred.
        """
        policy = self._state.policy
        since = to_instant(self._slot, policy.tick) - policy.evidence.grace - policy.tick
        pages = CasePages(self._transaction, self._state.rollout)
        case_ids = pages.list_site_cases(site, since=since, has_late=True)
        units = resolve_case_units(self._transaction, self._state, case_ids)
        return units.filter((pl.col("track") == GATE) & (pl.col("slot") > self._slot))
