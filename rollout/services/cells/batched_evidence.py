"""Evidence of cells as a caller may read it."""

from collections.abc import Mapping

from rollout.core.scope.permissions import Caller, may_be_asked_blind
from rollout.reports.inputs.inputs import CellVersion
from rollout.tally.batched_evidence import batch_view
from rollout.tally.evidence_view import EvidenceView


def batch_evidence(
    views: Mapping[CellVersion, EvidenceView], caller: Caller, rollout_name: str
) -> dict[CellVersion, EvidenceView]:
    """Return the views; in batches of sites where the caller may be asked for a blind review."""
    return {
        key: batch_view(view) if may_be_asked_blind(caller, rollout_name, (key[0].site,)) else view
        for key, view in views.items()
    }
