"""Verify exported ledgers."""

from dataclasses import dataclass
from pathlib import Path

from rollout.core.ledger.ledger import BrokenLedgerError, verify_lines


@dataclass(frozen=True, slots=True)
class FileVerification:
    """The result of a verification; `fault` is "" for an intact ledger.

    `erased` counts erased texts whose hashes remain, which is no fault. `is_chain_intact`
    is True if only the head differs from the expected one.
    """

    rows: int
    head: str
    fault: str = ""
    erased: int = 0
    is_chain_intact: bool = False


def verify_ledger_file(file: Path, expected_head: str | None = None) -> FileVerification:
    """Recompute every hash in `file`; compare its head if given.

    Raises:
        OSError: the file can't be read.
    """
    rows, last_hash, erased = 0, "", 0
    try:
        # a text file would be decoded in blocks, ahead of the current line
        with file.open("rb") as lines:
            for row in verify_lines(line.decode() for line in lines):
                rows, last_hash, erased = rows + 1, row.hash, erased + len(row.erased)
    except UnicodeDecodeError:
        return FileVerification(rows, last_hash, f"line {rows + 1}: is not UTF-8 text")
    except BrokenLedgerError as error:
        return FileVerification(rows, last_hash, str(error))
    if rows == 0:
        return FileVerification(0, "", "the file is empty")
    if expected_head is not None and expected_head.strip().lower() != last_hash:
        fault = f"line {rows}: the hash of the last row is {last_hash}, expected {expected_head}"
        return FileVerification(rows, last_hash, fault, is_chain_intact=True)
    return FileVerification(rows, last_hash, erased=erased)
