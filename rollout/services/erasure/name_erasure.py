"""Erasing the name of a user or reviewer: a pseudonym takes its place, in batches.

First the name is refused, so that no record brings it back. Then each rollout's tables are changed,
with an event for each batch. Last the account is erased, and with it the name of the pseudonym.
After a failure, repeat the request: it continues.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rollout.core.scope.events import NameErased
from rollout.services.access.account_erasure import erase_account
from rollout.services.engine.command_handler import retry_on_stale_revision
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.erasure.erasure import (
    ErasureRefusedError,
    ErasureRequest,
    ErasureResult,
    UnknownSubjectError,
)
from rollout.services.erasure.report_erasure import (
    erase_from_reports,
    match_words,
)
from rollout.services.policies.account_changes import make_change_with_warnings
from rollout.store.access.users import Users
from rollout.store.database.rollouts import ACCESS_CHAIN, Rollout, Rollouts
from rollout.store.database.session import Database, Transaction
from rollout.store.erasure.case_contents import ErasedContents
from rollout.store.erasure.names import RolloutNames
from rollout.store.erasure.texts import (
    delete_ledger_texts,
    delete_texts_by,
    list_name_spellings,
)
from rollout.store.ledger.accounts import Accounts
from rollout.store.ledger.ledger import Ledger
from rollout.store.records.erased_keys import is_name_refused, refuse_name, wait_for_batches

ROWS_PER_BATCH: Final = 500
NAME: Final = "name"


def erase_name(database: Database, request: ErasureRequest, name: str) -> ErasureResult:
    """Erase a user with their account, or a reviewer's name; counts stay.

    The request's rollout limits it to a reviewer's name at the sources of that rollout.

    Raises:
        NotAllowedError: the caller is no admin of the rollout, or of all.
        UnknownRolloutError: the caller may not see such a rollout.
        ErasureRefusedError: there is no reason, it has the name, or an account has the name and
            the request names a rollout.
        UnknownSubjectError: neither an account nor a record has the name.
        InvalidAccountError: the name is a service account's.
        LastAdminError: no admin would be left.
    """
    request = request.check(name)
    rollouts = _find_rollouts(database, request, name)
    if not rollouts:
        return ErasureResult(NAME)
    with database.begin_write() as transaction:
        for rollout in rollouts:
            wait_for_batches(transaction, rollout)
        if not request.rollout:
            _check_account(transaction, request, name)
        pseudonym = Accounts(transaction).add_names([name]).find_id(name)
        for rollout in rollouts:
            refuse_name(transaction, rollout, name)
    subject = _ErasedName(name, pseudonym)
    rows = sum(_erase_batches(database, request, rollout, subject) for rollout in rollouts)
    rows += retry_on_stale_revision(lambda: _finish(database, request, rollouts, subject))
    return ErasureResult(NAME, rows=rows, pseudonym=pseudonym)


@dataclass(frozen=True, slots=True)
class _ErasedName:
    """A name and the id that takes its place."""

    name: str
    pseudonym: str


def _find_rollouts(database: Database, request: ErasureRequest, name: str) -> Sequence[Rollout]:
    """Return the rollouts to change; none if the name was erased before."""
    with database.begin_read() as transaction:
        everywhere = Rollouts(transaction).list_all()
        rollouts = [rollout for rollout in everywhere if request.rollout in {"", rollout.name}]
        has_user = Users(transaction).find(name) is not None
        if has_user and request.rollout:
            raise ErasureRefusedError(
                f"{name} is an account; erase it in all rollouts, without naming one"
            )
        is_known = has_user or name in Accounts(transaction).find_ids([name])
        if is_known or any(RolloutNames(transaction, each).has_name(name) for each in rollouts):
            return rollouts
        if any(is_name_refused(transaction, each, name) for each in rollouts):
            return ()
    place = request.rollout or "any rollout"
    raise UnknownSubjectError(
        f"no account and no reviewer in {place} is called {name}; check the name, upper and lower"
        " case differ"
    )


def _check_account(transaction: Transaction, request: ErasureRequest, name: str) -> None:
    """Raise the errors of erasing the account before anything is changed."""
    with transaction.rehearse():
        erase_account(transaction, request.caller, name, reason=request.reason, at=request.at)


def _erase_batches(
    database: Database, request: ErasureRequest, rollout: Rollout, subject: _ErasedName
) -> int:
    """Replace the name in the tables that grow with cases; return the number of rows."""

    def _erase_batch() -> int:
        with database.begin_write() as transaction:
            return _erase_rows(transaction, request, rollout, subject, _replace_batch)

    rows = 0
    while batch := retry_on_stale_revision(_erase_batch):
        rows += batch
    return rows


def _replace_batch(names: RolloutNames, subject: _ErasedName, revision: int) -> ErasedContents:
    return names.replace_batch(
        subject.name, subject.pseudonym, limit=ROWS_PER_BATCH, revision=revision
    )


def _replace_rest(names: RolloutNames, subject: _ErasedName, revision: int) -> ErasedContents:
    return names.replace_rest(subject.name, subject.pseudonym, revision=revision)


def _erase_rows(
    transaction: Transaction,
    request: ErasureRequest,
    rollout: Rollout,
    subject: _ErasedName,
    replace_rows: Callable[[RolloutNames, _ErasedName, int], ErasedContents],
) -> int:
    """Replace the name in some rows and append the event; return the number of rows."""
    transaction.tally.announce(rollout.name, NameErased.__name__)
    state = load_rollout_state(transaction, rollout.name)
    revision = state.scope.revision
    erased = replace_rows(RolloutNames(transaction, rollout), subject, revision + 1)
    if replace_rows is _replace_rest:
        erased = _erase_in_reports(transaction, rollout, subject, erased)
    if not erased.counts:
        return 0
    event = _build_event(transaction, request, rollout, subject, erased)
    access_head = request.caller.access_head
    Ledger(transaction, rollout).append([event], after=revision, access_head=access_head)
    return sum(event.counts)


def _erase_in_reports(
    transaction: Transaction, rollout: Rollout, subject: _ErasedName, erased: ErasedContents
) -> ErasedContents:
    """Erase the name from sealed reports, and add their number to the counts."""
    is_named = match_words(list_name_spellings(subject.name))
    reports = erase_from_reports(transaction, rollout, is_named)
    if not reports:
        return erased
    return replace(erased, counts={**erased.counts, "reports": len(reports)})


def _build_event(
    transaction: Transaction,
    request: ErasureRequest,
    rollout: Rollout,
    subject: _ErasedName,
    erased: ErasedContents,
) -> NameErased:
    tables = tuple(sorted(erased.counts))
    return NameErased(
        at=request.at,
        by=request.caller.name,
        pseudonym=subject.pseudonym,
        name_hash=refuse_name(transaction, rollout, subject.name),
        tables=tables,
        counts=tuple(erased.counts[table] for table in tables),
        records_digest=erased.records_digest,
        reason=request.reason,
    )


def _finish(
    database: Database, request: ErasureRequest, rollouts: Sequence[Rollout], subject: _ErasedName
) -> int:
    """Erase the account, small tables, and the name of the pseudonym; return the rows.

    That is one transaction, so that a replica that reads these events finds no name any more.
    """
    with database.begin_write() as transaction:
        rows = sum(
            _erase_rows(transaction, request, rollout, subject, _replace_rest)
            for rollout in rollouts
        )
        if not request.rollout:
            words = list_name_spellings(subject.name)
            delete_texts_by(transaction, ACCESS_CHAIN, subject.pseudonym)
            delete_ledger_texts(transaction, ACCESS_CHAIN, words)
            erase_account(
                transaction, request.caller, subject.name, reason=request.reason, at=request.at
            )
        elsewhere = (
            RolloutNames(transaction, rollout).has_name(subject.name)
            for rollout in Rollouts(transaction).list_all()
        )
        if not any(elsewhere):
            Accounts(transaction).clear_name(subject.pseudonym)
    return rows


def erase_user(
    database: Database, request: ErasureRequest, name: str, *, requires_second_factor: bool
) -> ErasureResult:
    """Erase a name as `erase_name` does, and warn; nothing is refused for a warning."""
    checked_request = request.check(name)  # only an admin learns who is missing
    result, warnings = make_change_with_warnings(
        database,
        lambda: erase_name(database, checked_request, name),
        at=request.at,
        requires_second_factor=requires_second_factor,
    )
    return replace(result, warnings=warnings)
