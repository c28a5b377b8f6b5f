"""Authorization of the model's actions, checked afterwards by their permits."""

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.records.records import (
    CASE_TYPES,
    PREDICTION_TYPES,
    Action,
    AnyRecord,
    Case,
    to_case,
)
from rollout.core.scope.assignment import compute_unit_key
from rollout.core.scope.events import LedgerEvent
from rollout.core.scope.permits import Permit
from rollout.core.scope.projection import apply_events
from rollout.core.scope.scope import Scope, find_acting_version
from rollout.core.statistics.sampling import compute_sampling_value
from rollout.services.engine.permit_signing import PermitSigner
from rollout.services.engine.rollout_state import (
    RolloutState,
    parse_stored_policy,
    refresh_rollout_state,
)
from rollout.services.engine.state_cache import MAX_STALENESS
from rollout.services.engine.window_lookup import WindowLookup
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import PolicyTexts
from rollout.store.records.newest_records import NewestRecords

AUTHORIZED: Final = "authorized"
AUTHORIZED_WITHIN_LEASE: Final = "authorized_within_lease"
UNAUTHORIZED: Final = "unauthorized"
NOT_REQUIRED: Final = "not_required"
MODEL: Final = "model"
ROWS_PER_SCOPE: Final = 50
"""Ledger entries that are applied at once for actions of the past."""
SCOPE_FORBADE: Final = "the scope did not allow it then, nor does a lease"
OTHER_ERA: Final = "its permit is of another era: the database was restored in between"
LOCAL_DECIDER: Final = "local"  # in a snapshot's permit: its client decides by the snapshot


@dataclass(frozen=True, slots=True)
class AuthorizationResult:
    """An action with its authorization, and the reason of a fault."""

    action: Action
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CaseWithConfidence:
    """A case with the confidence of each version."""

    case: Case
    confidence: Mapping[str, float | None]


def load_cases_by_key(
    transaction: Transaction,
    rollout: Rollout,
    case_ids: Mapping[str, int],
    new_records: Iterable[AnyRecord] = (),
) -> Mapping[str, CaseWithConfidence]:
    """Return the cases stored under `case_ids`, or in `new_records`."""
    newest = NewestRecords(transaction, rollout)
    cases = {case.key: case for case in newest.load_cases(case_ids.values()).values()}
    confidence: dict[str, dict[str, float | None]] = defaultdict(dict)
    for predictions in newest.load_predictions(case_ids.values()).values():
        for prediction in predictions.values():
            confidence[prediction.key][prediction.version] = prediction.confidence
    for record in new_records:
        if isinstance(record, CASE_TYPES):
            cases.setdefault(record.key, to_case(record))
        elif isinstance(record, PREDICTION_TYPES):
            confidence[record.key].setdefault(record.version, record.confidence)
    return {key: CaseWithConfidence(case, confidence[key]) for key, case in cases.items()}


def load_current_state(transaction: Transaction, state: RolloutState) -> RolloutState:
    """Return the state of this instant, which may have newer stops."""
    if Ledger(transaction, state.rollout).load_head().revision == state.scope.revision:
        return state
    return refresh_rollout_state(transaction, state)


class ScopeAuthorizer:
    """Checks of what the scopes of one rollout allowed.

    The ledger is read as far as actions need it.
    """

    def __init__(self, transaction: Transaction, state: RolloutState) -> None:
        self._transaction = transaction
        self._state = state
        self._ledger = Ledger(transaction, state.rollout)
        self._scope_history = _ScopeHistory(self._ledger)

    def is_still_authorized(self, action: Action, case_info: CaseWithConfidence) -> bool:
        """Return whether an authorized action is authorized in its later case.

        Its permit is not stored. When it was issued is unknown, so in doubt it was early enough.
        """
        if self._allows_action(self._load_scope_at(action.at), action.at, action, case_info):
            return True
        revision = action.scope_revision or 0
        next_event, scope = self._find_next_event(revision), self._scope_history.get_scope(revision)
        if next_event is None or action.at > next_event.at + self._compute_max_delay(scope):
            return False
        return self._allows_action(scope, action.at, action, case_info)

    def _allows_action(
        self,
        scope: Scope,
        at: datetime,
        action: Action,
        case_info: CaseWithConfidence,
        *,
        is_local: bool = False,
    ) -> bool:
        """Return whether a scope gave the stored case to the acting version.

        A permit names a key only: site, episode and confidence of the question are not trusted once
        they are recorded.
        """
        policy, case = self._load_policy(scope), case_info.case
        # the policy of that time: a later one may have other windows
        window = WindowLookup(policy).find_window(case.site, case.occurred_at, case.attributes)
        acting_grant = find_acting_version(scope, policy, Cell(case.site, window), at)
        if acting_grant is None or acting_grant[0] != action.version:
            return False
        stage = policy.get_stage(acting_grant[1])
        if not stage.model_decides or self._compute_sampling_value(policy, case) < stage.blind:
            return False
        if not is_local and action.version not in case_info.confidence:
            return True  # the answer already included the confidence floor
        return _has_enough_confidence(policy, case_info.confidence.get(action.version or ""))

    def _compute_sampling_value(self, policy: Policy, case: Case) -> float:
        unit = compute_unit_key(policy, case.key, case.site, case.occurred_at, case.episode)
        return compute_sampling_value(self._state.rollout.salt, "stage", unit)

    def _find_next_event(self, revision: int) -> LedgerEvent | None:
        """Return the event that ended a revision, or None."""
        return next(self._ledger.list_events(after=revision, until=revision + 1), None)

    def _compute_max_delay(self, scope: Scope) -> timedelta:
        """Return how long after a scope's end its answers may be used."""
        policy = self._load_policy(scope)
        leases = (site.lease for site in policy.sites if site.lease is not None)
        return timedelta(seconds=MAX_STALENESS) + max((policy.lease, *leases))

    def _load_scope_at(self, at: datetime) -> Scope:
        current_scope = self._state.scope
        if current_scope.at is None or at >= current_scope.at:
            return current_scope
        return self._scope_history.get_scope(self._ledger.find_revision_at(at))

    def _load_policy(self, scope: Scope) -> Policy:
        if scope.policy_hash in {"", self._state.scope.policy_hash}:
            return self._state.policy
        texts = PolicyTexts(self._transaction, self._state.rollout).load_texts({scope.policy_hash})
        return parse_stored_policy(texts[scope.policy_hash])


class ActionAuthorizer(ScopeAuthorizer):
    """Authorization of one rollout's actions by their permits."""

    def __init__(
        self, transaction: Transaction, state: RolloutState, permit_signer: PermitSigner
    ) -> None:
        super().__init__(transaction, state)
        self._permit_signer = permit_signer

    def authorize(
        self, action: Action, permit_text: str, case_info: CaseWithConfidence | None
    ) -> AuthorizationResult:
        """Return an action with its authorization.

        `permit_text` came with the answer "the model decides" or with a snapshot. If `case_info` is
        None, the case is unknown and the permit must name it.
        """
        if action.by != MODEL:
            return AuthorizationResult(replace(action, permission=NOT_REQUIRED))
        permit, is_local = self._read_permit(action, permit_text, case_info)
        if permit is None:
            return self._reject(action, None, "no permit of ours names this case and version")
        permit_fault = self._find_permit_fault(action, permit, is_local=is_local)
        if permit_fault:
            return self._reject(action, permit, permit_fault)
        if self._is_authorized(action, case_info, permit, is_local=is_local):
            return _build_result(action, permit, AUTHORIZED)
        if self._is_authorized_within_lease(action, case_info, permit, is_local=is_local):
            return _build_result(action, permit, AUTHORIZED_WITHIN_LEASE)
        return self._reject(action, permit, SCOPE_FORBADE)

    def _find_permit_fault(self, action: Action, permit: Permit, *, is_local: bool) -> str:
        if permit.decider != (LOCAL_DECIDER if is_local else MODEL):
            return f"its permit says that a {permit.decider} decides"
        return "" if permit.era == self._load_scope_at(action.at).era else OTHER_ERA

    def _reject(self, action: Action, permit: Permit | None, reason: str) -> AuthorizationResult:
        return replace(_build_result(action, permit, UNAUTHORIZED), reason=reason)

    def _read_permit(
        self, action: Action, permit_text: str, case_info: CaseWithConfidence | None
    ) -> tuple[Permit | None, bool]:
        """Return the permit, and whether it is a snapshot's: the client decided."""
        rollout_name, version = self._state.rollout.name, action.version or ""
        if not permit_text:
            return None, False
        permit = self._permit_signer.read_permit(permit_text, rollout_name, action.key, version)
        if permit is not None or case_info is None:
            return permit, False
        return self._permit_signer.read_permit(permit_text, rollout_name, case_info.case.site), True

    def _is_authorized(
        self,
        action: Action,
        case_info: CaseWithConfidence | None,
        permit: Permit,
        *,
        is_local: bool,
    ) -> bool:
        scope = self._load_scope_at(action.at)
        if case_info is None:  # unknown cell: the answer holds as long as its revision
            return scope.revision == permit.revision and action.at < permit.expires_at
        return self._allows_action(scope, action.at, action, case_info, is_local=is_local)

    def _is_authorized_within_lease(
        self,
        action: Action,
        case_info: CaseWithConfidence | None,
        permit: Permit,
        *,
        is_local: bool,
    ) -> bool:
        """Return whether the permit predates the change, within its lease.

        Every effect under an old scope ends by its change plus staleness plus lease.
        """
        next_event = self._find_next_event(permit.revision)
        if next_event is None or action.at > permit.expires_at:
            return False
        if permit.issued_at > next_event.at + timedelta(seconds=MAX_STALENESS):
            return False
        scope = self._scope_history.get_scope(permit.revision)
        if scope.era != permit.era:
            return False  # the ledger lost that entry, and has another one in its place
        if case_info is None:
            return not is_local
        # an answer's lease includes the ends of grants and windows, a snapshot's doesn't
        at = action.at if is_local else permit.issued_at
        return self._allows_action(scope, at, action, case_info, is_local=is_local)


class _ScopeHistory:
    """Earlier scopes, cached because clients send thousands of actions at once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._scopes: dict[int, Scope] = {}
        self._revisions: list[int] = []

    def get_scope(self, revision: int) -> Scope:
        """Return the scope at a revision."""
        cached_scope = self._scopes.get(revision)
        return self._rebuild_scope(revision) if cached_scope is None else cached_scope

    def _rebuild_scope(self, revision: int) -> Scope:
        index = bisect_right(self._revisions, revision)
        if index == 0:
            scope = self._ledger.load_scope_of_revision(revision // ROWS_PER_SCOPE * ROWS_PER_SCOPE)
        else:
            scope = self._scopes[self._revisions[index - 1]]
        self._store_scope(scope)
        while scope.revision < revision:
            until = min(revision, scope.revision + ROWS_PER_SCOPE)
            scope = apply_events(self._ledger.list_events(after=scope.revision, until=until), scope)
            self._store_scope(scope)
        return scope

    def _store_scope(self, scope: Scope) -> None:
        if scope.revision not in self._scopes:
            self._scopes[scope.revision] = scope
            insort(self._revisions, scope.revision)


def _build_result(action: Action, permit: Permit | None, authorization: str) -> AuthorizationResult:
    revision = None if permit is None else permit.revision
    return AuthorizationResult(replace(action, permission=authorization, scope_revision=revision))


def _has_enough_confidence(policy: Policy, confidence: float | None) -> bool:
    floor = policy.evidence.confidence_floor
    return floor is None or (confidence is not None and floor <= confidence <= 1)
