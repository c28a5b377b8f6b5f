"""Pages of cases, all records of one case, and rejected records.

While a caller can still decide a case blind, or send its decision, predictions and everything
derived from them are hidden: in pages, filters, actions and counts. Exposure is recorded before the
answer is returned.

Rejected records come without the contents of cases that may still be decided blind.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Accounts
from rollout.data.records.case_pages import CaseCount, CaseFilter, CasePages, NewestRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import PlantedCases
from rollout.data.records.records import RejectedRecords, StoredRejectedRecord
from rollout.data.reviews.reviews import ReviewTaskStore
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.records.records import Action, Case, Decision, Outcome, Prediction
from rollout.engine.records.reviews import (
    ASSISTED,
    BLIND,
    PREDICTION,
    UnknownCaseError,
    compute_due_time,
)
from rollout.features.reviews.decisions import (
    find_hidden_cases,
    find_unseen_cases,
    record_exposure,
    record_shown_cases,
)
from rollout.kernel.errors import NotAllowedError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.populations import PLANTED_TRACK
from rollout.kernel.units import Lever, do_sets_agree
from rollout.live.rollout_state import RolloutState, read_rollout

__all__ = ["CaseDetails", "CaseFilter", "CasePage", "ListedCase", "find_cases", "load_case_details"]

CASE_EXPOSURE_PAGE, CASES_EXPOSURE_PAGE = "case", "cases"
CASES_PER_SEARCH = 500  # cases per search if the filter needs checks outside the database
CLOSED_TRACKS = frozenset({"gate", PLANTED_TRACK})
MAX_SEARCHES = 20  # searches per page; a page may be short and still have a next page


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedCase:
    """A case in a page; `differs` is None and `versions` empty if hidden.

    Attributes:
        is_compared: whether a prediction and a sure human answer exist; False if hidden.
        record: as sent, with what the list has no place for.
        closes_at: when it is counted with what is known then.
    """

    number: int
    key: str
    site: str
    window: str
    occurred_at: datetime
    received_at: datetime
    episode: str | None
    attributes: Mapping[str, str]
    versions: Sequence[str]
    differs: bool | None
    is_compared: bool
    record: Case
    closes_at: datetime


@dataclass(frozen=True, slots=True)
class CasePage:
    """A page of cases; `next` is its cursor, None on the last page."""

    items: Sequence[ListedCase]
    next: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseDetails:
    """One case; `hidden` if answers are left out, since the caller may still give or judge them.

    `registered_by` is the name of an account, or `imports`; None while it is hidden, or unknown.
    `planted` is whether a user declared it as planted; None while it is hidden, and always for
    programs: one that carries out actions must treat all cases alike. `asked` is whether a blind
    decision is asked for, as of a case that is audited; None while that must not be foretold.
    """

    case: ListedCase
    hidden: bool
    registered_by: str | None
    planted: bool | None
    asked: bool | None
    pending: str
    predictions: Sequence[Prediction]
    decisions: Sequence[Decision]
    actions: Sequence[Action]
    outcomes: Sequence[Outcome]
    counted_units: Sequence[CaseCount]


def find_cases(
    database: Database,
    caller: Caller,
    rollout_name: str,
    case_filter: CaseFilter,
    at: datetime,
    *,
    before: int | None = None,
    limit: int = 100,
) -> CasePage:
    """Return the matching cases, newest first.

    Cases of sites that the caller may not read are excluded.

    Args:
        before: cursor of the previous page.
        limit: maximum number; a page may be shorter and still have a next page.

    Raises:
        UnknownRolloutError: the caller may not see such a rollout.
        NotAllowedError: the caller may not read cases.
    """
    require_permission(caller, Permission.READ_CASES, rollout_name)
    with read_rollout(database, rollout_name) as (transaction, state):
        case_filter = replace(
            case_filter, sites=_find_permitted_sites(caller, state, case_filter.sites)
        )
        page = _find_page(_CaseReader(transaction, state, caller, at), case_filter, before, limit)
    shown_keys = [case.key for case in page.items if case.differs is not None]
    record_shown_cases(database, state, caller, shown_keys, at, page=CASES_EXPOSURE_PAGE)
    return page


def _find_page(
    case_reader: "_CaseReader", case_filter: CaseFilter, before: int | None, limit: int
) -> CasePage:
    """Search until the page is full, without hidden and equivalent answers.

    A filter that tells of an answer or an outcome leaves out the cases whose answers are hidden.
    """
    store = CasePages(case_reader.transaction, case_reader.state.rollout)
    tells = case_filter.differs or case_filter.harmed or case_filter.version is not None
    batch_size = CASES_PER_SEARCH if tells else min(limit, CASES_PER_SEARCH)
    cases: list[ListedCase] = []
    for _ in range(MAX_SEARCHES):
        rows = store.list_page(case_filter, before=before, limit=batch_size + 1)
        case_ids = list(rows)[:batch_size]
        for case in case_reader.load_summaries({case_id: rows[case_id] for case_id in case_ids}):
            before = case.number
            if not tells or (
                case.differs is not None and (case.differs or not case_filter.differs)
            ):
                cases.append(case)
                if len(cases) == limit:
                    return CasePage(cases, case.number)
        if len(rows) <= batch_size:
            return CasePage(cases, None)
    return CasePage(cases, before)


def _find_permitted_sites(
    caller: Caller, state: RolloutState, wanted_sites: Collection[str] | None
) -> Collection[str] | None:
    """Return the requested sites that are readable; None means all sites."""
    rollout_name = state.rollout.name
    if caller.has_permission(Permission.READ_CASES, rollout_name):
        return wanted_sites
    readable_sites = {
        role_assignment.site
        for role_assignment in caller.role_assignments
        if role_assignment.site
        and caller.has_permission(Permission.READ_CASES, rollout_name, role_assignment.site)
    }
    return readable_sites if wanted_sites is None else readable_sites & set(wanted_sites)


def find_case_site(database: Database, caller: Caller, rollout_name: str, key: str) -> str | None:
    """Return the site of a case by its key; None if the caller may not read such a case.

    Nothing of the case is shown by it, so no exposure is recorded.

    Raises:
        NotAllowedError: the caller may not read cases.
    """
    require_permission(caller, Permission.READ_CASES, rollout_name)
    with read_rollout(database, rollout_name) as (transaction, state):
        case_ids = ExternalKeys(transaction, state.rollout).find_ids([key])
        cases = NewestRecords(transaction, state.rollout).load_cases(case_ids.values())
    return next(
        (
            case.site
            for case in cases.values()
            if caller.has_permission(Permission.READ_CASES, rollout_name, case.site)
        ),
        None,
    )


def load_case_details(
    database: Database, caller: Caller, rollout_name: str, key: str, at: datetime
) -> CaseDetails:
    """Return predictions, decisions, actions, outcomes and counts of one case.

    Raises:
        UnknownCaseError: the caller may not see such a case.
        UnknownRolloutError: the caller may not see such a rollout.
        NotAllowedError: the caller may not read cases.
    """
    require_permission(caller, Permission.READ_CASES, rollout_name)
    with read_rollout(database, rollout_name) as (transaction, state):
        case_details = _read_case_details(_CaseReader(transaction, state, caller, at), key)
    if not case_details.hidden:
        record_shown_cases(database, state, caller, [key], at, page=CASE_EXPOSURE_PAGE)
    elif case_details.predictions:  # the answer that the assignment gives to humans
        with database.begin_write() as transaction:
            record_exposure(
                *(transaction, state, caller, [key]),
                content=PREDICTION,
                page=CASE_EXPOSURE_PAGE,
                at=at,
            )
    return case_details


def _read_case_details(case_reader: "_CaseReader", key: str) -> CaseDetails:
    store = CasePages(case_reader.transaction, case_reader.state.rollout)
    case_id = (
        ExternalKeys(case_reader.transaction, case_reader.state.rollout).find_ids([key]).get(key)
    )
    received_at = None if case_id is None else store.find_received_at(case_id)
    if case_id is None or received_at is None:
        raise UnknownCaseError(f"no case {key}: send it to `records` first, unless it was erased")
    (case,) = case_reader.load_summaries({case_id: received_at})
    if not case_reader.caller.has_permission(
        Permission.READ_CASES, case_reader.state.rollout.name, case.site
    ):
        raise UnknownCaseError(f"no case {key}: send it to `records` first, unless it was erased")
    is_hidden = case.differs is None
    is_unseen = bool(
        find_unseen_cases(
            case_reader.transaction, case_reader.state, case_reader.caller, [key], case_reader.at
        )
    )
    newest = NewestRecords(case_reader.transaction, case_reader.state.rollout)
    predictions = newest.load_predictions([case_id]).get(case_id, {}).values()
    decisions = newest.load_decisions([case_id]).get(case_id, {}).values()
    counts = store.list_counted(case_id, case_reader.state.policy.tick)
    planted = PlantedCases(case_reader.transaction, case_reader.state.rollout)
    registrar = store.find_registrar(case_id)
    names = Accounts(case_reader.transaction).find_names([registrar or ""])
    may_tell = not (is_hidden or case_reader.caller.is_service_account)
    return CaseDetails(
        case=case,
        hidden=is_hidden,
        registered_by=None if is_hidden or registrar is None else names.find_name(registrar),
        planted=bool(planted.find([key])) if may_tell else None,
        asked=_find_asked(case_reader, case_id, case, is_unseen=is_unseen),
        pending=_describe_pending(case_reader.state.policy, case, counts, is_hidden=is_hidden),
        predictions=[
            prediction
            for prediction in predictions
            if not is_hidden or (prediction.exposure == ASSISTED and not is_unseen)
        ],
        decisions=[
            decision
            for decision in decisions
            if not is_unseen or decision.reviewer == case_reader.caller.name
        ],
        actions=() if is_hidden else store.list_actions(case_id, key),
        outcomes=() if is_unseen else store.list_outcomes(case_id, key),
        counted_units=() if is_hidden else counts,
    )


def _find_asked(
    case_reader: "_CaseReader", case_id: int, case: ListedCase, *, is_unseen: bool
) -> bool | None:
    """Return whether a blind decision is asked for.

    None before the case closes for who may send predictions, and could correct audited ones alone.
    """
    state, caller = case_reader.state, case_reader.caller
    is_told = case_reader.at >= case.closes_at or not caller.has_permission_somewhere(
        Permission.SEND_PREDICTIONS, state.rollout.name
    )
    if is_unseen or not is_told:
        return None
    tasks = ReviewTaskStore(case_reader.transaction, state.rollout).list_of_cases([case_id])
    return any(task.kind == BLIND for task in tasks)


def _describe_pending(
    policy: Policy, case: ListedCase, counts: Sequence[CaseCount], *, is_hidden: bool
) -> str:
    """Describe what the case still needs; "" if it is complete."""
    if case.site not in policy.sites_by_id:
        return f"{case.site} is no site of the policy: it is never evidence"
    if not is_hidden and any(count.track in CLOSED_TRACKS for count in counts):
        return ""
    closing_text = f"closes {case.closes_at.isoformat()}"
    return closing_text if is_hidden or case.versions else f"no prediction yet; {closing_text}"


@dataclass(frozen=True, slots=True)
class _CaseReader:
    """Reads the cases of a rollout for one caller in one transaction."""

    transaction: Transaction
    state: RolloutState
    caller: Caller
    at: datetime

    def load_summaries(self, received_times: Mapping[int, datetime]) -> Sequence[ListedCase]:
        """Return case summaries without hidden content, in the given order."""
        newest = NewestRecords(self.transaction, self.state.rollout)
        cases = newest.load_cases(received_times)
        keys = [case.key for case in cases.values()]
        hidden_keys = find_hidden_cases(self.transaction, self.state, self.caller, keys, self.at)
        predictions = newest.load_predictions(received_times)
        decisions = newest.load_decisions(received_times)
        return [
            self._build_summary(
                case_id,
                cases[case_id],
                received_times[case_id],
                None if cases[case_id].key in hidden_keys else predictions.get(case_id, {}),
                decisions.get(case_id, {}),
            )
            for case_id in received_times
        ]

    def _build_summary(
        self,
        case_id: int,
        case: Case,
        received_at: datetime,
        predictions: Mapping[str, Prediction] | None,
        decisions: Mapping[str, Decision],
    ) -> ListedCase:
        pairs = (
            None
            if predictions is None
            else _pair_answers(self.state.policy.levers, predictions.values(), decisions.values())
        )
        return ListedCase(
            number=case_id,
            key=case.key,
            site=case.site,
            window=case.window,
            occurred_at=case.occurred_at,
            received_at=received_at,
            episode=case.episode,
            attributes=case.attributes,
            versions=() if predictions is None else sorted(predictions),
            differs=None if pairs is None else any(_is_divergent(*pair) for pair in pairs),
            is_compared=bool(pairs),
            record=case,
            closes_at=compute_due_time(self.state.policy, case.occurred_at, received_at),
        )


def _pair_answers(
    levers: Sequence[Lever], predictions: Collection[Prediction], decisions: Collection[Decision]
) -> Sequence[tuple[Lever, str | None, str]]:
    """Return each prediction's answer beside each sure human answer, by lever."""
    return [
        (lever, prediction.answers.get(lever.id), human_answer)
        for lever in levers
        for prediction in predictions
        for decision in decisions
        if not decision.unsure and (human_answer := decision.answers.get(lever.id)) is not None
    ]


def _is_divergent(lever: Lever, model_answer: str | None, human_answer: str) -> bool:
    if model_answer == human_answer:
        return False
    if model_answer is not None and lever.many:
        return not do_sets_agree(human_answer, model_answer, lever.overlap)
    if model_answer is None or lever.number is None:
        return True
    try:
        human_number = float(human_answer)
        return abs(float(model_answer) - human_number) > lever.number.tolerance.compute_distance(
            human_number
        )
    except ValueError:
        return True


REJECTED_EXPOSURE_PAGE = "rejected-records"
WITHHELD = "you may still review this case, so its details are withheld"
NON_SECRET_KINDS = frozenset({"case", "heartbeat"})


def load_rejected_records(
    database: Database,
    caller: Caller,
    rollout_name: str,
    at: datetime,
    *,
    after: int = 0,
    limit: int = 100,
) -> Sequence[StoredRejectedRecord]:
    """Return the rejected records, oldest first.

    Items name no site, so the caller needs the permission for all sites. Items of cases that the
    caller may still decide blind are returned without content and reason.

    Raises:
        UnknownRolloutError: the caller may not see such a rollout.
        NotAllowedError: the caller may not read all sites.
    """
    require_permission(caller, Permission.READ, rollout_name)
    if not caller.has_permission(Permission.READ, rollout_name):
        raise NotAllowedError(
            f"{caller.name} may read some sites only, and rejected records can come from any: ask"
        )
    with read_rollout(database, rollout_name) as (transaction, state):
        rejected_records = RejectedRecords(transaction, state.rollout).list_after(
            after, limit=limit
        )
        case_keys = {
            record.item.key
            for record in rejected_records
            if record.item.kind not in NON_SECRET_KINDS
        }
        hidden_keys = find_hidden_cases(transaction, state, caller, case_keys, at)
    shown_keys = [
        o.item.key
        for o in rejected_records
        if o.item.kind not in NON_SECRET_KINDS and o.item.key not in hidden_keys
    ]
    record_shown_cases(database, state, caller, shown_keys, at, page=REJECTED_EXPOSURE_PAGE)
    return [
        replace(record, item=replace(record.item, body="", reason=WITHHELD))
        if record.item.kind not in NON_SECRET_KINDS and record.item.key in hidden_keys
        else record
        for record in rejected_records
    ]
