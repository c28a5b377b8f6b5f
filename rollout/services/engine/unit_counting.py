"""Bring recorded files into the store: each record once, each queued for when it is counted.

Imported cases count as received when their record says, or when they occurred: whoever imports
vouches for that, and for the times of predictions and decisions.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from typing import Any

import polars as pl

from rollout import faults
from rollout.core.policy.policy import Policy
from rollout.core.records.records import Case, Decision, Outcome, Prediction, Record
from rollout.services.engine.rollout_state import Standing, standing
from rollout.services.replay.replay import first_seen
from rollout.store.counting.count_queue import Due, DueQueue
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.versions import VersionFacts, Versions
from rollout.store.records.external_keys import CallerKeys
from rollout.store.records.history import StoredHistory
from rollout.store.records.records import Records as Store
from rollout.store.records.records import Verdict
from rollout.tally.case_placement import History, place
from rollout.tally.frames import ATTRIBUTE, VALUE, Records
from rollout.tally.slots import instant
from rollout.tally.units import resolve

AT_ONCE = 400  # cases in one transaction: nobody waits for a whole file
OTHER = "other"  # the window of a case that no window of the policy takes
FED = frozenset({"failures", "latency_p95", "harm", "heartbeat"})
Counts = Mapping[str, Mapping[str, int]]


def ingest(
    database: Database,
    name: str,
    records: Records,
    at: datetime,
    trained_until: Mapping[str, datetime] | None = None,
) -> Counts:
    """Keep records that were read from files, and say by kind what became of them.

    Sending the same again changes nothing and answers `duplicate`. Cases without a time are
    rejected; what was said of them waits for a case.

    Args:
        database: where the rollout is.
        name: of the rollout.
        records: the files' records, read under the policy in force.
        at: now.
        trained_until: by version, up to when its training cases reach.

    Raises:
        NoSuchRolloutError: there is no such rollout.
    """
    with database.reading() as transaction:
        state = standing(transaction, name)
    history = place(records, state.policy, state.rollout.salt, trained_until)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    untimed_count = records.cases["occurred_at"].null_count()
    if untimed_count:
        counts["case"][Verdict.REJECTED] += untimed_count
    _tell(database, state, _first_seen(records, history, at), trained_until or {})
    by_case = _by_case(records, history)
    keys = sorted(by_case, key=lambda key: _order(by_case[key]))
    for start in range(0, len(keys), AT_ONCE):
        batch = [record for key in keys[start : start + AT_ONCE] for record in by_case[key]]
        with database.writing() as transaction:
            _keep(transaction, standing(transaction, name), batch, at, counts)
    return counts


def _first_seen(records: Records, history: History, at: datetime) -> Mapping[str, datetime]:
    """Return when each version was first seen; a prediction may come without its case."""
    predictions_without_case = records.predictions.join(records.cases, on="case_key", how="anti")
    first_predictions = predictions_without_case.group_by("version").agg(
        at=pl.col("at").fill_null(at).min()
    )
    first_use = first_seen(records, history)
    for version, predicted_at in first_predictions.iter_rows():
        first_use[version] = min(predicted_at, first_use.get(version, predicted_at))
    return first_use


def _order(items: Sequence[tuple[datetime | None, Record]]) -> tuple[bool, datetime | None, str]:
    received_at, record = items[0]
    return (
        (received_at is None, received_at, record.key) if received_at else (True, None, record.key)
    )


def _tell(
    database: Database,
    stood: Standing,
    seen: Mapping[str, datetime],
    trained_until: Mapping[str, datetime],
) -> None:
    """Keep of each version when it was first seen, and what it was trained on."""
    with database.writing() as transaction:
        versions = Versions(transaction, stood.rollout)
        known_versions = versions.all()
        for version, first_used_at in seen.items():
            if version not in known_versions or version in trained_until:
                facts = VersionFacts(version, "import", trained_until.get(version))
                versions.tell(facts, at=first_used_at)


def _keep(
    transaction: Transaction,
    stood: Standing,
    batch: Sequence[tuple[datetime | None, Record]],
    at: datetime,
    counts: dict[str, Counter[str]],
) -> None:
    store = Store(transaction, stood.rollout)
    case_ids: set[int] = set()
    for received_at, group in groupby(
        sorted(batch, key=lambda item: (item[0] is None, item[0] or at)), key=lambda item: item[0]
    ):
        items = [record for _, record in group]
        stored_batch = store.keep(items, received_at=received_at or at)
        for record, record_result in zip(items, stored_batch.answers, strict=True):
            counts[type(record).__name__.lower()][record_result.verdict] += 1
            if record_result.verdict == Verdict.ACCEPTED:
                case_ids.add(stored_batch.case_ids[record.key])
    queue(transaction, stood, case_ids, at)


def queue(transaction: Transaction, stood: Standing, touched: set[int], at: datetime) -> None:
    """Write for each unit of the cases touched when it is to be counted.

    Where guards look at more than verdicts, note too that something of these cases came in: what
    tickers hold in memory grows by it.

    Args:
        transaction: the writing one that keeps the records.
        stood: the rollout's standing.
        touched: numbers of the cases of which something was accepted.
        at: now, when it came in; not when it happened.
    """
    if not touched:
        return
    if looks_at_more(stood.policy):
        DueQueue(transaction, stood.rollout).note_arrived(touched, at)
    queue_units(transaction, stood, units_of(transaction, stood, touched))
    faults.point("ingest.due")


def queue_units(transaction: Transaction, stood: Standing, units: pl.DataFrame) -> None:
    """Write when each unit is to be counted; one that is queued already is not doubled."""
    case_ids = CallerKeys(transaction, stood.rollout).find(units["case_key"].unique().to_list())
    due_units = units.select("slot", "case_key", "track").unique().sort("slot", "case_key", "track")
    DueQueue(transaction, stood.rollout).add(
        Due(instant(slot, stood.policy.tick), case_ids[key], track)
        for slot, key, track in due_units.iter_rows()
    )


def units_of(
    transaction: Transaction,
    stood: Standing,
    case_ids: set[int],
    people: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Return the units of some cases, with their episodes', as `resolve` gives them.

    `people`, from `reviewer_checks.people_of`, says whose verdicts are left out; to know when units
    are counted nobody needs it.
    """
    record_history = stored_history(transaction, stood)
    all_case_ids, episode_span = (
        record_history.with_episodes(case_ids),
        stood.policy.evidence.episode_span,
    )
    if stood.policy.evidence.unit == "episode" and episode_span is not None:
        all_case_ids |= record_history.with_spans(case_ids, episode_span)
    records = replace(record_history.records(all_case_ids), people=people)
    placement = place(records, stood.policy, stood.rollout.salt, stood.trained_until)
    return resolve(placement.placed, stood.policy).collect("polars").to_native()  # type: ignore[no-any-return]


def looks_at_more(policy: Policy) -> bool:
    """Say whether some guard looks at answers, harm or silence."""
    return any(guard.condition.measure in FED for guard in policy.guards)


def stored_history(transaction: Transaction, stood: Standing) -> StoredHistory:
    """Return the rollout's records with what its policy reads of them."""
    windows = stood.policy.windows
    return StoredHistory(
        transaction,
        stood.rollout,
        levers=[lever.id for lever in stood.policy.levers],
        attributes=sorted({attribute for window in windows for attribute in window.when}),
    )


def _by_case(records: Records, history: History) -> dict[str, list[tuple[datetime | None, Record]]]:
    """Return each case's records with when they were received, the case itself first."""
    records_by_case: dict[str, list[tuple[datetime | None, Record]]] = defaultdict(list)
    for received_at, record in _records(records, history):
        records_by_case[record.key].append((received_at, record))
    return records_by_case


def _records(records: Records, history: History) -> Iterator[tuple[datetime | None, Record]]:
    placement = history.cases.select("case_key", "window", unit="unit")
    timed_cases = records.cases.filter(pl.col("occurred_at").is_not_null())
    rows = timed_cases.join(placement, on="case_key", how="left", maintain_order="left").to_dicts()
    occurred_times = {row["case_key"]: row["occurred_at"] for row in rows}
    for row in rows:
        yield row["received_at"] or row["occurred_at"], _case(row)
    for row in records.predictions.to_dicts():
        yield None, _prediction(row)
    for row in records.decisions.to_dicts():
        yield None, _decision(row, occurred_times.get(row["case_key"]))
    for row in records.outcomes.to_dicts():
        at = row["at"] or occurred_times.get(row["case_key"])
        if at is not None:
            yield None, Outcome(key=row["case_key"], at=at, answers=_said(row), harm=row["harm"])


def _case(row: Mapping[str, Any]) -> Case:
    unit = row["unit"]
    is_spanned = row["episode"] is None and unit not in {None, row["case_key"]}
    attributes = {
        column.removeprefix(ATTRIBUTE): v
        for column, v in row.items()
        if column.startswith(ATTRIBUTE)
    }
    return Case(
        key=row["case_key"],
        site=row["site"],
        occurred_at=row["occurred_at"],
        window=row["window"] or OTHER,
        episode=unit if is_spanned else row["episode"],
        attributes={
            rollout_name: value for rollout_name, value in attributes.items() if value is not None
        },
    )


def _prediction(row: Mapping[str, Any]) -> Prediction:
    columns = ("version", "confidence", "latency_ms", "error", "at")
    return Prediction(
        key=row["case_key"],
        answers=_said(row),
        **{rollout_name: row[rollout_name] for rollout_name in columns},
    )


def _decision(row: Mapping[str, Any], occurred_at: datetime | None) -> Decision:
    return Decision(
        key=row["case_key"],
        reviewer=row["reviewer"],
        answers=_said(row),
        claims=row["exposure"],
        exposure=row["exposure"],  # no page of ours showed anything: the claim is all there is
        unsure=bool(row["unsure"]),
        started_at=row["started_at"],
        submitted_at=row["at"] or occurred_at,
        seat=row["seat"],
    )


def _said(row: Mapping[str, Any]) -> dict[str, str | None]:
    return {
        column.removeprefix(VALUE): value
        for column, value in row.items()
        if column.startswith(VALUE)
    }
