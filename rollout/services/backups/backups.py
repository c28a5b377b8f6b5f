"""Back up a database while it is in use, and restore it where nothing runs.

A restored database starts stopped, in a new era. It is made and checked beside the old one, which
stays until the new one is whole.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from rollout.core.errors import RefusalError
from rollout.core.ledger.ledger import BrokenLedgerError, CanonicalRow
from rollout.services.access.access_state import find_access_ledger_faults
from rollout.services.access.users import load_local_caller
from rollout.services.backups.eras import (
    AccessContent,
    RolloutEra,
    accept_restore,
    load_access_content,
    load_eras,
    revoke_again,
)
from rollout.services.backups.ledger_exports import (
    ExpectedHead,
    LedgerExport,
    load_all_heads,
    read_exports,
)
from rollout.services.erasure.erasure_replay import (
    ERASURE_KINDS,
    AppliedErasures,
    apply_erasures,
)
from rollout.store.database import postgresql_dumps, sqlite_files
from rollout.store.database.append_only_checks import find_missing_triggers
from rollout.store.database.errors import DriverError, StoreError
from rollout.store.database.migrations import check_revision_known, upgrade
from rollout.store.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.store.database.session import Database
from rollout.store.database.sqlite_files import find_database_file, is_sqlite_url
from rollout.store.ledger.ledger import Ledger, StoredLedgerHead
from rollout.store.ledger.revisions import load_heads

RESTORING_SUFFIX = ".restoring"


class RestoreRefusedError(RefusalError):
    """A restore that would lose what only the present database has, or a faulty backup."""


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What is restored, by whom and why.

    Attributes:
        url: of the database that is replaced; it need not exist.
        discards_newer: also replace a database that has ledger entries the backup lacks.
        ledgers: exports whose erasures are applied, too.
        expected_heads: each must be in one of these exports.
    """

    url: str
    source: Path
    user_name: str
    reason: str
    at: datetime
    discards_newer: bool = False
    ledgers: tuple[Path, ...] = ()
    expected_heads: frozenset[ExpectedHead] = frozenset()


@dataclass(frozen=True, slots=True)
class _PresentDatabase:
    """What the replaced database still tells: its eras, and what was erased or revoked in it."""

    eras: Mapping[str, int] = field(default_factory=dict)
    erasures: tuple[CanonicalRow, ...] = ()
    access: AccessContent = field(default_factory=AccessContent)


@dataclass(frozen=True, slots=True)
class RestoredDatabase:
    """The eras that a restore began, what it took from accounts in words, and what it erased.

    `exports` are the exported ledgers that it read.
    """

    eras: tuple[RolloutEra, ...]
    access_changes: tuple[str, ...]
    erased: AppliedErasures
    exports: tuple[LedgerExport, ...]


def back_up(url: str, target: Path) -> Mapping[str, StoredLedgerHead]:
    """Write a backup and return the ledger head of each rollout.

    The heads are read before the backup is taken, so it holds them.

    Raises:
        RefusalError: the target exists.
        StoreError: the database can't be read, or `pg_dump` is missing or failed.
    """
    if target.exists():
        raise RefusalError(f"{target} exists already; name a new file, or move that one away")
    with closing(Database(url)) as database:
        heads = _load_heads(database)
    if is_sqlite_url(url):
        sqlite_files.copy_database(find_database_file(url), target)
    else:
        postgresql_dumps.dump_database(url, target)
    return heads


def restore(request: RestoreRequest) -> RestoredDatabase:
    """Replace a database by a backup; every rollout starts stopped, in a new era.

    All sessions end. What was erased or revoked in the present database is so in the restored one,
    and what was erased by the ledgers of the request.

    Raises:
        RestoreRefusedError: the backup is faulty, or the present database has newer entries.
        LedgerExportRefusedError: a ledger of the request does not continue the backup's, or an
            expected head is in none.
        RefusalError: there is no such file, or the user is no admin.
        DatabaseInUseError: the present database is in use.
        StoreError: the backup can't be read.
    """
    if not request.source.is_file():
        raise RefusalError(f"{request.source}: no such file; name one of `rollout db backup`")
    _check_unused(request.url)
    with _load_copy(request.url, request.source) as copy_url:
        exports = _upgrade_copy(copy_url, request)
        with closing(Database(copy_url)) as copy:
            _check_content(copy, request.source)
            present = _compare_with_present(request, copy)
            eras = accept_restore(
                copy, request.user_name, request.reason, at=request.at, known_eras=present.eras
            )
            caller = load_local_caller(copy, request.user_name)
            access_changes = revoke_again(copy, caller, present.access, request.at)
            rows = (*present.erasures, *(row for each in exports for row in each.erasures))
            erased = apply_erasures(copy, caller, rows, request.at)
        _replace(request.url, copy_url)
    return RestoredDatabase(eras, access_changes, erased, exports)


def _load_heads(database: Database) -> Mapping[str, StoredLedgerHead]:
    with database.begin_read() as transaction:
        return {name: head for name, (_, head) in load_heads(transaction).items()}


def _check_unused(url: str) -> None:
    if not is_sqlite_url(url):
        postgresql_dumps.check_unused(url)
    elif find_database_file(url).exists():
        sqlite_files.merge_wal(find_database_file(url))


@contextmanager
def _load_copy(url: str, source: Path) -> Iterator[str]:
    """Give the URL of a copy of the backup, beside the present database."""
    if not is_sqlite_url(url):
        copy_url = postgresql_dumps.load_dump(url, source)
        try:
            yield copy_url
        finally:
            postgresql_dumps.drop_database(copy_url)
        return
    file = find_database_file(url)
    copy = file.with_name(file.name + RESTORING_SUFFIX)
    try:
        sqlite_files.copy_database(source, copy)
        yield f"sqlite:///{copy}"
    finally:
        sqlite_files.remove_database(copy)


def _upgrade_copy(copy_url: str, request: RestoreRequest) -> tuple[LedgerExport, ...]:
    """Upgrade a copy of the backup; return the request's ledgers."""
    with closing(Database(copy_url)) as copy:
        check_revision_known(copy)
    upgrade(copy_url)
    with closing(Database(copy_url)) as copy:
        return read_exports(request.ledgers, request.expected_heads, load_all_heads(copy))


def _check_content(copy: Database, source: Path) -> None:
    """Verify every ledger of a copy, its users and its triggers."""
    faults = list(_find_faults(copy))
    if faults:
        raise RestoreRefusedError(f"{source} is faulty: {'; '.join(faults)}; take another backup")


def _find_faults(copy: Database) -> Iterator[str]:
    try:
        yield from find_access_ledger_faults(copy)
    except BrokenLedgerError as error:
        yield f"access ledger, {error}"
    with copy.begin_read() as transaction:
        for name in find_missing_triggers(transaction):
            yield f"trigger {name} is missing"
        for rollout in Rollouts(transaction).list_all():
            try:
                Ledger(transaction, rollout).verify()
            except BrokenLedgerError as error:
                yield f"ledger of {rollout.name}, {error}"


def _compare_with_present(request: RestoreRequest, copy: Database) -> _PresentDatabase:
    """Return what the present database tells, after checking that nothing newer is lost."""
    if not _has_database(request.url):
        return _PresentDatabase()
    try:
        with closing(Database(request.url)) as database:
            lost = _find_lost_entries(database, copy)
            present = _PresentDatabase(
                load_eras(database), _load_erasures(database), load_access_content(database)
            )
    except (StoreError, DriverError, BrokenLedgerError) as error:
        lost = (f"the present database can't be read ({type(error).__name__})",)
        present = _PresentDatabase()
    if lost and not request.discards_newer:
        raise RestoreRefusedError(
            f"{'; '.join(lost)}. Nothing was changed. Back it up first, and repeat with "
            "--discard-newer to lose it"
        )
    return present


def _has_database(url: str) -> bool:
    if is_sqlite_url(url):
        return find_database_file(url).exists()
    return postgresql_dumps.has_database(url)


def _load_erasures(database: Database) -> tuple[CanonicalRow, ...]:
    """Return the ledgers' rows about erasures."""
    with database.begin_read() as transaction:
        return tuple(
            row
            for rollout in (*Rollouts(transaction).list_all(), ACCESS_CHAIN)
            for row in Ledger(transaction, rollout).list_rows(kinds=ERASURE_KINDS)
        )


def _find_lost_entries(present: Database, copy: Database) -> tuple[str, ...]:
    """Describe the ledgers of the present database that have entries the copy lacks."""
    present_heads, copy_heads = _load_heads(present), _load_heads(copy)
    return tuple(
        f"{name}: the present ledger ends at revision {head.revision}, the backup's at "
        f"{copy_heads[name].revision if name in copy_heads else 0}"
        for name, head in sorted(present_heads.items())
        if head.revision and not _has_head(copy, name, head)
    )


def _has_head(database: Database, name: str, head: StoredLedgerHead) -> bool:
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find(name)
        if rollout is None:
            return False
        rows = Ledger(transaction, rollout).list_rows(after=head.revision - 1, until=head.revision)
        return any(row.hash == head.hash for row in rows)


def _replace(url: str, copy_url: str) -> None:
    _check_unused(url)
    if is_sqlite_url(url):
        sqlite_files.merge_wal(find_database_file(copy_url))
        sqlite_files.replace_database(find_database_file(url), find_database_file(copy_url))
    else:
        postgresql_dumps.replace_database(url, copy_url)
