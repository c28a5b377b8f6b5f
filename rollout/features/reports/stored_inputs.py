"""The inputs of a report, read from the store, as a replay provides them.

A report covers the cases of a period. Ledger and gate evidence end with the period; records of its
cases may arrive until each closes. Cases that may still be decided blind are excluded from
everything, so that no report reveals them.
"""

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from importlib.metadata import version

import polars as pl

from rollout.data.counting.closed_units import PeriodRecords
from rollout.data.counting.counted_units import CountedUnits
from rollout.data.counting.counts import CountedOutcomes
from rollout.data.counting.unit_records import count_registering
from rollout.data.database.bulk import select_numbers
from rollout.data.database.rollouts import PolicyTexts
from rollout.data.database.session import Transaction
from rollout.data.ledger.ledger import Accounts, Ledger
from rollout.data.ledger.scopes import EvidenceStore
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.history import StoredHistory
from rollout.data.records.record_rows import Baselines
from rollout.data.reviews.reviews import CleaningStore
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import Scope
from rollout.engine.events import LedgerEvent, ReportSealed, find_applied_policies
from rollout.engine.evidence.case_placement import (
    PlacedHistory,
    place_cases,
    place_planted_cases,
    resolve_natural_units,
)
from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.engine.evidence.frames import RecordFrames, unify_reviewers
from rollout.engine.evidence.outcome_buffer import OutcomeBuffer
from rollout.engine.evidence.stage_history import StageHistory
from rollout.engine.evidence.stored_units import FirstValues, StoredUnits, UnitSeries
from rollout.engine.evidence.unit_buffer import UnitBuffer
from rollout.engine.evidence.units import TRACKS
from rollout.engine.ledger.ledger import CanonicalRow, parse_event
from rollout.features.reports.builder import ON_DEMAND, NothingToReportError
from rollout.features.reports.inputs.inputs import (
    ACTION_SCHEMA,
    PendingReviews,
    PolicyPeriod,
    ReportInputs,
    SourceSummary,
)
from rollout.kernel.calendar.instants import (
    CellVersion,
    find_slot_after,
    find_slot_before,
    from_micros,
    to_instant,
)
from rollout.kernel.policy.policy import Policy
from rollout.kernel.populations import PLANTED_TRACK
from rollout.kernel.units import MISSING
from rollout.live.evidence.due_counting import open_unit_keys
from rollout.live.evidence.evidence_reader import GateFeeds
from rollout.live.evidence.stage_history import LivePolicyPeriod as PastEra
from rollout.live.evidence.stage_history import RolloutHistory
from rollout.live.evidence.unit_counting import load_uses
from rollout.live.rollout_state import RolloutState, parse_stored_policy


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


def build_report_command(rollout_name: str, period: ReportPeriod, name: str = ON_DEMAND) -> str:
    """Return the command line that makes the same report."""
    options = [] if name == ON_DEMAND else ["--name", name]
    options += ["--since", period.since.isoformat(), "--until", period.until.isoformat()]
    return shlex.join(["rollout", "report", rollout_name, *options])


@dataclass(frozen=True)
class VisibleRecords:
    """The records of a period, without cases that may still be decided blind."""

    case_ids: frozenset[int]
    withheld_case_ids: frozenset[int]
    records: RecordFrames
    history: PlacedHistory
    units: pl.DataFrame
    open_units: frozenset[str]
    open_planted_units: frozenset[str]


def load_visible_records(
    transaction: Transaction, state: RolloutState, period: ReportPeriod, policy: Policy
) -> VisibleRecords:
    """Load the records of a period that a report may show."""
    period_records = PeriodRecords(transaction, state.rollout)
    case_ids = period_records.list_cases(period.since, period.until)
    blind_case_ids = period_records.list_blind_cases(period.at)
    store = StoredHistory(
        transaction,
        state.rollout,
        levers=[lever.id for lever in policy.levers],
        attributes=sorted(
            {*period_records.list_attributes(case_ids), *list_policy_attributes(policy)}
        ),
        outcomes=[outcome.id for outcome in policy.outcomes],
        first_names=state.first_names,
    )
    all_records = store.load_records(
        _add_episode_cases(period_records, store, case_ids, period, policy),
        for_report=True,
    )
    placed_history = replace(
        place_cases(all_records, policy, state.rollout.salt, state.trained_until),
        uses=load_uses(transaction, state),
    )
    keys = ExternalKeys(transaction, state.rollout).find_keys({*case_ids, *blind_case_ids})
    hidden_keys = {keys[case_id] for case_id in blind_case_ids if case_id in keys}
    is_inside = pl.col("occurred_at").is_between(period.since, period.until, closed="left")
    is_visible = is_inside & ~pl.col("case_key").is_in(list(hidden_keys))
    visible_keys = all_records.cases.filter(is_visible)["case_key"]
    records = _add_local_hours(
        _name_senders(transaction, all_records.select_cases(visible_keys)), policy
    )
    units = resolve_natural_units(placed_history, policy)
    open_units, open_planted_units = _list_unit_keys(state, store, blind_case_ids, policy)
    inside_keys, natural_keys = set(visible_keys), set(all_records.cases["case_key"])
    return VisibleRecords(
        case_ids=frozenset(
            case_id for case_id in case_ids - blind_case_ids if keys.get(case_id) in inside_keys
        ),
        withheld_case_ids=frozenset(
            case_id for case_id in case_ids & blind_case_ids if keys.get(case_id) in natural_keys
        ),
        records=records,
        history=_place_records(placed_history, records, visible_keys, state, policy),
        units=units.filter(pl.col("case_key").is_in(visible_keys.implode())),
        open_units=open_units,
        open_planted_units=open_planted_units,
    )


def list_policy_attributes(policy: Policy) -> set[str]:
    """Return the attributes that a policy names."""
    rule = policy.evidence.familiar
    attributes = {attribute for window in policy.windows for attribute in window.when}
    return attributes | {*policy.slices} | (rule.attribute_names if rule else frozenset())


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
        all_case_ids |= period_records.list_cases(
            to_instant(find_slot_before(period.since, episode_span), episode_span),
            to_instant(find_slot_after(period.until, episode_span), episode_span),
        )
    return all_case_ids


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
            pl.col("occurred_at")
            .dt.convert_time_zone(timezones.get(str(site), policy.timezone))
            .dt.hour()
            .alias("hour_written")
        )
        for (site,), site_frame in records.cases.partition_by(
            "site", as_dict=True, maintain_order=True
        ).items()
    ]
    return replace(records, cases=pl.concat(site_frames)) if site_frames else records


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


def _list_unit_keys(
    state: RolloutState, store: StoredHistory, cases: Collection[int], policy: Policy
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the keys of the units of cases that occurred, and of planted ones."""
    if not cases:
        return frozenset(), frozenset()
    records = store.load_records(cases)
    natural = place_cases(records, policy, state.rollout.salt).cases["unit"]
    planted = place_planted_cases(records, policy, state.rollout.salt)
    return frozenset(natural), frozenset(() if planted is None else planted.cases["unit"])


GATE = TRACKS[0]
KEY = ("unit", "version", "site", "window", "lever")
DEFINITION = ("site", "window", "definition")
MISSING_COLUMNS = (*KEY, "definition")


def list_missing_units(units: StoredUnits) -> Iterator[tuple[str, ...]]:
    """Yield the units that gates counted without a decision, as rows of `MISSING_COLUMNS`."""
    for series, unit, lever_class in units.list_lever_rows():
        if lever_class.decided == MISSING and series.track == GATE:
            cell = (series.site, series.window)
            yield unit, series.version, *cell, lever_class.lever, series.definition


def drop_late_decisions(
    units: pl.DataFrame,
    missing_units: pl.DataFrame,
    definitions: Iterable[tuple[str, str, str]],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return units without decisions that came too late for gates, and which these are.

    Args:
        units: rows as `resolve_units` returns them.
        missing_units: with columns `MISSING_COLUMNS`.
        definitions: site, window and record definition of what is comparable with `units`: a unit
            that lacked a decision under another definition need not lack one under this.

    Returns:
        The units, and columns unit and version of those that gates counted without a decision
        although one in time is stored now.
    """
    is_decided = (pl.col("track") == GATE) & (pl.col("decided") != MISSING)
    comparable = pl.DataFrame(list(definitions), schema=DEFINITION, orient="row")
    missing_keys = missing_units.join(
        comparable.cast(dict.fromkeys(DEFINITION, pl.String)), on=DEFINITION, how="semi"
    )
    if missing_keys.is_empty():
        return units, units.select("unit", "version").clear()
    late_rows = units.filter(is_decided).join(missing_keys, on=KEY, how="semi")
    late_keys = late_rows.select(*KEY, "track").with_columns(is_late=pl.lit(value=True))
    return (
        units.join(late_keys, on=[*KEY, "track"], how="left", maintain_order="left")
        .with_columns(
            decided=pl.when(pl.col("is_late")).then(pl.lit(MISSING)).otherwise(pl.col("decided"))
        )
        .drop("is_late"),
        late_rows.select("unit", "version").unique(maintain_order=True),
    )


EXPIRY_FRACTION = 4  # a review task is about to expire in the last quarter of the grace


def load_report_inputs(
    transaction: Transaction, state: RolloutState, period: ReportPeriod, name: str = ON_DEMAND
) -> ReportInputs:
    """Return the inputs of a report.

    Args:
        transaction: everything is read from its database snapshot.
        period: the policy at its end applies.
        name: of the report; the command that makes it again has it.

    Raises:
        NothingToReportError: the period is empty, or ended before the rollout started.
    """
    ledger_inputs = _load_ledger_inputs(transaction, state, period)
    record_inputs = load_visible_records(transaction, state, period, ledger_inputs.policy)
    last_slot = EvidenceStore(transaction, state.rollout).get_last_slot()
    history, policy = ledger_inputs.history, ledger_inputs.policy
    history.advance_to(find_slot_before(period.until, policy.tick))
    policy_periods = _build_policy_periods(history)
    period_records = PeriodRecords(transaction, state.rollout)
    is_counted = pl.col("slot") <= last_slot
    evidence_views, missing_units, first_values = _load_counted_evidence(
        transaction, state, ledger_inputs, period, last_slot, record_inputs
    )
    pending_rows = period_records.count_open_reviews(
        period.since, period.at, period.at + policy.evidence.grace / EXPIRY_FRACTION
    )
    choices = CleaningStore(transaction, state.rollout).list_for_cases(record_inputs.case_ids)
    registering = count_registering(
        transaction, state.rollout, select_numbers(transaction, record_inputs.case_ids)
    )
    units, late_units = drop_late_decisions(
        record_inputs.units.filter(is_counted),
        missing_units,
        (
            (cell.site, cell.window, definition)
            for cell in policy.cells
            for definition in history.find_equivalent_definitions(cell)
        ),
    )
    return ReportInputs(
        policy=policy,
        events=ledger_inputs.events,
        timelines=policy_periods[-1].timelines,
        evidence_views=evidence_views,
        units=units,
        late_units=late_units,
        records=unify_reviewers(record_inputs.records),
        cases=record_inputs.history.cases,
        unplaced=record_inputs.history.excluded,
        first=max(period.since, ledger_inputs.events[0].at),
        last=period.until,
        salt=state.rollout.salt,
        audit_salt=state.rollout.service_salt,
        is_simulated=False,
        sources=tuple(_iterate_sources(policy, record_inputs.records)),
        command=build_report_command(state.rollout.name, period, name),
        product=f"rollout-controller {version('rollout-controller')}",
        made_at=period.at,
        counted_until=max(to_instant(last_slot, policy.tick), ledger_inputs.events[0].at),
        closes_at=_compute_due_time(record_inputs.history.cases, policy, period),
        pending_units=record_inputs.units.filter(~is_counted & (pl.col("track") == "gate")),
        withheld_count=len(record_inputs.withheld_case_ids),
        actions=period_records.load_actions(record_inputs.case_ids, ACTION_SCHEMA),
        baselines=tuple(Baselines(transaction, state.rollout).list_current()),
        pending_reviews=tuple(PendingReviews(*row) for row in pending_rows),
        last_activity=period_records.load_last_received(),
        ledger_rows=ledger_inputs.rows,
        policy_periods=policy_periods,
        choices=tuple(choice for choice in choices if choice.at <= period.at),
        first_values=first_values,
        registered=Accounts(transaction).name_sources(registering),
    )


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
    while rows and rows[-1].kind == ReportSealed.__name__:
        rows.pop()  # the entry of a report must not change the next report
    events = tuple(map(parse_event, rows))
    applied_hashes = find_applied_policies(events)
    if not applied_hashes:
        started_at = next(ledger.list_events(until=1)).at.isoformat()
        raise NothingToReportError(
            f"{state.rollout.name} began at {started_at}; let the span end after it"
        )
    if period.since >= period.until:
        raise NothingToReportError(
            f"{period.since.isoformat()} is not before {period.until.isoformat()}"
        )
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
    changes = (stage_history.slots, stage_history.stage_levels, stage_history.versions)
    for slot, row, acting_version, floor in zip(*changes, stage_history.floors, strict=True):
        period_then = next(
            (candidate for candidate in reversed(live_periods) if candidate.first_slot <= slot),
            live_periods[0],
        )
        mapped_history = mapped_history.extend(
            slot,
            _map_stage_level(row - period_then.first_row if row else 0, period_then, live_period),
            acting_version,
            floor,
        )
    return mapped_history


def _map_stage_level(stage_level: int, period_then: PastEra, live_period: PastEra) -> int:
    stage_ids, stage_id = live_period.policy.stage_ids, period_then.policy.stage_ids[stage_level]
    if period_then.first_row == live_period.first_row or stage_id not in stage_ids:
        return min(stage_level, len(stage_ids) - 1)
    return stage_ids.index(stage_id)


def _load_counted_evidence(
    transaction: Transaction,
    state: RolloutState,
    ledger_inputs: _LedgerInputs,
    period: ReportPeriod,
    last_slot: int,
    record_inputs: VisibleRecords,
) -> tuple[Mapping[CellVersion, EvidenceView], pl.DataFrame, FirstValues]:
    """Return what gates counted until the last slot.

    That is the evidence of units until the end of the period, the units that were counted without
    a decision, under any definition, and the first values of attributes.
    """
    policy, scope, history = ledger_inputs.policy, ledger_inputs.scope, ledger_inputs.history
    units = UnitBuffer(policy, history.find_equivalent_definitions)
    until = find_slot_after(period.until, policy.tick)

    def is_included(series: UnitSeries, unit: str, occurred: int) -> bool:
        is_planted = series.track == PLANTED_TRACK
        open_units = record_inputs.open_planted_units if is_planted else record_inputs.open_units
        return occurred < until and unit not in open_units

    missing_rows: list[tuple[str, ...]] = []
    for part in CountedUnits(transaction, state.rollout).load_units(after=-1, until=last_slot):
        units.add(part.select(is_included))
        missing_rows += list_missing_units(part)
    missing_units = pl.DataFrame(
        missing_rows, schema=dict.fromkeys(MISSING_COLUMNS, pl.String), orient="row"
    )
    lines = CountedOutcomes(transaction, state.rollout).read_lines(after=-1, until=last_slot)
    unit_keys = open_unit_keys(transaction, replace(state, policy=policy))
    excluded_ids = frozenset(unit_keys.find_ids(record_inputs.open_units).values())
    outcomes = OutcomeBuffer()
    outcomes.add(line for line in lines if line.occurred < until and line.unit not in excluded_ids)
    feeds = GateFeeds(outcomes)
    granted_keys = {key for key in scope.cells if key[0] in policy.cell_set}
    outcome_keys = {key for key in outcomes.list_keys() if key[0] in policy.cell_set}
    keys = sorted(key for key in {*units, *granted_keys, *outcome_keys} if key[1] in scope.versions)
    views = {key: _build_evidence_view(key, units, feeds, ledger_inputs) for key in keys}
    return views, missing_units, units.first_values


def _build_evidence_view(
    key: CellVersion, units: UnitBuffer, feeds: GateFeeds, ledger_inputs: _LedgerInputs
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
        feeds=feeds,
        familiar_history=ledger_inputs.history.familiar_histories[key],
    )


def _compute_due_time(cases: pl.DataFrame, policy: Policy, period: ReportPeriod) -> datetime:
    """Return when the last case of the period closes, with its outcomes; at least its end."""
    last_instant = (
        cases.select(pl.max_horizontal("occurred_us", "received").max()).item()
        if cases.height
        else None
    )
    at = period.until if last_instant is None else max(period.until, from_micros(int(last_instant)))
    span = max(policy.evidence.grace, *(outcome.closes for outcome in policy.outcomes), timedelta())
    return to_instant(find_slot_after(at + span, policy.tick), policy.tick)


def _iterate_sources(policy: Policy, records: RecordFrames) -> Iterator[SourceSummary]:
    """Yield the policy and each record table with the hash of its contents."""
    yield SourceSummary(f"policy of {policy.rollout}", policy.hash)
    for table_name in ("cases", "predictions", "decisions", "outcomes"):
        frame: pl.DataFrame = getattr(records, table_name)
        rows = frame.select(sorted(frame.columns)).sort(sorted(frame.columns), nulls_last=True)
        yield SourceSummary(f"stored {table_name}", sha256(rows.write_csv().encode()).hexdigest())
