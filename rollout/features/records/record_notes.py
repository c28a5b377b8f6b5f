"""What follows a stored record: notes to its sender, and review tasks.

Notes are on accepted records that may not count as the sender expects.

Review tasks are planned when a case is stored, by its sampling values.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Final, NamedTuple

from rollout.data.database.session import Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import IncomingCase
from rollout.data.records.records import RecordReceipt, RecordStatus, StoredBatch
from rollout.data.reviews.reviews import NewReviewTask, ReviewTaskStore
from rollout.data.tables.record_tables import encode_instant
from rollout.engine.decide.assignment import find_unfamiliar_values
from rollout.engine.decide.policy_changes import find_by_any_name
from rollout.engine.decide.projection import apply_event
from rollout.engine.decide.scope import Scope, find_acting_version
from rollout.engine.decide.widening_steps import find_decided_floor
from rollout.engine.evidence.late_senders import LateSenders, recognise_senders
from rollout.engine.records.policy_actions import prescribes_actions
from rollout.engine.records.records import (
    Case,
    Decision,
    Heartbeat,
    Outcome,
    Prediction,
    Record,
    is_registered,
    list_drawn,
)
from rollout.engine.records.reviews import (
    ADJUDICATE,
    ASSISTED,
    BLIND,
    UNKNOWN,
    PlannedReviewTask,
    compute_answer_deadline,
    compute_due_time,
    compute_queue_value,
    fold_name,
    plan_review_tasks,
)
from rollout.engine.words.evidence_text import describe_registering
from rollout.kernel.calendar.instants import Cell, count_micros
from rollout.kernel.policy.cell_evidence import reaches_floor
from rollout.kernel.policy.evidence_sources import ACCOUNT, NOT_NAMED, UNNAMED
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import is_label_set
from rollout.live.rollout_state import RolloutState

NOT_DRAWN: Final = "{0} is not drawn for this case: kept, never evidence"
SILENT_TYPES = (Case, Prediction)
"""Records that are no evidence if they come after the first decision on their case."""


def find_late_arrivals(
    records: Sequence[Record],
    stored_batch: StoredBatch,
    case_facts: Mapping[int, IncomingCase],
    sender: tuple[str, timedelta | None],
    at: datetime,
) -> tuple[int, LateSenders] | None:
    """Return which record of a batch came first after its case was decided, and what that is like.

    Corrections are left out, as the first revision counts, and cases that only guards count. None
    where none came late.

    Args:
        case_facts: of the batch's cases.
        sender: the account, and how long after a case it is vouched for.
        at: when the batch was received.
    """
    account, vouched = sender
    received, within = encode_instant(at), count_micros(vouched or timedelta())
    silent_ids = {
        case_id
        for kind in (Case, Prediction)
        for case_id, revision in stored_batch.list_accepted(kind, "revision")
        if revision == 1
    }
    judged_cases = {
        case_id: (case.places, decided)
        for case_id in silent_ids
        if (decided := (case := case_facts[case_id]).first_decided) is not None and case.places
    }
    delays = {
        case_id: (after_case, received - decided)
        for case_id, (places, decided) in judged_cases.items()
        if decided < received
        and (after_case := received - min([occurred for _, occurred, _ in places])) > within
    }
    if not delays:
        return None
    first = next(
        position
        for position, (record, receipt) in enumerate(
            zip(records, stored_batch.results, strict=True)
        )
        if isinstance(record, SILENT_TYPES)
        and record.revision == 1
        and receipt.status is RecordStatus.ACCEPTED
        and stored_batch.case_ids[record.key] in delays
    )
    return first, recognise_senders(list(delays.values()), len(judged_cases), account)


def add_note(record_result: RecordReceipt, note: str) -> RecordReceipt:
    """Return a receipt with a note added to its reason."""
    return replace(record_result, reason="; ".join(filter(None, [record_result.reason, note])))


def add_draws(
    state: RolloutState,
    records: Sequence[Record],
    receipts: Sequence[RecordReceipt],
    case_ids: Mapping[str, int],
    draws_by_case: Mapping[int, Mapping[str, bool]],
) -> list[RecordReceipt]:
    """Return the receipts with the draws of cases, and a note on predictions that aren't drawn."""
    answered = []
    for record, receipt in zip(records, receipts, strict=True):
        draws = draws_by_case.get(case_ids.get(record.key, 0), {})
        if receipt.status not in {RecordStatus.ACCEPTED, RecordStatus.DUPLICATE}:
            answered.append(receipt)
        elif isinstance(record, Case):
            answered.append(replace(receipt, drawn=list_drawn(draws)))
        elif isinstance(record, Prediction) and state.find_draw(draws, record.version) is False:
            answered.append(add_note(receipt, NOT_DRAWN.format(record.version)))
        else:
            answered.append(receipt)
    return answered


class RecordNotes:
    """Notes on accepted records, under one policy."""

    def __init__(self, policy: Policy) -> None:
        self._sites, self._sources = policy.sites_by_id, policy.evidence.sources
        self._set_labels = {lever.id: lever.labels for lever in policy.levers if lever.many}
        self._labels_by_lever = {
            lever.id: None if lever.number is not None else frozenset({*lever.labels, None})
            for lever in policy.levers
        }
        self._ranges = {outcome.id: (outcome.low, outcome.high) for outcome in policy.outcomes}

    def add_notes(
        self, records: Sequence[Record], stored_batch: StoredBatch
    ) -> Sequence[RecordReceipt]:
        """Return the batch's receipts, with notes on accepted records."""
        if not self._has_notes(stored_batch):
            return stored_batch.results
        return [
            add_note(record_result, self.find_note(record))
            if record_result.status is RecordStatus.ACCEPTED
            else record_result
            for record, record_result in zip(records, stored_batch.results, strict=True)
        ]

    def _has_notes(self, stored_batch: StoredBatch) -> bool:
        """Return whether any accepted record needs a note; most batches have none.

        Equal answers are checked once.
        """
        if not {site for _, site in stored_batch.list_accepted(Case, "site")} <= self._sites.keys():
            return True
        revisions = {revision for _, revision in stored_batch.list_accepted(Case, "revision")}
        if not all(map(is_registered, revisions)):
            return True
        kinds = (
            stored_batch.list_accepted(*column)
            for column in ((Decision, "source"), (Outcome, "source_kind"))
        )
        if UNNAMED in {kind for rows in kinds for _, kind in rows}:
            return True
        answer_rows = (
            stored_batch.list_accepted(record_type, "answers")
            for record_type in (Prediction, Decision, Outcome)
        )
        value_texts = {text for _, text in stored_batch.list_accepted(Outcome, "values") if text}
        if any(self._list_outside_values(json.loads(text)) for text in value_texts):
            return True
        answer_texts = {answers for rows in answer_rows for _, answers in rows}
        return any(self._list_unknown_answers(json.loads(answers)) for answers in answer_texts)

    def find_note(self, record: Record | Heartbeat) -> str:
        """Return the note on an accepted record, or ""."""
        if isinstance(record, Case | Heartbeat) and record.site not in self._sites:
            return f"{record.site} is no site of the policy: kept, never evidence"
        if isinstance(record, Case):
            if is_registered(record.revision):
                return ""
            return f"kept, counted by guards only: {describe_registering(self._sources)}"
        if not isinstance(record, Prediction | Decision | Outcome):
            return ""
        notes = self._list_unknown_answers(record.answers)
        if isinstance(record, Outcome):
            notes += self._list_outside_values(record.values)
            if record.source_kind == UNNAMED:
                notes.append(
                    f"{NOT_NAMED} of outcomes (`evidence.sources`): kept, never evidence to widen"
                )
        if isinstance(record, Decision) and record.source == UNNAMED:
            notes.append(
                f"{NOT_NAMED} of {record.reviewer}'s decisions (`evidence.sources`): kept, never "
                "evidence"
            )
        return "; ".join(notes)

    def _list_unknown_answers(self, answers: Mapping[str, str | None]) -> list[str]:
        notes = []
        for lever, answer in answers.items():
            labels = self._labels_by_lever.get(lever, ())
            if labels == ():
                notes.append(f"the policy has no lever {lever}: kept, not counted")
            elif answer is not None and lever in self._set_labels:
                if not is_label_set(answer, self._set_labels[lever]):
                    text = f"{answer} is no set of labels of {lever}, each once: kept, counts as a"
                    notes.append(f"{text} disagreement")
            elif labels is not None and answer not in labels:
                notes.append(f"{answer} is no label of {lever}: kept, counts as a disagreement")
        return notes

    def _list_outside_values(self, values: Mapping[str, float]) -> list[str]:
        return [
            f"{name} {value:g} is outside {low:g} to {high:g}: kept, counts as the nearer end"
            for name, value in values.items()
            for low, high in [self._ranges[name]]
            if not low <= value <= high
        ]


SAMPLED_KINDS = (BLIND, ASSISTED)
"""Kinds that follow from sampling values; users request the others."""


class ActingOnCase(NamedTuple):
    """The version that acts on a case, if any, and what it asks of the case.

    Attributes:
        is_familiar: whether the version is familiar with the case's values.
        floor: the confidence from which it decides; None for any.
    """

    version: str | None
    stage_level: int
    is_familiar: bool
    floor: float | None


IN_SHADOW: Final = ActingOnCase(None, 0, is_familiar=True, floor=None)


def open_reviews(
    transaction: Transaction,
    state: RolloutState,
    cases: Iterable[Case],
    at: datetime,
    new_cases: Collection[int] = (),
) -> None:
    """Open the review tasks of stored cases, in `transaction`.

    Cases that have tasks keep them; if a case was corrected to another site, its open tasks move
    there. Of `new_cases` nothing was stored before; of others the newest revision counts, which may
    have come before.
    """
    cases_by_key = {case.key: case for case in sorted(cases, key=lambda case: case.revision)}
    case_ids = ExternalKeys(transaction, state.rollout).find_ids(cases_by_key)
    cases_by_key |= _load_newer_cases(transaction, state, cases_by_key, case_ids, new_cases)
    review_store = ReviewTaskStore(transaction, state.rollout)
    existing_reviews = {
        review.case_id: review
        for review in review_store.list_of_cases(case_ids.values())
        if review.kind in SAMPLED_KINDS
    }
    for key, case_id in case_ids.items():
        if case_id in existing_reviews and existing_reviews[case_id].site != cases_by_key[key].site:
            review_store.change_site(case_id, cases_by_key[key].site)
    unplanned_cases = {
        case_id: cases_by_key[key]
        for key, case_id in case_ids.items()
        if case_id not in existing_reviews
    }
    review_store.open_tasks(
        _plan_reviews(transaction, state, dict(sorted(unplanned_cases.items())), at)
    )
    withdraw_answered_reviews(transaction, state, case_ids.values(), at)


def _load_newer_cases(
    transaction: Transaction,
    state: RolloutState,
    cases_by_key: Mapping[str, Case],
    case_ids: Mapping[str, int],
    new_cases: Collection[int],
) -> dict[str, Case]:
    """Return the cases of which a newer revision is stored, at a site of the policy."""
    stored_cases = NewestRecords(transaction, state.rollout).load_cases(
        [case_id for case_id in case_ids.values() if case_id not in new_cases]
    )
    return {
        case.key: case
        for case in stored_cases.values()
        if case.revision > cases_by_key[case.key].revision and case.site in state.policy.sites_by_id
    }


def open_reviews_of_batch(
    transaction: Transaction,
    state: RolloutState,
    records: Sequence[Record],
    stored_batch: StoredBatch,
    at: datetime,
) -> None:
    """Open review tasks of new cases, unless they came with enough decisions.

    Also of cases stored before where the acting version's prediction comes now and prescribes no
    action, or where the one who decided predicts now. A decision that is never evidence, as its
    sender is not named or predicted the case, leaves the tasks to reviewers.
    """
    sites = state.policy.sites_by_id
    predicted = {case_id for case_id, _ in stored_batch.list_accepted(Prediction, "version")}
    columns = (
        stored_batch.list_accepted(Decision, name) for name in ("reviewer", "exposure", "source")
    )
    decided = {
        (case_id, fold_name(reviewer)): exposure
        for (case_id, reviewer), (_, exposure), (_, source) in zip(*columns, strict=True)
        if source != UNNAMED and not (source == ACCOUNT and case_id in predicted)
    }
    blind_counts = Counter(
        case_id for (case_id, _), exposure in decided.items() if _is_counted(state, exposure)
    )
    case_ids = {
        case_id for case_id, site in stored_batch.list_accepted(Case, "site") if site in sites
    }
    undecided_ids = {
        case_id
        for case_id in case_ids
        if blind_counts[case_id] < state.policy.evidence.verdicts
        or case_id not in stored_batch.new_cases
    }
    undecided_cases = [
        record
        for record, result in zip(records, stored_batch.results, strict=True)
        if undecided_ids
        and result.status is RecordStatus.ACCEPTED
        and isinstance(record, Case)
        and stored_batch.case_ids[record.key] in undecided_ids
        and record.site in sites
    ]
    if predicted - case_ids:
        undecided_cases += _list_unanswered(
            transaction, state, records, stored_batch, predicted - case_ids
        )
    if undecided_cases:
        open_reviews(transaction, state, undecided_cases, at, stored_batch.new_cases)
    newly_decided = {case_id for case_id, _ in decided} - case_ids
    withdraw_answered_reviews(transaction, state, newly_decided, at)


def _list_unanswered(
    transaction: Transaction,
    state: RolloutState,
    records: Sequence[Record],
    stored_batch: StoredBatch,
    predicted: AbstractSet[int],
) -> list[Case]:
    """Return cases stored before that a prediction of the batch leaves to reviewers.

    That of the acting version prescribes no action, or who decided the case predicts it now.
    """
    failed: dict[int, dict[str, Prediction]] = defaultdict(dict)
    for record, result in zip(records, stored_batch.results, strict=True):
        if (
            isinstance(record, Prediction)
            and result.status is RecordStatus.ACCEPTED
            and not prescribes_actions(state.policy, record)
        ):
            failed[stored_batch.case_ids[record.key]][record.version] = record
    newest = NewestRecords(transaction, state.rollout)
    own_ids = {case_id for case_id, _ in newest.find_own_decisions(predicted)}
    stored_cases = newest.load_cases((failed.keys() & predicted) | own_ids)
    cases = {n: case for n, case in stored_cases.items() if case.site in state.policy.sites_by_id}
    acting_versions = _find_acting_versions(transaction, state, cases)
    return [
        case
        for case_id, case in cases.items()
        if case_id in own_ids
        or (
            (version := acting_versions.get(case_id, IN_SHADOW).version)
            and find_by_any_name(state.scope, version, failed[case_id])
        )
    ]


def _plan_reviews(
    transaction: Transaction, state: RolloutState, cases: Mapping[int, Case], at: datetime
) -> Iterator[NewReviewTask]:
    """Yield the review tasks of new cases, by case number."""
    policy = state.policy
    acting_versions = _find_acting_versions(transaction, state, cases)
    predictions = NewestRecords(transaction, state.rollout).load_predictions(acting_versions)
    for case_id, case in cases.items():
        version, stage_level, is_familiar, floor = acting_versions.get(case_id, IN_SHADOW)[:4]
        case_predictions = predictions.get(case_id, {})
        is_trusted = is_familiar
        if version is not None:
            prediction = find_by_any_name(state.scope, version, case_predictions)
            has_action = prediction is None or prescribes_actions(policy, prediction)
            confidence = None if prediction is None else prediction.confidence
            is_trusted = is_familiar and has_action and reaches_floor(confidence, floor)
        review_tasks = plan_review_tasks(
            policy,
            stage_level,
            draws=state.draw_case_values(policy, case),
            is_trusted=is_trusted,
        )
        if not review_tasks and {prediction.decider for prediction in case_predictions.values()} - {
            None
        } == {"human"}:
            # every client was told that a human decides
            review_tasks = (PlannedReviewTask(BLIND),)
        for review_task in review_tasks:
            shown_version = version if review_task.kind == ASSISTED else None
            yield build_review(state, case_id, case, review_task, at, version=shown_version)


def _find_acting_versions(
    transaction: Transaction, state: RolloutState, cases: Mapping[int, Case]
) -> Mapping[int, ActingOnCase]:
    """Return which version acts on each case above shadow."""
    scopes = _load_scopes(transaction, state, [case.occurred_at for case in cases.values()])
    acting_versions = {}
    for case_id, case in cases.items():
        scope, cell = scopes[case.occurred_at], Cell(case.site, case.window)
        acting_grant = find_acting_version(scope, state.policy, cell, case.occurred_at)
        if acting_grant is not None:
            version, stage_level = acting_grant
            unfamiliar = find_unfamiliar_values(scope, state.policy, cell, version, case.attributes)
            cell_state = scope.get_cell_state(cell, version)
            floor = find_decided_floor(state.policy, cell_state, stage_level)
            acting_versions[case_id] = ActingOnCase(version, stage_level, not unfamiliar, floor)
    return acting_versions


def build_review(
    state: RolloutState,
    case_id: int,
    case: Case,
    review_task: PlannedReviewTask,
    at: datetime,
    *,
    version: str | None = None,
    known_answers: Mapping[str, str] | None = None,
) -> NewReviewTask:
    """Return a new review task; its deadlines follow from the case's times."""
    is_adjudication = review_task.kind == ADJUDICATE  # for reports, which have no deadline
    return NewReviewTask(
        case_id=case_id,
        kind=review_task.kind,
        task_number=review_task.number,
        site=case.site,
        opened_at=at,
        sampling_value=compute_queue_value(state.rollout.salt, case.key),
        due_at=None if is_adjudication else compute_due_time(state.policy, case.occurred_at, at),
        answer_by=None
        if is_adjudication
        else compute_answer_deadline(state.policy, case.occurred_at),
        version=version,
        gold_answers=known_answers,
    )


def _load_scopes(
    transaction: Transaction, state: RolloutState, instants: Iterable[datetime]
) -> Mapping[datetime, Scope]:
    """Return the scope at each instant."""
    last_event_at = state.scope.at
    sorted_instants = sorted(set(instants))
    scopes = {
        at: state.scope for at in sorted_instants if last_event_at is None or at >= last_event_at
    }
    past_instants = [at for at in sorted_instants if at not in scopes]
    if not past_instants:
        return scopes
    ledger = Ledger(transaction, state.rollout)
    scope = ledger.load_scope_at(past_instants[0])
    later_events = list(
        takewhile(
            lambda event: event.at <= past_instants[-1], ledger.list_events(after=scope.revision)
        )
    )
    for at in past_instants:
        while later_events and later_events[0].at <= at:
            scope = apply_event(scope, later_events.pop(0))
        scopes[at] = scope
    return scopes


def withdraw_answered_reviews(
    transaction: Transaction, state: RolloutState, case_ids: Collection[int], at: datetime
) -> None:
    """Withdraw review tasks of cases that were decided elsewhere, as a named sender says.

    Any other could choose what nobody reviews, and so could one that predicted the case: what its
    decision withdrew before it predicted is open again. A case stays if a reviewer has claimed one
    of its tasks.
    """
    review_store = ReviewTaskStore(transaction, state.rollout)
    newest_records = NewestRecords(transaction, state.rollout)
    decisions = newest_records.load_decisions(case_ids)
    if not decisions:
        return
    own_decisions = newest_records.find_own_decisions(decisions)
    review_store.reopen({case_id for case_id, _ in own_decisions})
    started_case_ids = {
        review.case_id
        for review in review_store.list_of_cases(decisions)
        if review.kind in SAMPLED_KINDS and review.reviewer
    }
    outside_decisions = {
        case_id: [
            decision
            for reviewer, decision in decisions[case_id].items()
            if decision.review is None
            and decision.source != UNNAMED
            and (case_id, reviewer) not in own_decisions
        ]
        for case_id in sorted(decisions.keys() - started_case_ids)
    }
    settled_case_ids = [
        case_id
        for case_id, case_decisions in outside_decisions.items()
        if len({fold_name(d.reviewer) for d in case_decisions if _is_counted(state, d.exposure)})
        >= state.policy.evidence.verdicts
    ]
    review_store.withdraw([n for n, each in outside_decisions.items() if each], [ASSISTED], at=at)
    review_store.withdraw(settled_case_ids, [BLIND], at=at)


def _is_counted(state: RolloutState, exposure: str) -> bool:
    return exposure == BLIND or (exposure == UNKNOWN and state.policy.evidence.outside_blind)
