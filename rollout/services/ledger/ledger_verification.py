"""Recompute a written ledger, link by link."""

from dataclasses import dataclass
from pathlib import Path

from rollout.core.ledger.ledger import BrokenChainError, verified


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found. `fault` is empty where the ledger is whole.

    `erased` counts texts that are gone while their hashes stand, which is no fault.
    """

    rows: int
    head: str
    fault: str = ""
    erased: int = 0


def verify(file: Path, head: str | None = None) -> Verified:
    """Recompute the chain in `file`, and compare its head with one kept elsewhere if given.

    Raises:
        OSError: the file can't be read.
    """
    rows, last_hash, erased = 0, "", 0
    try:
        # Decoded line by line: a text file is decoded in blocks, ahead of the line that is read.
        with file.open("rb") as lines:
            for row in verified(line.decode() for line in lines):
                rows, last_hash, erased = rows + 1, row.hash, erased + len(row.erased)
    except UnicodeDecodeError:
        return Verified(rows, last_hash, f"line {rows + 1}: is not UTF-8 text")
    except BrokenChainError as error:
        return Verified(rows, last_hash, str(error))
    if rows == 0:
        return Verified(0, "", "the file has no rows")
    if head is not None and head.strip().lower() != last_hash:
        return Verified(
            rows, last_hash, f"line {rows}: the last hash is {last_hash}, expected {head}"
        )
    return Verified(rows, last_hash, erased=erased)
