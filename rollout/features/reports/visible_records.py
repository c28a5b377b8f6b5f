"""The records of a report's cases, without cases that may still be decided blind."""

import shlex
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

import polars as pl

from rollout.data.counting.period_records import PeriodRecords
from rollout.data.database.session import Transaction
from rollout.data.ledger.ledger import Accounts, Ledger
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.history import StoredHistory
from rollout.engine.evidence.case_placement import PlacedHistory, place_cases
from rollout.engine.evidence.frames import RecordFrames
from rollout.engine.evidence.populations import place_planted_cases, resolve_natural_units
from rollout.engine.evidence.slots import find_slot_after, find_slot_before, to_instant
from rollout.features.reports.schedule import ON_DEMAND
from rollout.kernel.policy.policy import Policy
from rollout.live.evidence.unit_counting import load_uses
from rollout.live.rollout_state import RolloutState


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
    attribute_names = sorted(
        {*period_records.list_attributes(case_ids), *list_policy_attributes(policy)}
    )
    levers = [lever.id for lever in policy.levers]
    store = StoredHistory(
        transaction,
        state.rollout,
        levers=levers,
        attributes=attribute_names,
        outcomes=[outcome.id for outcome in policy.outcomes],
        first_names=state.first_names,
    )
    all_records = store.load_records(
        _add_episode_cases(period_records, store, case_ids, period, policy),
        with_probabilities=True,
    )
    placed_history = place_cases(all_records, policy, state.rollout.salt, state.trained_until)
    placed_history = replace(placed_history, uses=load_uses(transaction, state))
    keys = ExternalKeys(transaction, state.rollout).find_keys({*case_ids, *blind_case_ids})
    hidden_keys = {keys[case_id] for case_id in blind_case_ids if case_id in keys}
    is_inside = pl.col("occurred_at").is_between(period.since, period.until, closed="left")
    is_visible = is_inside & ~pl.col("case_key").is_in(list(hidden_keys))
    visible_keys = all_records.cases.filter(is_visible)["case_key"]
    selected_records = _name_senders(transaction, all_records.select_cases(visible_keys))
    records = _add_local_hours(selected_records, policy)
    units = resolve_natural_units(placed_history, policy)
    open_units, open_planted_units = _list_unit_keys(state, store, blind_case_ids, policy)
    inside_keys, natural_keys = set(visible_keys), set(all_records.cases["case_key"])
    visible_case_ids = frozenset(
        case_id for case_id in case_ids - blind_case_ids if keys.get(case_id) in inside_keys
    )
    return VisibleRecords(
        case_ids=visible_case_ids,
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
        last_instant = to_instant(find_slot_after(period.until, episode_span), episode_span)
        all_case_ids |= period_records.list_cases(
            to_instant(find_slot_before(period.since, episode_span), episode_span), last_instant
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
