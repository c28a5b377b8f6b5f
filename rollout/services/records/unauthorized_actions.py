"""Unauthorized actions: check early ones again once their case is stored, and open incidents.

Without its case an action is authorized by its permit alone, which names no site. Its row stays
unchanged; a later fault opens an incident.
"""

from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime
from typing import Final

from rollout.core.calendar.instants import MICROSECOND
from rollout.core.calendar.sites import Cell
from rollout.core.ledger.ledger import parse_event
from rollout.core.records.records import Case
from rollout.core.scope.commands import OpenIncident
from rollout.core.scope.events import UNAUTHORIZED, IncidentOpened, LedgerEvent
from rollout.core.scope.projection import apply_events
from rollout.services.engine.command_handler import CommandBuilder, decide_command
from rollout.services.engine.rollout_state import RolloutState, load_rollout_state
from rollout.services.records.action_authorization import (
    AUTHORIZED,
    AUTHORIZED_WITHIN_LEASE,
    SCOPE_FORBADE,
    AuthorizationResult,
    CaseWithConfidence,
    ScopeAuthorizer,
    load_cases_by_key,
    load_current_state,
)
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.records.actions import ActionStore, StoredAction
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.records.newest_records import NewestRecords
from rollout.store.records.records import StoredBatch

AUTHORIZED_VALUES: Final = (AUTHORIZED, AUTHORIZED_WITHIN_LEASE)
CASE_CAME_LATER: Final = f"its case came later: {SCOPE_FORBADE}"
CASE_CORRECTED_LATER: Final = f"its case was corrected later: {SCOPE_FORBADE}"


def report_unauthorized_actions(
    transaction: Transaction,
    state: RolloutState,
    stored_batch: StoredBatch,
    at: datetime,
    *,
    unauthorized: Iterable[AuthorizationResult] = (),
    uncertain_keys: Collection[str] = (),
) -> None:
    """Open an incident for each case with an unauthorized action.

    These are the actions in `unauthorized`, and earlier ones that the stored cases show to be
    unauthorized. `uncertain_keys` are cases in the batch whose action was authorized before it was
    certain what is stored.

    Raises:
        StaleRevisionError: the ledger moved before the incidents were appended.
    """
    early_actions = _recheck_early_actions(transaction, state, stored_batch, uncertain_keys)
    if all_unauthorized := [*unauthorized, *early_actions]:
        _open_incidents(transaction, state, all_unauthorized, at)


def _recheck_early_actions(
    transaction: Transaction,
    state: RolloutState,
    stored_batch: StoredBatch,
    uncertain_keys: Collection[str],
) -> Sequence[AuthorizationResult]:
    """Return earlier actions that are unauthorized by the cases in a batch.

    Each is returned once. A batch of new cases alone needs no read.
    """
    if not uncertain_keys and stored_batch.changed_cases <= stored_batch.new_cases:
        return ()
    described_ids = {number for number, _ in stored_batch.list_accepted(Case, "site")}
    uncertain_ids = {
        stored_batch.case_ids[key] for key in uncertain_keys if key in stored_batch.case_ids
    }
    case_ids = ((described_ids | uncertain_ids) - stored_batch.new_cases) | (
        described_ids & uncertain_ids
    )
    actions = (
        ActionStore(transaction, state.rollout).list_by_authorization(case_ids, AUTHORIZED_VALUES)
        if case_ids
        else []
    )
    if not actions:
        return ()
    corrected_ids = _find_corrected_cases(
        transaction,
        state,
        stored_batch,
        {stored_action.case_id for stored_action in actions} & described_ids,
    )
    return _select_unreported(
        transaction, state, _find_unauthorized_actions(transaction, state, actions, corrected_ids)
    )


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
    corrected_ids: AbstractSet[int],
) -> list[tuple[StoredAction, str]]:
    """Return actions unauthorized in their case as stored now, with reasons."""
    case_ids = {stored_action.action.key: stored_action.case_id for stored_action in actions}
    cases_by_key = load_cases_by_key(transaction, state.rollout, case_ids)
    authorizer = ScopeAuthorizer(transaction, load_current_state(transaction, state))
    unauthorized = []
    for stored_action in actions:
        case, reason = cases_by_key.get(stored_action.action.key), CASE_CAME_LATER
        if case is not None and stored_action.case_id in corrected_ids:
            # the confidence was checked before; a correction doesn't change it
            case, reason = CaseWithConfidence(case.case, {}), CASE_CORRECTED_LATER
        if case is not None and not authorizer.is_still_authorized(stored_action.action, case):
            unauthorized.append((stored_action, reason))
    return unauthorized


def _select_unreported(
    transaction: Transaction, state: RolloutState, unauthorized: Sequence[tuple[StoredAction, str]]
) -> list[AuthorizationResult]:
    """Return actions without an incident since they were received."""
    if not unauthorized:
        return []
    reported_at = _load_reported_cases(
        transaction, state, min(stored_action.received_at for stored_action, _ in unauthorized)
    )
    return [
        AuthorizationResult(stored_action.action, reason)
        for stored_action, reason in unauthorized
        if stored_action.action.key not in reported_at
        or reported_at[stored_action.action.key] < stored_action.received_at
    ]


def _load_reported_cases(
    transaction: Transaction, state: RolloutState, since: datetime
) -> dict[str, datetime]:
    """Return the last incident of this module by case."""
    ledger = Ledger(transaction, state.rollout)
    rows = ledger.list_rows(
        after=ledger.find_revision_at(since - MICROSECOND), kinds={IncidentOpened.__name__}
    )
    return {
        event.about: event.at
        for event in map(parse_event, rows)
        if isinstance(event, IncidentOpened)
        and event.kind == UNAUTHORIZED
        and event.reason.endswith((CASE_CAME_LATER, CASE_CORRECTED_LATER))
    }


def _open_incidents(
    transaction: Transaction,
    state: RolloutState,
    unauthorized: Sequence[AuthorizationResult],
    at: datetime,
) -> None:
    """Open incidents in one append, so that thousands delay no stop."""
    keys = {authorization.action.key for authorization in unauthorized}
    case_ids = ExternalKeys(transaction, state.rollout).find_ids(keys)
    cases_by_key = load_cases_by_key(transaction, state.rollout, case_ids)
    current_state, events = load_rollout_state(transaction, state.rollout.name), list[LedgerEvent]()
    last_revision = current_state.scope.revision
    for authorization in unauthorized:
        case_info = cases_by_key.get(authorization.action.key)
        incident = _build_incident(authorization, case_info, state, at)
        incident_events = decide_command(current_state, _build_command_factory(incident))
        if incident_events:
            events += incident_events
            scope = apply_events(incident_events, current_state.scope)
            current_state = replace(current_state, scope=scope)
    Ledger(transaction, current_state.rollout).append(events, after=last_revision)


def _build_incident(
    authorization: AuthorizationResult,
    case_info: CaseWithConfidence | None,
    state: RolloutState,
    at: datetime,
) -> OpenIncident:
    """Return an incident without what was done: reviewers may read it."""
    action = authorization.action
    cell = None if case_info is None else Cell(case_info.case.site, case_info.case.window)
    return OpenIncident(
        at=at,
        kind=UNAUTHORIZED,
        reason=f"{action.version} acted on {action.key}: {authorization.reason}",
        cell=cell if cell in state.policy.cell_set else None,
        version=action.version or "",
        about=action.key,
    )


def _build_command_factory(incident: OpenIncident) -> CommandBuilder:
    return lambda _: incident
