"""Confusion matrices summed over all slots: one row a class, however many units.

Each row is the sum of the counts of one series and class. It grows in the same transaction as the
counts; `doctor --rebuild` compares it with the counted units.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import polars as pl
from sqlalchemy import Select, bindparam, select

from rollout.data.counting.counts import CountKey
from rollout.data.database.bulk import fetch_rows, upsert_sums
from rollout.data.database.rollouts import RolloutRepository
from rollout.data.tables.tables import confusion_matrices, count_classes, count_series

MatrixKey = tuple[int, int]
"""The numbers of a series and of a class."""

ColumnNames = tuple[str, ...]
GROUP_COLUMNS: Final = ("version", "lever", "site", "window", "human", "model")


class Matrices(RolloutRepository):
    """The confusion matrices of one rollout."""

    def add(self, counts: Mapping[CountKey, int]) -> None:
        """Add what was added to the counts, in the same transaction."""
        rows = [
            (self._rollout.number, *key, n) for key, n in sorted(sum_over_slots(counts).items())
        ]
        upsert_sums(self._transaction, confusion_matrices, rows, "n")

    def load_by_key(self) -> dict[MatrixKey, int]:
        """Return all sums by key."""
        query = select(confusion_matrices).where(
            confusion_matrices.c.rollout == self._rollout.number
        )
        return {(row.series_id, row.class_id): row.n for row in self._transaction.execute(query)}

    def load_frame(self, *, track: str, version: str) -> pl.DataFrame:
        """Return a version's units by human and model answer.

        Columns: `GROUP_COLUMNS` and n, in no order. `human` is blank without a decision; `model` is
        a label or one of the special values in `rollout.kernel.units`.
        """
        rollout_parameters = {"rollout": self._rollout.number}
        version_parameters = {**rollout_parameters, "track": track, "version": version}
        series = self._load_part(
            SERIES_QUERY, version_parameters, ("version", "site", "window"), ("series",)
        )
        classes = self._load_part(
            CLASS_QUERY, rollout_parameters, ("lever", "model", "human"), ("kind",)
        )
        counts = self._load_part(COUNT_QUERY, version_parameters, (), ("series", "kind", "n"))
        named_counts = counts.join(series, on="series").join(classes, on="kind")
        return named_counts.group_by(GROUP_COLUMNS).agg(pl.col("n").sum())

    def _load_part(
        self,
        query: Select[Any],
        parameters: Mapping[str, Any],
        text_columns: ColumnNames,
        number_columns: ColumnNames,
    ) -> pl.DataFrame:
        schema = dict.fromkeys(text_columns, pl.String()) | dict.fromkeys(
            number_columns, pl.Int64()
        )
        return pl.DataFrame(
            fetch_rows(self._transaction, query, parameters), schema=schema, orient="row"
        )


def sum_over_slots(counts: Mapping[CountKey, int]) -> Mapping[MatrixKey, int]:
    """Return counts summed over slots, occurrence and buckets."""
    sums: Counter[MatrixKey] = Counter()
    for key, n in counts.items():
        sums[key.series_id, key.class_id] += n
    return sums


_VERSION_FILTER: Final = (
    count_series.c.rollout == bindparam("rollout"),
    count_series.c.track == bindparam("track"),
    count_series.c.version == bindparam("version"),
)
SERIES_QUERY: Final = select(
    *(count_series.c.version, count_series.c.site, count_series.c.window, count_series.c.id)
).where(*_VERSION_FILTER)
CLASS_QUERY: Final = select(
    *(count_classes.c.lever, count_classes.c.predicted, count_classes.c.decided, count_classes.c.id)
).where(count_classes.c.rollout == bindparam("rollout"))
COUNT_QUERY: Final = select(
    confusion_matrices.c.series_id, confusion_matrices.c.class_id, confusion_matrices.c.n
).where(
    confusion_matrices.c.rollout == bindparam("rollout"),
    confusion_matrices.c.series_id.in_(select(count_series.c.id).where(*_VERSION_FILTER)),
)
