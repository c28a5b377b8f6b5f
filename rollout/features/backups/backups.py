"""Back up a database while it is in use, and restore it where nothing runs.

A restored database starts stopped, in a new era of every rollout. It is made and checked beside the
old one, which stays until the new one is whole.

Exported ledgers that continue those of a backup tell of later erasures. Exports are not signed: a
head that was kept elsewhere shows that one was rewritten.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from rollout.data.access.tokens import ApiKeys, OneTimeLinks, Sessions, load_access_head
from rollout.data.access.users import SecondFactors, Users
from rollout.data.database import database_copies
from rollout.data.database.append_failures import DriverError, StoreError
from rollout.data.database.database_copies import find_database_file, is_sqlite_url
from rollout.data.database.migrations import check_revision_known, find_missing_triggers, upgrade
from rollout.data.database.rollouts import ACCESS_CHAIN, Rollouts, list_rollout_names
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger, StoredLedgerHead, load_heads
from rollout.engine.decide.commands import AcceptRestore
from rollout.engine.decide.permissions import AssignedRole, Caller, Permission, require_permission
from rollout.engine.ledger.ledger import BrokenLedgerError, CanonicalRow, check_shape, verify_lines
from rollout.features.access.access_state import find_access_ledger_faults
from rollout.features.access.keys import revoke_key
from rollout.features.access.users import AccountUpdate, load_local_caller, update_account
from rollout.features.erasure.erasure_replay import ERASURE_KINDS, AppliedErasures, apply_erasures
from rollout.features.process.health_checks import clear_damage
from rollout.kernel.errors import LastAdminError, RefusalError
from rollout.live.rollout_state import RolloutState, execute_command, load_rollout_state

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


@dataclass(frozen=True, slots=True)
class AccessContent:
    """The access that a database gives, by account name.

    Attributes:
        roles: roles of the enabled accounts.
        disabled: the disabled accounts.
        credentials: hash of the password and secret of the second factor.
        revoked_keys: holders of the revoked keys, by prefix.
    """

    roles: Mapping[str, frozenset[AssignedRole]] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()
    credentials: Mapping[str, tuple[object, object]] = field(default_factory=dict, repr=False)
    revoked_keys: Mapping[str, str] = field(default_factory=dict)


def load_access_content(database: Database) -> AccessContent:
    """Return the access that a database gives."""
    with database.begin_read() as transaction:
        users = Users(transaction)
        all_users, roles = users.list_all(), users.list_all_role_assignments()
        keys = ApiKeys(transaction).list_all()
        credentials = {
            user.name: (users.load_password_hash(user), _load_secret(transaction, user.name))
            for user in all_users
        }
    return AccessContent(
        roles={
            user.name: frozenset(roles.get(user.number, ()))
            for user in all_users
            if user.disabled_at is None
        },
        disabled=frozenset(user.name for user in all_users if user.disabled_at is not None),
        credentials=credentials,
        revoked_keys={key.prefix: key.holder for key in keys if key.revoked_at is not None},
    )


def end_sign_ins(database: Database, at: datetime) -> None:
    """End all sessions and one-time links of a restored database."""
    with database.begin_write() as transaction:
        for user in Users(transaction).list_all():
            Sessions(transaction).end_all(user, at=at)
            OneTimeLinks(transaction).end_links(user, at=at)


def revoke_again(
    copy: Database, caller: Caller, present: AccessContent, at: datetime
) -> tuple[str, ...]:
    """Take from a restored database what the replaced one had revoked; describe each step.

    Accounts, keys and roles that the replaced database never had are left as they are.
    """
    restored = load_access_content(copy)
    return (
        *_revoke_keys(copy, caller, present, restored, at),
        *_narrow_accounts(copy, caller, present, restored, at),
        *_list_older_credentials(present, restored),
    )


def _revoke_keys(
    copy: Database,
    caller: Caller,
    present: AccessContent,
    restored: AccessContent,
    at: datetime,
) -> Iterator[str]:
    with copy.begin_read() as transaction:
        prefixes = {key.prefix for key in ApiKeys(transaction).list_all()}
    lost = (prefixes & present.revoked_keys.keys()) - restored.revoked_keys.keys()
    for prefix in sorted(lost):
        revoke_key(copy, caller, prefix, at=at)
        yield f"key {prefix} of {present.revoked_keys[prefix]} is revoked again"


def _narrow_accounts(
    copy: Database,
    caller: Caller,
    present: AccessContent,
    restored: AccessContent,
    at: datetime,
) -> Iterator[str]:
    """Disable accounts and revoke roles; those of the caller last, who needs them until then."""
    for name in sorted(restored.roles, key=lambda name: (name == caller.name, name)):
        if name in present.disabled:
            update, text = AccountUpdate(is_disabled=True), f"{name} is disabled again"
        elif lost_roles := restored.roles[name] - present.roles.get(name, restored.roles[name]):
            roles = tuple(sorted(lost_roles, key=str))
            update = AccountUpdate(roles_to_revoke=roles)
            text = f"{name} is no longer {', '.join(map(str, roles))}"
        else:
            continue
        try:
            update_account(copy, caller, name, update, at=at)
        except LastAdminError:
            text = f"{name} stays the last admin, who was removed since the backup: add another one"
        yield text


def _list_older_credentials(present: AccessContent, restored: AccessContent) -> Iterator[str]:
    kinds = ("password", "second factor")
    for name in sorted(restored.roles.keys() & present.roles.keys()):
        pairs = zip(kinds, present.credentials[name], restored.credentials[name], strict=True)
        older = [kind for kind, now, before in pairs if before is not None and before != now]
        if older:
            yield f"{name} has the {' and the '.join(older)} of the backup again: set a new one"


def _load_secret(transaction: Transaction, user_name: str) -> bytes | None:
    user = Users(transaction).find(user_name)
    factor = None if user is None else SecondFactors(transaction).find(user)
    return None if factor is None or factor.confirmed_at is None else factor.secret


@dataclass(frozen=True, slots=True)
class RolloutEra:
    """A rollout's era, and the stops that hold in it."""

    rollout: str
    era: int
    stops: tuple[str, ...]


def accept_restore(
    database: Database,
    user_name: str,
    reason: str,
    *,
    at: datetime,
    known_eras: Mapping[str, int] | None = None,
) -> tuple[RolloutEra, ...]:
    """Begin an era with every cell stopped in each rollout, in an admin's name.

    All sessions and one-time links end. Damage found before ends with it: the declared database is
    the one that counts. `known_eras`
    are eras that clients may know although this database lacks them.

    Raises:
        UnknownUserError: there are users, but none of that name.
        NotAllowedError: the user is no admin of every rollout.
    """
    caller = load_local_caller(database, user_name)
    names = list_rollout_names(database)
    for name in names:
        require_permission(caller, Permission.ADMINISTER, name)
    eras = dict(known_eras or {})
    for name in names:

        def build_command(_: RolloutState, name: str = name) -> AcceptRestore:
            by, known_era = caller.as_actor(name), eras.get(name, 0)
            return AcceptRestore(at=at, by=by, reason=reason, known_era=known_era)

        execute_command(database, name, build_command, caller.access_head)
    end_sign_ins(database, at)
    clear_damage(database, caller.name, reason, at=at)
    return tuple(_load_era(database, name) for name in names)


def _load_era(database: Database, name: str) -> RolloutEra:
    with database.begin_read() as transaction:
        scope = load_rollout_state(transaction, name).scope
    return RolloutEra(name, scope.era, tuple(scope.stops))


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
        database_copies.copy_database(find_database_file(url), target)
    else:
        database_copies.dump_database(url, target)
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
        database_copies.check_unused(url)
    elif find_database_file(url).exists():
        database_copies.merge_wal(find_database_file(url))


@contextmanager
def _load_copy(url: str, source: Path) -> Iterator[str]:
    """Give the URL of a copy of the backup, beside the present database."""
    if not is_sqlite_url(url):
        copy_url = database_copies.load_dump(url, source)
        try:
            yield copy_url
        finally:
            database_copies.drop_database(copy_url)
        return
    file = find_database_file(url)
    copy = file.with_name(file.name + RESTORING_SUFFIX)
    try:
        database_copies.copy_database(source, copy)
        yield f"sqlite:///{copy}"
    finally:
        database_copies.remove_database(copy)


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
                {
                    name: _load_era(database, name).era
                    for name in sorted(list_rollout_names(database))
                },
                _load_erasures(database),
                load_access_content(database),
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
    return database_copies.has_database(url)


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
        database_copies.merge_wal(find_database_file(copy_url))
        database_copies.replace_file(find_database_file(url), find_database_file(copy_url))
    else:
        database_copies.replace_database(url, copy_url)
