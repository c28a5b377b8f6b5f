"""The stored reports: request, list, read and format them, and check them against their seals.

Lists show when a report was made, not its contents. Only reading a report shows cases.
"""

import csv
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from threading import Event, Thread
from time import monotonic
from typing import Any, Final

from rollout.data.database.append_failures import StoreError
from rollout.data.database.rollouts import Rollout, list_rollout_names
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.incoming_cases import ExposureStore as Told
from rollout.data.reports.reports import (
    AccountRequest,
    Delivery,
    ReportRequests,
    ReportStore,
    ReportSummary,
    StoredReport,
    list_deliveries_of_report,
)
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.events import ReportSealed
from rollout.features.reports.builder import (
    NO_CALLBACKS,
    CreatedReport,
    NothingToReportError,
    ReportCallbacks,
    ReportOptions,
    create_report,
    load_pictures,
)
from rollout.features.reports.figures.report_version import (
    CASE_FIELDS,
    VERSION_SECTION,
    UnknownReportFormError,
    check_report_form,
    compute_seal,
    compute_table_seal,
    find_pictured_cases,
    format_canonical,
    restore_report,
    restore_table,
)
from rollout.features.reports.inputs.divergence_columns import unescape_cell
from rollout.features.reviews.decisions import find_hidden_cases, record_unclaimed_cases
from rollout.kernel.errors import NotAllowedError, RefusalError
from rollout.live.rollout_state import RolloutState, load_rollout_state, read_rollout
from rollout.live.work.user_runs import WorkBusyError

REPORT_FORMATS: Final = ("html", "json", "csv")
REPORT_PAGE = "report"
ONE_HOUR, MAX_REPORTS_PER_HOUR = timedelta(hours=1), 6
RENEWAL_SECONDS: Final = 5.0
ALIVE_FOR: Final = timedelta(seconds=15)
"""After which a request that was not renewed counts as dead."""


class TooManyReportsError(RefusalError):
    """The caller's last report still runs, or they had as many as an hour has room for."""

    code = "too-many-requests"

    def __init__(self, text: str, retry_after: timedelta) -> None:
        super().__init__(text)
        self.retry_after = ceil(retry_after.total_seconds())


class UnknownReportError(RefusalError):
    """No report has this number."""

    code = "unknown-report"


def request_report(
    database: Database,
    caller: Caller,
    rollout_name: str,
    report_name: str,
    options: ReportOptions,
    at: datetime,
    *,
    callbacks: ReportCallbacks = NO_CALLBACKS,
) -> CreatedReport:
    """Create a report over all sites; `callbacks` tell its steps.

    Raises:
        NotAllowedError: the caller may not read every site.
        UnknownRolloutError: the caller may not see such a rollout.
        NothingToReportError: the period or name is not valid.
        TooManyReportsError: a report of the caller runs, or they requested `MAX_REPORTS_PER_HOUR`
            within the last hour, of whatever rollouts.
    """
    _load_readable_state(database, caller, rollout_name)
    with _occupy_account(database, caller.name, at):
        return create_report(
            database, rollout_name, report_name, options, at, caller=caller, callbacks=callbacks
        )


@contextmanager
def _occupy_account(database: Database, name: str, at: datetime) -> Iterator[None]:
    """Let an account have one report at a time, and few an hour; a report may take long.

    The service's own reports have no account.

    Raises:
        TooManyReportsError: it has one, or had too many.
    """
    with database.begin_write() as transaction:
        requests = ReportRequests(transaction, name)
        requests.lock()
        requests.delete_others(at - ONE_HOUR, at + ONE_HOUR)
        _check_requests(requests.list_since(at - ONE_HOUR), at)
        number = requests.start(at=at)
    started, has_ended, is_free = monotonic(), Event(), False

    def renew() -> None:
        while not has_ended.wait(RENEWAL_SECONDS):
            with suppress(StoreError), database.begin_write() as transaction:
                ReportRequests(transaction, name).renew(
                    number, at=at + timedelta(seconds=monotonic() - started)
                )

    thread = Thread(target=renew, name="report-request", daemon=True)
    thread.start()
    try:
        yield
    except (NothingToReportError, WorkBusyError):
        is_free = True
        raise
    finally:
        has_ended.set()
        thread.join()
        # if it can't be stored it counts as dead soon
        with suppress(StoreError), database.begin_write() as transaction:
            ReportRequests(transaction, name).end(number, is_free=is_free)


def _check_requests(requests: Sequence[AccountRequest], at: datetime) -> None:
    """Check the requests of an account within an hour, oldest first."""
    for request in requests:
        if request.is_running and abs(at - request.renewed_at) < ALIVE_FOR:
            raise TooManyReportsError(
                f"a report of yours has been running since {_format_time(request.started_at)}: wait"
                " until it is done; should its process have died, it counts as ended after"
                f" {ALIVE_FOR.seconds} s",
                ALIVE_FOR,
            )
    if len(requests) >= MAX_REPORTS_PER_HOUR:
        free_at = requests[-MAX_REPORTS_PER_HOUR].started_at + ONE_HOUR
        raise TooManyReportsError(
            f"you requested {len(requests)} reports within an hour, which has room for"
            f" {MAX_REPORTS_PER_HOUR}: ask again from {_format_time(free_at)} on; until then read"
            " those in the list",
            free_at - at,
        )


def _format_time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%H:%M:%S} UTC"


def load_reports(
    database: Database,
    caller: Caller,
    rollout_name: str,
    *,
    report_name: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[ReportSummary]:
    """Return a page of reports, newest first, optionally of one name.

    Raises:
        NotAllowedError: the caller may not read every site.
        UnknownRolloutError: the caller may not see such a rollout.
    """
    state = _load_readable_state(database, caller, rollout_name)
    with database.begin_read() as transaction:
        reports = ReportStore(transaction, state.rollout)
        return list(reports.list_before(before, name=report_name, limit=limit))


def summarize_report(created_report: CreatedReport) -> ReportSummary:
    """Return a new report as lists show it."""
    names = ReportSummary.__dataclass_fields__.keys() - {"id"}
    summary_fields = {name: getattr(created_report.report, name) for name in names}
    return ReportSummary(id=created_report.number, **summary_fields)


@dataclass(frozen=True, slots=True)
class ReportView:
    """A report as its reader may see it.

    Attributes:
        report: as stored.
        body: plain values with pictures, without rows of erased cases or ones hidden from the
            reader.
        sealed: the same as it is sealed, with salts and without pictures.
        divergences: the same as CSV.
        withheld_cases: number of hidden cases; above 0 the body's hash differs from the sealed one.
    """

    number: int
    report: StoredReport
    body: Mapping[str, Any]
    sealed: Mapping[str, Any]
    divergences: str
    withheld_cases: int


def load_report(
    database: Database, caller: Caller, rollout_name: str, report_number: int, at: datetime
) -> ReportView:
    """Return one report, and record the exposure of its cases.

    Raises:
        NotAllowedError: the caller may not read every site.
        UnknownRolloutError: the caller may not see such a rollout.
        UnknownReportError: no report has this number.
        StaleRevisionError: the caller claimed one of the cases meanwhile; repeat the request.
    """
    state = _load_readable_state(database, caller, rollout_name)
    with database.begin_read() as transaction:
        report = ReportStore(transaction, state.rollout).get(report_number)
        if report is None:
            raise UnknownReportError(
                f"{rollout_name} has no report {report_number}; `GET reports` lists them"
            )
        sealed = json.loads(report.body)
        table = restore_table(report.divergences)
        rows = csv.DictReader(io.StringIO(table))
        keys = {*_iterate_case_keys(sealed), *(unescape_cell(row["case_key"]) for row in rows)}
        hidden_keys = find_hidden_cases(transaction, state, caller, keys, at)
    sealed = remove_hidden_rows(sealed, hidden_keys)
    pictures = load_pictures(database, state, find_pictured_cases(sealed))
    if not caller.is_service_account:
        # the cases of the rows, and up to when the figures reveal decisions
        with database.begin_write() as transaction:
            exposures = Told(transaction, state.rollout)
            exposures.record_figures(caller.name, report.until, page=REPORT_PAGE)
            record_unclaimed_cases(
                transaction, state, caller, keys - hidden_keys, at, page=REPORT_PAGE
            )
    return ReportView(
        number=report_number,
        report=report,
        body=restore_report(sealed, pictures),
        sealed=sealed,
        divergences=_remove_hidden_csv_rows(table, hidden_keys),
        withheld_cases=len(hidden_keys),
    )


def _load_readable_state(database: Database, caller: Caller, rollout_name: str) -> RolloutState:
    require_permission(caller, Permission.READ, rollout_name)
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, rollout_name)
    require_all_sites(caller, state)
    return state


def require_all_sites(caller: Caller, state: RolloutState) -> None:
    """Check that the caller may read every site, as every report covers all.

    Raises:
        NotAllowedError: the text names who can change that, and what the caller may read.
    """
    rollout_name, sites = state.rollout.name, tuple(state.policy.sites_by_id)
    readable_sites = [
        site for site in sites if caller.has_permission(Permission.READ, rollout_name, site)
    ]
    if len(readable_sites) < len(sites):
        raise NotAllowedError(
            f"a report covers every site of {rollout_name}, and {caller.name} may read"
            f" {', '.join(readable_sites) or 'none'} alone: ask an admin for the role that reads"
            f" the others (`rollout users grant-role {caller.name} viewer --rollout"
            f" {rollout_name}`); without it, use `cells`, `cases`, `incidents` and `cleanings` for"
            " your sites"
        )


def _iterate_case_keys(value: Any) -> Iterator[str]:
    """Yield the keys of the cases in a report's rows."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _iterate_case_keys(item)
    elif isinstance(value, list):
        for row in value:
            if isinstance(row, Mapping):
                yield from (row[name] for name in CASE_FIELDS if isinstance(row.get(name), str))
            yield from _iterate_case_keys(row)


def remove_hidden_rows(value: Any, hidden_keys: Collection[str]) -> Any:
    """Return plain values without the rows of hidden cases.

    >>> remove_hidden_rows({"top": [{"case_key": "a"}, {"case_key": "b"}]}, {"a"})
    {'top': [{'case_key': 'b'}]}
    """
    if not hidden_keys:
        return value
    if isinstance(value, Mapping):
        return {name: remove_hidden_rows(item, hidden_keys) for name, item in value.items()}
    if isinstance(value, list):
        return [
            remove_hidden_rows(item, hidden_keys)
            for item in value
            if not (
                isinstance(item, Mapping)
                and any(item.get(name) in hidden_keys for name in CASE_FIELDS)
            )
        ]
    return value


def _remove_hidden_csv_rows(table: str, hidden_keys: Collection[str]) -> str:
    if not hidden_keys:
        return table
    rows = csv.DictReader(io.StringIO(table))
    output = io.StringIO()
    writer = csv.DictWriter(output, rows.fieldnames or (), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for row in rows if unescape_cell(row["case_key"]) not in hidden_keys)
    return output.getvalue()


ReportFormatter = Callable[[Mapping[str, Any], str, str | None], str]
"""Returns the values of a report as `html`, or as the `summary` of a message, for a view.

It raises `UnreadableReportError` if the report can't be shown so.
"""


def format_here(body: Mapping[str, Any], report_format: str, view: str | None) -> str:
    """Return the values of a report as `html` or `summary`, formatted in this process."""
    from rollout.features.reports.pages.html_report import format_page

    return format_page(body, report_format, view)


def format_report(
    report_view: ReportView,
    report_format: str,
    view: str | None = None,
    format_page: ReportFormatter = format_here,
) -> bytes:
    """Return a report in one of `REPORT_FORMATS`, or as the summary of a message.

    Args:
        report_format: `html`, `json`, `csv` (of all divergences) or `summary`.
        view: whose section the HTML opens, and whose results a summary has; by default everybody's.
        format_page: formats HTML and summaries.

    Raises:
        UnreadableReportError: the report can't be shown as HTML or summary.
    """
    if report_format == "csv":
        return report_view.divergences.encode()
    if report_format == "json":
        # without hidden cases this is the text that is sealed
        return format_canonical(report_view.sealed).encode()
    return format_page(report_view.body, report_format, view).encode()


@dataclass(frozen=True, slots=True)
class ListedReport:
    """A report in a list, with the time zone of its policy."""

    rollout: str
    timezone: str
    summary: ReportSummary


@dataclass(frozen=True, slots=True)
class ReportListPage:
    """A page of reports, newest first.

    Attributes:
        next_before: cursor of the next page; None on the last page.
        timezones_by_rollout: rollouts whose reports the caller may read, with their time zones.
        withheld_rollouts: rollouts whose reports are hidden because the caller may read only some
            sites.
    """

    items: tuple[ListedReport, ...]
    next_before: int | None
    timezones_by_rollout: dict[str, str]
    withheld_rollouts: tuple[str, ...]


def load_report_page(
    database: Database, caller: Caller, *, before: int | None = None, limit: int = 25
) -> ReportListPage:
    """Return a page of reports of all rollouts whose sites are all readable.

    Args:
        before: cursor of the previous page.
    """
    rollout_names = sorted(list_rollout_names(database))
    reports: list[ListedReport] = []
    timezones: dict[str, str] = {}
    withheld_rollouts = []
    for rollout_name in rollout_names:
        if not caller.has_permission_somewhere(Permission.READ, rollout_name):
            continue
        try:
            summaries = load_reports(database, caller, rollout_name, before=before, limit=limit + 1)
        except NotAllowedError:
            withheld_rollouts.append(rollout_name)
            continue
        timezones[rollout_name] = _load_timezone(database, rollout_name)
        reports += [
            ListedReport(rollout_name, timezones[rollout_name], summary) for summary in summaries
        ]
    sorted_reports = sorted(reports, key=lambda listed_report: -listed_report.summary.id)
    page = tuple(sorted_reports[:limit])
    next_before = page[-1].summary.id if len(sorted_reports) > limit else None
    return ReportListPage(page, next_before, timezones, tuple(withheld_rollouts))


def load_listed_report(
    database: Database, caller: Caller, rollout_name: str, number: int
) -> ListedReport:
    """Return one report as lists show it, without its contents.

    Raises:
        NotAllowedError: the caller may not read every site.
        UnknownRolloutError: the caller may not see such a rollout.
        UnknownReportError: no report has this number.
    """
    summaries = load_reports(database, caller, rollout_name, before=number + 1, limit=1)
    if not summaries or summaries[0].id != number:
        raise UnknownReportError(
            f"{rollout_name} has no report {number}; the list of reports has those there are"
        )
    return ListedReport(rollout_name, _load_timezone(database, rollout_name), summaries[0])


def load_report_deliveries(
    database: Database, caller: Caller, rollout_name: str, number: int
) -> tuple[Delivery, ...]:
    """Return the deliveries of a report, in queue order.

    Raises the errors of `load_listed_report`.
    """
    load_listed_report(database, caller, rollout_name, number)
    with read_rollout(database, rollout_name) as (transaction, state):
        return tuple(list_deliveries_of_report(transaction, state.rollout, number))


def _load_timezone(database: Database, rollout_name: str) -> str:
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, rollout_name).policy.timezone


def find_seal_faults(transaction: Transaction, rollout: Rollout) -> Iterator[str]:
    """Yield a fault for each report that is missing or differs from its seal."""
    reports = ReportStore(transaction, rollout)
    stored_seals = reports.list_sealed()
    rows = Ledger(transaction, rollout).list_rows(kinds={ReportSealed.__name__})
    sealed_hashes = {row.revision: str(row.fields["sha256"]) for row in rows}
    for revision in sorted(sealed_hashes.keys() - stored_seals.keys()):
        yield f"the report that revision {revision} sealed is not there"
    for revision, (report_number, stored_hash) in sorted(stored_seals.items()):
        report = reports.get(report_number)
        sealed_hash = sealed_hashes.get(revision)
        if report is None or (compute_seal(report.body), stored_hash) != (sealed_hash,) * 2:
            yield f"report {report_number} is not what revision {revision} sealed"
        else:
            yield from _find_table_faults(report_number, report)


def _find_table_faults(report_number: int, report: StoredReport) -> Iterator[str]:
    values = json.loads(report.body)
    try:
        check_report_form(values)
    except UnknownReportFormError as error:
        yield f"the divergences of report {report_number} can't be checked: {error}"
    else:
        if values[VERSION_SECTION]["divergences_sha256"] != compute_table_seal(
            values, report.divergences
        ):
            yield f"the divergences of report {report_number} are not those that it names"
