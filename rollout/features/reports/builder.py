"""Sealing and storing reports of a running service.

A report without changes is not stored again; its last version is returned. `drafts` computes what
is sealed, in a process of its own where that matters.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.newest_records import NewestRecords
from rollout.data.reports.reports import MAX_NAME_LENGTH, ReportStore, StoredReport
from rollout.engine.events import ENGINE, CasesErased, NameErased, ReportSealed
from rollout.features.reports.inputs.pictures import find_picture
from rollout.kernel.errors import RefusalError, StaleRevisionError
from rollout.live.command_handler import retry_on_stale_revision
from rollout.live.rollout_state import RolloutState
from rollout.live.work.user_runs import StepCallback


class NothingToReportError(RefusalError):
    """No report is possible for the period."""

    code = "nothing-to-report"


def find_case_media(
    database: Database, state: RolloutState, keys: Collection[str]
) -> Mapping[str, tuple[str, ...]]:
    """Return the media of cases, by media name."""
    with database.begin_read() as transaction:
        case_ids = ExternalKeys(transaction, state.rollout).find_ids(keys)
        cases = NewestRecords(transaction, state.rollout).load_cases(case_ids.values())
    return {
        case.key: tuple(case.media[media_name] for media_name in sorted(case.media))
        for case in cases.values()
        if case.media
    }


def load_pictures(
    database: Database, state: RolloutState, keys: Collection[str]
) -> Mapping[str, str | None]:
    """Return the embedded pictures of cases; purged and erased ones have none."""
    if not keys:
        return {}
    media = find_case_media(database, state, keys)
    return {key: find_picture(references, may_embed=True) for key, references in media.items()}


VIEWS: Final = ("operator", "engineer", "auditor")


ERASURE_KINDS: Final = frozenset({CasesErased.__name__, NameErased.__name__})


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """Options of a report.

    Attributes:
        since, until: times of the cases, `until` exclusive; by default from the rollout's start to
            the last slot of its tick.
        view: first section: `operator`, `engineer` or `auditor`.
    """

    since: datetime | None = None
    until: datetime | None = None
    view: str = VIEWS[0]


@dataclass(frozen=True, slots=True)
class CreatedReport:
    """A stored report; `is_new` is False if an equal one was stored before."""

    number: int
    report: StoredReport
    is_new: bool


@dataclass(frozen=True, slots=True)
class ReportActor:
    """Who requests a report, with the access ledger revision of their permissions."""

    name: str = ENGINE
    access_head: int | None = None


@dataclass(frozen=True, slots=True)
class ReportDraft:
    """A report that is not stored yet.

    Attributes:
        report: the next version, or the last one if nothing changed.
        number: of the stored last version if nothing changed; None for a new version.
        revision: of the rollout's ledger that was read.
    """

    report: StoredReport
    number: int | None
    revision: int


class ReportDrafter(Protocol):
    """Computes what a report says; writes nothing."""

    def __call__(
        self,
        database: Database,
        rollout_name: str,
        report_name: str,
        options: ReportOptions,
        at: datetime,
        on_step: StepCallback,
    ) -> ReportDraft:
        """Return the next version of a report.

        Raises:
            NoSuchRolloutError: the rollout does not exist.
            NothingToReportError: the period is not valid.
        """
        ...


ReportCallback = Callable[[Transaction, CreatedReport], None]
"""Called in the transaction that stores a new report."""
STEPS: Final = ("reading the records", "computing the figures", "comparing and sealing")


def draft_here(
    database: Database,
    rollout_name: str,
    report_name: str,
    options: ReportOptions,
    at: datetime,
    on_step: StepCallback,
) -> ReportDraft:
    """Return the next version of a report, computed in this process."""
    from rollout.features.reports.drafts import draft_report

    return draft_report(database, rollout_name, report_name, options, at, on_step)


@dataclass(frozen=True, slots=True)
class ReportCallbacks:
    """What is called while a report is made."""

    on_created: ReportCallback = lambda *_: None
    on_step: StepCallback = lambda *_: None
    draft_report: ReportDrafter = draft_here


NO_CALLBACKS: Final = ReportCallbacks()


def create_report(
    database: Database,
    rollout_name: str,
    report_name: str,
    options: ReportOptions,
    at: datetime,
    *,
    actor: ReportActor | None = None,
    callbacks: ReportCallbacks = NO_CALLBACKS,
) -> CreatedReport:
    """Build, seal and store a report; without changes, return its last version.

    Args:
        report_name: reports of one name and period are versions of the same report.
        actor: who requests it, by default the engine.
        callbacks: called as each step begins, to compute it, and in the transaction of a new
            version.

    Raises:
        NoSuchRolloutError: the rollout does not exist.
        NothingToReportError: the period or name is not valid.
        StaleRevisionError: another process stored a version at every try.
    """
    _check_options(report_name, options)

    def try_to_create() -> CreatedReport:
        draft = callbacks.draft_report(
            database, rollout_name, report_name, options, at, callbacks.on_step
        )
        if draft.number is not None:
            return CreatedReport(draft.number, draft.report, is_new=False)
        with database.begin_write() as transaction:
            created_report = _seal_report(transaction, rollout_name, draft, actor or ReportActor())
            callbacks.on_created(transaction, created_report)
        return created_report

    return retry_on_stale_revision(try_to_create)


def _check_options(report_name: str, options: ReportOptions) -> None:
    if not (
        0 < len(report_name) <= MAX_NAME_LENGTH
        and report_name.isprintable()
        and report_name == report_name.strip()
    ):
        raise NothingToReportError(
            f"name it in 1 to {MAX_NAME_LENGTH} printable letters", field="name"
        )
    if options.view not in VIEWS:
        raise NothingToReportError(f"no view {options.view}; there is {', '.join(VIEWS)}")
    for time in (options.since, options.until):
        if time is not None and time.utcoffset() is None:
            raise NothingToReportError(f"{time.isoformat()} has no zone; add its offset")


def _seal_report(
    transaction: Transaction, rollout_name: str, draft: ReportDraft, actor: ReportActor
) -> CreatedReport:
    """Store a version and its hash unless another process stored one first."""
    rollout, report = Rollouts(transaction).find(rollout_name), draft.report
    assert rollout is not None  # noqa: S101 - it was just read, and none is ever deleted
    ledger, store = Ledger(transaction, rollout), ReportStore(transaction, rollout)
    event = ReportSealed(
        at=report.made_at,
        by=actor.name,
        report=report.name,
        since=report.since,
        until=report.until,
        number=report.version,
        state=report.state,
        sha256=report.hash,
    )
    head = ledger.load_head()
    erasures = ledger.list_rows(after=draft.revision, kinds=ERASURE_KINDS)
    if next(erasures, None) is not None:
        raise StaleRevisionError("contents were erased meanwhile; make the report again")
    (row,) = ledger.append([event], after=head.revision, access_head=actor.access_head)
    last_report = store.find_newest(report.name, report.since, report.until)
    if (0 if last_report is None else last_report[1].version) != report.version - 1:
        raise StaleRevisionError(
            f"{report.name} was just created by another request; repeat the request"
        )
    sealed_report = replace(report, sealed_in=row.revision)
    return CreatedReport(store.store(sealed_report), sealed_report, is_new=True)
