"""The records behind counted units, by their hashes.

A unit rests on its cases, on the predictions of its version and on the decisions, in every revision
that was stored when it was counted. Of an episode all cases decide, because one is picked.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from sqlalchemy import Row, Table

from rollout.store.records.record_hashes import join_hashes
from rollout.store.tables.tables import decisions, outcomes, predictions
from rollout.tally.version_uses import NO_USES

NO_ALIASES: Mapping[str, str] = MappingProxyType({})


class UnitRecords:
    """Hashes of records as they were read, from which units take theirs.

    Attributes:
        cases_beside: by case all cases of its unit; empty if each unit is a case.
        first_names: by later name of a version its first one.
        row_counts: by case the number of its records.
        case_numbers: the numbers of the cases by key.
        uses: since when versions were in use as the records were read.
    """

    def __init__(self, first_names: Mapping[str, str] = NO_ALIASES) -> None:
        self.first_names = first_names
        self._predictions: dict[int, set[tuple[str, str | None, bytes]]] = {}
        self._others: dict[int, set[bytes]] = {}
        self._senders: dict[int, set[str]] = {}
        self.cases_beside: Mapping[int, Collection[int]] = {}
        self.row_counts: Counter[int] = Counter()
        self.case_numbers: Mapping[str, int] = {}
        self.uses = NO_USES

    def is_used(self, _row: Row[Any]) -> bool:
        """Return whether units may rest on a record: on any."""
        return True

    def add_rows(self, table: Table, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
        """Add records' rows of a table, and return them: all are used."""
        self.row_counts.update(map(attrgetter("case_id"), rows))
        if table is predictions:
            names = self.first_names
            for row in rows:
                version = names.get(row.version, row.version)
                prediction = (version, row.sender, bytes(row.record_hash))
                self._predictions.setdefault(row.case_id, set()).add(prediction)
        elif table is not outcomes:  # no unit rests on them
            self._add_others(rows)
            if table is decisions:
                self._add_senders(rows)
        return rows

    def _add_others(self, rows: Iterable[Row[Any]]) -> None:
        for row in rows:
            self._others.setdefault(row.case_id, set()).add(bytes(row.record_hash))

    def _add_senders(self, rows: Iterable[Row[Any]]) -> None:
        for row in rows:
            if row.sender is not None:
                self._senders.setdefault(row.case_id, set()).add(row.sender)

    def join_hashes(self, case_id: int, version: str) -> bytes:
        """Return the hashes of the records behind the unit of a case, sorted and joined.

        A prediction of another version belongs to them if its sender also sent a decision or
        outcome of the unit, which then may be no evidence.
        """
        numbers = self.cases_beside.get(case_id, (case_id,))
        senders = {sender for number in numbers for sender in self._senders.get(number, ())}
        hashes: list[bytes] = []
        for number in numbers:
            hashes += self._others.get(number, ())
            hashes += [
                record_hash
                for own_version, sender, record_hash in self._predictions.get(number, ())
                if own_version == version or sender in senders
            ]
        return join_hashes(hashes)


class OutcomeRecords(UnitRecords):
    """Hashes of records, also of outcomes, which units with a value rest on."""

    def add_rows(self, table: Table, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
        """Add records' rows of a table, and return them: all are used."""
        if table is outcomes:
            self._add_others(rows)
            self._add_senders(rows)
        return super().add_rows(table, rows)


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
        return bytes(row.record_hash) in self._selected_hashes

    def add_rows(self, table: Table, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
        """Return the rows of selected records, and those of outcomes."""
        return rows if table is outcomes else list(filter(self.is_used, rows))


class SelectedOutcomeRecords(SelectedRecords):
    """Records with certain hashes, of outcomes too; others are not used."""

    def add_rows(self, _table: Table, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
        """Return the rows of selected records."""
        return list(filter(self.is_used, rows))
