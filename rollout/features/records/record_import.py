"""Import recorded files of records and of actions, and who imported them, in the ledger.

Each record and action is stored once, and judged or authorized as if it was sent now.

Evidence counts from the time at which a record was received. Over HTTP the service takes that time
from its own clock; in an import it comes from a file. So the ledger names the importer, who vouches
for the times of receipt, and the files' hashes.
"""

import json
import re
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import file_digest
from pathlib import Path
from typing import Any, Final

import polars as pl

from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.record_rows import is_storable_name
from rollout.data.records.records import (
    RecordStatus,
    RecordStore,
    RejectedRecords,
    StoredBatch,
    build_rejected_record,
)
from rollout.data.records.versions import VersionStore, build_version_info
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.events import RecordsImported
from rollout.engine.evidence.case_placement import find_first_predictions, locate_cases
from rollout.engine.evidence.frames import (
    ATTRIBUTE_PREFIX,
    OUTCOME_PREFIX,
    SAMPLED_ARM,
    VALUE_PREFIX,
    RecordFrames,
)
from rollout.engine.evidence.version_uses import DRAWS
from rollout.engine.files.files import RecordPaths, read_whole_rows
from rollout.engine.files.mapped_rows import RecordError
from rollout.engine.files.parse import ActionWithPermit, ItemReader, SentItem
from rollout.engine.records.records import (
    Case,
    Decision,
    Outcome,
    Prediction,
    Record,
    RejectedItem,
    select_kind,
)
from rollout.engine.records.reviews import BLIND
from rollout.features.records.action_authorization import UNAUTHORIZED, authorize_actions
from rollout.features.records.decision_places import DecisionPlaces, describe_missing_case
from rollout.features.records.ingest import find_reviewer_faults
from rollout.features.records.unauthorized_actions import (
    report_clock_ahead,
    report_unauthorized_actions,
)
from rollout.features.replay.requests import list_file_contents
from rollout.kernel.calendar.instants import OTHER_WINDOW, Cell
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.evidence_sources import IMPORTS, build_file_sender
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy.stages import find_content_fault
from rollout.kernel.units import group_pairs
from rollout.live.clock import SystemClock
from rollout.live.evidence.unit_counting import WindowLookup, queue_new_cases
from rollout.live.rollout_state import (
    RolloutState,
    load_rollout_state,
    retry_on_stale_revision,
    write_rollout,
)
from rollout.live.service import PermitSigner
from rollout.live.versions import append_training_cutoffs, check_version_names

CASES_PER_TRANSACTION = 400  # so that other writers don't wait for a whole file
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
    by_case = group_pairs(
        (record.key, (received_at, record))
        for records, cases in populations
        for received_at, record in _iterate_records(records, cases)
    )
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
        with write_rollout(database, rollout_name) as (transaction, state):
            stored_batch = _store_batch(transaction, state, batch, at, senders, counts, draws)
            # tickers read no arrival that is much older than their last tick
            arrived_at = at + timedelta(seconds=time.monotonic() - started_at)
            queue_new_cases(transaction, state, stored_batch, at, arrived_at=arrived_at)
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
    with write_rollout(database, rollout_name) as (transaction, state):
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
) -> StoredBatch:
    """Store records and count their statuses; return the batch as stored."""
    source = None if senders is None else IMPORTS
    store = RecordStore(transaction, state.rollout)
    in_order = sorted(batch, key=lambda item: (item[0] is None, item[0] or at))
    records = [record for _, record in in_order]
    decisions = select_kind(records, Decision)
    faults = find_reviewer_faults(transaction, state, decisions)
    sent = {case.key for case in select_kind(records, Case)}
    placed = DecisionPlaces(transaction, state, at).list_placed({d.key for d in decisions} - sent)
    unplaced = {d.key for d in decisions} - sent - placed
    missing = describe_missing_case(state.policy.evidence.sources)

    def find_fault(record: Record) -> str:
        if not isinstance(record, Decision):
            return ""
        return faults.get(record.reviewer, missing if record.key in unplaced else "")

    refused = [
        build_rejected_record(decision, fault, is_placeless=decision.reviewer not in faults)
        for decision in decisions
        if (fault := find_fault(decision))
    ]
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
    return stored_batch


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
                    values={
                        column.removeprefix(OUTCOME_PREFIX): value
                        for column, value in row.items()
                        if column.startswith(OUTCOME_PREFIX) and value is not None
                    },
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


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file's name and the SHA-256 of its bytes."""

    name: str
    sha256: str


def compute_digests(sources: RecordPaths) -> tuple[FileDigest, ...]:
    """Return name and hash of each file, in the order of record kinds."""
    return tuple(compute_digest(path) for _, path in sources.list_files())


def build_senders(sources: RecordPaths, digests: Sequence[FileDigest]) -> Mapping[str, str]:
    """Return by kind of record the file that is its sender.

    Without a file of cases, the first file describes them.
    """
    file_senders = [build_file_sender(digest.sha256) for digest in digests]
    kinds = (kind.value.removesuffix("s") for kind, _ in sources.list_files())
    return {"case": file_senders[0], **dict(zip(kinds, file_senders, strict=True))}


def compute_digest(path: Path) -> FileDigest:
    """Return name and hash of a file."""
    with path.open("rb") as file:
        return FileDigest(path.name, file_digest(file, "sha256").hexdigest())


def vouch_for_import(
    database: Database,
    caller: Caller,
    rollout_name: str,
    records: RecordFrames,
    digests: Sequence[FileDigest],
    at: datetime,
) -> bool:
    """Append who imports which files; return False if the ledger has these files.

    Call it before the records are stored, so that none is there without it.

    Raises:
        NotAllowedError: the caller does not administer the rollout.
        NoSuchRolloutError: there is no such rollout.
        RefusalError: a time of receipt is later than `at`.
    """
    require_permission(caller, Permission.ADMINISTER, rollout_name)
    _check_receipts(records.cases, at)

    def append_import() -> bool:
        with write_rollout(database, rollout_name) as (transaction, state):
            ledger = Ledger(transaction, state.rollout)
            event = _build_event(state, caller.name, records, digests, at)
            known_rows = ledger.list_rows(kinds={RecordsImported.__name__})
            if event is None or any(
                row.fields["digests"] == list(event.digests) for row in known_rows
            ):
                return False
            ledger.append([event], after=state.scope.revision, access_head=caller.access_head)
            return True

    return retry_on_stale_revision(append_import)


def _check_receipts(cases: pl.DataFrame, at: datetime) -> None:
    late_cases = cases.filter(pl.col("received_at") > at)
    if late_cases.height:
        key, received_at = late_cases.select("case_key", "received_at").row(0)
        raise RefusalError(
            f"{late_cases.height} cases have a received_at in the future, first {key} at "
            f"{received_at:%Y-%m-%d %H:%M:%S} UTC; correct the column in the file of cases"
        )


def _build_event(
    state: RolloutState,
    importer: str,
    records: RecordFrames,
    digests: Sequence[FileDigest],
    at: datetime,
) -> RecordsImported | None:
    """Return the event of an import, or None if no case has a time."""
    timed_cases = records.cases.filter(pl.col("occurred_at").is_not_null())
    if timed_cases.is_empty():
        return None
    receipts = timed_cases.select(at=pl.coalesce("received_at", "occurred_at"))["at"]
    cell_counts = _count_cell_cases(state, records)
    return RecordsImported(
        at=state.scope.at or at,
        by=importer,
        imported_at=at,
        files=tuple(digest.name for digest in digests),
        digests=tuple(digest.sha256 for digest in digests),
        cases=timed_cases.height,
        stated_receipts=timed_cases["received_at"].count(),
        received_since=_get_instant(receipts.min()),
        received_until=_get_instant(receipts.max()),
        cells=tuple(cell_counts),
        cell_cases=tuple(cell_counts.values()),
    )


def _count_cell_cases(state: RolloutState, records: RecordFrames) -> dict[Cell, int]:
    """Return the number of cases in each cell of the policy that has any."""
    cases = locate_cases(records, state.policy)
    counts = cases.group_by("site", "window").len().sort("site", "window").iter_rows()
    cells = ((Cell(site, window), count) for site, window, count in counts)
    return {cell: count for cell, count in cells if cell in state.policy.cell_set}


def _get_instant(value: Any) -> datetime:
    assert isinstance(value, datetime)  # noqa: S101 - the smallest or largest of a column of times
    return value


ACTIONS_PER_TRANSACTION = 400  # so that other writers don't wait for a whole file


@dataclass(frozen=True, slots=True)
class ActionFile:
    """The actions of a file; `sender` names the file by its hash."""

    actions: Sequence[ActionWithPermit]
    sender: str


def read_action_file(path: Path, policy: Policy, now: datetime) -> ActionFile:
    """Return the actions of a file.

    Raises:
        RecordError: a column or a row can't be used.
        OSError: the file is missing.
    """
    items = read_action_rows(path, ItemReader(WindowLookup(policy).find_window, now))
    actions = [item for item in items if isinstance(item, ActionWithPermit)]
    return ActionFile(actions, build_file_sender(compute_digest(path).sha256))


def import_actions(
    database: Database, rollout_name: str, action_file: ActionFile, at: datetime
) -> Mapping[str, int]:
    """Store actions of a file; return the number of each status, and of unauthorized ones.

    Import their cases and predictions first. An action of the model without a permit of this
    service is unauthorized and opens an incident, as over HTTP.

    Raises:
        NoSuchRolloutError: there is no such rollout.
    """
    permit_signer = PermitSigner(database, SystemClock(), secrets.token_bytes)
    actions, counts = action_file.actions, Counter[str]()
    for start in range(0, len(actions), ACTIONS_PER_TRANSACTION):
        batch = ActionFile(actions[start : start + ACTIONS_PER_TRANSACTION], action_file.sender)
        store_batch = partial(_import_batch, database, rollout_name, batch, permit_signer, at)
        counts += retry_on_stale_revision(store_batch)
    return counts


def _import_batch(
    database: Database,
    rollout_name: str,
    batch: ActionFile,
    permit_signer: PermitSigner,
    at: datetime,
) -> Counter[str]:
    with write_rollout(database, rollout_name) as (transaction, state):
        store = RecordStore(transaction, state.rollout)
        keys, sender = {item.action.key for item in batch.actions}, batch.sender
        case_ids = store.store((), received_at=at, sender=sender, locked_keys=keys).case_ids
        results = authorize_actions(transaction, state, permit_signer, batch.actions, case_ids, at)
        stored_batch = store.store(
            [result.action for result in results], received_at=at, sender=sender
        )
        accepted = [
            result
            for result, receipt in zip(results, stored_batch.results, strict=True)
            if receipt.status is RecordStatus.ACCEPTED
        ]
        unauthorized = [result for result in accepted if result.action.permission == UNAUTHORIZED]
        queue_new_cases(transaction, state, stored_batch, at)
        report_unauthorized_actions(transaction, state, stored_batch, at, unauthorized=unauthorized)
        report_clock_ahead(transaction, state, sender, (r.action for r in accepted), at)
        counts = Counter(receipt.status.value for receipt in stored_batch.results)
        counts[UNAUTHORIZED] = len(unauthorized)
        return counts


ACTION_COLUMNS: Final = ("case_key", "lever", "action", "by", "at")
OPTIONAL_ACTION_COLUMNS: Final = ("model_version", "permit", "revision")
ACTION_NAMES: Final[Mapping[str, str]] = {"case_key": "key", "model_version": "version"}
"""Names in a sent action that differ from the columns of recorded files."""


def read_action_rows(path: Path, item_reader: ItemReader) -> Sequence[SentItem]:
    """Return the actions of a file: CSV, TSV, JSON lines or Parquet.

    Raises:
        RecordError: a column is missing or unknown, or a row can't be used; nothing is skipped.
        OSError: the file is missing.
    """
    rows = read_whole_rows(path, ACTION_COLUMNS, OPTIONAL_ACTION_COLUMNS)
    texts = [
        json.dumps(_build_action_item(row)).encode() for row in rows.cells.iter_rows(named=True)
    ]
    items = item_reader.read_lines(texts) if texts else []
    for line, item in zip(rows.lines, items, strict=True):
        if isinstance(item, RejectedItem):
            raise RecordError(path.name, line, None, "action", f"{item.reason}; correct the row")
    return items


def _build_action_item(row: Mapping[str, str | None]) -> Mapping[str, Any]:
    """Return a row in the form of a sent action."""
    item: dict[str, Any] = {
        ACTION_NAMES.get(name, name): text for name, text in row.items() if text is not None
    }
    if re.fullmatch("[0-9]{1,18}", item.get("revision", "")):
        item["revision"] = int(item["revision"])
    return {"kind": "action", **item}
