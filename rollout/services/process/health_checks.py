"""Checks of a database, each with its faults and what to do about them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions

from rollout.core.ledger.ledger import BrokenChainError
from rollout.services.access.access_state import house_faults
from rollout.services.engine.consistency_check import rebuild
from rollout.services.reports.builder import faults_of_seals
from rollout.store.access.access_ledger import house_head
from rollout.store.database.append_only_checks import (
    forgetful_settings,
    missing_triggers,
    owned_tables,
)
from rollout.store.database.errors import StoreError
from rollout.store.database.migrations import require_current
from rollout.store.database.rollouts import HOUSE_CHAIN, Rollouts
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `faults` is empty where it is as it should be."""

    what: str
    faults: tuple[str, ...] = ()


def checks(database: Database, *, rebuilt: bool = False) -> Iterator[Check]:
    """Yield what was checked, in order; with tables that are not ours nothing else is.

    Args:
        database: what to look at. Nothing is changed.
        rebuilt: whether to recompute every derived table too; it reads the whole history.
    """
    yield Check("only one installed package is called api", tuple(_owners_of_api()))
    schema = Check("the tables have the form that this program needs", tuple(_schema(database)))
    yield schema
    if schema.faults:
        return
    with database.reading() as transaction:
        yield Check("triggers keep append-only tables unchanged", tuple(_kept(transaction)))
        yield Check("acknowledged records survive a power cut", tuple(_lost(transaction)))
        yield Check("the role of the service does not own the tables", tuple(_owned(transaction)))
        rollout_names = [rollout.name for rollout in Rollouts(transaction).all()]
    yield Check("users, roles and keys match the access ledger", tuple(_house(database)))
    for rollout_name in rollout_names:
        yield Check(f"{rollout_name}: the ledger is intact", tuple(_chain(database, rollout_name)))
        yield Check(
            f"{rollout_name}: reports match their seals in the ledger",
            tuple(_sealed(database, rollout_name)),
        )
        if rebuilt:
            rebuild_result = rebuild(database, rollout_name)
            yield Check(
                f"{rollout_name}: derived tables match a recomputation",
                tuple(rebuild_result.lines()),
            )


def _owners_of_api() -> Iterator[str]:
    owners = sorted(set(packages_distributions().get("api", ())))
    if len(owners) > 1:
        owner_text = " and ".join(owners)
        yield f"{owner_text} both install a package `api`; install rollout in its own environment"


def _schema(database: Database) -> Iterator[str]:
    try:
        require_current(database)
    except StoreError as error:
        yield str(error)


def _kept(transaction: Transaction) -> Iterator[str]:
    for trigger_name in missing_triggers(transaction):
        yield f"trigger {trigger_name} is missing or changed; restore it from the last migration"


def _lost(transaction: Transaction) -> Iterator[str]:
    for setting_name in forgetful_settings(transaction):
        yield f"{setting_name} is off: turn it on in PostgreSQL's configuration"


def _owned(transaction: Transaction) -> Iterator[str]:
    table_names = owned_tables(transaction)
    if table_names:
        yield (
            f"this role owns {', '.join(table_names)} and could drop their triggers; let another"
            " role own them, and grant this one access with `rollout db grant`"
        )


def _house(database: Database) -> Iterator[str]:
    with database.reading() as transaction:
        if not house_head(transaction).revision:
            return
        ledger_faults = tuple(_fault_of(Ledger(transaction, HOUSE_CHAIN).verify))
    yield from ledger_faults or house_faults(database)


def _chain(database: Database, name: str) -> Iterator[str]:
    with database.reading() as transaction:
        rollout = Rollouts(transaction).find(name)
        assert rollout is not None  # noqa: S101 - rollouts are never deleted
        yield from _fault_of(Ledger(transaction, rollout).verify)


def _sealed(database: Database, name: str) -> Iterator[str]:
    with database.reading() as transaction:
        rollout = Rollouts(transaction).find(name)
        assert rollout is not None  # noqa: S101 - rollouts are never deleted
        for fault in faults_of_seals(transaction, rollout):
            yield f"{fault}: reports were changed in the database; restore them from a backup"


def _fault_of(verify: Callable[[], object]) -> Iterator[str]:
    try:
        verify()
    except BrokenChainError as error:
        yield f"{error}: the stored ledger was changed; compare it with heads kept elsewhere"
