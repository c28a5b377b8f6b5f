"""Who said what, summed over all slots: as many rows as there are classes, not as there are units.

Each row is the sum of the tallies of one series and kind. It grows in the transaction that grows
these, so both always say the same; `doctor --rebuild` compares them with the marks.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import polars as pl
from sqlalchemy import Select, bindparam, select

from rollout.store.counting.counts import Key
from rollout.store.database.bulk import add_up
from rollout.store.database.driver_statements import fetched
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import confusion_matrices, count_classes, count_series

Place = tuple[int, int]
"""The numbers of a series and of a kind."""

Names = tuple[str, ...]
KEY: Final = ("version", "lever", "site", "window", "human", "model")


class Matrices:
    """The matrices of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def add(self, counts: Mapping[Key, int]) -> None:
        """Add what is added to tallies; only in the same transaction."""
        rows = [(self._rollout.number, *key, n) for key, n in sorted(summed(counts).items())]
        add_up(self._transaction, confusion_matrices, rows, "n")

    def numbered(self) -> dict[Place, int]:
        """Return every sum under its numbers."""
        query = select(confusion_matrices).where(
            confusion_matrices.c.rollout == self._rollout.number
        )
        return {(row.series_id, row.class_id): row.n for row in self._transaction.execute(query)}

    def frame(self, *, track: str, version: str) -> pl.DataFrame:
        """Return one version's units of a track, counted by what people and the model said.

        Columns: those of `KEY` and n, in no order. A unit without a verdict has a blank `human`;
        what `model` says besides labels stands in `core.measures`.
        """
        rollout_parameters = {"rollout": self._rollout.number}
        version_parameters = {**rollout_parameters, "track": track, "version": version}
        series = self._read(
            OF_SERIES, version_parameters, ("version", "site", "window"), ("series",)
        )
        classes = self._read(OF_KINDS, rollout_parameters, ("lever", "model", "human"), ("kind",))
        counts = self._read(COUNTS, version_parameters, (), ("series", "kind", "n"))
        named_counts = counts.join(series, on="series").join(classes, on="kind")
        return named_counts.group_by(KEY).agg(pl.col("n").sum())

    def _read(
        self, query: Select[Any], given: Mapping[str, Any], texts: Names, numbers: Names
    ) -> pl.DataFrame:
        schema = dict.fromkeys(texts, pl.String()) | dict.fromkeys(numbers, pl.Int64())
        return pl.DataFrame(fetched(self._transaction, query, given), schema=schema, orient="row")


def summed(counts: Mapping[Key, int]) -> Mapping[Place, int]:
    """Return tallies summed over slots, occurrence and bands."""
    sums: Counter[Place] = Counter()
    for key, n in counts.items():
        sums[key.series, key.kind] += n
    return sums


_OF_VERSION: Final = (
    count_series.c.rollout == bindparam("rollout"),
    count_series.c.track == bindparam("track"),
    count_series.c.version == bindparam("version"),
)
OF_SERIES: Final = select(
    *(count_series.c.version, count_series.c.site, count_series.c.window, count_series.c.id)
).where(*_OF_VERSION)
OF_KINDS: Final = select(
    *(count_classes.c.lever, count_classes.c.predicted, count_classes.c.decided, count_classes.c.id)
).where(count_classes.c.rollout == bindparam("rollout"))
COUNTS: Final = select(
    confusion_matrices.c.series_id, confusion_matrices.c.class_id, confusion_matrices.c.n
).where(
    confusion_matrices.c.rollout == bindparam("rollout"),
    confusion_matrices.c.series_id.in_(select(count_series.c.id).where(*_OF_VERSION)),
)
