"""Since when each version is in use in each cell: written with the units that begin it.

The table follows from the counted units. It holds a row a version and cell, so reading it costs
nothing where reading the first unit of each would cost a look at all.
"""

from collections.abc import Mapping
from json import loads

from sqlalchemy import Text, insert, select, type_coerce, update

from rollout.data.database.rollouts import RolloutRepository
from rollout.data.tables.record_tables import GATE
from rollout.data.tables.tables import count_classes, count_series, counted_units, version_uses
from rollout.engine.evidence.version_uses import LAST_USE, Use, UseKey
from rollout.kernel.units import AFTER_CLOSING, SILENT


class StoredUses(RolloutRepository):
    """The uses of versions in one rollout."""

    def load_all(self) -> dict[UseKey, Use]:
        """Return all uses."""
        columns = version_uses.c
        query = select(
            columns.site, columns.window, columns.version, columns.occurred, columns.slot
        ).where(columns.rollout == self._rollout.number)
        rows = map(tuple, self._transaction.execute(query).all())
        return {(site, window, version): Use(*use) for site, window, version, *use in rows}

    def store(self, uses: Mapping[UseKey, Use]) -> None:
        """Store uses that are new, or began earlier; evidence can't advance meanwhile."""
        stored_uses = self.load_all() if uses else {}
        new_rows = []
        for (site, window, version), use in uses.items():
            key = {"rollout": self._rollout.number, "site": site, "window": window}
            key |= {"version": version}
            stored_use = stored_uses.get((site, window, version))
            if stored_use is None:
                new_rows.append({**key, **use._asdict()})
            elif use < stored_use:
                conditions = (version_uses.c[name] == value for name, value in key.items())
                change = update(version_uses).where(*conditions).values(**use._asdict())
                self._transaction.execute(change)
        if new_rows:
            self._transaction.execute(insert(version_uses), new_rows)

    def find_differences(self) -> dict[UseKey, tuple[Use | None, Use | None]]:
        """Return by key the stored and the right use, where they differ; None for a missing one.

        Only the occurrence is compared: a late tick counts a unit in a later slot than its own.
        """
        stored, expected = self.load_all(), self._find_expected()
        pairs = {key: (stored.get(key), expected.get(key)) for key in {*stored, *expected}}
        return {
            key: (use, right)
            for key, (use, right) in sorted(pairs.items())
            if use is None or right is None or use.occurred != right.occurred
        }

    def _find_expected(self) -> dict[UseKey, Use]:
        """Return the first predicted unit of each version and cell."""
        silent_query = select(count_classes.c.id).where(
            count_classes.c.rollout == self._rollout.number,
            count_classes.c.predicted.in_(SILENT),
        )
        silent_classes = set(self._transaction.execute(silent_query).scalars())
        query = select(
            count_series.c.site,
            count_series.c.window,
            counted_units.c.version,
            counted_units.c.occurred,
            counted_units.c.slot,
            type_coerce(counted_units.c.class_ids, Text),
        ).where(
            counted_units.c.rollout == self._rollout.number,
            counted_units.c.track == GATE,
            counted_units.c.exclusion_reason.is_distinct_from(AFTER_CLOSING),
            count_series.c.id == counted_units.c.series_id,
        )
        expected: dict[UseKey, Use] = {}
        for site, window, version, *use, class_ids in map(tuple, self._transaction.execute(query)):
            key, own = (site, window, version), Use(*use)
            if own < expected.get(key, LAST_USE) and silent_classes.isdisjoint(loads(class_ids)):
                expected[key] = own
        return expected
