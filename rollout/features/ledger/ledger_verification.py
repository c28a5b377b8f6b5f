"""Verify exported ledgers: `rollout.verify_ledger`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rollout.engine.ledger.ledger import (
    BrokenLedgerError,
    CanonicalRow,
    Checkpoint,
    find_contradictions,
    verify_lines,
)


@dataclass(frozen=True, slots=True)
class FileVerification:
    """The result of a verification; `fault` is "" for an intact ledger.

    `erased` counts erased texts whose hashes remain, which is no fault. `later_rows` counts the
    entries after the expected head.
    """

    rows: int
    head: str
    fault: str = ""
    erased: int = 0
    later_rows: int = 0
    checkpoints: int = 0
    """Checkpoints of this ledger whose rows it has."""
    is_chain_intact: bool = False
    """Whether the fault is only that no entry has the expected hash."""
    is_ledger: bool = True
    """Whether the first line is an entry of a ledger, changed or not."""


def verify_ledger(
    file: str | Path, head: str | None = None, checkpoints: Sequence[Checkpoint] = ()
) -> FileVerification:
    """Recompute every hash in `file`; find the expected head and the checkpoints if given.

    The head may be that of an earlier export: a ledger only grows. Checkpoints of other ledgers
    are ignored, but one must be of this ledger.

    Raises:
        OSError: the file can't be read.
    """
    rows, last_hash, erased, head_row = 0, "", 0, 0
    signed_rows = _SignedRows(checkpoints)
    wanted_head = None if head is None else head.strip().lower()
    try:
        # a text file would be decoded in blocks, ahead of the current line
        with Path(file).open("rb") as lines:
            for row in verify_lines(line.decode() for line in lines):
                rows, last_hash, erased = rows + 1, row.hash, erased + len(row.erased)
                head_row = rows if row.hash == wanted_head else head_row
                signed_rows.add(row)
    except UnicodeDecodeError:
        fault = f"line {rows + 1}: is not UTF-8 text"
        return FileVerification(rows, last_hash, fault, is_ledger=rows > 0)
    except BrokenLedgerError as error:
        is_entry = error.__cause__ is None  # else the line could not be read
        return FileVerification(rows, last_hash, str(error), is_ledger=rows > 0 or is_entry)
    if rows == 0:
        return FileVerification(0, "", "the file is empty", is_ledger=False)
    if wanted_head is not None and not head_row:
        fault = f"none of its {rows} entries has the hash {wanted_head}"
        return FileVerification(rows, last_hash, fault, is_chain_intact=True)
    if fault := signed_rows.describe_fault():
        return FileVerification(rows, last_hash, fault, is_chain_intact=True)
    later_rows = rows - head_row if wanted_head is not None else 0
    return FileVerification(
        rows, last_hash, erased=erased, later_rows=later_rows, checkpoints=signed_rows.count
    )


class _SignedRows:
    """Collects the hashes of the rows that checkpoints have signed."""

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        self._checkpoints = checkpoints
        self._wanted = {(checkpoint.ledger, checkpoint.revision) for checkpoint in checkpoints}
        self._hashes: dict[tuple[str, int], str] = {}
        self._ledger = ""

    @property
    def count(self) -> int:
        """Return the number of checkpoints of this ledger."""
        return len(self._list_own())

    def add(self, row: CanonicalRow) -> None:
        """Take the hash of a verified row."""
        self._ledger = row.rollout
        if (row.rollout, row.revision) in self._wanted:
            self._hashes[row.rollout, row.revision] = row.hash

    def describe_fault(self) -> str:
        """Describe the first contradiction, "" for none."""
        if self._checkpoints and not self._list_own():
            return f"none of the checkpoints is of the ledger {self._ledger}"
        return next(
            find_contradictions(
                self._list_own(), lambda name, revision: self._hashes.get((name, revision))
            ),
            "",
        )

    def _list_own(self) -> list[Checkpoint]:
        return [checkpoint for checkpoint in self._checkpoints if checkpoint.ledger == self._ledger]
