"""Inputs of figures of evidence: policy, ledger events and what was counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.events import LedgerEvent
from rollout.tally.evidence_view import EvidenceView

CellVersion = tuple[Cell, str]  # a cell and a version


@dataclass(frozen=True)
class EvidenceInputs:
    """What figures of evidence need; pages have no more, a report has its records too.

    Attributes:
        policy: the policy in force, the last one if there were several.
        events: the whole ledger, in order.
        evidence_views: evidence of each cell and version at the end.
        first, last: the span of the report, or of the whole ledger.
    """

    policy: Policy
    events: tuple[LedgerEvent, ...]
    evidence_views: Mapping[CellVersion, EvidenceView]
    first: datetime
    last: datetime

    @property
    def cell_versions(self) -> list[CellVersion]:
        """Return the cells and versions with evidence, in order of the policy's cells."""
        order = {cell: index for index, cell in enumerate(self.policy.cells)}
        return sorted(self.evidence_views, key=lambda key: (order[key[0]], key[1]))
