"""Store the cases and predictions that clients send with their questions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from msgspec.structs import replace

from rollout import faults
from rollout.data.database.session import Transaction
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import IncomingCases
from rollout.data.records.records import RecordReceipt, RecordStatus
from rollout.data.tables.record_tables import encode_instant
from rollout.engine.decide.assignment import Assignment, compute_answer_digest
from rollout.engine.files.parse import ItemReader, SentItem
from rollout.engine.records.policy_actions import prescribes_actions
from rollout.engine.records.records import Case, Prediction, RejectedItem, mark_unregistered
from rollout.features.records.ingest import store_asked_cases
from rollout.features.records.record_notes import RecordNotes, add_note
from rollout.kernel.errors import describe_value_error
from rollout.kernel.policy.stages import find_content_fault, parse_content
from rollout.live.evidence.unit_counting import WindowLookup
from rollout.live.rollout_state import RolloutState, retry_on_stale_revision
from rollout.live.service import Service
from rollout.live.state_cache import ClientQuestion

ContentFaults = Mapping[int, str]
"""By place of a question, why its declared content is not the version's."""


class RecordableQuestion(ClientQuestion, Protocol):
    """A question that may declare its version's content and hold a prediction to store."""

    @property
    def content(self) -> str | None:
        """Return the declared hash of the version's weights and pre-processing."""

    @property
    def has_prediction(self) -> bool:
        """Return whether the question holds a prediction."""

    @property
    def has_two_confidences(self) -> bool:
        """Return whether the prediction has another confidence than the question."""

    def build_records(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return case and prediction in the form of sent records."""


def find_content_faults(
    state: RolloutState, questions: Sequence[RecordableQuestion]
) -> ContentFaults:
    """Return the faults of declared contents; unknown versions have none."""
    if {question.content for question in questions} <= {None, ""}:  # faster than `any`
        return {}
    faults = {
        place: _find_fault(state, question.version, question.content)
        for place, question in enumerate(questions)
        if question.content
    }
    return {place: fault for place, fault in faults.items() if fault}


def list_declared_contents(questions: Sequence[RecordableQuestion]) -> dict[str, str]:
    """Return by version the content that its first question with a usable one declares."""
    contents: dict[str, str] = {}
    for question in questions:
        if question.content and not describe_value_error(parse_content, question.content):
            contents.setdefault(question.version, question.content)
    return contents


def _find_fault(state: RolloutState, version: str, declared: str) -> str:
    stored = state.versions.get(version)
    if form_fault := describe_value_error(parse_content, declared):
        return form_fault
    if stored is None:
        return ""
    by_policy = state.policy.contents_by_version.get(version, "")
    content = stored.info.content or by_policy
    return find_content_fault(version, declared=declared, content=content, by_policy=by_policy)


def find_sampled(state: RolloutState, questions: Sequence[ClientQuestion]) -> list[int]:
    """Return the places of the questions whose version runs on a sample of the cases."""
    samples = state.policy.samples_by_version
    if not samples:
        return []
    return [
        place
        for place, question in enumerate(questions)
        if state.find_draw(dict.fromkeys(samples, True), question.version)
    ]


def load_draws(
    service: Service, state: RolloutState, questions: Sequence[RecordableQuestion]
) -> list[bool | None]:
    """Return whether the sample of each question's version has the case; None if that is unknown.

    A case is drawn once it is stored. Who could ask without that could choose a key that isn't.
    """
    draws: list[bool | None] = [None] * len(questions)
    sampled = find_sampled(state, questions)
    if not sampled:
        return draws
    with service.database.begin_read() as transaction:
        keys = {questions[place].key for place in sampled if "\0" not in questions[place].key}
        case_ids = ExternalKeys(transaction, state.rollout).find_ids(keys)
        stored = IncomingCases(transaction, state.rollout).load_draws(case_ids.values())
    for place in sampled:
        question, case_id = questions[place], case_ids.get(questions[place].key, 0)
        if case_id in stored:
            is_drawn = state.find_draw(stored[case_id], question.version)
            draws[place] = True if is_drawn is None else is_drawn  # it came before the sample
        elif question.has_prediction and question.at and question.at.utcoffset() is not None:
            place_facts = (question.site, encode_instant(question.at), question.episode)
            drawn = state.draw_case(question.key, *place_facts)
            draws[place] = state.find_draw(drawn, question.version)
    return draws


NOT_STORED: Final = "it could not be kept, `recorded` says why: humans decide"
NO_ACTION: Final = "the policy has no action for this prediction: humans decide"
REFUSED_STATUSES: Final = frozenset({RecordStatus.CONFLICT, RecordStatus.REJECTED})


@dataclass(frozen=True, slots=True)
class RecordedQuestions:
    """What became of the records in questions, in the order of the questions.

    Attributes:
        results: None for a question without prediction.
        answer_digests: of the stored answers, to which the permits are bound; "" without one.
    """

    results: Sequence[RecordReceipt | None]
    answer_digests: Sequence[str]


class PeopleDecideError(Exception):
    """What was sent of some cases leaves them to people, each for a reason."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = reasons


def record_questions(
    service: Service,
    state: RolloutState,
    sender_name: str,
    questions: Sequence[RecordableQuestion],
    assignments: Sequence[Assignment],
    reasons: Mapping[str, str],
    now: datetime,
) -> RecordedQuestions:
    """Store cases and predictions with their assignments in one transaction.

    Those with a fault of their declared content are rejected. A case that a model would decide
    whose prediction failed, or has an answer that the policy lacks, is left to people.

    Args:
        reasons: by key why people decide cases, as an earlier call raised them.

    Raises:
        PeopleDecideError: so it is with others; nothing was stored.
    """
    results: list[RecordReceipt | None] = [None] * len(questions)
    pairs: dict[int, tuple[Case, Prediction]] = {}
    content_faults = find_content_faults(state, questions)
    for index, sent_pair in _parse_records(state, questions, now).items():
        if index in content_faults:
            results[index] = RecordReceipt(RecordStatus.REJECTED, content_faults[index])
            continue
        match sent_pair:
            case (Case() as case, Prediction() as prediction):
                assignment = assignments[index]
                answered = replace(
                    prediction,
                    scope_revision=assignment.revision,
                    decider=assignment.decider,
                    exposure=assignment.exposure,
                    share=assignment.share,
                )
                pairs[index] = (case, answered)
            case _:
                reason = "; ".join(
                    item.reason for item in sent_pair if isinstance(item, RejectedItem)
                )
                results[index] = RecordReceipt(RecordStatus.REJECTED, reason)
    answer_digests = [
        compute_answer_digest(pairs[index][1].answers) if index in pairs else ""
        for index in range(len(questions))
    ]
    if unusable := {
        case.key
        for case, prediction in pairs.values()
        if prediction.decider == "model" and not prescribes_actions(state.policy, prediction)
    }:
        raise PeopleDecideError(dict.fromkeys(unusable, NO_ACTION))
    if not pairs:
        _check_conflicts(questions, results, reasons)
        return RecordedQuestions(results, answer_digests)

    def _write_records() -> Sequence[RecordReceipt | None]:
        with service.database.begin_write() as transaction:
            stored_results = _store_records(transaction, state, sender_name, pairs, results, now)
            _check_conflicts(questions, stored_results, reasons)
            faults.reach_point("assign.kept")
        return stored_results

    # repeated if the ledger moved: an incident may have to be opened
    return RecordedQuestions(retry_on_stale_revision(_write_records), answer_digests)


def _parse_records(
    state: RolloutState, questions: Sequence[RecordableQuestion], now: datetime
) -> dict[int, list[SentItem]]:
    """Parse the records in questions as if they had been sent alone."""
    predicted_indexes = [
        index for index, question in enumerate(questions) if question.has_prediction
    ]
    if not predicted_indexes:
        return {}
    items = [item for index in predicted_indexes for item in questions[index].build_records()]
    find_window = WindowLookup(state.policy).find_window
    reader = ItemReader(find_window, now, state.policy.set_labels)
    sent_records = reader.read_body(json.dumps(items).encode())
    return {
        index: sent_records[2 * position : 2 * position + 2]
        for position, index in enumerate(predicted_indexes)
    }


def _store_records(
    transaction: Transaction,
    state: RolloutState,
    sender_name: str,
    pairs: Mapping[int, tuple[Case, Prediction]],
    results: Sequence[RecordReceipt | None],
    now: datetime,
) -> list[RecordReceipt | None]:
    cases, predictions = zip(*pairs.values(), strict=True)
    stored_records = store_asked_cases(transaction, state, sender_name, cases, predictions, now)
    stored_results = list(results)
    case_results, prediction_results = stored_records[: len(pairs)], stored_records[len(pairs) :]
    notes, registers = RecordNotes(state.policy), state.policy.evidence.sources.registers
    for index, case, prediction in zip(pairs, case_results, prediction_results, strict=True):
        record_result = case
        if case.status not in REFUSED_STATUSES:
            record_result = add_note(prediction, notes.find_note(pairs[index][1]))
            if not registers(sender_name):
                note = notes.find_note(mark_unregistered(pairs[index][0]))
                record_result = add_note(record_result, note)
        stored_results[index] = record_result
    return stored_results


def _check_conflicts(
    questions: Sequence[RecordableQuestion],
    results: Sequence[RecordReceipt | None],
    reasons: Mapping[str, str],
) -> None:
    """Raise on new conflicts: the assignments are no longer valid then."""
    question_results = zip(questions, results, strict=True)
    refused_cases = frozenset(
        question.key
        for question, result in question_results
        if result is not None and result.status in REFUSED_STATUSES
    )
    if refused_cases - reasons.keys():
        raise PeopleDecideError(dict.fromkeys(refused_cases, NOT_STORED))
