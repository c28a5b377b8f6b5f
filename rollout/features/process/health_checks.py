"""Health checks of a database, with faults and remedies, and the clearing of damaged rollouts.

A rollout is damaged if its rows can't be read. Damage is cleared after a check: all checks have to
pass, or a declared restore has verified the rows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

from rollout.data.access.tokens import load_access_head
from rollout.data.database.append_failures import (
    UNREADABLE_ERRORS,
    StoreError,
    UnreadableRowsError,
    describe_unreadable,
    is_damage,
)
from rollout.data.database.migrations import (
    check_schema_current,
    find_missing_triggers,
    find_unsafe_settings,
    is_finished,
    list_owned_tables,
    list_revisions,
)
from rollout.data.database.rollouts import ACCESS_CHAIN, Rollout, Rollouts
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import ALL_ROLLOUTS, Damage, delete_damages, load_safety_rows
from rollout.data.records.versions import VersionStore
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.events import DamageCleared, RolloutCreated
from rollout.engine.ledger.ledger import BrokenLedgerError, Checkpoint, CheckpointError
from rollout.engine.words.formatting import format_quantity
from rollout.features.access.access_state import find_access_ledger_faults
from rollout.features.access.users import find_broad_accounts
from rollout.features.ledger.ledger_reader import (
    SECOND_PLACE_TEXT,
    find_rewritten_ledgers,
    list_announced_keys,
    read_checkpoints,
)
from rollout.features.records.planted_cases import describe_planted_cases, find_planting_faults
from rollout.features.reports.archive import find_seal_faults
from rollout.kernel.errors import RefusalError
from rollout.live.checkpoint_keys import NO_CHECKPOINTS, CheckpointTargets
from rollout.live.rollout_state import retry_on_stale_revision
from rollout.live.state_cache import UNREADABLE

RESTORE: Final = "restore the database from a backup"
MISSING_HEADS: Final = (
    "{}: no such file of signed heads here; where the service runs, this compares them, and"
    " `--heads FILE` a copy"
)
UNSIGNED_HEADS: Final = (
    "no head is signed yet, so a ledger that was rewritten as a whole is not found; `rollout serve`"
    " signs heads"
)
UNKNOWN_KEY: Final = (
    "{} has signed heads, and the access ledger names no key: it was rewritten, or the file is of"
    " another database"
)


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One check; `faults` is empty if it passed, `notes` are no faults."""

    title: str
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def run_health_checks(
    database: Database,
    *,
    rebuilds: bool = False,
    checkpoints: Sequence[Checkpoint] = (),
    targets: CheckpointTargets = NO_CHECKPOINTS,
) -> Iterator[HealthCheck]:
    """Yield the results of all checks; a wrong schema ends them.

    Nothing is changed. `rebuilds` also recomputes every derived table, which reads the whole
    history. Each checkpoint must be of a row that a stored ledger has; without any, those in
    the service's own file are compared.
    """
    yield _check("no other installed package is called `api`", _find_api_package_conflicts())
    schema = _check_schema(database)
    yield schema
    if schema.faults:
        return
    with database.begin_read() as transaction:
        yield from _check_settings(transaction)
    yield _check(
        "users, roles and keys match the access ledger", _find_access_ledger_faults(database)
    )
    yield _list_broad_accounts(database)
    if checkpoints:
        yield _check(
            f"the ledgers have the rows of {format_quantity(len(checkpoints), 'signed head')}",
            find_rewritten_ledgers(database, checkpoints),
        )
    elif targets.file is not None:
        yield _check_signed_heads(database, targets.file, targets.has_second_place)
    rollouts: list[Rollout] = []
    yield _check("the list of rollouts can be read", _load_rollouts(database, rollouts))
    for rollout in rollouts:
        yield from _check_rollout(database, rollout)
        if rebuilds:
            yield _check(
                f"{rollout.name}: derived tables match a recomputation",
                _find_derived_differences(database, rollout),
            )
            yield _check_evidence(database, rollout)


def _load_rollouts(database: Database, rollouts: list[Rollout]) -> Iterator[str]:
    """Add the rollouts to a list; yield a fault for each ledger without a rollout."""
    with database.begin_read() as transaction:
        rollouts += Rollouts(transaction).list_all()
        for number in Rollouts(transaction).list_orphans():
            yield f"the row of rollout {number} is missing, and its ledger is there; {RESTORE}"


def _check(title: str, faults: Iterable[str]) -> HealthCheck:
    """Return the result of a check; what can't be read is a fault."""
    fault_list: list[str] = []
    try:
        fault_list.extend(faults)
    except UNREADABLE_ERRORS as error:
        fault_list.append(describe_unreadable(error))
    return HealthCheck(title, tuple(fault_list))


def _list_broad_accounts(database: Database) -> HealthCheck:
    """List the accounts as notes, which are no faults."""
    title = "service accounts that may send predictions and what judges them are listed"
    try:
        return HealthCheck(title, notes=tuple(_describe_broad_accounts(database)))
    except UNREADABLE_ERRORS as error:
        return HealthCheck(title, (describe_unreadable(error),))


def _find_derived_differences(database: Database, rollout: Rollout) -> Iterator[str]:
    from rollout.live.consistency_check import rebuild_derived_tables

    yield from rebuild_derived_tables(database, rollout.name).describe()


def _check_evidence(database: Database, rollout: Rollout) -> HealthCheck:
    from rollout.live.evidence.live_evidence import EvidenceCheck

    title = f"{rollout.name}: evidence matches its records"
    try:
        report = EvidenceCheck(database, rollout.name).check_all()
    except UNREADABLE_ERRORS as error:
        return HealthCheck(title, (describe_unreadable(error),))
    return HealthCheck(f"{title}: {report.summarize()}", tuple(report.list_faults()))


def _check_settings(transaction: Transaction) -> Iterator[HealthCheck]:
    yield _check("triggers keep append-only tables unchanged", _find_missing_triggers(transaction))
    yield _check("acknowledged records survive a power cut", _find_unsafe_settings(transaction))
    yield _check("the role of the service does not own the tables", _find_owned_tables(transaction))


def _check_rollout(database: Database, rollout: Rollout) -> Iterator[HealthCheck]:
    yield _check(f"{rollout.name}: the ledger is intact", _find_ledger_faults(database, rollout))
    yield _check(
        f"{rollout.name}: its versions can be read", _find_version_faults(database, rollout)
    )
    yield _check(
        f"{rollout.name}: reports match their seals in the ledger",
        _find_report_faults(database, rollout),
    )

    yield from _check_planted_cases(database, rollout)


def _check_planted_cases(database: Database, rollout: Rollout) -> Iterator[HealthCheck]:
    """Yield the check of planted cases, where there are any."""
    title = f"{rollout.name}: planted cases match their declarations in the ledger"
    try:
        with database.begin_read() as transaction:
            faults = tuple(find_planting_faults(transaction, rollout))
            counts = describe_planted_cases(transaction, rollout)
    except UNREADABLE_ERRORS as error:
        yield HealthCheck(title, (describe_unreadable(error),))
        return
    if faults or counts:
        yield HealthCheck(f"{title}: {counts}", faults)


def _check_signed_heads(database: Database, file: Path, has_second_place: bool) -> HealthCheck:
    """Compare the ledgers with the file that the service signs heads to.

    The keys are those in the access ledger, whose heads are signed too.
    """
    title = "the ledgers have the rows of the signed heads"
    try:
        with database.begin_read() as transaction:
            keys = list_announced_keys(transaction)
        if not file.exists():
            note = MISSING_HEADS.format(file) if keys else UNSIGNED_HEADS
            return HealthCheck(title, notes=(note,))
        if not keys:
            return HealthCheck(title, (UNKNOWN_KEY.format(file),))
        faults = tuple(find_rewritten_ledgers(database, read_checkpoints(file, keys)))
    except CheckpointError as error:
        return HealthCheck(title, (str(error),))
    except UNREADABLE_ERRORS as error:
        return HealthCheck(title, (describe_unreadable(error),))
    if faults:
        faults += (f"after a restore move {file} away and keep it: new heads begin a new one",)
    return HealthCheck(title, faults, () if has_second_place else (SECOND_PLACE_TEXT,))


def _find_ledger_faults(database: Database, rollout: Rollout) -> Iterator[str]:
    with database.begin_read() as transaction:
        ledger = Ledger(transaction, rollout)
        yield from _run_verification(ledger.verify)
        created = next(ledger.list_of(RolloutCreated), None)
    hashes = tuple(sha256(salt).hexdigest() for salt in (rollout.salt, rollout.service_salt))
    if created is not None and hashes != (
        created.salt_hash,
        created.service_salt_hash,
    ):
        yield f"a salt that draws samples is not the one in the ledger's first entry; {RESTORE}"


def _find_version_faults(database: Database, rollout: Rollout) -> Iterator[str]:
    try:
        with database.begin_read() as transaction:
            VersionStore(transaction, rollout).list_all()
    except UnreadableRowsError as error:
        yield str(error)


def _find_report_faults(database: Database, rollout: Rollout) -> Iterator[str]:
    with database.begin_read() as transaction:
        for fault in find_seal_faults(transaction, rollout):
            yield f"{fault}: reports were changed in the database; restore them from a backup"


def _find_api_package_conflicts() -> Iterator[str]:
    owners = sorted({package.name for package in distributions() if _has_api_package(package)})
    if len(owners) > 1:
        owner_text = " and ".join(owners)
        yield f"{owner_text} both install a package `api`; install rollout in its own environment"


def _has_api_package(distribution: Distribution) -> bool:
    """Return whether a distribution installs `api`.

    `packages_distributions` parses every path of every installed file, 0.3 s.
    """
    declared = distribution.read_text("top_level.txt")
    if declared:
        return "api" in declared.split()
    record = distribution.read_text("RECORD") or ""
    return record.startswith(("api/", "api.py,")) or "\napi/" in record or "\napi.py," in record


def _check_schema(database: Database) -> HealthCheck:
    """Check that this program works on the tables; note an upgrade that isn't finished."""
    title = "this program version works on the tables"
    try:
        check_schema_current(database)
    except StoreError as error:
        return HealthCheck(title, (str(error),))
    with database.begin_read() as transaction:
        revisions = list_revisions(transaction.connection)
    if is_finished(revisions):
        return HealthCheck(title)
    note = (
        f"the upgrade to {revisions[-1].revision} is not finished: the program before can still"
        " run. When all replicas are replaced run `rollout db upgrade --finish`"
    )
    return HealthCheck(title, notes=(note,))


def _find_missing_triggers(transaction: Transaction) -> Iterator[str]:
    for trigger_name in find_missing_triggers(transaction):
        yield f"trigger {trigger_name} is missing or changed; restore it from the last migration"


def _find_unsafe_settings(transaction: Transaction) -> Iterator[str]:
    for setting_name in find_unsafe_settings(transaction):
        yield f"{setting_name} is off: turn it on in PostgreSQL's configuration"


def _find_owned_tables(transaction: Transaction) -> Iterator[str]:
    table_names = list_owned_tables(transaction)
    if table_names:
        yield (
            f"this role owns {', '.join(table_names)} and could drop their triggers; let another"
            " role own them, and grant this one access with `rollout db grant`"
        )


def _find_access_ledger_faults(database: Database) -> Iterator[str]:
    ledger_faults: tuple[str, ...] = ()
    with database.begin_read() as transaction:
        if load_access_head(transaction).revision:  # without one no account may be there
            ledger_faults = tuple(_run_verification(Ledger(transaction, ACCESS_CHAIN).verify))
    yield from ledger_faults or find_access_ledger_faults(database)


def _describe_broad_accounts(database: Database) -> Iterator[str]:
    for account in find_broad_accounts(database):
        yield (
            f"{account} is broad: its decisions and outcomes never count to widen for a case of "
            "which it also sent the prediction; give predictions to an account of their own "
            "(`rollout users grant-role`)"
        )


def _run_verification(verify: Callable[[], object]) -> Iterator[str]:
    try:
        verify()
    except BrokenLedgerError as error:
        yield f"{error}: the stored ledger was changed; compare it with heads stored elsewhere"


class NotCleanError(RefusalError):
    """The database still has faults, so damage stays."""


def find_damaged_rollouts(database: Database) -> tuple[str, ...]:
    """Return the rollouts whose ledger can't be read; all if it can't be told.

    Raises:
        StoreError: the database does not respond, which is no damage.
    """
    try:
        with database.begin_read() as transaction:
            rollouts = Rollouts(transaction).list_all()
        damaged = tuple(row.name for row in rollouts if not _is_readable(database, row))
    except Exception as error:
        if is_damage(error):
            return (ALL_ROLLOUTS,)
        raise
    return damaged or (ALL_ROLLOUTS,)


def _is_readable(database: Database, rollout: Rollout) -> bool:
    try:
        with database.begin_read() as transaction:
            Ledger(transaction, rollout).verify()
    except Exception as error:
        if is_damage(error) or isinstance(error, UNREADABLE):
            return False
        raise
    return True


def is_cleared(transaction: Transaction, damage: Damage) -> bool:
    """Return whether a ledger holds that an admin cleared damage since it was found."""
    return any(
        row.at >= int(damage.found_at.timestamp() * 1_000_000)
        for rollout in Rollouts(transaction).list_all()
        if damage.rollout in {ALL_ROLLOUTS, rollout.name}
        for row in Ledger(transaction, rollout).list_rows(kinds=(DamageCleared.__name__,))
    )


def clear_checked_damage(
    database: Database, caller: Caller, reason: str, *, at: datetime
) -> tuple[str, ...]:
    """Run every check; if all pass, clear all damage and return the rollouts.

    Raises:
        NotAllowedError: the caller is no admin.
        NotCleanError: a check failed, or no reason was given.
    """
    require_permission(caller, Permission.ADMINISTER, "")
    if not reason.strip():
        raise NotCleanError("give the reason with --reason; it stands in the ledger")
    faults = [
        fault for check in run_health_checks(database, rebuilds=True) for fault in check.faults
    ]
    if faults:
        raise NotCleanError(
            f"{len(faults)} faults remain, so humans go on deciding; repair the database or restore"
            f" a backup: {faults[0]}"
        )
    return clear_damage(database, caller.name, reason, at=at)


def clear_damage(
    database: Database, actor_name: str, reason: str, *, at: datetime
) -> tuple[str, ...]:
    """Clear all damage by an event in each rollout that it concerns.

    A declared restore calls it too: the restored rows were verified. Without damage nothing is
    appended, and the result is ().
    """
    return retry_on_stale_revision(lambda: _append_clearings(database, actor_name, reason, at))


def _append_clearings(
    database: Database, actor_name: str, reason: str, at: datetime
) -> tuple[str, ...]:
    with database.begin_write(is_urgent=True) as transaction:
        damaged = {damage.rollout for damage in load_safety_rows(transaction).damages}
        rollouts = [
            rollout
            for rollout in Rollouts(transaction).list_all()
            if damaged and (ALL_ROLLOUTS in damaged or rollout.name in damaged)
        ]
        for rollout in rollouts:
            ledger = Ledger(transaction, rollout)
            head = ledger.load_head()
            event = DamageCleared(
                at=at if head.at is None else max(at, head.at), by=actor_name, reason=reason
            )
            ledger.append((event,), after=head.revision)
        delete_damages(transaction)
    return tuple(rollout.name for rollout in rollouts)
