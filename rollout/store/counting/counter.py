"""Counting that stays right when replicas run at once, pause, crash or are late.

Evidence advances by compare-and-set (`EvidenceStore.advance`), and counting holds the last slot of
evidence until its transaction ends. A unit that arrives after evidence has reached its slot goes
into the next slot. So counts through a slot are final once evidence has reached it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from rollout.store.counting.unit_records import NO_ALIASES, UnitRecords
from rollout.store.counting.value_seals import create_seal
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.evidence import EvidenceStore
from rollout.store.records.external_keys import CASE, EPISODE, ExternalKeys
from rollout.store.tables.tables import count_classes, count_series

UNIT_KEY_COLUMNS = ("unit", "version", "track")
ROW_COLUMNS = ("version", "track", "slot", "occurred", "day", "reviewer")
UNITS_PER_PART: Final = 20_000
BEFORE_ALL_SLOTS: Final = (-1, -1)
AFTER_ALL_SLOTS: Final = (2**62, 2**62)
UnitRow = Mapping[str, Any]
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
    counted_units = _build_counted_units(
        transaction, rollout, units.to_dicts(), records, by_episode=by_episode
    )
    open_units = [replace(unit, slot=max(unit.slot, last_slot + 1)) for unit in counted_units]
    new_units = CountedUnits(transaction, rollout).store(open_units)
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
    return Counter(
        CountKey(unit.slot, unit.occurred, unit.series_id, class_id, unit.bucket)
        for unit in units
        if unit.exclusion_reason is None
        for class_id in unit.class_ids
    )


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
    rows: Sequence[UnitRow],
    records: UnitRecords | None,
    *,
    by_episode: bool,
) -> list[CountedUnitRow]:
    series_ids = ValueIds(transaction, rollout, count_series).assign_ids(
        _get_values(row, SERIES_COLUMNS) for row in rows
    )
    class_ids = ValueIds(transaction, rollout, count_classes).assign_ids(
        _get_values(row, CLASS_COLUMNS) for row in rows
    )
    case_keys = ExternalKeys(transaction, rollout, CASE)
    unit_keys = ExternalKeys(transaction, rollout, EPISODE) if by_episode else case_keys
    case_ids = case_keys.assign_ids((row["case_key"] for row in rows), lock=False).by_key
    unit_ids = unit_keys.assign_ids((row["unit"] for row in rows), lock=False).by_key
    counted_units = [
        CountedUnitRow(
            unit=unit_ids[first_row["unit"]],
            case_id=case_ids[first_row["case_key"]],
            series_id=series_ids[_get_values(first_row, SERIES_COLUMNS)],
            class_ids=tuple(class_ids[_get_values(row, CLASS_COLUMNS)] for row in lever_rows),
            bucket=first_row["bucket"],
            exclusion_reason=first_row["excluded"],
            attribute_values=first_row.get("attribute_values") or None,
            slices=first_row.get("slices") or None,
            record_hashes=None
            if records is None
            else records.join_hashes(case_ids[first_row["case_key"]], first_row["version"]),
            **{name: first_row[name] for name in ROW_COLUMNS},
        )
        for lever_rows in _group_by_unit(rows)
        for first_row in lever_rows[:1]
    ]
    return [
        replace(unit, value_seal=create_seal(unit.attribute_values, unit.slices))
        for unit in counted_units
    ]


def _group_by_unit(rows: Sequence[UnitRow]) -> Iterable[list[UnitRow]]:
    groups: dict[tuple[Any, ...], list[UnitRow]] = {}
    for row in rows:
        groups.setdefault(_get_values(row, UNIT_KEY_COLUMNS), []).append(row)
    return groups.values()


def _get_values(row: UnitRow, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)
