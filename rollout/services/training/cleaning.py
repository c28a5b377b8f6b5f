"""The work list for label cleaning, and the choices of users about its cases.

The list shows predictions, so cases that may still be decided blind are excluded and exposures are
recorded. A choice changes no record and is never evidence.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial

from rollout import faults
from rollout.core.errors import RefusalError
from rollout.core.records.label_cleaning import (
    CleaningChoice,
    CleaningChoiceRequest,
    CleaningChoiceResult,
    LabelKey,
    check_choice,
    find_final_choices,
)
from rollout.core.records.records import Case
from rollout.core.records.reviews import DECISIONS, PREDICTION, compute_due_time
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.reports.figures.label_issues import LabelIssue, WorkList, build_work_list
from rollout.services.engine.rollout_state import RolloutState, load_rollout_state
from rollout.services.reviews.exposure import record_unclaimed_cases
from rollout.services.training.training import TrainingOptions, load_closed_inputs
from rollout.store.counting.period_records import PeriodRecords
from rollout.store.database.session import Database, Transaction
from rollout.store.records.case_pages import CasePages
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.records.newest_records import NewestRecords
from rollout.store.reviews.cleanings import CleaningStore

CLEANING_PAGE = "cleaning"
DEFAULT_PERIOD = timedelta(days=30)
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
        since=(until or at) - DEFAULT_PERIOD if since is None else since, until=until
    )
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, rollout_name)
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
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, rollout_name)
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
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, rollout_name)
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
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, rollout_name)
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
