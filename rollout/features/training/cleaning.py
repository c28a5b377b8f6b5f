"""Label cleaning and the export of training rows, of a live rollout.

Cases that may still be decided blind are excluded for all callers: while decisions are due, and
while a review task is open. Training rows are built by the code for recorded files.

The work list for cleaning shows predictions, so exposures are recorded. A choice changes no record
and is never evidence.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial

import polars as pl

from rollout import faults
from rollout.data.counting.closed_units import PeriodRecords
from rollout.data.database.session import Database, Transaction
from rollout.data.records.case_pages import CasePages, NewestRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.reviews.reviews import CleaningStore
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.evidence.frames import RecordFrames
from rollout.engine.records.records import Case
from rollout.engine.records.reviews import (
    DECISIONS,
    LISTED_PERIOD,
    PREDICTION,
    CleaningChoice,
    CleaningChoiceRequest,
    CleaningChoiceResult,
    LabelKey,
    check_choice,
    compute_due_time,
    find_final_choices,
)
from rollout.features.reports.figures.label_issues import (
    LabelIssue,
    TrainingExport,
    WorkList,
    build_export_from_records,
    build_work_list,
)
from rollout.features.reports.figures.label_sources import HUMAN_SOURCES, build_assignments
from rollout.features.reports.inputs.inputs import ReportInputs
from rollout.features.reports.stored_inputs import (
    ReportPeriod,
    load_report_inputs,
    load_whole_period,
)
from rollout.features.reviews.decisions import record_shown_cases, record_unclaimed_cases
from rollout.kernel.errors import RefusalError
from rollout.live.rollout_state import RolloutState, read_rollout, write_rollout

TRAINING_PAGE = "training"


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Filter of training rows; `until` is exclusive, None is open."""

    sources: Sequence[str] = HUMAN_SOURCES
    since: datetime | None = None
    until: datetime | None = None


def export_training_rows(
    database: Database, caller: Caller, rollout_name: str, options: TrainingOptions, at: datetime
) -> TrainingExport:
    """Return the training rows of a live rollout at readable sites.

    All data are read from one database snapshot. Exposure is recorded first.

    Raises:
        NotAllowedError: the caller may not read the rollout.
        UnknownRolloutError: the caller may not see such a rollout.
        NothingToReportError: the period is empty.
        ValueError: a source does not exist.
        StaleRevisionError: the caller claimed one of the cases meanwhile; repeat the request.
    """
    require_permission(caller, Permission.READ, rollout_name)
    with read_rollout(database, rollout_name) as (transaction, state):
        inputs, open_case_sites = load_closed_inputs(transaction, state, options, at)
    readable_inputs = select_inputs(
        inputs, _select_readable_cases(inputs.records.cases, caller, rollout_name)
    )
    export = build_export_from_records(
        readable_inputs.policy,
        readable_inputs.records,
        readable_inputs.cases,
        sources=options.sources,
        assigned_cases=build_assignments(readable_inputs),
        choices=readable_inputs.choices,
        withheld_count=sum(
            caller.has_permission(Permission.READ, rollout_name, site) for site in open_case_sites
        ),
    )
    keys = export.rows["case_key"].unique().sort().to_list()
    record_shown_cases(database, state, caller, keys, at, page=TRAINING_PAGE, contents=[PREDICTION])
    return export


def load_closed_inputs(
    transaction: Transaction, state: RolloutState, options: TrainingOptions, at: datetime
) -> tuple[ReportInputs, Sequence[str]]:
    """Return the inputs of closed cases, and the sites of open ones by case."""
    whole_period = load_whole_period(transaction, state, at)
    since = whole_period.since if options.since is None else options.since
    until = at if options.until is None else min(options.until, at)
    inputs = load_report_inputs(transaction, state, ReportPeriod(since, until, at))
    cases = inputs.records.cases
    closes_at = pl.max_horizontal("occurred_at", "received_at") + inputs.policy.evidence.grace
    closed_keys = cases.filter(closes_at <= at)["case_key"]
    period_records = PeriodRecords(transaction, state.rollout)
    blind_cases = NewestRecords(transaction, state.rollout).load_cases(
        period_records.list_cases(since, until) & period_records.list_blind_cases(at)
    )
    pending_sites = cases.filter(~pl.col("case_key").is_in(closed_keys.implode()))["site"].to_list()
    return select_inputs(inputs, closed_keys), [
        *pending_sites,
        *(case.site for case in blind_cases.values()),
    ]


def _select_readable_cases(cases: pl.DataFrame, caller: Caller, rollout_name: str) -> pl.Series:
    sites = [
        site
        for site in cases["site"].unique()
        if caller.has_permission(Permission.READ, rollout_name, site)
    ]
    return cases.filter(pl.col("site").is_in(sites))["case_key"]


def select_inputs(inputs: ReportInputs, keys: pl.Series) -> ReportInputs:
    """Return the inputs restricted to the given cases."""
    is_selected = pl.col("case_key").is_in(keys.implode())
    records = inputs.records
    return replace(
        inputs,
        cases=inputs.cases.filter(is_selected),
        records=RecordFrames(
            cases=records.cases.filter(is_selected),
            predictions=records.predictions.filter(is_selected),
            decisions=records.decisions.filter(is_selected),
            outcomes=records.outcomes.filter(is_selected),
            rejected=records.rejected,
            notes=records.notes,
            row_counts=records.row_counts,
            probabilities=records.probabilities.filter(is_selected),
        ),
    )


CLEANING_PAGE = "cleaning"
SAVED, UNCHANGED, REJECTED = "saved", "unchanged", "rejected"


def load_label_issues(
    database: Database,
    caller: Caller,
    rollout_name: str,
    at: datetime,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    has_choice: bool | None = None,
) -> WorkList:
    """Return the cases to check again at readable sites, costliest first.

    Args:
        since: start of the cases' period; by default 30 days before `until`.
        until: exclusive end; by default now.
        has_choice: with (True) or without (False) a choice; None for both.

    Raises:
        NotAllowedError: the caller may not read the rollout.
        UnknownRolloutError: the caller may not see such a rollout.
        NothingToReportError: the period is empty.
    """
    require_permission(caller, Permission.READ, rollout_name)
    options = TrainingOptions(
        since=(until or at) - LISTED_PERIOD if since is None else since, until=until
    )
    with read_rollout(database, rollout_name) as (transaction, state):
        inputs, _ = load_closed_inputs(transaction, state, options, at)
    choices = find_final_choices(inputs.choices)
    # all sites, because confidence thresholds are computed over all of them
    all_issues = build_work_list(inputs.records, inputs.cases, inputs.policy, choices)
    issues = all_issues.select_sites(partial(caller.has_permission, Permission.READ, rollout_name))
    return issues if has_choice is None else issues.select_chosen(has_choice=has_choice)


def record_work_list_exposure(
    database: Database,
    caller: Caller,
    rollout_name: str,
    items: Sequence[LabelIssue],
    at: datetime,
) -> None:
    """Record what the list is about to show; commit before returning it."""
    _record_exposure(
        database, caller, rollout_name, {item.loss.case_key for item in items}, PREDICTION, at
    )


def _record_exposure(
    database: Database,
    caller: Caller,
    rollout_name: str,
    keys: Collection[str],
    content: str,
    at: datetime,
) -> None:
    if caller.is_service_account or not keys:
        return
    with write_rollout(database, rollout_name) as (transaction, state):
        record_unclaimed_cases(
            transaction, state, caller, keys, at, page=CLEANING_PAGE, contents=[content]
        )


def load_choices(
    database: Database,
    caller: Caller,
    rollout_name: str,
    at: datetime,
    *,
    before: int | None = None,
    limit: int = 100,
) -> tuple[Sequence[CleaningChoice], int | None]:
    """Return choices at readable sites, newest first, and the next cursor.

    Open gold cases are excluded for all callers.

    Raises:
        NotAllowedError: the caller may not read the rollout.
        UnknownRolloutError: the caller may not see such a rollout.
    """
    require_permission(caller, Permission.READ, rollout_name)
    with read_rollout(database, rollout_name) as (transaction, state):
        numbered_choices = CleaningStore(transaction, state.rollout).list_page(
            before=before, limit=limit
        )
        sites = _find_sites_of_closed_cases(
            transaction, state, [choice.choice.key for choice in numbered_choices], at
        )
    visible_choices = [choice.choice for choice in numbered_choices if choice.choice.key in sites]
    readable_choices = [
        choice
        for choice in visible_choices
        if caller.has_permission(Permission.READ, rollout_name, sites[choice.key])
    ]
    _record_exposure(
        database, caller, rollout_name, {choice.key for choice in readable_choices}, DECISIONS, at
    )
    return readable_choices, numbered_choices[-1].number if len(numbered_choices) == limit else None


def _find_sites_of_closed_cases(
    transaction: Transaction, state: RolloutState, keys: Sequence[str], at: datetime
) -> Mapping[str, str]:
    """Return the site of each case that is no longer decided blind."""
    blind_case_ids = PeriodRecords(transaction, state.rollout).list_blind_cases(at)
    case_ids = ExternalKeys(transaction, state.rollout).find_ids(set(keys))
    cases = NewestRecords(transaction, state.rollout).load_cases(case_ids.values())
    return {case.key: case.site for case_id, case in cases.items() if case_id not in blind_case_ids}


def store_choices(
    database: Database,
    caller: Caller,
    rollout_name: str,
    requests: Sequence[CleaningChoiceRequest],
    at: datetime,
) -> Sequence[CleaningChoiceResult]:
    """Store choices, and return a status for each in order.

    A rejected choice does not affect the others. The last choice per case and lever counts; an
    equal
    one is not stored again.

    Raises:
        NotAllowedError: the caller is not an operator in the rollout.
        UnknownRolloutError: the caller may not see such a rollout.
    """
    require_permission(caller, Permission.OPERATE, rollout_name)
    with write_rollout(database, rollout_name) as (transaction, state):
        cleanings = CleaningStore(transaction, state.rollout)
        cleanings.lock()
        batch = _ChoiceBatch(transaction, state, caller, at, requests)
        faults.reach_point("cleaning.read")
        results = [batch.decide(request) for request in requests]
        cleanings.add(batch.new_choices)
        faults.reach_point("cleaning.kept")
    return results


class _ChoiceBatch:
    """Checks choices one by one, and collects those to store."""

    def __init__(
        self,
        transaction: Transaction,
        state: RolloutState,
        caller: Caller,
        at: datetime,
        requests: Sequence[CleaningChoiceRequest],
    ) -> None:
        keys = {request.key for request in requests if "\0" not in request.key}
        self._state, self._caller, self._at = state, caller, at
        self._case_pages = CasePages(transaction, state.rollout)
        self._case_ids = ExternalKeys(transaction, state.rollout).find_ids(keys)
        self._cases = NewestRecords(transaction, state.rollout).load_cases(self._case_ids.values())
        self._blind_case_ids = PeriodRecords(transaction, state.rollout).list_blind_cases(at)
        stored_choices = CleaningStore(transaction, state.rollout).list_for_cases(
            self._case_ids.values()
        )
        self._current_choices: dict[LabelKey, CleaningChoice] = dict(
            find_final_choices(stored_choices)
        )
        self.new_choices: list[tuple[int, CleaningChoice]] = []

    def decide(self, request: CleaningChoiceRequest) -> CleaningChoiceResult:
        """Return the status of a choice, and collect it if it is new."""
        lever = request.lever or self._default_lever()
        try:
            self._check_request(request, lever)
        except RefusalError as refusal:
            return CleaningChoiceResult(request.key, lever, REJECTED, str(refusal))
        choice_key = (request.key, lever)
        current_choice = self._current_choices.get((request.key, lever))
        if current_choice is not None and (current_choice.choice, current_choice.label) == (
            request.choice,
            request.label,
        ):
            return CleaningChoiceResult(
                request.key,
                lever,
                UNCHANGED,
                f"{current_choice.by} chose so at {current_choice.at}",
            )
        self._current_choices[choice_key] = CleaningChoice(
            **asdict(request) | {"lever": lever}, by=self._caller.name, at=self._at
        )
        self.new_choices.append((self._case_ids[request.key], self._current_choices[choice_key]))
        return CleaningChoiceResult(request.key, lever, SAVED)

    def _default_lever(self) -> str:
        levers = self._state.policy.levers
        return levers[0].id if len(levers) == 1 else ""

    def _check_request(self, request: CleaningChoiceRequest, lever: str) -> None:
        case = self._cases.get(self._case_ids.get(request.key, -1))
        rollout_name = self._state.rollout.name
        if case is None or not self._caller.has_permission(
            Permission.OPERATE, rollout_name, case.site
        ):
            raise RefusalError(
                f"no case {request.key} at a site where {self._caller.name} is operator"
            )
        if self._is_open(case):
            raise RefusalError(f"{request.key} is still open for review; choose once it has closed")
        texts = (request.version, request.report, request.label or "")
        if any("\0" in text for text in texts):
            raise RefusalError("a text has a NUL character; leave it out")
        check_choice(self._state.policy, lever, request.choice, request.label, request.reason)

    def _is_open(self, case: Case) -> bool:
        case_id = self._case_ids[case.key]
        received_at = self._case_pages.find_received_at(case_id) or self._at
        closes_at = compute_due_time(self._state.policy, case.occurred_at, received_at)
        return case_id in self._blind_case_ids or closes_at > self._at
