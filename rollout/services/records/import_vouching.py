"""Who imported which files, in the ledger: they vouch for the times of receipt.

Evidence counts from the time at which a record was received. Over HTTP the service takes that time
from its own clock; in an import it comes from a file, so the ledger names the importer and the
files' hashes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import file_digest
from pathlib import Path
from typing import Any

import polars as pl

from rollout.core.calendar.sites import Cell
from rollout.core.errors import RefusalError
from rollout.core.policy.evidence_sources import build_file_sender
from rollout.core.scope.events import RecordsImported
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.formats.records.files import RecordPaths
from rollout.services.engine.command_handler import retry_on_stale_revision
from rollout.services.engine.rollout_state import RolloutState, load_rollout_state
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger
from rollout.tally.case_placement import locate_cases
from rollout.tally.frames import RecordFrames


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file's name and the SHA-256 of its bytes."""

    name: str
    sha256: str


def compute_digests(sources: RecordPaths) -> tuple[FileDigest, ...]:
    """Return name and hash of each file, in the order of record kinds."""
    return tuple(compute_digest(path) for _, path in sources.list_files())


def build_senders(sources: RecordPaths, digests: Sequence[FileDigest]) -> Mapping[str, str]:
    """Return by kind of record the file that is its sender.

    Without a file of cases, the first file describes them.
    """
    file_senders = [build_file_sender(digest.sha256) for digest in digests]
    kinds = (kind.value.removesuffix("s") for kind, _ in sources.list_files())
    return {"case": file_senders[0], **dict(zip(kinds, file_senders, strict=True))}


def compute_digest(path: Path) -> FileDigest:
    """Return name and hash of a file."""
    with path.open("rb") as file:
        return FileDigest(path.name, file_digest(file, "sha256").hexdigest())


def vouch_for_import(
    database: Database,
    caller: Caller,
    rollout_name: str,
    records: RecordFrames,
    digests: Sequence[FileDigest],
    at: datetime,
) -> bool:
    """Append who imports which files; return False if the ledger has these files.

    Call it before the records are stored, so that none is there without it.

    Raises:
        NotAllowedError: the caller does not administer the rollout.
        NoSuchRolloutError: there is no such rollout.
        RefusalError: a time of receipt is later than `at`.
    """
    require_permission(caller, Permission.ADMINISTER, rollout_name)
    _check_receipts(records.cases, at)

    def append_import() -> bool:
        with database.begin_write() as transaction:
            state = load_rollout_state(transaction, rollout_name)
            ledger = Ledger(transaction, state.rollout)
            event = _build_event(state, caller.name, records, digests, at)
            known_rows = ledger.list_rows(kinds={RecordsImported.__name__})
            if event is None or any(
                row.fields["digests"] == list(event.digests) for row in known_rows
            ):
                return False
            ledger.append([event], after=state.scope.revision, access_head=caller.access_head)
            return True

    return retry_on_stale_revision(append_import)


def _check_receipts(cases: pl.DataFrame, at: datetime) -> None:
    late_cases = cases.filter(pl.col("received_at") > at)
    if late_cases.height:
        key, received_at = late_cases.select("case_key", "received_at").row(0)
        raise RefusalError(
            f"{late_cases.height} cases have a received_at in the future, first {key} at "
            f"{received_at:%Y-%m-%d %H:%M:%S} UTC; correct the column in the file of cases"
        )


def _build_event(
    state: RolloutState,
    importer: str,
    records: RecordFrames,
    digests: Sequence[FileDigest],
    at: datetime,
) -> RecordsImported | None:
    """Return the event of an import, or None if no case has a time."""
    timed_cases = records.cases.filter(pl.col("occurred_at").is_not_null())
    if timed_cases.is_empty():
        return None
    receipts = timed_cases.select(at=pl.coalesce("received_at", "occurred_at"))["at"]
    cell_counts = _count_cell_cases(state, records)
    return RecordsImported(
        at=state.scope.at or at,
        by=importer,
        imported_at=at,
        files=tuple(digest.name for digest in digests),
        digests=tuple(digest.sha256 for digest in digests),
        cases=timed_cases.height,
        stated_receipts=timed_cases["received_at"].count(),
        received_since=_get_instant(receipts.min()),
        received_until=_get_instant(receipts.max()),
        cells=tuple(cell_counts),
        cell_cases=tuple(cell_counts.values()),
    )


def _count_cell_cases(state: RolloutState, records: RecordFrames) -> dict[Cell, int]:
    """Return the number of cases in each cell of the policy that has any."""
    cases = locate_cases(records, state.policy)
    counts = cases.group_by("site", "window").len().sort("site", "window").iter_rows()
    cells = ((Cell(site, window), count) for site, window, count in counts)
    return {cell: count for cell, count in cells if cell in state.policy.cell_set}


def _get_instant(value: Any) -> datetime:
    assert isinstance(value, datetime)  # noqa: S101 - the smallest or largest of a column of times
    return value
