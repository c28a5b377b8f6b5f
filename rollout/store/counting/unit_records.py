"""The records behind counted units, by their hashes.

A unit rests on its cases, on the predictions of its version and on the decisions, in every revision
that was stored when it was counted. Of an episode all cases decide, because one is picked.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import Row, Table

from rollout.store.records.record_hashes import get_record_hash, join_hashes
from rollout.store.tables.tables import decisions, outcomes, predictions

NO_ALIASES: Mapping[str, str] = MappingProxyType({})


class UnitRecords:
    """Hashes of records as they were read, from which units take theirs.

    Attributes:
        cases_beside: by case all cases of its unit; empty if each unit is a case.
        first_names: by later name of a version its first one.
        row_counts: by case the number of its records.
    """

    def __init__(self, first_names: Mapping[str, str] = NO_ALIASES) -> None:
        self.first_names = first_names
        self._predictions: dict[int, set[tuple[str, str | None, bytes]]] = {}
        self._others: dict[int, set[bytes]] = {}
        self._senders: dict[int, set[str | None]] = {}
        self.cases_beside: Mapping[int, Collection[int]] = {}
        self.row_counts: Counter[int] = Counter()

    def is_used(self, _row: Row[Any]) -> bool:
        """Return whether units may rest on a record: on any."""
        return True

    def add_row(self, table: Table, row: Row[Any]) -> bool:
        """Add a record's row, and return True: the row is used."""
        record_hash = get_record_hash(row)
        self.row_counts[row.case_id] += 1
        if table is predictions:
            version = self.first_names.get(row.version, row.version)
            prediction = (version, row.sender, record_hash)
            self._predictions.setdefault(row.case_id, set()).add(prediction)
        elif table is not outcomes:  # no unit rests on them
            self._others.setdefault(row.case_id, set()).add(record_hash)
            if table is decisions:
                self._senders.setdefault(row.case_id, set()).add(row.sender)
        return True

    def join_hashes(self, case_id: int, version: str) -> bytes:
        """Return the hashes of the records behind the unit of a case, sorted and joined.

        A prediction of another version belongs to them if its sender also sent a decision or
        outcome of the unit, which then may be no evidence.
        """
        numbers = self.cases_beside.get(case_id, (case_id,))
        senders = {sender for number in numbers for sender in self._senders.get(number, ())}
        return join_hashes(
            record_hash
            for number in numbers
            for record_hash in self._list_hashes(number, version, senders - {None})
        )

    def _list_hashes(
        self, case_id: int, version: str, senders: Collection[str | None]
    ) -> Iterator[bytes]:
        yield from self._others.get(case_id, ())
        for own_version, sender, record_hash in self._predictions.get(case_id, ()):
            if own_version == version or sender in senders:
                yield record_hash


class OutcomeRecords(UnitRecords):
    """Hashes of records, also of outcomes, which units with a value rest on."""

    def add_row(self, table: Table, row: Row[Any]) -> bool:
        """Add a record's row, and return True: the row is used."""
        if table is outcomes:
            self._others.setdefault(row.case_id, set()).add(get_record_hash(row))
            self._senders.setdefault(row.case_id, set()).add(row.sender)
        return super().add_row(table, row)


class SelectedRecords(UnitRecords):
    """Records with certain hashes; others are not used."""

    def __init__(
        self, hashes: Collection[bytes], first_names: Mapping[str, str] = NO_ALIASES
    ) -> None:
        """Select the records with these hashes."""
        super().__init__(first_names)
        self._selected_hashes = hashes

    def is_used(self, row: Row[Any]) -> bool:
        """Return whether the row is one of the selected records."""
        return get_record_hash(row) in self._selected_hashes

    def add_row(self, table: Table, row: Row[Any]) -> bool:
        """Return whether the row is one of the selected records, or an outcome."""
        return table is outcomes or self.is_used(row)


class SelectedOutcomeRecords(SelectedRecords):
    """Records with certain hashes, of outcomes too; others are not used."""

    def add_row(self, _table: Table, row: Row[Any]) -> bool:
        """Return whether the row is one of the selected records."""
        return self.is_used(row)
