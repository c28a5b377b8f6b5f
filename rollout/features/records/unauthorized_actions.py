"""Incidents of actions: unauthorized, also by what is stored later, or dated ahead.

Without its case an action is authorized by permit and prediction alone, which name no site. When
the case arrives, or case or prediction is corrected, the action is judged again. Its row stays
unchanged; a later fault opens an incident.

An action is unauthorized without a prediction stored before it or with it, and stays so: one made
up afterwards must not authorize what was done. A correction is judged for actions with an unbound
permit, and a prediction under another name of the action's version whenever it arrives.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from rollout.data.database.session import Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.projections import UnopenedIncidents
from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.record_rows import ActionStore, StoredAction
from rollout.data.records.records import StoredBatch
from rollout.engine.decide.assignment import BOUND, CLOCK_TOLERANCE
from rollout.engine.decide.commands import OpenIncident
from rollout.engine.decide.incident_kinds import SENDER_CLOCK, UNAUTHORIZED
from rollout.engine.decide.incidents import is_over_limit
from rollout.engine.decide.projection import apply_events
from rollout.engine.events import IncidentOpened, LedgerEvent
from rollout.engine.records.records import Action, Case, Prediction
from rollout.features.records.action_authorization import (
    AUTHORIZED,
    AUTHORIZED_WITHIN_LEASE,
    AuthorizationResult,
    JudgedRecords,
    ScopeAuthorizer,
    StoredCase,
    load_current_state,
    load_stored_cases,
)
from rollout.kernel.calendar.instants import MICROSECOND, Cell
from rollout.kernel.facts import (
    CORRECTED_CASE,
    CORRECTED_PREDICTION,
    FORBIDDEN,
    LATER_CASE,
    LATER_PREDICTION,
    OTHER_ANSWER,
    SENDER_AHEAD,
    Trigger,
)
from rollout.live.rollout_state import (
    CommandBuilder,
    RolloutState,
    decide_command,
    load_rollout_state,
)

AUTHORIZED_VALUES: Final = (AUTHORIZED, AUTHORIZED_WITHIN_LEASE)


@dataclass(frozen=True, slots=True)
class LaterRecords:
    """Records in a batch about cases that had records before.

    Attributes:
        described: cases with a new revision of the case itself.
        corrected: those of them that had one before.
        predicted: cases and versions with a new prediction or a correction, and which it is.
    """

    described: AbstractSet[int]
    corrected: AbstractSet[int]
    predicted: Mapping[tuple[int, str], str]

    def select_changes(self, case_id: int, versions: Iterable[str]) -> Mapping[str, str]:
        """Return by version what happened to its prediction of a case, if anything."""
        changes = ((version, self.predicted.get((case_id, version))) for version in versions)
        return {version: change for version, change in changes if change}


def report_unauthorized_actions(
    transaction: Transaction,
    state: RolloutState,
    stored_batch: StoredBatch,
    at: datetime,
    *,
    unauthorized: Iterable[AuthorizationResult] = (),
) -> None:
    """Open an incident for each case with an unauthorized action.

    These are the actions in `unauthorized`, and earlier ones that the batch shows to be
    unauthorized.

    Raises:
        StaleRevisionError: the ledger moved before the incidents were appended.
    """
    early_actions = _recheck_early_actions(transaction, state, stored_batch)
    if all_unauthorized := [*unauthorized, *early_actions]:
        _open_incidents(transaction, state, all_unauthorized, at)


def report_clock_ahead(
    transaction: Transaction,
    state: RolloutState,
    sender_name: str,
    actions: Iterable[Action],
    at: datetime,
) -> None:
    """Open an incident if an action is dated ahead of its receipt at `at`.

    An account has one at a time, however many actions it sends: its clock is what is wrong.

    Raises:
        StaleRevisionError: the ledger moved before the incident was appended.
    """
    latest = max((action.at for action in actions), default=at)
    if latest <= at + CLOCK_TOLERANCE:
        return
    incident = OpenIncident(
        at=at,
        kind=SENDER_CLOCK.name,
        about=sender_name,
        trigger=Trigger(SENDER_AHEAD, {"dated": latest.isoformat(), "received": at.isoformat()}),
    )
    current_state = load_rollout_state(transaction, state.rollout.name)
    events = decide_command(current_state, lambda _: incident)
    Ledger(transaction, state.rollout).append(events, after=current_state.scope.revision)


def _recheck_early_actions(
    transaction: Transaction, state: RolloutState, stored_batch: StoredBatch
) -> Sequence[AuthorizationResult]:
    """Return earlier actions that are unauthorized by the records in a batch.

    Each is returned once. A batch of new cases alone needs no read.
    """
    if stored_batch.changed_cases <= stored_batch.new_cases:
        return ()
    described = {number for number, _ in stored_batch.list_accepted(Case, "site")}
    described -= stored_batch.new_cases
    predicted = _find_later_predictions(transaction, state, stored_batch)
    case_ids = described | {case_id for case_id, _ in predicted}
    if not case_ids:
        return ()
    actions = ActionStore(transaction, state.rollout).list_by_authorization(
        case_ids, AUTHORIZED_VALUES
    )
    if not actions:
        return ()
    acted_on = {stored_action.case_id for stored_action in actions}
    corrected = _find_corrected_cases(transaction, state, stored_batch, acted_on & described)
    later_records = LaterRecords(described, corrected, predicted)
    return _select_unreported(
        transaction, state, _find_unauthorized_actions(transaction, state, actions, later_records)
    )


def _find_later_predictions(
    transaction: Transaction, state: RolloutState, stored_batch: StoredBatch
) -> Mapping[tuple[int, str], str]:
    """Return what happened to the predictions in a batch, by case and version.

    First predictions, the most frequent record, are judged only under a policy with a floor, or
    where a version has several names.
    """
    names = stored_batch.list_accepted(Prediction, "version")
    revisions = stored_batch.list_accepted(Prediction, "revision")
    changes = dict[tuple[int, str], str]()
    for name, (_, revision) in zip(names, revisions, strict=True):
        if revision > 1 and name[0] not in stored_batch.new_cases:
            changes[name] = CORRECTED_PREDICTION
        elif name[0] not in stored_batch.new_cases:
            changes.setdefault(name, LATER_PREDICTION)  # a correction may stand before it
    if not changes or state.policy.evidence.lowest_floor is not None:
        return changes
    if load_current_state(transaction, state).first_names:
        return changes
    return {n: change for n, change in changes.items() if change == CORRECTED_PREDICTION}


def _find_corrected_cases(
    transaction: Transaction,
    state: RolloutState,
    stored_batch: StoredBatch,
    case_ids: AbstractSet[int],
) -> set[int]:
    """Return the cases that had a revision before this batch."""
    new_revisions = set(stored_batch.list_accepted(Case, "revision"))
    stored_revisions = NewestRecords(transaction, state.rollout).load_revisions(case_ids)
    return {
        number for number, revision in stored_revisions if (number, revision) not in new_revisions
    }


def _find_unauthorized_actions(
    transaction: Transaction,
    state: RolloutState,
    actions: Sequence[StoredAction],
    later_records: LaterRecords,
) -> list[tuple[StoredAction, Trigger]]:
    """Return actions unauthorized by what is stored now, and why."""
    case_ids = {stored_action.action.key: stored_action.case_id for stored_action in actions}
    stored_cases = load_stored_cases(transaction, state.rollout, case_ids)
    times = NewestRecords(transaction, state.rollout).load_prediction_times(case_ids.values())
    authorizer = ScopeAuthorizer(transaction, load_current_state(transaction, state))
    parts = (stored_cases, later_records, times)
    return [
        (stored_action, trigger)
        for stored_action in actions
        if (trigger := _find_later_fault(authorizer, stored_action, *parts))
    ]


def _find_later_fault(
    authorizer: ScopeAuthorizer,
    stored_action: StoredAction,
    stored_cases: Mapping[str, StoredCase],
    later_records: LaterRecords,
    times: Mapping[tuple[int, str], Sequence[datetime]],
) -> Trigger | None:
    """Return why an action is unauthorized by later records, None if it is not."""
    action, case_id = stored_action.action, stored_action.case_id
    stored_case, version = stored_cases[action.key], action.version or ""
    change = later_records.predicted.get((case_id, version), "")
    is_corrected = case_id in later_records.corrected
    # a bound permit names its prediction; a corrected case changes no prediction
    needs_prediction = change and action.permit_kind != BOUND
    revisions = stored_case.predictions.get(version, ())
    other_changes = later_records.select_changes(case_id, authorizer.list_other_names(action))
    judged_records = JudgedRecords(
        stored_case.case if case_id in later_records.described else None,
        revisions[-1] if needs_prediction and revisions else None,
        stored_case.list_newest(other_changes),
        stored_case.case,
        _select_sure(stored_action, revisions, times.get((case_id, version), ())),
    )
    fault = authorizer.find_later_fault(action, stored_action.received_at, judged_records)
    if not fault:
        return None
    if fault == OTHER_ANSWER:
        return Trigger(fault, {"later": next(iter(other_changes.values()))})
    if change and fault != FORBIDDEN:
        return Trigger(fault, {"later": change})
    return Trigger(FORBIDDEN, {"later": CORRECTED_CASE if is_corrected else LATER_CASE})


def _select_sure(
    stored_action: StoredAction, revisions: Sequence[Prediction], times: Sequence[datetime]
) -> Sequence[Prediction]:
    """Return the predictions of which one has to reach the floor of an action's case.

    What came after the action makes it no surer. A bound permit names one of those before, which is
    not stored; another one counts the newest too, if that is less sure.
    """
    count = sum(received_at <= stored_action.received_at for received_at in times)
    earlier = revisions[: max(count, 1)]  # clocks of replicas may differ
    if stored_action.action.permit_kind == BOUND:
        return earlier
    # no confidence is less than 0, which reaches a floor of 0
    return sorted(
        (*earlier[-1:], *revisions[-1:]),
        key=lambda each: -1.0 if each.confidence is None else each.confidence,
    )[:1]


def _select_unreported(
    transaction: Transaction,
    state: RolloutState,
    unauthorized: Sequence[tuple[StoredAction, Trigger]],
) -> list[AuthorizationResult]:
    """Return actions without an incident since they were received."""
    if not unauthorized:
        return []
    reported_at = _load_reported_cases(
        transaction, state, min(stored_action.received_at for stored_action, _ in unauthorized)
    )
    return [
        AuthorizationResult(stored_action.action, trigger, by_later_records=True)
        for stored_action, trigger in unauthorized
        if stored_action.action.key not in reported_at
        or reported_at[stored_action.action.key] < stored_action.received_at
    ]


def _load_reported_cases(
    transaction: Transaction, state: RolloutState, since: datetime
) -> dict[str, datetime]:
    """Return the last incident of this module by case."""
    ledger = Ledger(transaction, state.rollout)
    after = ledger.find_revision_at(since - MICROSECOND)
    return {
        event.about: event.at
        for event in ledger.list_of(IncidentOpened, after=after)
        if event.by_later_records
    }


def _open_incidents(
    transaction: Transaction,
    state: RolloutState,
    unauthorized: Sequence[AuthorizationResult],
    at: datetime,
) -> None:
    """Open incidents in one append, so that thousands delay no stop; count those over the limit."""
    keys = {authorization.action.key for authorization in unauthorized}
    case_ids = ExternalKeys(transaction, state.rollout).find_ids(keys)
    cases = NewestRecords(transaction, state.rollout).load_cases(case_ids.values())
    current_state, events = load_rollout_state(transaction, state.rollout.name), list[LedgerEvent]()
    unopened = Counter[Cell | None]()
    last_revision = current_state.scope.revision
    for authorization in unauthorized:
        case = cases.get(case_ids.get(authorization.action.key, 0))
        incident = _build_incident(authorization, case, state, at)
        incident_events = decide_command(current_state, _build_command_factory(incident))
        if incident_events:
            events += incident_events
            scope = apply_events(incident_events, current_state.scope)
            current_state = replace(current_state, scope=scope)
        elif is_over_limit(incident, current_state.scope):
            unopened[incident.cell] += 1
    UnopenedIncidents(transaction, state.rollout).add(UNAUTHORIZED.name, unopened)
    Ledger(transaction, current_state.rollout).append(events, after=last_revision)


def _build_incident(
    authorization: AuthorizationResult, case: Case | None, state: RolloutState, at: datetime
) -> OpenIncident:
    """Return an incident without what was done: reviewers may read it."""
    action = authorization.action
    cell = None if case is None else Cell(case.site, case.window)
    return OpenIncident(
        at=at,
        kind=UNAUTHORIZED.name,
        trigger=authorization.trigger,
        cell=cell if cell in state.policy.cell_set else None,
        version=action.version or "",
        about=action.key,
        by_later_records=authorization.by_later_records,
    )


def _build_command_factory(incident: OpenIncident) -> CommandBuilder:
    return lambda _: incident
