"""Actions of the model by the kind of their permit, and whether they were authorized."""

from dataclasses import dataclass

import polars as pl

from rollout.reports.inputs.inputs import ReportInputs

NO_PERMIT = "none"


@dataclass(frozen=True, slots=True)
class PermitCount:
    """The number of the model's actions with one kind of permit and one authorization.

    Attributes:
        kind: `bound` to the answers of the question, `unbound`, `form_1` (issued before permits
            were bound), or `none`: no permit of this service.
        authorization: `authorized`, `authorized_within_lease` or `unauthorized`.
        actions: on cases in the report; the last revision of each action.
    """

    kind: str
    authorization: str
    actions: int


def count_permits(inputs: ReportInputs) -> tuple[PermitCount, ...]:
    """Return the counts, ordered by kind and authorization; none without actions."""
    kind = pl.col("permit_kind").fill_null(NO_PERMIT).alias("kind")
    counts = (
        inputs.actions.filter(pl.col("by") == "model")
        .group_by(kind, "permission")
        .agg(actions=pl.len())
        .sort("kind", "permission")
    )
    return tuple(PermitCount(*row) for row in counts.iter_rows())
