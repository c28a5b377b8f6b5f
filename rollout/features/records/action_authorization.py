"""Authorization of the model's actions, and of claims of offline clients, checked afterwards.

Actions are checked by their permits.

A claim is an assignment that an offline client sends with its prediction. It counts if the scope of
its revision and the sampling value give the same answer. A wrong one is not stored: the prediction
counts as before, and its case in the arm of its sampling value.
"""

import json
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from math import inf
from typing import Final

from msgspec import structs

from rollout.data.database.rollouts import PolicyTexts, Rollout
from rollout.data.database.session import Transaction
from rollout.data.ledger.ledger import CommitTimes, Ledger
from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.incoming_cases import IncomingCases
from rollout.data.records.records import RecordReceipt, RecordStatus, escape_key, select_storable
from rollout.data.records.versions import VersionStore
from rollout.engine.decide.assignment import (
    CLOCK_TOLERANCE,
    MAX_CLOCK_SKEW,
    Assignment,
    AssignmentClaim,
    CaseQuestion,
    Permit,
    compute_unit_key,
    decide_assignment,
    describe_sample,
    find_claim_fault,
    find_unfamiliar_values,
)
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import Scope, find_acting_version
from rollout.engine.decide.widening_steps import find_decided_floor
from rollout.engine.events import LedgerEvent
from rollout.engine.files.parse import ActionWithPermit
from rollout.engine.records.policy_actions import (
    find_judged_prediction,
    find_prediction_fault,
    is_contradicted,
)
from rollout.engine.records.records import (
    Action,
    Case,
    Prediction,
    RejectedItem,
)
from rollout.features.records.record_notes import add_note
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.facts import (
    ENDED_PERMIT,
    FORBIDDEN,
    NO_PERMIT,
    NO_PREDICTION,
    OTHER_ANSWER,
    OTHER_DECIDER,
    OTHER_ERA,
    Trigger,
)
from rollout.kernel.policy.cell_evidence import reaches_floor
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.sampling import compute_sampling_value
from rollout.kernel.units import group_pairs
from rollout.live.evidence.unit_counting import WindowLookup
from rollout.live.rollout_state import RolloutState, parse_stored_policy, refresh_rollout_state
from rollout.live.service import PermitSigner
from rollout.live.state_cache import MAX_STALENESS

AUTHORIZED: Final = "authorized"
AUTHORIZED_WITHIN_LEASE: Final = "authorized_within_lease"
UNAUTHORIZED: Final = "unauthorized"
NOT_REQUIRED: Final = "not_required"
MODEL: Final = "model"
ROWS_PER_SCOPE: Final = 50
"""Ledger entries that are applied at once for actions of the past."""
MAX_UNKNOWN_COMMIT: Final = timedelta(seconds=30)
"""After an entry's time, the latest commit that is taken for it where none was stored."""
LOCAL_DECIDER: Final = "local"  # in a snapshot's permit: its client decides by the snapshot


@dataclass(frozen=True, slots=True)
class AuthorizationResult:
    """An action with its authorization, why it has none; whether later records show that."""

    action: Action
    trigger: Trigger | None = None
    by_later_records: bool = False


@dataclass(frozen=True, slots=True)
class StoredCase:
    """What is stored of a case when its action is judged.

    Attributes:
        case: its newest revision; None before it arrived.
        predictions: by version, all revisions, oldest first.
        draws: by version with a sample whether it runs on the case.
    """

    case: Case | None
    predictions: Mapping[str, Sequence[Prediction]]
    draws: Mapping[str, bool] = field(default_factory=dict)

    def list_newest(self, names: Iterable[str]) -> list[Prediction]:
        """Return the newest prediction under each name that has one."""
        return [self.predictions[name][-1] for name in names if name in self.predictions]


@dataclass(frozen=True, slots=True)
class JudgedRecords:
    """Later records by which an early action is judged again.

    Attributes:
        case: its case; None if it is not to be judged.
        prediction: that of the action's version name; None if it is not to be judged.
        others: predictions of the case under other names of the version.
        stored_case: the case as stored, in whose cell the confidence floor is.
        sure: predictions of which one has to reach that floor, if the case is to be judged.
    """

    case: Case | None
    prediction: Prediction | None
    others: Sequence[Prediction] = ()
    stored_case: Case | None = None
    sure: Sequence[Prediction] = ()


def load_stored_cases(
    transaction: Transaction,
    rollout: Rollout,
    case_ids: Mapping[str, int],
    *,
    has_samples: bool = False,
) -> Mapping[str, StoredCase]:
    """Return what is stored under each key of `case_ids`, with draws if there are any."""
    newest = NewestRecords(transaction, rollout)
    draws = IncomingCases(transaction, rollout).load_draws(case_ids.values()) if has_samples else {}
    cases = newest.load_cases(case_ids.values())
    predictions = newest.load_prediction_revisions(case_ids.values())
    return {
        key: StoredCase(cases.get(case_id), predictions.get(key, {}), draws.get(case_id, {}))
        for key, case_id in case_ids.items()
    }


def load_current_state(transaction: Transaction, state: RolloutState) -> RolloutState:
    """Return the state of this instant, which may have newer stops and names of versions."""
    if Ledger(transaction, state.rollout).load_head().revision != state.scope.revision:
        return refresh_rollout_state(transaction, state)
    versions = VersionStore(transaction, state.rollout).list_all()
    return state if versions == state.versions else state.replace_versions(versions)


class ScopeAuthorizer:
    """Checks of what the scopes of one rollout allowed.

    The ledger is read as far as actions need it.
    """

    def __init__(self, transaction: Transaction, state: RolloutState) -> None:
        self._transaction = transaction
        self._state = state
        self._ledger = Ledger(transaction, state.rollout)
        self._commit_times = CommitTimes(transaction, state.rollout)
        self._scope_history = _ScopeHistory(self._ledger)

    def list_other_names(self, action: Action) -> list[str]:
        """Return the other names of the action's version, also those that the ledger lacks."""
        names, own_name = self._state.first_names, action.version or ""
        version = names.get(own_name, own_name)
        all_names = [
            version,
            *(name for name, first_name in names.items() if first_name == version),
        ]
        return [name for name in all_names if name != own_name]

    def find_later_fault(
        self, action: Action, received_at: datetime, records: JudgedRecords
    ) -> str:
        """Return why an authorized action is none by what came later, or "".

        Its permit is not stored, and had not ended, nor had the grant that it was issued by, but
        for the tolerance of clocks: what it was issued by holds as well.
        """
        scope = self._scope_history.get_scope(action.scope_revision or 0)
        at = find_judged_time(action, received_at, scope.at)
        return (
            self._find_stored_fault(self._load_scope_at(at), at, action, records)
            and self._find_stored_fault(scope, at, action, records)
            and self._find_stored_fault(scope, at - CLOCK_TOLERANCE, action, records)
        )

    def _find_stored_fault(
        self, scope: Scope, at: datetime, action: Action, records: JudgedRecords
    ) -> str:
        case, prediction, policy = records.case, records.prediction, self._load_policy(scope)
        if case is not None and not self._allows_case(scope, at, action, case):
            return FORBIDDEN
        floor = self._find_floor(scope, at, action, records.stored_case)
        asks_cell = case is not None and policy.evidence.higher_floors
        if asks_cell and not any(reaches_floor(p.confidence, floor) for p in records.sure):
            return FORBIDDEN
        if prediction is not None:
            fault = find_prediction_fault(policy, prediction, action.lever, action.action, floor)
            if fault:
                return fault
        is_split = is_contradicted(policy, records.others, action.lever, action.action)
        return OTHER_ANSWER if is_split else ""

    def _allows_case(self, scope: Scope, at: datetime, action: Action, case: Case) -> bool:
        """Return whether a scope gave the stored case to the acting version.

        A permit names a key only: site and episode of the question are not trusted once they are
        recorded.
        """
        policy, cell = self._load_policy(scope), self._find_cell(scope, case)
        acting_grant = find_acting_version(scope, policy, cell, at)
        version = scope.get_first_name(action.version or "")
        if acting_grant is None or acting_grant[0] != version:
            return False
        if find_unfamiliar_values(scope, policy, cell, acting_grant[0], case.attributes):
            return False
        stage = policy.get_stage(acting_grant[1])
        return stage.model_decides and self._compute_sampling_value(policy, case) >= stage.blind

    def _find_cell(self, scope: Scope, case: Case) -> Cell:
        """Return a case's cell by the policy of a scope: a later one may have other windows."""
        lookup = WindowLookup(self._load_policy(scope))
        return Cell(case.site, lookup.find_window(case.site, case.occurred_at, case.attributes))

    def _find_floor(
        self, scope: Scope, at: datetime, action: Action, case: Case | None
    ) -> float | None:
        """Return the confidence from which a version decides in a case's cell; None for any.

        That of the policy while the case is unknown: it is judged again once the case comes.
        """
        policy = self._load_policy(scope)
        if case is None or not policy.evidence.higher_floors:
            return policy.evidence.lowest_floor
        cell, version = self._find_cell(scope, case), scope.get_first_name(action.version or "")
        acting_grant = find_acting_version(scope, policy, cell, at)
        if acting_grant is None or acting_grant[0] != version:
            return inf
        return find_decided_floor(policy, scope.get_cell_state(cell, version), acting_grant[1])

    def _compute_sampling_value(self, policy: Policy, case: Case) -> float:
        unit = compute_unit_key(policy, case.key, case.site, case.occurred_at, case.episode)
        return compute_sampling_value(self._state.rollout.salt, "stage", unit)

    def _find_next_event(self, revision: int) -> LedgerEvent | None:
        """Return the event that ended a revision, or None."""
        return next(self._ledger.list_events(after=revision, until=revision + 1), None)

    def _compute_max_lease(self, scope: Scope) -> timedelta:
        """Return how long an answer by a scope may be used."""
        policy = self._load_policy(scope)
        leases = (site.lease for site in policy.sites if site.lease is not None)
        return max((policy.lease, *leases))

    def _find_last_answer(self, revision: int, next_event: LedgerEvent) -> datetime:
        """Return until when replicas may have answered by a revision.

        `next_event` ended it, decided at its time and known to replicas once it was committed.
        """
        latest = next_event.at + MAX_UNKNOWN_COMMIT
        committed_at = self._find_commit(revision + 1, latest) or latest
        return max(next_event.at, committed_at) + timedelta(seconds=MAX_STALENESS)

    def _find_commit(self, first_revision: int, _latest: datetime) -> datetime | None:
        """Return when an append was committed, if that was stored."""
        return self._commit_times.find(first_revision)

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
        self,
        transaction: Transaction,
        state: RolloutState,
        permit_signer: PermitSigner,
        received_at: datetime,
    ) -> None:
        super().__init__(transaction, state)
        self._permit_signer = permit_signer
        self._received_at = received_at

    def authorize(
        self, action: Action, permit_text: str, stored_case: StoredCase
    ) -> AuthorizationResult:
        """Return an action with its authorization.

        `permit_text` came with the answer "the model decides" or with a snapshot. Before its case
        arrived, an action's permit must name it.
        """
        if action.by != MODEL:
            return AuthorizationResult(structs.replace(action, permission=NOT_REQUIRED))
        permit, is_local = self._read_permit(action, permit_text, stored_case.case)
        if permit is None:
            return self._reject(action, None, NO_PERMIT)
        at = find_judged_time(action, self._received_at, permit.issued_at)
        permit_fault = self._find_permit_fault(at, permit, is_local=is_local)
        if permit_fault:
            return self._reject(action, permit, permit_fault)
        fault = self._find_current_fault(at, action, stored_case, permit)
        if not fault:
            return _build_result(action, permit, AUTHORIZED)
        lease_fault = self._find_lease_fault(at, action, stored_case, permit)
        if not lease_fault:
            return _build_result(action, permit, AUTHORIZED_WITHIN_LEASE)
        return self._reject(action, permit, lease_fault if fault == FORBIDDEN else fault)

    def _find_permit_fault(self, at: datetime, permit: Permit, *, is_local: bool) -> str:
        if permit.decider != (LOCAL_DECIDER if is_local else MODEL):
            return OTHER_DECIDER
        if permit.era != self._load_scope_at(at).era:
            return OTHER_ERA
        return "" if permit.allows(at) else ENDED_PERMIT

    def _reject(self, action: Action, permit: Permit | None, fault: str) -> AuthorizationResult:
        decider = permit.decider if permit is not None and fault == OTHER_DECIDER else ""
        trigger = Trigger(fault, {"decider": decider} if decider else {})
        return replace(_build_result(action, permit, UNAUTHORIZED), trigger=trigger)

    def _read_permit(
        self, action: Action, permit_text: str, case: Case | None
    ) -> tuple[Permit | None, bool]:
        """Return the permit, and whether it is a snapshot's: the client decided."""
        rollout_name, version = self._state.rollout.name, action.version or ""
        if not permit_text:
            return None, False
        permit = self._permit_signer.read_permit(permit_text, rollout_name, action.key, version)
        is_local = permit is None and case is not None
        if case is not None and permit is None:
            permit = self._permit_signer.read_permit(permit_text, rollout_name, case.site)
        return permit, is_local

    def _find_current_fault(
        self, at: datetime, action: Action, stored_case: StoredCase, permit: Permit
    ) -> str:
        """Return why the scope at the action's time does not authorize it, or ""."""
        scope = self._load_scope_at(at)
        if stored_case.case is None and scope.revision != permit.revision:
            return FORBIDDEN  # unknown cell: the answer holds as long as its revision
        if scope.revision == permit.revision and permit.decider == MODEL:
            at = permit.issued_at  # its lease, which has not ended, includes the ends of grants
        return self._find_fault(scope, at, action, stored_case, permit)

    def _find_lease_fault(
        self, at: datetime, action: Action, stored_case: StoredCase, permit: Permit
    ) -> str:
        """Return why the permit does not authorize the action within its lease, or "".

        It does if it predates the change of the scope. Every effect under an old scope ends by the
        commit of its change plus staleness plus lease.
        """
        is_local = permit.decider == LOCAL_DECIDER
        next_event = self._find_next_event(permit.revision)
        if next_event is None:
            return FORBIDDEN
        if permit.issued_at > self._find_last_answer(permit.revision, next_event):
            return FORBIDDEN
        if stored_case.case is None and is_local:
            return FORBIDDEN
        scope = self._scope_history.get_scope(permit.revision)
        if scope.era != permit.era:
            return OTHER_ERA  # the ledger lost that entry, and has another one in its place
        # an answer's lease includes the ends of grants and windows, a snapshot's doesn't
        judged_at = at if is_local else permit.issued_at
        return self._find_fault(scope, judged_at, action, stored_case, permit)

    def _find_commit(self, first_revision: int, latest: datetime) -> datetime | None:
        """Return when an append was committed; where that is missing, it is stored as by now."""
        committed_at = super()._find_commit(first_revision, latest)
        if committed_at is None:
            committed_at = min(self._permit_signer.clock.now(), latest)
            self._commit_times.store(first_revision, committed_at)
        return committed_at

    def _find_fault(
        self, scope: Scope, at: datetime, action: Action, stored_case: StoredCase, permit: Permit
    ) -> str:
        """Return why a scope and the prediction don't authorize an action, or ""."""
        case, policy = stored_case.case, self._load_policy(scope)
        if case is not None and not self._allows_case(scope, at, action, case):
            return FORBIDDEN
        is_local = permit.decider == LOCAL_DECIDER
        if is_local and describe_sample(scope, policy, action.version or ""):
            return FORBIDDEN  # only the service knows what is drawn
        revisions = stored_case.predictions.get(action.version or "", ())
        prediction = find_judged_prediction(permit, revisions)
        has_floor = policy.evidence.lowest_floor is not None
        if prediction is None and is_local and has_floor:
            return NO_PREDICTION  # the client compared it with the floor, not the service
        floor = self._find_floor(scope, at, action, case)
        fault = find_prediction_fault(policy, prediction, action.lever, action.action, floor)
        if fault or not self._state.first_names:
            return fault
        others = stored_case.list_newest(self.list_other_names(action))
        is_split = is_contradicted(policy, others, action.lever, action.action)
        return OTHER_ANSWER if is_split else ""


def find_judged_time(
    action: Action, received_at: datetime, answered_at: datetime | None
) -> datetime:
    """Return the instant at which an action is judged: the earlier of stated and received.

    A clock that is ahead must not move an action past a stop. `answered_at` has passed before the
    action: a replica's clock that is behind takes no permission back.
    """
    received_at = received_at if answered_at is None else max(received_at, answered_at)
    return min(action.at, received_at)


def authorize_actions(
    transaction: Transaction,
    state: RolloutState,
    permit_signer: PermitSigner,
    items: Sequence[ActionWithPermit],
    case_ids: Mapping[str, int],
    received_at: datetime,
) -> list[AuthorizationResult]:
    """Return actions with their authorizations, by cases and predictions as stored.

    `case_ids` has the numbers of their cases, which the transaction has locked.
    """
    action_case_ids = {item.action.key: case_ids[item.action.key] for item in items}
    stored_cases = load_stored_cases(transaction, state.rollout, action_case_ids)
    authorizer = ActionAuthorizer(
        transaction, load_current_state(transaction, state), permit_signer, received_at
    )
    return [
        authorizer.authorize(item.action, item.permit, stored_cases[item.action.key])
        for item in items
    ]


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
    if permit is None:
        return AuthorizationResult(structs.replace(action, permission=authorization))
    return AuthorizationResult(
        structs.replace(
            action,
            permission=authorization,
            scope_revision=permit.revision,
            permit_kind=permit.kind,
        )
    )


ASSIGNMENT: Final = "assignment"
NO_CASE: Final = "its case is not known; send the case before the prediction, or with it"
STORED_BEFORE: Final = "the prediction was stored before without it, and an arm is never added"
UNKNOWN_REVISION: Final = "the ledger has no such revision at the time of the case"
LEASE_ENDED: Final = "the case is later than any lease of its revision"


class ClaimBatch:
    """The claims of one batch, by position of their predictions."""

    def __init__(self) -> None:
        self._claims: dict[int, AssignmentClaim] = {}
        self._faults: dict[int, str] = {}

    def add(self, position: int, claim: AssignmentClaim | None) -> None:
        """Add the claim of a prediction, if it has one."""
        if claim is not None:
            self._claims[position] = claim

    def apply(
        self,
        transaction: Transaction,
        state: RolloutState,
        cases: Mapping[int, Case],
        predictions: Mapping[int, Prediction],
        find_case_ids: Callable[[], Mapping[str, int]],
    ) -> Mapping[int, Prediction]:
        """Return the predictions with claims that are right, with their assignments.

        All are those of the batch, by position.
        """
        claiming = {n: predictions[n] for n in self._claims if n in predictions}
        if not claiming:
            return {}
        case_ids = find_case_ids()
        keys = {prediction.key for prediction in claiming.values()}
        stored_ids = {key: case_ids[key] for key in keys & case_ids.keys()}
        stored_cases = load_stored_cases(
            transaction,
            state.rollout,
            stored_ids,
            has_samples=bool(state.policy.samples_by_version),
        )
        batch_cases = [case for case in cases.values() if case.key in keys]
        sent_cases = group_pairs((case.key, case) for case in select_storable(batch_cases))
        current_state = load_current_state(transaction, state)
        checker, names = ClaimChecker(transaction, current_state), current_state.first_names
        first_revisions = _find_first_revisions(predictions.values(), names)

        def _apply_claim(position: int, record: Prediction) -> Prediction:
            claim = self._claims[position]
            stored = stored_cases.get(record.key, StoredCase(None, {}))
            case = _select_newest([stored.case, *sent_cases.get(record.key, ())])
            own_name = names.get(record.version, record.version)
            is_first = record.revision == first_revisions[record.key, own_name]
            self._faults[position] = (
                checker.find_fault(claim, record, stored, case)
                if is_first or not claim.needs_proof
                else STORED_BEFORE
            )
            return (
                record
                if self._faults[position]
                else structs.replace(
                    record,
                    scope_revision=claim.revision,
                    decider=claim.decider,
                    exposure=claim.exposure,
                    share=claim.share,
                )
            )

        return {n: _apply_claim(n, prediction) for n, prediction in claiming.items()}

    def note_faults(
        self, predictions: Mapping[int, Prediction], receipts: dict[int, RecordReceipt]
    ) -> list[RejectedItem]:
        """Add to receipts why a claim was not stored; return such claims as rejected records."""
        rejected = []
        for position, fault in self._faults.items():
            receipt = receipts[position]
            if fault and receipt.status is RecordStatus.ACCEPTED:
                receipts[position] = add_note(receipt, f"its answer is not stored: {fault}")
                body = json.dumps(asdict(self._claims[position]))
                rejected.append(
                    RejectedItem(ASSIGNMENT, escape_key(predictions[position].key), body, fault)
                )
        return rejected


def _find_first_revisions(
    predictions: Iterable[Prediction], names: Mapping[str, str]
) -> Mapping[tuple[str, str], int]:
    """Return the first revision of each prediction in a batch, by case and version's first name."""
    revisions: dict[tuple[str, str], int] = {}
    for prediction in predictions:
        name = prediction.key, names.get(prediction.version, prediction.version)
        revisions[name] = min(prediction.revision, revisions.get(name, prediction.revision))
    return revisions


def _select_newest(revisions: Iterable[Case | None]) -> Case | None:
    """Return the revision of a case that is the newest after its batch is stored.

    Of two that claim to be the same one the first stays: it is the stored one if there is any.
    """
    present = [case for case in revisions if case is not None]
    return max(present, key=lambda case: case.revision, default=None)


class ClaimChecker(ScopeAuthorizer):
    """Checks of what clients say that the scopes of one rollout answered."""

    def __init__(self, transaction: Transaction, state: RolloutState) -> None:
        super().__init__(transaction, state)
        self._lease_ends: dict[int, datetime | None] = {}  # a client sends thousands of one

    def find_fault(
        self,
        claim: AssignmentClaim,
        prediction: Prediction,
        stored: StoredCase,
        case: Case | None,
    ) -> str:
        """Return why a claim on a case is none, or ""; `stored` is what is stored of the case."""
        if not claim.needs_proof:
            return ""  # it takes the case from no arm, and shows nothing
        names = self._state.first_names
        stored_versions = {names.get(name, name) for name in stored.predictions}
        if names.get(prediction.version, prediction.version) in stored_versions:
            return STORED_BEFORE
        if case is None:
            return NO_CASE
        return self._find_revision_fault(claim, case.occurred_at) or find_claim_fault(
            claim, self._decide_again(claim.revision, prediction, case, stored.draws)
        )

    def _find_revision_fault(self, claim: AssignmentClaim, at: datetime) -> str:
        """Return why no client could use a revision at the time of a case, or ""."""
        if claim.revision > self._state.scope.revision:
            return UNKNOWN_REVISION
        scope = self._scope_history.get_scope(claim.revision)
        if scope.at is None or scope.at > at + MAX_CLOCK_SKEW:
            return UNKNOWN_REVISION
        lease_end = self._find_lease_end(claim.revision)
        return LEASE_ENDED if lease_end is not None and at > lease_end else ""

    def _find_lease_end(self, revision: int) -> datetime | None:
        """Return when the last lease of a revision ended, None for the newest revision."""
        if revision not in self._lease_ends:
            next_event = self._find_next_event(revision)
            lease = self._compute_max_lease(self._scope_history.get_scope(revision))
            self._lease_ends[revision] = (
                None if next_event is None else self._find_last_answer(revision, next_event) + lease
            )
        return self._lease_ends[revision]

    def _decide_again(
        self,
        revision: int,
        prediction: Prediction,
        case: Case,
        draws: Mapping[str, bool],
    ) -> Assignment:
        """Return the answer that a revision gave at the time of a case."""
        scope, at = self._scope_history.get_scope(revision), case.occurred_at
        question = CaseQuestion(
            site=case.site,
            at=at,
            version=prediction.version,
            key=case.key,
            episode=case.episode or "",
            confidence=prediction.confidence,
            attributes=case.attributes,
            is_drawn=self._state.find_draw(draws, prediction.version),
        )
        salt = self._state.rollout.salt
        return decide_assignment(scope, self._load_policy(scope), salt, question, now=at)
