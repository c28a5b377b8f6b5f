"""Erasures in exported ledgers that continue those of a backup.

Exports are not signed: a head that was kept elsewhere shows that one was rewritten.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rollout.data.access.access_ledger import load_access_head
from rollout.data.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger, StoredLedgerHead
from rollout.engine.ledger.ledger import BrokenLedgerError, CanonicalRow, check_shape, verify_lines
from rollout.features.erasure.erasure_replay import ERASURE_KINDS
from rollout.kernel.errors import RefusalError

HEAD_PATTERN: Final = re.compile(r"([1-9][0-9]{0,15}):([0-9a-f]{64})")


class LedgerExportRefusedError(RefusalError):
    """An exported ledger that is faulty, or does not continue the backup's."""


@dataclass(frozen=True, slots=True, order=True)
class ExpectedHead:
    """Revision and hash of an entry that one of the exports must have."""

    revision: int
    hash: str

    def __str__(self) -> str:
        """Return it as it is typed."""
        return f"{self.revision}:{self.hash}"


@dataclass(frozen=True, slots=True)
class LedgerExport:
    """What was read from an exported ledger.

    Attributes:
        ledger: the rollout's name, or that of the access ledger.
        revision, hash: of its last entry.
        erasures: its entries about erasures.
        found_heads: the expected heads that it has.
    """

    file: Path
    ledger: str
    revision: int
    hash: str
    erasures: tuple[CanonicalRow, ...]
    found_heads: tuple[ExpectedHead, ...]

    @property
    def text(self) -> str:
        """The head in words, with what to compare it with."""
        head = f"{self.file}: {self.ledger} up to entry {self.revision}, hash {self.hash}"
        if self.found_heads:
            return f"{head}; it has the head {', '.join(map(str, self.found_heads))}"
        return (
            f"{head}; exports are not signed: compare it with a head kept elsewhere, or repeat"
            " with --head REVISION:HASH"
        )


def parse_head(text: str) -> ExpectedHead:
    """Return the head that `REVISION:HASH` names.

    Raises:
        ValueError: the text has another form.
    """
    match = HEAD_PATTERN.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(
            f"--head {text} is no head; write REVISION:HASH; `rollout db backup` prints both"
        )
    return ExpectedHead(int(match[1]), match[2])


def load_all_heads(database: Database) -> Mapping[str, StoredLedgerHead]:
    """Return the head of each rollout's ledger and of the access ledger, by name.

    The access ledger begins with the first user: until then its head has revision 0.
    """
    with database.begin_read() as transaction:
        rollouts = Rollouts(transaction).list_all()
        heads = {rollout.name: Ledger(transaction, rollout).load_head() for rollout in rollouts}
        access_head = load_access_head(transaction)
    return heads | {
        ACCESS_CHAIN.name: StoredLedgerHead(access_head.revision or 0, access_head.hash, None)
    }


def read_exports(
    files: Sequence[Path],
    expected_heads: Collection[ExpectedHead],
    backup_heads: Mapping[str, StoredLedgerHead] | None = None,
) -> tuple[LedgerExport, ...]:
    """Return what exported ledgers hold, each verified.

    With `backup_heads`, by name, each export must hold the head of its ledger.

    Raises:
        LedgerExportRefusedError: an export is faulty, does not continue its ledger, or none has an
            expected head.
        OSError: a file can't be read.
    """
    if expected_heads and not files:
        raise LedgerExportRefusedError(
            "--head names an entry of an exported ledger; name the export, too: --ledger FILE"
        )
    exports = tuple(_read_export(file, expected_heads, backup_heads) for file in files)
    found_heads = {head for export in exports for head in export.found_heads}
    for head in sorted(set(expected_heads) - found_heads):
        ends = ", ".join(f"{export.file} has {export.revision} entries" for export in exports)
        raise LedgerExportRefusedError(
            f"no entry {head.revision} has the hash {head.hash} ({ends}): the export is older than"
            " this head, or was rewritten. Nothing was changed. Give an export that has it;"
            " without any, leave out --ledger and repeat the erasures by hand"
        )
    return exports


def _read_export(
    file: Path,
    expected_heads: Collection[ExpectedHead],
    backup_heads: Mapping[str, StoredLedgerHead] | None,
) -> LedgerExport:
    last, last_hash = None, ""
    erasures: list[CanonicalRow] = []
    found_heads: list[ExpectedHead] = []
    for last in _iterate_rows(file):
        last_hash = last.hash
        if backup_heads is not None:
            _check_continuation(file, last, last_hash, backup_heads)
        if (head := ExpectedHead(last.revision, last_hash)) in expected_heads:
            found_heads.append(head)
        if last.kind in ERASURE_KINDS:
            erasures.append(last)
    if last is None:
        raise LedgerExportRefusedError(
            f"{file} is empty; export the newest ledger: `rollout ledger export NAME > {file}`"
        )
    backup_head = None if backup_heads is None else backup_heads[last.rollout]
    if backup_head is not None and last.revision < backup_head.revision:
        raise LedgerExportRefusedError(
            f"{file} ends at entry {last.revision}, the backup's ledger of {last.rollout} at"
            f" {backup_head.revision}: the backup knows more. Nothing was changed. Give a newer"
            " export, or leave this one out"
        )
    return LedgerExport(
        file, last.rollout, last.revision, last_hash, tuple(erasures), tuple(found_heads)
    )


def _check_continuation(
    file: Path, row: CanonicalRow, row_hash: str, heads: Mapping[str, StoredLedgerHead]
) -> None:
    """Raise an error if a row contradicts the backup's ledger."""
    if row.rollout not in heads:
        names = ", ".join(sorted(heads.keys() - {ACCESS_CHAIN.name})) or "none"
        raise LedgerExportRefusedError(
            f"{file} is the ledger of {row.rollout}, which the backup lacks (its rollouts: {names}"
            "). Nothing was changed. Leave it out"
        )
    head = heads[row.rollout]
    if row.revision == head.revision and row_hash != head.hash:
        raise LedgerExportRefusedError(
            f"{file}: its entry {row.revision} is not the last one of the backup's ledger of"
            f" {row.rollout}, so it is another ledger, or one of the two was rewritten."
            " Nothing was changed. Compare both with heads that you kept"
        )


def _iterate_rows(file: Path) -> Iterator[CanonicalRow]:
    """Yield the verified rows of an export."""
    try:
        with file.open("rb") as lines:  # decoded line by line, to name the faulty one
            for row in verify_lines(line.decode() for line in lines):
                check_shape(row)
                yield row
    except (BrokenLedgerError, UnicodeDecodeError) as error:
        raise LedgerExportRefusedError(
            f"{file}: {error}. Nothing was changed. Give an intact export, which a service wrote:"
            " `rollout ledger export NAME`"
        ) from error
