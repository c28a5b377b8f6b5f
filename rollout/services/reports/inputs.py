"""The inputs of a report, read from the store, as a replay provides them.

A report covers the cases of a period. Ledger and gate evidence end with the period; records of its
cases may arrive until each closes. Cases that may still be decided blind are excluded from
everything, so that no report reveals them.
"""

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from importlib.metadata import version

import polars as pl

from rollout.core.calendar.instants import from_micros
from rollout.core.errors import RefusalError
from rollout.core.ledger.ledger import BrokenLedgerError, CanonicalRow, parse_event
from rollout.core.policy.policy import Policy
from rollout.core.records.baselines import BaselineCount
from rollout.core.records.label_cleaning import CleaningChoice
from rollout.core.scope.events import LedgerEvent, PolicyApplied, ReportSealed
from rollout.core.scope.projection import apply_events
from rollout.core.scope.scope import Scope
from rollout.reports.inputs.inputs import (
    ACTION_SCHEMA,
    CellVersion,
    PendingReviews,
    PolicyPeriod,
    ReportInputs,
    SourceFile,
)
from rollout.services.engine.evidence_reader import EMPTY_GUARD_FEEDS
from rollout.services.engine.reviewer_checks import compute_reviewer_checks
from rollout.services.engine.rollout_state import RolloutState, parse_stored_policy
from rollout.services.engine.stage_history import LivePolicyPeriod as PastEra
from rollout.services.engine.stage_history import RolloutHistory
from rollout.store.counting.counted_units import CountedUnits
from rollout.store.counting.period_records import PeriodRecords
from rollout.store.database.session import Transaction
from rollout.store.ledger.accounts import Accounts
from rollout.store.ledger.evidence import EvidenceStore
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import PolicyTexts
from rollout.store.records.baselines import Baselines
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.records.history import StoredHistory
from rollout.store.reviews.cleanings import CleaningStore
from rollout.tally.case_placement import PlacedHistory, place_cases
from rollout.tally.evidence_view import EvidenceView
from rollout.tally.frames import RecordFrames
from rollout.tally.slots import find_slot_after, find_slot_before, to_instant
from rollout.tally.stage_history import StageHistory
from rollout.tally.unit_buffer import UnitBuffer
from rollout.tally.units import resolve_units

EXPIRY_FRACTION = 4  # a review task is about to expire in the last quarter of the grace


class NothingToReportError(RefusalError):
    """No report is possible for the period."""

    code = "nothing-to-report"


@dataclass(frozen=True, slots=True)
class ReportPeriod:
    """The cases from `since` to `until` (exclusive), as known at `at`."""

    since: datetime
    until: datetime
    at: datetime


def load_whole_period(transaction: Transaction, state: RolloutState, at: datetime) -> ReportPeriod:
    """Return the period from the rollout's start to its last slot."""
    started_at = next(Ledger(transaction, state.rollout).list_events(until=1)).at
    return ReportPeriod(
        started_at, to_instant(find_slot_before(at, state.policy.tick), state.policy.tick), at
    )


def load_report_inputs(
    transaction: Transaction, state: RolloutState, period: ReportPeriod
) -> ReportInputs:
    """Return the inputs of a report.

    Args:
        transaction: everything is read from its database snapshot.
        period: the policy at its end applies.

    Raises:
        NothingToReportError: the period is empty, or ended before the rollout started.
    """
    ledger_inputs = _load_ledger_inputs(transaction, state, period)
    record_inputs = _load_records(transaction, state, period, ledger_inputs.policy)
    last_slot = EvidenceStore(transaction, state.rollout).get_last_slot()
    history, policy = ledger_inputs.history, ledger_inputs.policy
    history.advance_to(find_slot_before(period.until, policy.tick))
    policy_periods = _build_policy_periods(history)
    period_records = PeriodRecords(transaction, state.rollout)
    is_counted = pl.col("slot") <= last_slot
    return ReportInputs(
        policy=policy,
        events=ledger_inputs.events,
        timelines=policy_periods[-1].timelines,
        evidence_views=_load_evidence_views(
            transaction, state, ledger_inputs, period, last_slot, record_inputs.open_units
        ),
        units=record_inputs.units.filter(is_counted),
        records=record_inputs.records,
        cases=record_inputs.history.cases,
        unplaced=record_inputs.history.excluded,
        first=max(period.since, ledger_inputs.events[0].at),
        last=period.until,
        salt=state.rollout.salt,
        is_simulated=False,
        sources=tuple(_iterate_sources(policy, record_inputs.records)),
        command=build_report_command(state.rollout.name, period),
        product=f"rollout-controller {version('rollout-controller')}",
        made_at=period.at,
        counted_until=max(to_instant(last_slot, policy.tick), ledger_inputs.events[0].at),
        closes_at=_compute_due_time(record_inputs.history.cases, policy, period),
        pending_units=record_inputs.units.filter(~is_counted & (pl.col("track") == "gate")),
        withheld_count=len(record_inputs.withheld_case_ids),
        actions=period_records.load_actions(record_inputs.case_ids, ACTION_SCHEMA),
        baselines=_load_baselines(transaction, state),
        pending_reviews=_load_pending_work(period_records, period, policy.evidence.grace),
        last_activity=period_records.load_last_received(),
        ledger_rows=ledger_inputs.rows,
        ledger_fault=_find_ledger_fault(transaction, state),
        policy_periods=policy_periods,
        choices=tuple(_iterate_choices(transaction, state, record_inputs.case_ids, period)),
    )


def build_report_command(rollout_name: str, period: ReportPeriod) -> str:
    """Return the command line that makes the same report."""
    arguments = ["--since", period.since.isoformat(), "--until", period.until.isoformat()]
    return shlex.join(["rollout", "report", rollout_name, *arguments])


@dataclass(frozen=True)
class _LedgerInputs:
    """The ledger's contents at the end of the period."""

    rows: tuple[CanonicalRow, ...]
    events: tuple[LedgerEvent, ...]
    scope: Scope
    policy: Policy
    history: RolloutHistory


def _load_ledger_inputs(
    transaction: Transaction, state: RolloutState, period: ReportPeriod
) -> _LedgerInputs:
    ledger = Ledger(transaction, state.rollout)
    rows = list(ledger.list_rows(until=ledger.find_revision_at(period.until)))
    while rows and rows[-1].event_kind == ReportSealed.__name__:
        rows.pop()  # the entry of a report must not change the next report
    events = tuple(map(parse_event, rows))
    if not any(isinstance(event, PolicyApplied) for event in events):
        started_at = next(ledger.list_events(until=1)).at.isoformat()
        raise NothingToReportError(
            f"{state.rollout.name} began at {started_at}; let the span end after it"
        )
    if period.since >= period.until:
        raise NothingToReportError(
            f"{period.since.isoformat()} is not before {period.until.isoformat()}"
        )
    applied_hashes = {event.policy_hash for event in events if isinstance(event, PolicyApplied)}
    texts = PolicyTexts(transaction, state.rollout).load_texts(applied_hashes)
    policies = {policy_hash: parse_stored_policy(text) for policy_hash, text in texts.items()}
    history, scope = RolloutHistory(), apply_events(events)
    history.add_events(events, policies.__getitem__)
    return _LedgerInputs(tuple(rows), events, scope, policies[scope.policy_hash], history)


def _build_policy_periods(history: RolloutHistory) -> tuple[PolicyPeriod, ...]:
    """Return the past policies, each with the cells' stages in its terms."""
    live_periods = history.policy_periods
    return tuple(
        PolicyPeriod(
            since=to_instant(live_period.first_slot, live_period.policy.tick),
            policy=live_period.policy,
            timelines={
                cell: _map_stage_history(history.get_stage_history(cell), live_periods, live_period)
                for cell in live_period.policy.cells
            },
        )
        for live_period in live_periods
    )


def _map_stage_history(
    stage_history: StageHistory, live_periods: Sequence[PastEra], live_period: PastEra
) -> StageHistory:
    """Return a cell's stage levels under one policy.

    A stage that the policy lacks is mapped to its level, at most the policy's highest.
    """
    mapped_history = StageHistory()
    for slot, row in zip(stage_history.slots, stage_history.stage_levels, strict=True):
        period_then = next(
            (candidate for candidate in reversed(live_periods) if candidate.first_slot <= slot),
            live_periods[0],
        )
        mapped_history = mapped_history.extend(
            slot,
            _map_stage_level(row - period_then.first_row if row else 0, period_then, live_period),
        )
    return mapped_history


def _map_stage_level(stage_level: int, period_then: PastEra, live_period: PastEra) -> int:
    stage_ids, stage_id = live_period.policy.stage_ids, period_then.policy.stage_ids[stage_level]
    if period_then.first_row == live_period.first_row or stage_id not in stage_ids:
        return min(stage_level, len(stage_ids) - 1)
    return stage_ids.index(stage_id)


@dataclass(frozen=True)
class _RecordInputs:
    """The records of the period, without cases that may still be decided blind."""

    case_ids: frozenset[int]
    withheld_case_ids: frozenset[int]
    records: RecordFrames
    history: PlacedHistory
    units: pl.DataFrame
    open_units: frozenset[str]


def _load_records(
    transaction: Transaction, state: RolloutState, period: ReportPeriod, policy: Policy
) -> _RecordInputs:
    period_records = PeriodRecords(transaction, state.rollout)
    case_ids = period_records.list_cases(period.since, period.until)
    blind_case_ids = period_records.list_blind_cases(period.at)
    attribute_names = sorted(
        {*period_records.list_attributes(case_ids), *_list_policy_attributes(policy)}
    )
    levers = [lever.id for lever in policy.levers]
    store = StoredHistory(transaction, state.rollout, levers=levers, attributes=attribute_names)
    reviewer_checks = compute_reviewer_checks(transaction, replace(state, policy=policy))
    all_records = replace(
        store.load_records(
            _add_episode_cases(period_records, store, case_ids, period, policy),
            with_probabilities=True,
        ),
        reliability=reviewer_checks,
    )
    placed_history = place_cases(all_records, policy, state.rollout.salt, state.trained_until)
    keys = ExternalKeys(transaction, state.rollout).find_keys({*case_ids, *blind_case_ids})
    hidden_keys = {keys[case_id] for case_id in blind_case_ids if case_id in keys}
    is_inside = pl.col("occurred_at").is_between(period.since, period.until, closed="left")
    visible_keys = all_records.cases.filter(
        is_inside & ~pl.col("case_key").is_in(list(hidden_keys))
    )["case_key"]
    selected_records = _name_senders(transaction, _select_records(all_records, visible_keys))
    records = _add_local_hours(selected_records, policy)
    units: pl.DataFrame = resolve_units(placed_history.placed, policy).collect("polars").to_native()
    inside_keys = set(visible_keys)
    visible_case_ids = frozenset(
        case_id for case_id in case_ids - blind_case_ids if keys.get(case_id) in inside_keys
    )
    return _RecordInputs(
        case_ids=visible_case_ids,
        withheld_case_ids=frozenset(case_ids & blind_case_ids),
        records=records,
        history=_place_records(placed_history, records, visible_keys, state, policy),
        units=units.filter(pl.col("case_key").is_in(visible_keys.implode())),
        open_units=frozenset(_iterate_unit_keys(state, store, blind_case_ids, policy)),
    )


def _list_policy_attributes(policy: Policy) -> set[str]:
    """Return the attributes that a policy names."""
    return {attribute for window in policy.windows for attribute in window.when} | {*policy.slices}


def _add_episode_cases(
    period_records: PeriodRecords,
    store: StoredHistory,
    cases: Collection[int],
    period: ReportPeriod,
    policy: Policy,
) -> set[int]:
    """Return the cases with all cases of their episodes, for sampling.

    Unnamed episodes are time spans: those at the ends of `period` are completed.
    """
    if policy.evidence.unit == "case":
        return set(cases)
    all_case_ids, episode_span = store.add_episode_cases(cases), policy.evidence.episode_span
    if episode_span is not None:
        last_instant = to_instant(find_slot_after(period.until, episode_span), episode_span)
        all_case_ids |= period_records.list_cases(
            to_instant(find_slot_before(period.since, episode_span), episode_span), last_instant
        )
    return all_case_ids


def _select_records(records: RecordFrames, keys: pl.Series) -> RecordFrames:
    """Return the records of some cases."""
    is_selected = pl.col("case_key").is_in(keys.implode())
    return replace(
        records,
        cases=records.cases.filter(is_selected),
        predictions=records.predictions.filter(is_selected),
        decisions=records.decisions.filter(is_selected),
        unsourced_decisions=records.unsourced_decisions.filter(is_selected),
        outcomes=records.outcomes.filter(is_selected),
    )


def _name_senders(transaction: Transaction, records: RecordFrames) -> RecordFrames:
    """Return the records, with names of accounts as sources of decisions."""
    ids = records.decisions["source"].drop_nulls().unique().to_list()
    names = dict(Accounts(transaction).find_names(ids).names)
    return replace(
        records, decisions=records.decisions.with_columns(pl.col("source").replace(names))
    )


def _add_local_hours(records: RecordFrames, policy: Policy) -> RecordFrames:
    """Add the local hour of each case; the store has only instants."""
    timezones = {site.id: site.timezone for site in policy.sites}
    site_frames = [
        site_frame.with_columns(
            _build_local_hour(timezones.get(str(site), policy.timezone)).alias("hour_written")
        )
        for (site,), site_frame in records.cases.partition_by(
            "site", as_dict=True, maintain_order=True
        ).items()
    ]
    return replace(records, cases=pl.concat(site_frames)) if site_frames else records


def _build_local_hour(timezone: str) -> pl.Expr:
    return pl.col("occurred_at").dt.convert_time_zone(timezone).dt.hour()


def _place_records(
    placed_history: PlacedHistory,
    records: RecordFrames,
    visible_keys: pl.Series,
    state: RolloutState,
    policy: Policy,
) -> PlacedHistory:
    """Place the cases of the period, and count the others."""
    if len(visible_keys) == placed_history.cases.height + sum(placed_history.excluded.values()):
        return placed_history
    return place_cases(records, policy, state.rollout.salt, state.trained_until)


def _iterate_unit_keys(
    state: RolloutState, store: StoredHistory, cases: Collection[int], policy: Policy
) -> Iterator[str]:
    """Yield the keys of the counted units of cases."""
    if not cases:
        return
    placed_history = place_cases(store.load_records(cases), policy, state.rollout.salt)
    yield from placed_history.cases["unit"]


def _load_evidence_views(
    transaction: Transaction,
    state: RolloutState,
    ledger_inputs: _LedgerInputs,
    period: ReportPeriod,
    last_slot: int,
    excluded_units: Collection[str],
) -> Mapping[CellVersion, EvidenceView]:
    """Return the counted evidence of units until the end, by cell and version."""
    policy, scope, history = ledger_inputs.policy, ledger_inputs.scope, ledger_inputs.history
    units = UnitBuffer(policy, history.find_equivalent_definitions)
    until = find_slot_after(period.until, policy.tick)
    is_included = (pl.col("occurred") < until) & ~pl.col("unit").is_in(list(excluded_units))
    for frame in CountedUnits(transaction, state.rollout).load_frames(after=-1, until=last_slot):
        units.add(frame.filter(is_included))
    granted_keys = (key for key in scope.cells if key[0] in policy.cell_set)
    keys = sorted(key for key in {*units, *granted_keys} if key[1] in scope.versions)
    return {key: _build_evidence_view(key, units, ledger_inputs) for key in keys}


def _build_evidence_view(
    key: CellVersion, units: UnitBuffer, ledger_inputs: _LedgerInputs
) -> EvidenceView:
    cell, version = key
    return EvidenceView(
        cell=cell,
        version=version,
        rows=units.get_rows(key),
        unit_classes=units.unit_classes,
        policy=ledger_inputs.policy,
        state=ledger_inputs.scope.get_cell_state(cell, version),
        first_seen=ledger_inputs.scope.versions[version].first_seen,
        stage_history=ledger_inputs.history.get_stage_history(cell),
        shares=ledger_inputs.history.stage_shares,
        find_buckets=lambda rows: rows.unit,  # stored units hold their buckets
        feeds=EMPTY_GUARD_FEEDS,
        rules=ledger_inputs.scope.rules,
    )


def _compute_due_time(cases: pl.DataFrame, policy: Policy, period: ReportPeriod) -> datetime:
    """Return when the last case of the period closes, at least its end."""
    last_instant = (
        cases.select(pl.max_horizontal("occurred_us", "received").max()).item()
        if cases.height
        else None
    )
    at = period.until if last_instant is None else max(period.until, from_micros(int(last_instant)))
    return to_instant(find_slot_after(at + policy.evidence.grace, policy.tick), policy.tick)


def _load_pending_work(
    period_records: PeriodRecords, period: ReportPeriod, grace: timedelta
) -> tuple[PendingReviews, ...]:
    rows = period_records.count_open_reviews(
        period.since, period.at, period.at + grace / EXPIRY_FRACTION
    )
    return tuple(PendingReviews(*row) for row in rows)


def _load_baselines(transaction: Transaction, state: RolloutState) -> tuple[BaselineCount, ...]:
    return tuple(Baselines(transaction, state.rollout).list_current())


def _iterate_choices(
    transaction: Transaction, state: RolloutState, cases: Collection[int], period: ReportPeriod
) -> Iterator[CleaningChoice]:
    """Yield the choices about the cases at the time of the report."""
    choices = CleaningStore(transaction, state.rollout).list_for_cases(cases)
    yield from (choice for choice in choices if choice.at <= period.at)


def _find_ledger_fault(transaction: Transaction, state: RolloutState) -> str:
    try:
        Ledger(transaction, state.rollout).verify()
    except BrokenLedgerError as error:
        return str(error)
    return ""


def _iterate_sources(policy: Policy, records: RecordFrames) -> Iterator[SourceFile]:
    """Yield the policy and each record table with the hash of its contents."""
    yield SourceFile(f"policy of {policy.rollout}", policy.hash)
    for table_name in ("cases", "predictions", "decisions", "outcomes"):
        frame: pl.DataFrame = getattr(records, table_name)
        rows = frame.select(sorted(frame.columns)).sort(sorted(frame.columns), nulls_last=True)
        yield SourceFile(f"stored {table_name}", sha256(rows.write_csv().encode()).hexdigest())
