"""Counting that stays right when replicas run at once, pause, crash or are late.

Evidence advances by compare-and-set (`EvidenceStore.advance`), and counting holds the last slot of
evidence until its transaction ends. A unit that arrives after evidence has reached its slot goes
into the next slot. So counts through a slot are final once evidence has reached it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

import polars as pl

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
    columns = {name: units[name].to_list() for name in units.columns}
    no_values = [None] * units.height
    series, classes, identities = (
        list(zip(*(columns[name] for name in names), strict=True))
        for names in (SERIES_COLUMNS, CLASS_COLUMNS, UNIT_KEY_COLUMNS)
    )
    series_ids = ValueIds(transaction, rollout, count_series).assign_ids(series)
    class_ids = ValueIds(transaction, rollout, count_classes).assign_ids(classes)
    case_keys = ExternalKeys(transaction, rollout, CASE)
    unit_keys = ExternalKeys(transaction, rollout, EPISODE) if by_episode else case_keys
    case_ids = case_keys.assign_ids(columns["case_key"], lock=False).by_key
    unit_ids = unit_keys.assign_ids(columns["unit"], lock=False).by_key
    lever_rows: dict[UnitIdentity, list[int]] = {}
    for row, identity in enumerate(identities):
        lever_rows.setdefault(identity, []).append(row)
    join_hashes = None if records is None else cache(records.join_hashes)  # tracks share them
    fields = {name: columns.get(name, no_values) for name in ROW_COLUMNS}
    counted_units: list[CountedUnitRow] = []
    for (unit, version, track), rows in lever_rows.items():
        row = rows[0]
        case_id = case_ids[columns["case_key"][row]]
        attribute_values = fields["attribute_values"][row] or None
        slices = fields["slices"][row] or None
        counted_units.append(
            CountedUnitRow(
                unit=unit_ids[unit],
                version=version,
                track=track,
                case_id=case_id,
                slot=fields["slot"][row],
                occurred=fields["occurred"][row],
                day=fields["day"][row],
                series_id=series_ids[series[row]],
                class_ids=tuple([class_ids[classes[lever_row]] for lever_row in rows]),
                bucket=fields["bucket"][row],
                reviewer=fields["reviewer"][row],
                exclusion_reason=fields["excluded"][row],
                record_hashes=None if join_hashes is None else join_hashes(case_id, version),
                attribute_values=attribute_values,
                slices=slices,
                value_seal=create_seal(attribute_values, slices),
                band=fields["band"][row],
            )
        )
    return counted_units
