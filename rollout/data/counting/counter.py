"""Counting that stays right when replicas run at once, pause, crash or are late; its repair.

Evidence only moves on (`EvidenceStore.advance`), and counting holds its last slot until the
transaction ends. A unit that arrives after evidence has reached its slot goes
into the next slot. So counts through a slot are final once evidence has reached it.

What was counted for slots that have not come is taken back, to be counted when they do: a process
whose clock was ahead counted cases before their time, and what came after it counted later still.
Whatever lacks its records stays as it was counted, since nothing could count it again.

Each row of a confusion matrix is the sum of the counts of one series and class over all slots. It
grows in the same transaction as the counts; `doctor --rebuild` compares it with the counted units.
Derived tables are no source: where one differs, by a manual change, a broken disk or a bug, it is
written anew from the ledger or from the counted units.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from operator import itemgetter
from typing import Any, Final, TypeVar

import polars as pl
from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    insert,
    select,
    tuple_,
    update,
)

from rollout import faults
from rollout.data.counting.count_queue import CASE_RECEIVED, CountQueue, DueCase
from rollout.data.counting.counted_units import (
    IS_ERASED,
    CountedUnitRow,
    CountedUnits,
    StoredUses,
    build_row,
    create_seal,
    shift_slots,
)
from rollout.data.counting.counts import (
    CLASS_COLUMNS,
    SERIES_COLUMNS,
    CountKey,
    StoredCounts,
    ValueIds,
)
from rollout.data.counting.purge import open_purge
from rollout.data.counting.top_losses import LossRow, StoredLosses
from rollout.data.counting.unit_records import NO_ALIASES, UnitRecords
from rollout.data.database.bulk import delete_keys, fetch_rows, upsert_sums
from rollout.data.database.rollouts import Rollout, RolloutRepository
from rollout.data.database.session import Transaction
from rollout.data.ledger.projections import CHECKED_TABLES
from rollout.data.ledger.scopes import (
    EvidenceStore,
    TickSlots,
    decode_scope,
    encode_scope,
    select_scopes,
)
from rollout.data.records.external_keys import CASE, EPISODE, ExternalKeys
from rollout.data.tables.record_tables import OUTCOME, RECORD_UNSEALED
from rollout.data.tables.tables import (
    cases,
    confusion_matrices,
    count_classes,
    count_series,
    counted_outcomes,
    counted_records,
    counted_units,
    counts,
    ledger_heads,
    scopes,
    top_losses,
    version_uses,
)
from rollout.engine.decide.projection import apply_event
from rollout.engine.decide.scope import Scope
from rollout.engine.events import LedgerEvent
from rollout.engine.evidence.version_uses import Use, UseKey
from rollout.kernel.units import group_pairs

RowValues = Mapping[str, Any]
USE_KEY: Final = ("site", "window", "version")


@dataclass(frozen=True, slots=True)
class RowDifference:
    """A row of a derived table that differs from what its source says.

    `key` has the columns that identify it, `stored` and `right` the others; None is no such row.
    """

    table: Table
    key: RowValues
    stored: RowValues | None
    right: RowValues | None

    def describe(self) -> str:
        """Return a sentence with what is stored and what is right."""
        source = "the ledger" if self.table.name in CHECKED_TABLES else "the counted units"
        place = ", ".join(f"{name} {value}" for name, value in self.key.items())
        if self.right is None:
            text = f"is not in {source}"
        elif self.stored is None:
            text = f"is in {source} and missing here"
        else:
            text = ", ".join(
                f"says {name} {self.stored[name]}; by {source} it is {value}"
                for name, value in self.right.items()
                if self.stored[name] != value
            )
        return f"{self.table.name}: {place} {text}"


def list_wrong_uses(
    differences: Mapping[UseKey, tuple[Use | None, Use | None]],
) -> Iterator[RowDifference]:
    """Yield the rows of versions' uses that differ, stored and right, by their key."""
    for key, uses in differences.items():
        rows = (use and use._asdict() for use in uses)
        yield RowDifference(version_uses, dict(zip(USE_KEY, key, strict=True)), *rows)


class ProjectionRepair(RolloutRepository):
    """The derived tables of one rollout."""

    def lock(self) -> None:
        """Block appending and counting until this transaction ends."""
        head_query = select(ledger_heads).where(ledger_heads.c.rollout == self._rollout.number)
        self._transaction.execute(head_query.with_for_update())
        EvidenceStore(self._transaction, self._rollout).get_last_slot(lock=True)

    def find_wrong_scopes(self, events: Iterable[LedgerEvent]) -> dict[int, Scope | None]:
        """Return by revision the right scope for each wrong stored one.

        None means that the ledger has no such revision.
        """
        own_scopes = scopes.c.rollout == self._rollout.number
        query = select(scopes.c.revision).where(own_scopes).order_by(scopes.c.revision)
        revisions = self._transaction.execute(query).scalars()
        wrong_scopes: dict[int, Scope | None] = dict.fromkeys(revisions)
        scope = Scope()
        for event in events if wrong_scopes else ():
            scope = apply_event(scope, event)
            if scope.revision in wrong_scopes:
                row_query = select_scopes(self._rollout).where(scopes.c.revision == scope.revision)
                row = self._transaction.execute(row_query).one()
                if row.at == scope.at and _is_same_scope(row.body, row.hash, scope):
                    del wrong_scopes[scope.revision]
                else:
                    wrong_scopes[scope.revision] = scope
        return wrong_scopes

    def repair_scopes(self, expected: Mapping[int, Scope | None]) -> None:
        """Replace the stored scopes of these revisions; delete those with None."""
        for revision, scope in expected.items():
            conditions = (scopes.c.rollout == self._rollout.number, scopes.c.revision == revision)
            if scope is None:
                self._transaction.execute(delete(scopes).where(*conditions))
            else:
                row_query = select_scopes(self._rollout).where(scopes.c.revision == revision)
                row_hash = self._transaction.execute(row_query).one().hash
                values = {"at": scope.at, "body": encode_scope(scope, row_hash)}
                self._transaction.execute(update(scopes).where(*conditions).values(**values))

    def repair_rows(self, differences: Iterable[RowDifference]) -> None:
        """Write rows as their sources have them."""
        for difference in differences:
            table, right = difference.table, difference.right
            key_values = {"rollout": self._rollout.number, **difference.key}
            condition = and_(*(table.c[name] == value for name, value in key_values.items()))
            if right is None:
                self._transaction.execute(delete(table).where(condition))
            elif difference.stored is None:
                self._transaction.execute(insert(table).values(**key_values, **right))
            else:
                self._transaction.execute(update(table).where(condition).values(**right))


def _is_same_scope(body: Any, row_hash: str, scope: Scope) -> bool:
    """Return whether a stored body is this scope; unreadable bodies are not."""
    try:
        return decode_scope(body, row_hash) == scope
    except (ValueError, TypeError, KeyError, IndexError):
        return False


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


GET_COUNTED: Final = itemgetter(
    *map(
        CountedUnitRow._fields.index,
        ("slot", "occurred", "series_id", "class_ids", "bucket", "exclusion_reason"),
    )
)
UNIT_KEY_COLUMNS = ("unit", "version", "track")
ROW_COLUMNS = (
    *("slot", "occurred", "day", "bucket", "reviewer", "excluded"),
    *("attribute_values", "slices", "band"),  # null where a caller has none
)
UNITS_PER_PART: Final = 20_000
BEFORE_ALL_SLOTS: Final = (-1, -1)
AFTER_ALL_SLOTS: Final = (2**62, 2**62)
VALUE_TABLES: Final = ((count_classes, CLASS_COLUMNS), (count_series, SERIES_COLUMNS))
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
        units: rows as `rollout.engine.evidence.units.resolve_units` returns them, one a unit,
        version, track
            and lever, and the columns `definition`, `attempt` and `bucket`.
        by_episode: whether `unit` holds keys of episodes, else of cases.
        records: the records behind the units; by default their hashes are not stored.
    """
    if units.is_empty():
        return 0
    numbers = assign_numbers(transaction, rollout, units, by_episode=by_episode)
    counted_units = build_counted_units(units, numbers, records)
    first_names = NO_ALIASES if records is None else records.first_names
    losses = StoredLosses(transaction, rollout, first_names).find_losses(counted_units)
    return len(store_units(transaction, rollout, counted_units, losses))


def store_units(
    transaction: Transaction,
    rollout: Rollout,
    counted_units: Sequence[CountedUnitRow],
    losses: Sequence[LossRow],
) -> Sequence[CountedUnitRow]:
    """Store the units that were not counted before, and their sums; return them.

    `losses` are those of the units. Evidence can't advance until the transaction ends.
    """
    last_slot = EvidenceStore(transaction, rollout).get_last_slot(lock=True)
    new_units = CountedUnits(transaction, rollout).store(shift_slots(counted_units, last_slot + 1))
    faults.reach_point("tick.counted")
    added_counts = sum_by_key(new_units)
    StoredCounts(transaction, rollout).add(added_counts)
    Matrices(transaction, rollout).add(added_counts)
    if losses:
        new_pairs = {(unit.case_id, unit.version) for unit in new_units}
        StoredLosses(transaction, rollout).store(
            [loss for loss in losses if (loss.case_id, loss.version) in new_pairs]
        )
    faults.reach_point("tick.tallied")
    return new_units


def sum_by_key(units: Iterable[CountedUnitRow]) -> Mapping[CountKey, int]:
    """Return the counts of units; only evidence counts."""
    sums = Counter(map(GET_COUNTED, units))
    counts: Counter[CountKey] = Counter()
    for (slot, occurred, series_id, class_ids, bucket, exclusion_reason), n in sums.items():
        if exclusion_reason is None:
            for class_id in class_ids:
                counts[CountKey(slot, occurred, series_id, class_id, bucket)] += n
    return counts


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
        differences |= _find_unequal(stored_counts.load_by_key(after=after, until=until), expected)
        sums.update(sum_over_slots(expected))
        after = until
    matrices = Matrices(transaction, rollout).load_by_key()
    return CountDifferences(differences, _find_unequal(matrices, sums))


def _find_unequal(
    stored: Mapping[KeyT, int], expected: Mapping[KeyT, int]
) -> dict[KeyT, tuple[int, int]]:
    pairs = {key: (stored.get(key, 0), expected.get(key, 0)) for key in {*stored, *expected}}
    return {key: pairs[key] for key in sorted(pairs) if len(set(pairs[key])) > 1}


@dataclass(frozen=True, slots=True)
class UnitNumbers:
    """The numbers of units' keys, and by row those of their class and series."""

    cases: Mapping[str, int]
    units: Mapping[str, int]
    classes: Sequence[int]
    series: Sequence[int]


def find_numbers(
    transaction: Transaction,
    rollout: Rollout,
    units: pl.DataFrame,
    cases: Mapping[str, int],
    *,
    by_episode: bool,
) -> UnitNumbers | None:
    """Return the numbers of units, or None if a key, class or series has none yet.

    `cases` are those of their cases, which were read with the records.
    """
    _, unit_keys = _list_keys(units, by_episode=by_episode)
    episodes = ExternalKeys(transaction, rollout, EPISODE).find_ids(unit_keys)
    if len(episodes) < len(unit_keys):
        return None
    return _number_units(transaction, rollout, units, cases, episodes if by_episode else cases)


def assign_numbers(
    transaction: Transaction, rollout: Rollout, units: pl.DataFrame, *, by_episode: bool
) -> UnitNumbers:
    """Return the numbers of units; keys, classes and series without one get it."""
    case_keys, unit_keys = _list_keys(units, by_episode=by_episode)
    cases = ExternalKeys(transaction, rollout, CASE).assign_ids(case_keys, lock=False).by_key
    episodes = ExternalKeys(transaction, rollout, EPISODE)
    unit_ids = episodes.assign_ids(unit_keys, lock=False).by_key if by_episode else cases
    for table, names in VALUE_TABLES:
        ValueIds(transaction, rollout, table).assign_ids(units.select(names).unique().rows())
    numbers = _number_units(transaction, rollout, units, cases, unit_ids)
    assert numbers is not None  # noqa: S101 - each has one now
    return numbers


def _list_keys(units: pl.DataFrame, *, by_episode: bool) -> tuple[list[str], list[str]]:
    """Return the keys of cases, and of episodes."""
    unit_keys = units["unit"].unique().to_list() if by_episode else []
    return units["case_key"].unique().to_list(), unit_keys


def _number_units(
    transaction: Transaction,
    rollout: Rollout,
    units: pl.DataFrame,
    cases: Mapping[str, int],
    unit_ids: Mapping[str, int],
) -> UnitNumbers | None:
    classes, series = (
        _find_value_ids(ValueIds(transaction, rollout, table), units, names)
        for table, names in VALUE_TABLES
    )
    if classes is None or series is None:
        return None
    return UnitNumbers(cases, unit_ids, classes, series)


def build_counted_units(
    units: pl.DataFrame, numbers: UnitNumbers, records: UnitRecords | None
) -> list[CountedUnitRow]:
    """Return the rows of units, each with the numbers of its levers' classes."""
    first_rows, class_ids = _group_levers(units, numbers.classes)
    is_each_first = len(first_rows) == units.height
    first_units = units if is_each_first else units[first_rows]
    series_ids = numbers.series if is_each_first else [numbers.series[row] for row in first_rows]
    case_ids = [numbers.cases[key] for key in first_units["case_key"].to_list()]
    versions = first_units["version"].to_list()
    no_values = [None] * first_units.height
    fields: dict[str, list[Any]] = {
        name: first_units[name].to_list() if name in first_units.columns else no_values
        for name in ROW_COLUMNS
    }
    for name in ("attribute_values", "slices"):
        if fields[name] is not no_values:
            fields[name] = [value or None for value in fields[name]]
    has_values = fields["attribute_values"] is not no_values or fields["slices"] is not no_values
    hashes = (
        [b""] * first_units.height
        if records is None
        else map(cache(records.join_hashes), case_ids, versions)
    )
    rows = zip(
        [numbers.units[unit] for unit in first_units["unit"].to_list()],
        versions,
        first_units["track"].to_list(),
        case_ids,
        fields["slot"],
        fields["occurred"],
        fields["day"],
        series_ids,
        class_ids,
        fields["bucket"],
        fields["reviewer"],
        fields["excluded"],
        hashes,
        fields["attribute_values"],
        fields["slices"],
        map(create_seal, fields["attribute_values"], fields["slices"]) if has_values else no_values,
        fields["band"],
        strict=True,
    )
    return list(map(build_row, rows))


def _group_levers(
    units: pl.DataFrame, class_ids: Sequence[int]
) -> tuple[Sequence[int], Sequence[tuple[int, ...]]]:
    """Return the first row of each unit, and the numbers of its levers' classes."""
    identities = list(zip(*(units[name].to_list() for name in UNIT_KEY_COLUMNS), strict=True))
    if len({*identities}) == len(identities):  # as with one lever
        return range(len(identities)), list(zip(class_ids, strict=True))
    lever_rows = group_pairs((identity, row) for row, identity in enumerate(identities))
    return (
        [rows[0] for rows in lever_rows.values()],
        [tuple([class_ids[row] for row in rows]) for rows in lever_rows.values()],
    )


def _find_value_ids(
    value_ids: ValueIds, units: pl.DataFrame, names: Sequence[str]
) -> list[int] | None:
    """Return the number of each unit's values of some columns, of which there are few; or None."""
    values = units.select(names).unique(maintain_order=True)
    ids = value_ids.find_ids(values.rows())
    if len(ids) < values.height:
        return None
    numbered = values.with_columns(
        id=pl.Series([ids[row] for row in values.rows()], dtype=pl.Int64)
    )
    matched = units.select(names).join(
        numbered, on=names, how="left", nulls_equal=True, maintain_order="left"
    )
    return matched["id"].to_list()


def take_back_slots(transaction: Transaction, rollout: Rollout, *, first: int, at: datetime) -> int:
    """Take back slots from the first on; return the number of units.

    Their ticks count as none. `at`, when the first begins, is when their cases are due again.
    """
    slots, evidence = TickSlots(transaction, rollout), EvidenceStore(transaction, rollout)
    evidence.get_last_slot(lock=True)  # nothing is counted meanwhile
    slots.delete_from(first)
    evidence.rewind(min(slots.load_slots_and_stops()[1] or 0, first - 1))
    taking = _Taking(transaction, rollout, first, at)
    with open_purge(transaction):
        unit_count = taking.take_units()
        taking.take_rows(counted_outcomes, OUTCOME)
        taking.take_rows(counted_records, RECORD_UNSEALED)
    uses = StoredUses(transaction, rollout).find_differences()
    ProjectionRepair(transaction, rollout).repair_rows(list_wrong_uses(uses))
    return unit_count


class _Taking:
    """The slots of one rollout that are taken back."""

    def __init__(
        self, transaction: Transaction, rollout: Rollout, first: int, at: datetime
    ) -> None:
        self._transaction, self._rollout, self._first, self._at = transaction, rollout, first, at

    def take_units(self) -> int:
        """Delete units with their sums, and queue their cases; return the number of units."""
        conditions = (*self._match_rows(counted_units), ~IS_ERASED)
        units = list(CountedUnits(self._transaction, self._rollout).list_matching(*conditions))
        negative = {key: -n for key, n in sum_by_key(units).items()}
        StoredCounts(self._transaction, self._rollout).add(negative)
        Matrices(self._transaction, self._rollout).add(negative)
        for table in (counts, confusion_matrices):
            self._delete(table, table.c.n == 0)
        number = self._rollout.number
        pairs = select(counted_units.c.case_id, counted_units.c.version).where(*conditions)
        self._delete(top_losses, tuple_(top_losses.c.case_id, top_losses.c.version).in_(pairs))
        delete_keys(self._transaction, counted_units, [(number, *unit.identity) for unit in units])
        self._queue((unit.case_id for unit in units), CASE_RECEIVED)
        return len(units)

    def take_rows(self, table: Table, track: str) -> None:
        """Delete rows of counted outcomes or records, and queue their cases."""
        conditions = self._match_rows(table)
        case_ids = self._transaction.execute(select(table.c.case_id).where(*conditions)).scalars()
        self._queue(case_ids, track)
        self._delete(table, *conditions)

    def _queue(self, case_ids: Iterable[int], track: str) -> None:
        queue = CountQueue(self._transaction, self._rollout)
        queue.add(DueCase(self._at, case_id, track) for case_id in {*case_ids})

    def _delete(self, table: Table, *conditions: ColumnElement[bool]) -> None:
        is_own = table.c.rollout == self._rollout.number
        self._transaction.execute(delete(table).where(is_own, *conditions))

    def _match_rows(self, table: Table) -> tuple[ColumnElement[bool], ...]:
        """Return the conditions for rows of the slots whose case has its records."""
        stored_cases: Select[Any] = select(cases.c.case_id).where(
            cases.c.rollout == self._rollout.number
        )
        is_own = table.c.rollout == self._rollout.number
        return is_own, table.c.slot >= self._first, table.c.case_id.in_(stored_cases)
