"""Actions of the model by the kind of their permit, and whether they were authorized."""

from dataclasses import dataclass

import polars as pl

from rollout.core.scope.permits import FORM_1
from rollout.reports.inputs.inputs import ReportInputs

UNAUTHORIZED, NO_PERMIT = "unauthorized", "none"


@dataclass(frozen=True, slots=True)
class PermitCount:
    """The number of the model's actions with one kind of permit and one authorization.

    Attributes:
        kind: `bound` to the answers of the question, `unbound`, `form_1` (issued before permits
            were bound), or `none`: no permit of this service. Actions recorded before kinds were
            stored count as `form_1` if they were authorized, else as `none`.
        authorization: `authorized`, `authorized_within_lease` or `unauthorized`.
        actions: on cases in the report; the last revision of each action.
    """

    kind: str
    authorization: str
    actions: int


def count_permits(inputs: ReportInputs) -> tuple[PermitCount, ...]:
    """Return the counts, ordered by kind and authorization; none without actions."""
    is_unauthorized = pl.col("permission") == UNAUTHORIZED
    stored_before = pl.when(is_unauthorized).then(pl.lit(NO_PERMIT)).otherwise(pl.lit(FORM_1))
    kind = pl.col("permit_kind").fill_null(stored_before).alias("kind")
    counts = (
        inputs.actions.filter(pl.col("by") == "model")
        .group_by(kind, "permission")
        .agg(actions=pl.len())
        .sort("kind", "permission")
    )
    return tuple(PermitCount(*row) for row in counts.iter_rows())
