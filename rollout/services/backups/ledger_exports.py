"""Erasures in exported ledgers that continue those of a backup."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rollout.core.errors import RefusalError
from rollout.core.ledger.ledger import BrokenLedgerError, CanonicalRow, verify_lines
from rollout.services.erasure.erasure_replay import ERASURE_KINDS
from rollout.store.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger, StoredLedgerHead


class LedgerExportRefusedError(RefusalError):
    """An exported ledger that is faulty, or does not continue the backup's."""


def load_all_heads(database: Database) -> Mapping[str, StoredLedgerHead]:
    """Return the head of each rollout's ledger and of the access ledger, by name."""
    with database.begin_read() as transaction:
        rollouts = (*Rollouts(transaction).list_all(), ACCESS_CHAIN)
        return {rollout.name: Ledger(transaction, rollout).load_head() for rollout in rollouts}


def read_erasures(
    files: Sequence[Path], heads: Mapping[str, StoredLedgerHead]
) -> tuple[CanonicalRow, ...]:
    """Return the rows about erasures of exported ledgers, each verified.

    `heads` are the backup's, by name; each export must hold the head of its ledger.

    Raises:
        LedgerExportRefusedError: an export is faulty, or does not continue its ledger.
        OSError: a file can't be read.
    """
    return tuple(row for file in files for row in _read_export(file, heads))


def _read_export(file: Path, heads: Mapping[str, StoredLedgerHead]) -> Iterator[CanonicalRow]:
    head, last = None, None
    for last in _iterate_rows(file):
        if head is None:
            head = _find_head(file, last, heads)
        if last.revision == head.revision and last.hash != head.hash:
            raise LedgerExportRefusedError(
                f"{file}: its entry {last.revision} is not the last one of the backup's ledger of"
                f" {last.rollout}, so it is another ledger, or one of the two was rewritten."
                " Nothing was changed. Compare both with heads that you kept"
            )
        if last.event_kind in ERASURE_KINDS:
            yield last
    if head is None or last is None:
        raise LedgerExportRefusedError(
            f"{file} is empty; export the newest ledger: `rollout ledger export NAME > {file}`"
        )
    if last.revision < head.revision:
        raise LedgerExportRefusedError(
            f"{file} ends at entry {last.revision}, the backup's ledger of {last.rollout} at"
            f" {head.revision}: the backup knows more. Nothing was changed. Give a newer export,"
            " or leave this one out"
        )


def _iterate_rows(file: Path) -> Iterator[CanonicalRow]:
    """Yield the verified rows of an export."""
    try:
        with file.open("rb") as lines:  # decoded line by line, to name the faulty one
            yield from verify_lines(line.decode() for line in lines)
    except (BrokenLedgerError, UnicodeDecodeError) as error:
        raise LedgerExportRefusedError(
            f"{file}: {error}. Nothing was changed. `rollout ledger verify {file}` says more;"
            " give an intact export"
        ) from error


def _find_head(
    file: Path, row: CanonicalRow, heads: Mapping[str, StoredLedgerHead]
) -> StoredLedgerHead:
    if row.rollout not in heads:
        names = ", ".join(sorted(heads.keys() - {ACCESS_CHAIN.name})) or "none"
        raise LedgerExportRefusedError(
            f"{file} is the ledger of {row.rollout}, which the backup lacks (its rollouts: {names}"
            "). Nothing was changed. Leave it out"
        )
    return heads[row.rollout]
