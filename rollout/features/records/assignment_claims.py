"""Check of the assignments that offline clients send with their predictions.

A claim counts if the scope of its revision and the sampling value give the same answer. A wrong one
is not stored: the prediction counts as before, and its case in the arm of its sampling value.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from rollout.data.database.session import Transaction
from rollout.data.records.records import RecordReceipt, RecordStatus, escape_key, select_storable
from rollout.engine.decide.assignment import (
    MAX_CLOCK_SKEW,
    Assignment,
    AssignmentClaim,
    CaseQuestion,
    decide_assignment,
    find_claim_fault,
)
from rollout.engine.records.records import Case, Prediction, Record, RejectedItem, select_kind
from rollout.features.records.action_authorization import (
    ScopeAuthorizer,
    StoredCase,
    load_current_state,
    load_stored_cases,
)
from rollout.features.records.record_notes import add_note
from rollout.live.rollout_state import RolloutState

ASSIGNMENT: Final = "assignment"
NO_CASE: Final = "its case is not known; send the case before the prediction, or with it"
STORED_BEFORE: Final = "the prediction was stored before without it, and an arm is never added"
UNKNOWN_REVISION: Final = "the ledger has no such revision at the time of the case"
LEASE_ENDED: Final = "the case is later than any lease of its revision"


def add_claim(prediction: Prediction, claim: AssignmentClaim) -> Prediction:
    """Return a prediction with the assignment that its client made."""
    return replace(
        prediction,
        scope_revision=claim.revision,
        decider=claim.decider,
        exposure=claim.exposure,
        share=claim.share,
    )


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
        records: Sequence[tuple[int, Record]],
        find_case_ids: Callable[[], Mapping[str, int]],
    ) -> list[tuple[int, Record]]:
        """Return the records, predictions with the assignments that are right."""
        if not self._claims:
            return list(records)
        case_ids = find_case_ids()
        keys = {record.key for position, record in records if position in self._claims}
        stored_ids = {key: case_ids[key] for key in keys & case_ids.keys()}
        stored_cases = load_stored_cases(
            transaction,
            state.rollout,
            stored_ids,
            has_samples=bool(state.policy.samples_by_version),
        )
        cases = select_kind((record for _, record in records), Case)
        sent_cases = _group_sent_cases([case for case in cases if case.key in keys])
        current_state = load_current_state(transaction, state)
        checker, names = ClaimChecker(transaction, current_state), current_state.first_names
        first_revisions = _find_first_revisions((record for _, record in records), names)

        def _apply_claim(position: int, record: Record) -> Record:
            claim = self._claims.get(position)
            if claim is None or not isinstance(record, Prediction):
                return record
            stored = stored_cases.get(record.key, StoredCase(None, {}))
            case = _select_newest([stored.case, *sent_cases.get(record.key, ())])
            own_name = names.get(record.version, record.version)
            is_first = record.revision == first_revisions[record.key, own_name]
            self._faults[position] = (
                checker.find_fault(claim, record, stored, case)
                if is_first or not claim.is_sampled
                else STORED_BEFORE
            )
            return record if self._faults[position] else add_claim(record, claim)

        return [(position, _apply_claim(position, record)) for position, record in records]

    def note_faults(
        self, records: Iterable[tuple[int, Record]], receipts: dict[int, RecordReceipt]
    ) -> list[RejectedItem]:
        """Add to receipts why a claim was not stored; return such claims as rejected records."""
        rejected = []
        for position, record in records if any(self._faults.values()) else ():
            fault, receipt = self._faults.get(position), receipts[position]
            if fault and receipt.status is RecordStatus.ACCEPTED:
                receipts[position] = add_note(receipt, f"its answer is not stored: {fault}")
                body = json.dumps(asdict(self._claims[position]))
                key = escape_key(record.key)
                rejected.append(RejectedItem(ASSIGNMENT, key, body, fault))
        return rejected


def _group_sent_cases(sent_cases: Sequence[Case]) -> Mapping[str, Sequence[Case]]:
    """Return those cases of a batch by key that can be stored."""
    cases_by_key: dict[str, list[Case]] = {}
    for case in select_storable(sent_cases):
        cases_by_key.setdefault(case.key, []).append(case)
    return cases_by_key


def _find_first_revisions(
    records: Iterable[Record], names: Mapping[str, str]
) -> Mapping[tuple[str, str], int]:
    """Return the first revision of each prediction in a batch, by case and version's first name."""
    revisions: dict[tuple[str, str], int] = {}
    for prediction in select_kind(records, Prediction):
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
        if not claim.is_sampled:
            return ""  # it puts the case into no arm
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
