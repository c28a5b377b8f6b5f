"""The records behind counted units, by their hashes.

A unit rests on its cases, on the predictions of its version and on the decisions, in every revision
that was stored when it was counted. Of an episode all cases decide, because one is picked.
"""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Row, Table

from rollout.store.records.record_hashes import get_record_hash, join_hashes
from rollout.store.tables.tables import outcomes, predictions


class UnitRecords:
    """Hashes of records as they were read, from which units take theirs.

    Attributes:
        cases_by_unit: numbers of the cases of each unit; empty if each unit is a case.
    """

    def __init__(self) -> None:
        self._hashes: dict[int, list[tuple[str, bytes]]] = {}
        self.cases_by_unit: Mapping[str, Collection[int]] = {}

    def add_row(self, table: Table, row: Row[Any]) -> bool:
        """Add a record's row, and return True: the row is used."""
        if table is not outcomes:  # no unit rests on them
            version = row.version if table is predictions else ""
            self._hashes.setdefault(row.case_id, []).append((version, get_record_hash(row)))
        return True

    def join_hashes(self, unit: str, case_id: int, version: str) -> bytes:
        """Return the hashes of the records behind a unit, sorted and joined."""
        return join_hashes(
            record_hash
            for number in self.cases_by_unit.get(unit, (case_id,))
            for hash_version, record_hash in self._hashes.get(number, ())
            if hash_version in ("", version)
        )


class SelectedRecords(UnitRecords):
    """Records with certain hashes; others are not used."""

    def __init__(self, hashes: Collection[bytes]) -> None:
        """Select the records with these hashes."""
        super().__init__()
        self._selected_hashes = hashes

    def add_row(self, table: Table, row: Row[Any]) -> bool:
        """Return whether the row is one of the selected records, or an outcome."""
        return table is outcomes or get_record_hash(row) in self._selected_hashes
