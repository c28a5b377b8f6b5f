"""Counting that stays right when replicas run at once, pause, crash or are late.

Evidence advances by compare-and-set (`EvidenceStore.advance`), and counting holds the last slot of
evidence until its transaction ends. A unit that arrives after evidence has reached its slot goes
into the next slot. So counts through a slot are final once evidence has reached it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import starmap
from typing import Any, Final, TypeVar

import polars as pl
from sqlalchemy import Table

from rollout import faults
from rollout.store.counting.counted_units import CountedUnitRow, CountedUnits
from rollout.store.counting.counts import (
    CLASS_COLUMNS,
    SERIES_COLUMNS,
    CountKey,
    StoredCounts,
    ValueIds,
)
from rollout.store.counting.matrices import Matrices, MatrixKey, sum_over_slots
from rollout.store.counting.top_losses import StoredLosses
from rollout.store.counting.unit_digests import create_seal
from rollout.store.counting.unit_records import NO_ALIASES, UnitRecords
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.evidence import EvidenceStore
from rollout.store.records.external_keys import CASE, EPISODE, ExternalKeys
from rollout.store.tables.tables import count_classes, count_series

UNIT_KEY_COLUMNS = ("unit", "version", "track")
ROW_COLUMNS = (
    *("slot", "occurred", "day", "bucket", "reviewer", "excluded"),
    *("attribute_values", "slices", "band"),  # null where a caller has none
)
UNITS_PER_PART: Final = 20_000
BEFORE_ALL_SLOTS: Final = (-1, -1)
AFTER_ALL_SLOTS: Final = (2**62, 2**62)
UnitIdentity = tuple[str, str, str]
KeyT = TypeVar("KeyT", bound=Any)


def count_units(
    transaction: Transaction,
    rollout: Rollout,
    units: pl.DataFrame,
    *,
    by_episode: bool,
    records: UnitRecords | None = None,
) -> int:
    """Count the units that were not counted before; return their number.

    Args:
        transaction: a writing one that also deletes their entries in the count queue.
        rollout: their rollout.
        units: rows as `rollout.tally.units.resolve_units` returns them, one a unit, version, track
            and lever, and the columns `definition`, `attempt` and `bucket`.
        by_episode: whether `unit` holds keys of episodes, else of cases.
        records: the records behind the units; by default their hashes are not stored.
    """
    if units.is_empty():
        return 0
    last_slot = EvidenceStore(transaction, rollout).get_last_slot(lock=True)
    open_units = units.with_columns(pl.col("slot").clip(lower_bound=last_slot + 1))
    counted_units = _build_counted_units(
        transaction, rollout, open_units, records, by_episode=by_episode
    )
    new_units = CountedUnits(transaction, rollout).store(counted_units)
    faults.reach_point("tick.counted")
    added_counts = sum_by_key(new_units)
    StoredCounts(transaction, rollout).add(added_counts)
    Matrices(transaction, rollout).add(added_counts)
    first_names = NO_ALIASES if records is None else records.first_names
    StoredLosses(transaction, rollout, first_names).add(new_units)
    faults.reach_point("tick.tallied")
    return len(new_units)


def sum_by_key(units: Iterable[CountedUnitRow]) -> Mapping[CountKey, int]:
    """Return the counts of units; only evidence counts."""
    sums = Counter(
        (unit.slot, unit.occurred, unit.series_id, class_id, unit.bucket)
        for unit in units
        if unit.exclusion_reason is None
        for class_id in unit.class_ids
    )
    return {CountKey(*key): n for key, n in sums.items()}


@dataclass(frozen=True, slots=True)
class CountDifferences:
    """Sums that differ from the counted units: stored and expected, by key."""

    counts: Mapping[CountKey, tuple[int, int]]
    matrices: Mapping[MatrixKey, tuple[int, int]]


def find_differences(transaction: Transaction, rollout: Rollout) -> CountDifferences:
    """Return the counts and matrices that differ from the counted units.

    Units are read in parts by slot, so memory grows only with the matrices and the differences.
    """
    units, stored_counts = CountedUnits(transaction, rollout), StoredCounts(transaction, rollout)
    differences: dict[CountKey, tuple[int, int]] = {}
    sums, after = Counter[MatrixKey](), BEFORE_ALL_SLOTS
    for until in (*units.list_part_ends(UNITS_PER_PART), AFTER_ALL_SLOTS):
        expected = sum_by_key(units.list_part(after=after, until=until))
        stored = stored_counts.load_by_key(after=after, until=until)
        differences |= _find_unequal(stored, expected)
        sums.update(sum_over_slots(expected))
        after = until
    matrices = Matrices(transaction, rollout).load_by_key()
    return CountDifferences(differences, _find_unequal(matrices, sums))


def _find_unequal(
    stored: Mapping[KeyT, int], expected: Mapping[KeyT, int]
) -> dict[KeyT, tuple[int, int]]:
    pairs = {key: (stored.get(key, 0), expected.get(key, 0)) for key in {*stored, *expected}}
    return {key: pairs[key] for key in sorted(pairs) if len(set(pairs[key])) > 1}


def _build_counted_units(
    transaction: Transaction,
    rollout: Rollout,
    units: pl.DataFrame,
    records: UnitRecords | None,
    *,
    by_episode: bool,
) -> list[CountedUnitRow]:
    lever_rows: dict[UnitIdentity, list[int]] = {}
    identities = zip(*(units[name].to_list() for name in UNIT_KEY_COLUMNS), strict=True)
    for row, identity in enumerate(identities):
        lever_rows.setdefault(identity, []).append(row)
    first_rows = [rows[0] for rows in lever_rows.values()]
    class_ids = _assign_value_ids(transaction, rollout, count_classes, units, CLASS_COLUMNS)
    first_units = units if len(first_rows) == units.height else units[first_rows]
    case_keys = ExternalKeys(transaction, rollout, CASE)
    unit_keys = ExternalKeys(transaction, rollout, EPISODE) if by_episode else case_keys
    keys = first_units["case_key"].to_list()
    ids_by_key = case_keys.assign_ids(keys, lock=False).by_key
    case_ids = [ids_by_key[key] for key in keys]
    if by_episode:
        ids_by_key = unit_keys.assign_ids(first_units["unit"].to_list(), lock=False).by_key
    versions = first_units["version"].to_list()
    no_values = [None] * first_units.height
    fields: dict[str, list[Any]] = {
        name: first_units[name].to_list() if name in first_units.columns else no_values
        for name in ROW_COLUMNS
    }
    for name in ("attribute_values", "slices"):
        if fields[name] is not no_values:
            fields[name] = [value or None for value in fields[name]]
    values = list(zip(fields["attribute_values"], fields["slices"], strict=True))
    rows = zip(
        [ids_by_key[unit] for unit, _, _ in lever_rows],
        versions,
        [track for _, _, track in lever_rows],
        case_ids,
        fields["slot"],
        fields["occurred"],
        fields["day"],
        _assign_value_ids(transaction, rollout, count_series, first_units, SERIES_COLUMNS),
        [tuple([class_ids[row] for row in rows]) for rows in lever_rows.values()],
        fields["bucket"],
        fields["reviewer"],
        fields["excluded"],
        no_values if records is None else map(cache(records.join_hashes), case_ids, versions),
        fields["attribute_values"],
        fields["slices"],
        [create_seal(*pair) for pair in values],
        fields["band"],
        strict=True,
    )
    return list(starmap(CountedUnitRow, rows))


def _assign_value_ids(
    transaction: Transaction,
    rollout: Rollout,
    table: Table,
    units: pl.DataFrame,
    names: Sequence[str],
) -> list[int]:
    """Return the number of each unit's values of some columns; there are few different ones."""
    values = units.select(names).unique(maintain_order=True)
    ids = ValueIds(transaction, rollout, table).assign_ids(values.rows())
    numbered = values.with_columns(
        id=pl.Series([ids[row] for row in values.rows()], dtype=pl.Int64)
    )
    matched = units.select(names).join(
        numbered, on=names, how="left", nulls_equal=True, maintain_order="left"
    )
    return matched["id"].to_list()
