"""Import recorded files: each record once, judged as if sent now."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl

from rollout.core.errors import RefusalError
from rollout.core.policy.evidence_sources import IMPORTS
from rollout.core.policy.version_rules import find_content_fault
from rollout.core.records.records import Case, Decision, Outcome, Prediction, Record, select_kind
from rollout.core.records.reviews import BLIND
from rollout.core.scope.permissions import Caller
from rollout.services.engine.command_handler import retry_on_stale_revision
from rollout.services.engine.rollout_state import RolloutState, load_rollout_state
from rollout.services.engine.training_cutoffs import append_training_cutoffs
from rollout.services.engine.unit_counting import queue_cases
from rollout.services.engine.versions import check_version_names
from rollout.services.records.decision_places import DecisionPlaces, describe_missing_case
from rollout.services.records.reviewer_check import ReviewerCheck
from rollout.services.replay.file_contents import list_file_contents
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.versions import VersionStore, build_version_info
from rollout.store.records.record_rows import is_storable_name
from rollout.store.records.records import RecordStatus, RecordStore, build_rejected_record
from rollout.store.records.rejected_records import RejectedRecords
from rollout.tally.case_draws import DRAWS
from rollout.tally.case_placement import find_first_predictions, locate_cases
from rollout.tally.frames import (
    ATTRIBUTE_PREFIX,
    OUTCOME_PREFIX,
    SAMPLED_ARM,
    VALUE_PREFIX,
    RecordFrames,
)

CASES_PER_TRANSACTION = 400  # so that other writers don't wait for a whole file
OTHER_WINDOW = "other"  # of cases outside the policy's windows
StatusCounts = Mapping[str, Mapping[str, int]]
Populations = Sequence[tuple[RecordFrames, pl.DataFrame]]  # records, and their located cases


@dataclass(frozen=True, slots=True)
class VersionStatements:
    """What an importer states about versions, beside the files.

    Attributes:
        trained_until: by version the end of its training cases.
        contents: by version the hash of its weights and pre-processing.
        by: the importer; None for the engine.
    """

    trained_until: Mapping[str, datetime] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
    by: Caller | None = None


NO_STATEMENTS: Final = VersionStatements()


class OtherContentError(RefusalError):
    """A content was declared that is not the version's."""

    code = "conflict"


def check_declared_contents(
    state: RolloutState, records: RecordFrames, declared: Mapping[str, str]
) -> None:
    """Raise an error if a content, of `declared` or of the files, is not that of its version.

    Raises:
        OtherContentError: a version has another content, was used without one, or is unknown.
    """
    versions_in_file = set(records.predictions["version"].unique())
    for version, content in {**list_file_contents(records), **declared}.items():
        if version not in versions_in_file:
            names = ", ".join(sorted(versions_in_file)) or "none"
            raise OtherContentError(
                f"--content names {version}, of which the file has no prediction; its versions:"
                f" {names}"
            )
        stored, by_policy = state.versions.get(version), state.policy.contents_by_version
        fault = find_content_fault(
            version,
            declared=content,
            content=content if stored is None else stored.info.content,
            by_policy=by_policy.get(version, ""),
        )
        if fault:
            raise OtherContentError(f"nothing was imported: {fault}")


def import_records(
    database: Database,
    rollout_name: str,
    records: RecordFrames,
    at: datetime,
    stated: VersionStatements = NO_STATEMENTS,
    senders: Mapping[str, str] | None = None,
) -> StatusCounts:
    """Store records of files; return the number of each status by kind.

    A repeated import stores nothing and returns `duplicate`. Planted cases are declared before.
    Cases without a time are rejected;
    their predictions and decisions are stored. `senders` are by kind the file of its records.

    Raises:
        OtherContentError: a version has another content; nothing was stored.
        NoSuchRolloutError: there is no such rollout.
    """
    started_at = time.monotonic()
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, rollout_name)
    check_declared_contents(state, records, stated.contents)
    stated = replace(stated, contents={**list_file_contents(records), **stated.contents})
    populations = [
        (part, locate_cases(part, state.policy))
        for part in (records, records.planted)
        if part is not None
    ]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    untimed_count = sum(part.cases["occurred_at"].null_count() for part, _ in populations)
    if untimed_count:
        counts["case"][RecordStatus.REJECTED] += untimed_count
    first_use = _find_first_use(populations, at)
    retry_on_stale_revision(lambda: _record_versions(database, rollout_name, first_use, stated, at))
    by_case = _group_by_case(populations)
    draws = {
        key: json.loads(text)
        for part, _ in populations
        for key, text in part.cases.select("case_key", DRAWS).drop_nulls().iter_rows()
    }
    keys = sorted(by_case, key=lambda key: _sort_key(by_case[key]))
    for start in range(0, len(keys), CASES_PER_TRANSACTION):
        batch = [
            record for key in keys[start : start + CASES_PER_TRANSACTION] for record in by_case[key]
        ]
        with database.begin_write() as transaction:
            state = load_rollout_state(transaction, rollout_name)
            case_ids = _store_batch(transaction, state, batch, at, senders, counts, draws)
            # tickers read no arrival that is much older than their last tick
            arrived_at = at + timedelta(seconds=time.monotonic() - started_at)
            queue_cases(transaction, state, case_ids, arrived_at)
    return counts


def _find_first_use(populations: Populations, at: datetime) -> Mapping[str, datetime]:
    """Return the first use of each version, also by predictions without case."""
    first_use: dict[str, datetime] = {}
    for records, cases in populations:
        without_case = records.predictions.join(records.cases, on="case_key", how="anti")
        first_predictions = without_case.group_by("version").agg(
            at=pl.col("at").fill_null(at).min()
        )
        times = (*find_first_predictions(records, cases).items(), *first_predictions.iter_rows())
        for version, predicted_at in times:
            first_use[version] = min(predicted_at, first_use.get(version, predicted_at))
    return {version: at for version, at in first_use.items() if is_storable_name(version)}


def _sort_key(items: Sequence[tuple[datetime | None, Record]]) -> tuple[bool, datetime | None, str]:
    received_at, record = items[0]
    return (
        (received_at is None, received_at, record.key) if received_at else (True, None, record.key)
    )


def _record_versions(
    database: Database,
    rollout_name: str,
    first_use: Mapping[str, datetime],
    stated: VersionStatements,
    at: datetime,
) -> None:
    """Store each version's first use, its content, and the end of its training cases."""
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, rollout_name)
        contents = {**stated.contents, **state.policy.contents_by_version}
        versions = VersionStore(transaction, state.rollout)
        known_versions = versions.list_all()
        in_order = sorted(first_use.items(), key=lambda item: (item[1], item[0]))
        is_changed: dict[str, bool] = {}
        for version, first_used_at in in_order:  # the first of several names is stored first
            stored, until = known_versions.get(version), stated.trained_until.get(version)
            if stored is None:
                check_version_names(transaction, state, [version])
                facts = build_version_info(version, "import", contents, until)
                versions.record_info(facts, at=at, first_used_at=first_used_at)
            elif until is not None:
                versions.record_info(replace(stored.info, trained_until=until), at=at)
            if until is not None:
                is_changed[version] = stored is None or stored.info.trained_until != until
        # imported records are older than the import, so the entry takes the time of the last one
        append_training_cutoffs(transaction, state, is_changed, stated.by, state.scope.at or at)


def _store_batch(
    transaction: Transaction,
    state: RolloutState,
    batch: Sequence[tuple[datetime | None, Record]],
    at: datetime,
    senders: Mapping[str, str] | None,
    counts: dict[str, Counter[str]],
    draws: Mapping[str, Mapping[str, bool]],
) -> set[int]:
    """Store records and return the cases of accepted ones."""
    source = None if senders is None else IMPORTS
    store = RecordStore(transaction, state.rollout)
    case_ids: set[int] = set()
    in_order = sorted(batch, key=lambda item: (item[0] is None, item[0] or at))
    check = ReviewerCheck(transaction, state)
    records = [record for _, record in in_order]
    decisions = select_kind(records, Decision)
    faults = check.find_faults(decisions)
    sent = {case.key for case in select_kind(records, Case)}
    placed = DecisionPlaces(transaction, state, at).list_placed({d.key for d in decisions} - sent)
    unplaced = {d.key for d in decisions} - sent - placed
    missing = describe_missing_case(state.policy.evidence.sources)

    def find_fault(record: Record) -> str:
        if not isinstance(record, Decision):
            return ""
        return faults.get(record.reviewer, missing if record.key in unplaced else "")

    refused = [build_rejected_record(r, fault) for _, r in in_order if (fault := find_fault(r))]
    in_order = [item for item in in_order if not find_fault(item[1])]
    RejectedRecords(transaction, state.rollout).add(refused, received_at=at)
    if refused:
        counts["decision"][RecordStatus.REJECTED] += len(refused)
    items = [record.with_source(source) for _, record in in_order]
    times = [received_at or at for received_at, _ in in_order]
    stored_batch = store.store(
        items,
        received_at=times,
        sender=senders,
        draw_case=lambda key, *_: draws.get(key, {}),
    )
    for record, record_result in zip(items, stored_batch.results, strict=True):
        counts[type(record).__name__.lower()][record_result.status] += 1
        if record_result.status == RecordStatus.ACCEPTED:
            case_ids.add(stored_batch.case_ids[record.key])
    return case_ids


def _group_by_case(
    populations: Populations,
) -> dict[str, list[tuple[datetime | None, Record]]]:
    """Return each case's records and times of receipt, the case first."""
    records_by_case: dict[str, list[tuple[datetime | None, Record]]] = defaultdict(list)
    for records, cases in populations:
        for received_at, record in _iterate_records(records, cases):
            records_by_case[record.key].append((received_at, record))
    return records_by_case


def _iterate_records(
    records: RecordFrames, cases: pl.DataFrame
) -> Iterator[tuple[datetime | None, Record]]:
    placement = cases.select("case_key", "window", unit="unit")
    timed_cases = records.cases.filter(pl.col("occurred_at").is_not_null())
    rows = timed_cases.join(placement, on="case_key", how="left", maintain_order="left").to_dicts()
    occurred_times = {row["case_key"]: row["occurred_at"] for row in rows}
    for row in rows:
        yield row["received_at"] or row["occurred_at"], _build_case(row)
    for row in records.predictions.to_dicts():
        occurred_at = occurred_times.get(row["case_key"])
        yield row["received_at"] or row["at"] or occurred_at, _build_prediction(row)
    for row in records.decisions.to_dicts():
        decision = _build_decision(row, occurred_times.get(row["case_key"]))
        yield row["received_at"] or decision.submitted_at, decision
    for row in records.outcomes.to_dicts():
        at = row["at"] or occurred_times.get(row["case_key"])
        if at is not None:
            yield (
                at,
                Outcome(
                    key=row["case_key"],
                    at=at,
                    answers=_extract_answers(row),
                    values=_extract_values(row),
                    harm=row["harm"],
                ),
            )


def _build_case(row: Mapping[str, Any]) -> Case:
    unit = row["unit"]
    is_spanned = row["episode"] is None and unit not in {None, row["case_key"]}
    attributes = {
        column.removeprefix(ATTRIBUTE_PREFIX): value
        for column, value in row.items()
        if column.startswith(ATTRIBUTE_PREFIX) and value is not None
    }
    return Case(
        key=row["case_key"],
        site=row["site"],
        occurred_at=row["occurred_at"],
        window=row["window"] or OTHER_WINDOW,
        episode=unit if is_spanned else row["episode"],
        attributes=attributes,
    )


def _build_prediction(row: Mapping[str, Any]) -> Prediction:
    columns, arm = ("version", "confidence", "latency_ms", "error", "at"), row.get(SAMPLED_ARM)
    return Prediction(
        key=row["case_key"],
        answers=_extract_answers(row),
        decider=arm,  # who acted in the recorded experiment; files have no share
        exposure=None if arm is None else BLIND,
        **{column: row[column] for column in columns},
    )


def _build_decision(row: Mapping[str, Any], occurred_at: datetime | None) -> Decision:
    return Decision(
        key=row["case_key"],
        reviewer=row["reviewer"],
        answers=_extract_answers(row),
        claims=row["exposure"],
        exposure=row["exposure"],  # decided elsewhere: only the claim is known
        unsure=bool(row["unsure"]),
        started_at=row["started_at"],
        submitted_at=row["at"] or occurred_at,
        seat=row["seat"],
    )


def _extract_answers(row: Mapping[str, Any]) -> dict[str, str | None]:
    return {
        column.removeprefix(VALUE_PREFIX): value
        for column, value in row.items()
        if column.startswith(VALUE_PREFIX)
    }


def _extract_values(row: Mapping[str, Any]) -> dict[str, float]:
    return {
        column.removeprefix(OUTCOME_PREFIX): value
        for column, value in row.items()
        if column.startswith(OUTCOME_PREFIX) and value is not None
    }
