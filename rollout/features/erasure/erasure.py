"""Erasing a case, an episode or a name, also from reports, and exporting what is stored of a user.

The contents of a case or of an episode's cases are erased in batches. A batch is one transaction,
with its event. After a failure, repeat the request: it continues.

The name of a user or reviewer is replaced by a pseudonym, in batches, in each spelling that counts
as the same person. First the name is refused, so that no record brings it back. Then each rollout's
tables are changed, with an event for each batch. Last the account is erased, and with it the name
of the pseudonym. After a failure, repeat the request: it continues.

Rows of cases, and names, are erased from sealed reports, too; the seals stay valid.
"""

import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from io import StringIO
from itertools import chain
from types import MappingProxyType
from typing import Any, Final

from rollout import faults
from rollout.data.access.users import Users
from rollout.data.counting.purge import open_purge
from rollout.data.database.rollouts import ACCESS_CHAIN, Rollout, Rollouts
from rollout.data.database.session import Database, Transaction
from rollout.data.erasure.contents import (
    BATCHED_COLUMNS,
    TEXT_COLUMNS,
    CaseContents,
    EarlierHolders,
    ErasedContents,
    NameColumn,
    RolloutNames,
    RowKeys,
    contains_word,
    delete_ledger_texts,
    delete_texts_by,
    list_name_spellings,
)
from rollout.data.erasure.user_data import UserData
from rollout.data.ledger.ledger import Accounts, Ledger
from rollout.data.records.external_keys import is_name_refused, refuse_name, wait_for_batches
from rollout.data.reports.reports import ReportStore
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.events import CasesErased, NameErased
from rollout.engine.records.reviews import fold_name
from rollout.features.access.access_state import require_self_or_admin
from rollout.features.access.users import erase_account
from rollout.features.policies.account_changes import make_change_with_warnings
from rollout.features.reports.figures.report_version import CASE_FIELDS, erase_parts
from rollout.features.reports.inputs.divergence_columns import unescape_cell
from rollout.kernel.errors import NotAllowedError, RefusalError
from rollout.live.rollout_state import load_rollout_state, read_rollout, retry_on_stale_revision

MAX_REASON_LENGTH: Final = 2_000


class ErasureRefusedError(RefusalError):
    """The erasure has no reason, or can't be done as asked."""

    code = "erasure-refused"


class UnknownSubjectError(RefusalError):
    """Nothing is stored under this key or name."""

    code = "unknown-subject"


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """What an erasure did; repeating a finished one changes nothing.

    Attributes:
        subject: `case`, `episode` or `name`.
        cases: cases whose contents were erased now.
        rows: deleted or changed rows.
        reports: reports from which rows of cases were erased now.
        pseudonym: what replaces a name; "" for cases.
        warnings: gates and stops for which users are missing since a user was erased.
    """

    subject: str
    cases: int = 0
    rows: int = 0
    reports: int = 0
    pseudonym: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ErasureRequest:
    """Who erases, where, why and when; rollout "" means all rollouts."""

    caller: Caller
    rollout: str
    reason: str
    at: datetime

    def check(self, subject: str) -> "ErasureRequest":
        """Return the request with its reason stripped.

        Raises:
            NotAllowedError: the caller is no admin of the whole rollout.
            UnknownRolloutError: the caller may not see such a rollout.
            ErasureRefusedError: the reason is missing, too long, or has the subject's name.
        """
        require_permission(self.caller, Permission.ADMINISTER, self.rollout)
        if not self.caller.has_permission(Permission.ADMINISTER, self.rollout):
            place = self.rollout or "all rollouts"
            raise NotAllowedError(
                f"{self.caller.name} may not erase in {place}: ask an admin of {place}"
            )
        reason = self.reason.strip()
        if not 0 < len(reason) <= MAX_REASON_LENGTH:
            raise ErasureRefusedError(
                f"give a reason of 1 to {MAX_REASON_LENGTH} letters; it stays, so it should name"
                " nobody and no case"
            )
        if any(contains_word(reason, word) for word in list_name_spellings(subject)):
            raise ErasureRefusedError(
                f"the reason has the word {subject}, but it stays: leave the word out"
            )
        return replace(self, reason=reason)


PartFilter = Callable[[Any], bool]


def list_untouched_reports(
    transaction: Transaction, rollout: Rollout, is_erased: PartFilter
) -> Collection[int]:
    """Return the numbers of the reports without parts to erase; sealed, they stay so.

    Call it before the transaction that erases: many reports take long.
    """
    store = ReportStore(transaction, rollout)
    return {number for number in store.list_numbers() if not _erase_parts(store, number, is_erased)}


def erase_from_reports(
    transaction: Transaction, rollout: Rollout, is_erased: PartFilter, untouched: Collection[int]
) -> tuple[int, ...]:
    """Erase parts of all reports but the untouched ones; return the numbers of the changed ones.

    Reports are read one at a time.
    """
    store, changed_numbers = ReportStore(transaction, rollout), []
    for number in store.list_numbers():
        erased = None if number in untouched else _erase_parts(store, number, is_erased)
        if erased:
            with open_purge(transaction):
                store.replace_content(number, *erased)
            changed_numbers.append(number)
    return tuple(changed_numbers)


def _erase_parts(store: ReportStore, number: int, is_erased: PartFilter) -> tuple[str, str] | None:
    report = store.get(number)
    return erase_parts(report.body, report.divergences, is_erased) if report else None


def match_words(words: Collection[str]) -> PartFilter:
    """Return the filter for texts and rows that have one of the words."""

    def is_matching(part: Any) -> bool:
        if isinstance(part, str):
            text = part.replace('""', '"')  # as a line of a table writes one quote
            return any(word in text and contains_word(text, word) for word in words)
        if isinstance(part, dict):
            return any(is_matching(item) for item in part.values())
        return isinstance(part, list) and any(is_matching(item) for item in part)

    return is_matching


def match_cases_of(keys: Collection[str]) -> PartFilter:
    """Return the filter for rows of cases, and for texts that name one."""
    names_case = match_words(keys)

    def is_matching(part: Any) -> bool:
        is_row = (
            any(part.get(field) in keys for field in CASE_FIELDS)
            if isinstance(part, dict)
            else _read_first_cell(part) in keys
        )
        return is_row or names_case(part)

    return is_matching


def _read_first_cell(line: str) -> str:
    """Return the key in a line of the table; keys and other texts may have line breaks.

    >>> _read_first_cell("'=cmd,v1"), _read_first_cell("'a,b',v1")
    ('=cmd', "'a")
    """
    try:
        cells = next(csv.reader(StringIO(line, newline="")), [])
    except csv.Error:  # a text longer than a cell may be, which is no line of the table
        return ""
    return unescape_cell(next(iter(cells), ""))


CASES_PER_BATCH: Final = 100
CASE, EPISODE = "case", "episode"


def erase_case(database: Database, request: ErasureRequest, key: str) -> ErasureResult:
    """Erase the contents of a case; its counts stay.

    Raises:
        NotAllowedError: the caller is no admin of the whole rollout.
        UnknownRolloutError: the caller may not see such a rollout.
        ErasureRefusedError: there is no reason, or it names the case.
        UnknownSubjectError: no record has this key.
    """
    request = request.check(key)
    with read_rollout(database, request.rollout) as (transaction, state):
        contents = CaseContents(transaction, state.rollout)
        is_stored, is_erased = contents.find_cases([key]), contents.find_erased([key])
    if not is_stored and not is_erased:
        raise UnknownSubjectError(
            f"{request.rollout} has no case {key}; check the key, upper and lower case differ"
        )
    if not is_stored:
        return ErasureResult(CASE)
    return erase_case_batch(database, request, [key])


def erase_episode(database: Database, request: ErasureRequest, episode: str) -> ErasureResult:
    """Erase the contents of an episode's cases and its key; the counts stay.

    Raises the errors of `erase_case`.
    """
    request = request.check(episode)
    with read_rollout(database, request.rollout) as (transaction, state):
        if not CaseContents(transaction, state.rollout).has_episode(episode):
            raise UnknownSubjectError(
                f"{request.rollout} has no episode {episode}; check the key, upper and lower case"
                " differ"
            )
    result = ErasureResult(EPISODE)
    while True:
        with database.begin_read() as transaction:
            keys = CaseContents(transaction, state.rollout).list_episode_cases(
                episode, CASES_PER_BATCH
            )
        if not keys:
            return result
        batch = erase_case_batch(database, request, keys, episode)
        result = replace(
            result,
            cases=result.cases + batch.cases,
            rows=result.rows + batch.rows,
            reports=result.reports + batch.reports,
        )


def erase_case_batch(
    database: Database, request: ErasureRequest, keys: Collection[str], episode: str = ""
) -> ErasureResult:
    """Erase the contents of cases in one transaction, for a request that was checked.

    What waits to be counted is counted first, since that needs its records.
    """
    from rollout.live.evidence.due_counting import count_before_erasure

    count_before_erasure(database, request.rollout, keys)
    with read_rollout(database, request.rollout) as (transaction, state):
        earlier = CaseContents(transaction, state.rollout).find_value_holders(
            keys, state.policy.evidence.episode_span
        )
        untouched = list_untouched_reports(transaction, state.rollout, match_cases_of(keys))

    def _erase() -> ErasureResult:
        with database.begin_write() as transaction:
            event = erase_contents(transaction, request, keys, earlier, untouched, episode)
        return ErasureResult(
            CASE,
            cases=len(event.keys),
            rows=sum(event.counts),
            reports=len(event.reports),
        )

    return retry_on_stale_revision(_erase)


def erase_contents(
    transaction: Transaction,
    request: ErasureRequest,
    keys: Collection[str],
    earlier: EarlierHolders,
    untouched: Collection[int] = (),
    episode: str = "",
) -> CasesErased:
    """Erase the contents of cases, and append the event, which is returned."""
    transaction.tally.announce(request.rollout, CasesErased.__name__)
    state = load_rollout_state(transaction, request.rollout)
    if episode:
        wait_for_batches(transaction, state.rollout)
    contents = CaseContents(transaction, state.rollout)
    erased = contents.erase(
        keys,
        revision=state.scope.revision + 1,
        episode_span=state.policy.evidence.episode_span,
        earlier=earlier,
    )
    reports = erase_from_reports(transaction, state.rollout, match_cases_of(keys), untouched)
    faults.reach_point("purge.deleted")
    tables = tuple(sorted(erased.counts))
    event = CasesErased(
        at=request.at,
        by=request.caller.name,
        keys=erased.keys,
        tables=tables,
        counts=tuple(erased.counts[table] for table in tables),
        records_digest=erased.records_digest,
        reports=reports,
        episode=contents.erase_episode_key(episode) if episode else "",
        reason=request.reason,
    )
    Ledger(transaction, state.rollout).append(
        [event], after=state.scope.revision, access_head=request.caller.access_head
    )
    return event


ROWS_PER_BATCH: Final = 500
NAME: Final = "name"


def erase_name(database: Database, request: ErasureRequest, name: str) -> ErasureResult:
    """Erase a user with their account, or a reviewer's name; counts stay.

    All spellings of a reviewer go that are one by `fold_name`.
    The request's rollout limits it to a reviewer's name at the sources of that rollout.

    Raises:
        NotAllowedError: the caller is no admin of the rollout, or of all.
        UnknownRolloutError: the caller may not see such a rollout.
        ErasureRefusedError: there is no reason, it has the name, or an account has the name and
            the request names a rollout or spells it otherwise.
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
            with transaction.rehearse():  # raises before anything is changed
                erase_account(
                    transaction, request.caller, name, reason=request.reason, at=request.at
                )
        pseudonym = Accounts(transaction).add_names([name]).find_id(name)
        for rollout in rollouts:
            refuse_name(transaction, rollout, name)
    with database.begin_read() as transaction:  # a refused name gets no further spelling
        subjects = _list_subjects(transaction, rollouts, name, pseudonym)
    rows = sum(
        _erase_batches(database, request, rollout, subject)
        for rollout in rollouts
        for subject in subjects
    )
    last_rows = retry_on_stale_revision(lambda: _finish(database, request, rollouts, subjects))
    return ErasureResult(NAME, rows=rows + last_rows, pseudonym=pseudonym)


@dataclass(frozen=True, slots=True)
class _ErasedName:
    """A name and the id that takes its place.

    `replacement` is the id with blanks that no other spelling has: both may have decided a case,
    and stay one person.
    """

    name: str
    pseudonym: str
    replacement: str


def _list_subjects(
    transaction: Transaction, rollouts: Iterable[Rollout], name: str, pseudonym: str
) -> list[_ErasedName]:
    """Return the name, then its other spellings in the rollouts."""
    names = _list_names(transaction, rollouts)
    longest = max((n for n in names if n.rstrip() == pseudonym), key=len, default=pseudonym)
    others = sorted(n for n in names - {name} if fold_name(n) == fold_name(name))
    return [
        _ErasedName(name, pseudonym, pseudonym),
        *(_ErasedName(n, pseudonym, longest + " " * blanks) for blanks, n in enumerate(others, 1)),
    ]


def _list_names(transaction: Transaction, rollouts: Iterable[Rollout]) -> set[str]:
    return {name for each in rollouts for name in RolloutNames(transaction, each).list_names()}


def _find_rollouts(database: Database, request: ErasureRequest, name: str) -> Sequence[Rollout]:
    """Return the rollouts to change; none if the name was erased before."""
    with database.begin_read() as transaction:
        rollouts = [
            rollout
            for rollout in Rollouts(transaction).list_all()
            if request.rollout in {"", rollout.name}
        ]
        user = Users(transaction).find_similar_name(name)
        if user is not None and (request.rollout or user.name != name):
            raise ErasureRefusedError(
                f"{user.name} is an account; erase it in all rollouts, without naming one"
            )
        is_known = user is not None or name in Accounts(transaction).find_ids([name])
        if is_known or fold_name(name) in map(fold_name, _list_names(transaction, rollouts)):
            return rollouts
        if any(is_name_refused(transaction, each, name) for each in rollouts):
            return ()
    raise UnknownSubjectError(
        f"no account and no reviewer in {request.rollout or 'any rollout'} is called {name}; check"
        " the name"
    )


def _erase_batches(
    database: Database, request: ErasureRequest, rollout: Rollout, subject: _ErasedName
) -> int:
    """Replace the name in the tables that grow with cases, and in their texts; return the rows.

    A batch's rows are looked for before its transaction, after those of the batch before: nobody
    waits for that. A refused name comes into no further row.
    """

    def _erase_batch(column: NameColumn, keys: RowKeys) -> int:
        with database.begin_write() as transaction:
            replace_names = partial(
                RolloutNames(transaction, rollout).replace_batch,
                column,
                keys,
                subject.name,
                subject.replacement,
            )
            return _append_erasure(transaction, request, rollout, subject, replace_names)

    rows = 0
    for column in (*BATCHED_COLUMNS, *TEXT_COLUMNS):
        keys: RowKeys = ()
        while keys := _find_batch(database, rollout, subject, column, keys):
            rows += retry_on_stale_revision(partial(_erase_batch, column, keys))
    return rows


def _find_batch(
    database: Database, rollout: Rollout, subject: _ErasedName, column: NameColumn, after: RowKeys
) -> RowKeys:
    with database.begin_read() as transaction:
        return RolloutNames(transaction, rollout).find_batch(
            column, subject.name, after=after, limit=ROWS_PER_BATCH
        )


def _append_erasure(
    transaction: Transaction,
    request: ErasureRequest,
    rollout: Rollout,
    subject: _ErasedName,
    erase: Callable[[int], ErasedContents],
) -> int:
    """Erase a part for the revision of its event, and append the event; return the rows."""
    transaction.tally.announce(rollout.name, NameErased.__name__)
    revision = load_rollout_state(transaction, rollout.name).scope.revision
    erased = erase(revision + 1)
    if not erased.counts:
        return 0
    tables = tuple(sorted(erased.counts))
    event = NameErased(
        at=request.at,
        by=request.caller.name,
        pseudonym=subject.pseudonym,
        name_hash=refuse_name(transaction, rollout, subject.name),
        tables=tables,
        counts=tuple(erased.counts[table] for table in tables),
        records_digest=erased.records_digest,
        reason=request.reason,
    )
    Ledger(transaction, rollout).append(
        [event], after=revision, access_head=request.caller.access_head
    )
    return sum(event.counts)


def _erase_rest(
    transaction: Transaction,
    rollout: Rollout,
    subject: _ErasedName,
    untouched: Collection[int],
    _revision: int,
) -> ErasedContents:
    """Replace the name in small tables and in the touched reports, and delete texts with it."""
    rest = RolloutNames(transaction, rollout).replace_rest(subject.name, subject.replacement)
    has_name = match_words(list_name_spellings(subject.name))
    reports = erase_from_reports(transaction, rollout, has_name, untouched)
    counts = {"reports": len(reports)} if reports else {}
    return replace(rest, counts={**rest.counts, **counts})


def _finish(
    database: Database,
    request: ErasureRequest,
    rollouts: Sequence[Rollout],
    subjects: Sequence[_ErasedName],
) -> int:
    """Erase the account, small tables, and the names of ids; return the rows.

    That is one transaction, so that a replica that reads these events finds no name any more.
    """
    with database.begin_read() as transaction:
        elsewhere = _list_names(
            transaction, (each for each in Rollouts(transaction).list_all() if each not in rollouts)
        )
        words = {word for subject in subjects for word in list_name_spellings(subject.name)}
        untouched = [
            list_untouched_reports(transaction, rollout, match_words(words)) for rollout in rollouts
        ]
    with database.begin_write() as transaction:
        rows = sum(
            _append_erasure(
                transaction,
                request,
                rollout,
                subject,
                partial(_erase_rest, transaction, rollout, subject, numbers),
            )
            for rollout, numbers in zip(rollouts, untouched, strict=True)
            for subject in subjects
        )
        subject = subjects[0]
        if not request.rollout:
            delete_texts_by(transaction, ACCESS_CHAIN, subject.pseudonym)
            delete_ledger_texts(transaction, ACCESS_CHAIN, list_name_spellings(subject.name))
            erase_account(
                transaction, request.caller, subject.name, reason=request.reason, at=request.at
            )
        accounts = Accounts(transaction)
        for account in accounts.find_ids({each.name for each in subjects} - elsewhere).values():
            accounts.clear_name(account)
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


ERASURES: Final[Mapping[str, Callable[[Database, ErasureRequest, str], ErasureResult]]] = (
    MappingProxyType({"case": erase_case, "episode": erase_episode, "reviewer": erase_name})
)
"""What can be erased in one rollout, with the function."""


def describe_erasure(result: ErasureResult) -> str:
    """Return the sentence for the result of an erasure."""
    if not result.rows and not result.cases:
        return "Nothing was left to erase: it was erased before"
    if result.pseudonym:
        return f"{result.rows} rows changed or deleted; {result.pseudonym} replaces the name"
    cases, reports = (
        f"{count} {noun}{'' if count == 1 else 's'}"
        for count, noun in ((result.cases, "case"), (result.reports, "report"))
    )
    return f"{cases} erased: {result.rows} rows, and parts of {reports}; counts stay"


def iterate_user_data(database: Database, caller: Caller, name: str) -> Iterator[Mapping[str, Any]]:
    """Yield every row that names a user or reviewer; `table` says what it is.

    Raises:
        NotAllowedError: the caller is another user and no admin of all rollouts.
        UnknownSubjectError: neither an account nor a record has the name.
    """
    require_self_or_admin(caller, name, "export the data")
    rows = _iterate_rows(database, name)
    first_row = next(rows, None)
    if first_row is None:
        raise UnknownSubjectError(
            f"no account and no reviewer is called {name}; check the name, upper and lower case"
            " differ"
        )
    return chain([first_row], rows)


def _iterate_rows(database: Database, name: str) -> Iterator[Mapping[str, Any]]:
    with database.begin_read() as transaction:
        rollouts = Rollouts(transaction).list_all()
        names = _list_names(transaction, rollouts)
        data = UserData(transaction, name, {n for n in names if fold_name(n) == fold_name(name)})
        parts = (
            data.iterate_account(),
            data.iterate_ledger(),
            *map(data.iterate_rollout, rollouts),
        )
        for row in chain.from_iterable(parts):
            yield {
                column: value.isoformat() if isinstance(value, datetime) else value
                for column, value in row.items()
            }
