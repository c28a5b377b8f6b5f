"""Notes on accepted records that may not count as the sender expects."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from rollout.data.records.incoming_cases import IncomingCase
from rollout.data.records.records import RecordReceipt, RecordStatus, StoredBatch
from rollout.data.tables.columns import encode_instant
from rollout.engine.evidence.late_senders import LateSenders, recognise_senders
from rollout.engine.records.records import (
    Case,
    Decision,
    Outcome,
    Prediction,
    Record,
    is_registered,
    list_drawn,
)
from rollout.engine.words.evidence_text import describe_registering
from rollout.kernel.calendar.instants import count_micros
from rollout.kernel.policy.evidence_sources import NOT_NAMED, UNNAMED
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
    judged_count = 0
    delays: dict[int, tuple[int, int]] = {}
    for case_id in silent_ids:
        case = case_facts[case_id]
        if case.first_decided is None or not case.places:
            continue
        judged_count += 1
        after_case = received - min([occurred for _, occurred, _ in case.places])
        after_decision = received - case.first_decided
        if after_decision > 0 and after_case > within:
            delays[case_id] = after_case, after_decision
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
    return first, recognise_senders(list(delays.values()), judged_count, account)


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
        record_results = zip(records, stored_batch.results, strict=True)
        return [
            add_note(record_result, self.find_note(record))
            if record_result.status is RecordStatus.ACCEPTED
            else record_result
            for record, record_result in record_results
        ]

    def _has_notes(self, stored_batch: StoredBatch) -> bool:
        """Return whether any accepted record needs a note; most batches have none.

        Equal answers are checked once.
        """
        sites = {site for _, site in stored_batch.list_accepted(Case, "site")}
        if not sites <= self._sites.keys():
            return True
        revisions = {revision for _, revision in stored_batch.list_accepted(Case, "revision")}
        if not all(map(is_registered, revisions)):
            return True
        kind_columns = ((Decision, "source"), (Outcome, "source_kind"))
        kinds = (stored_batch.list_accepted(*column) for column in kind_columns)
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

    def find_note(self, record: Record) -> str:
        """Return the note on an accepted record, or ""."""
        if isinstance(record, Case):
            if record.site not in self._sites:
                return f"{record.site} is no site of the policy: kept, never evidence"
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
