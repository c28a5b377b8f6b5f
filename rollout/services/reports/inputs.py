"""What a report is made of, read from the service's store: the same as a replay gives.

A report is of the cases that occurred in a span. What the ledger says, and what gates had been
shown, ends with the span; what was said of its cases may come in later, until each closes. A case
that somebody may still judge without the model's answer in sight is left out of everything, so that
no report tells of it.
"""

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from importlib.metadata import version

import polars as pl

from rollout.core.errors import Refusal
from rollout.core.ledger.ledger import BrokenChainError, Row, event_of
from rollout.core.policy.policy import Policy
from rollout.core.records.label_cleaning import Choice
from rollout.core.scope.events import Event, PolicyApplied, ReportSealed
from rollout.core.scope.projection import fold
from rollout.core.scope.scope import Scope
from rollout.reports.inputs.inputs import ACTIONS, Baseline, Era, Inputs, Key, Source, Waiting
from rollout.services.engine.evidence_reader import NO_FEEDS
from rollout.services.engine.reviewer_checks import people_of
from rollout.services.engine.rollout_state import Standing, kept_policy
from rollout.services.engine.stage_history import Era as PastEra
from rollout.services.engine.stage_history import Past
from rollout.store.counting.count_windows import Spans
from rollout.store.counting.counted_units import Counted
from rollout.store.database.session import Transaction
from rollout.store.ledger.evidence import Evidence
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import Policies
from rollout.store.records.baselines import Baselines
from rollout.store.records.external_keys import CallerKeys
from rollout.store.records.history import StoredHistory
from rollout.store.reviews.cleanings import Cleanings
from rollout.tally.case_placement import History, place
from rollout.tally.evidence_view import Sight
from rollout.tally.frames import Records
from rollout.tally.slots import EPOCH, MICROSECOND, instant, slot_after, slot_before
from rollout.tally.stage_history import Timeline
from rollout.tally.unit_buffer import KeptUnits
from rollout.tally.units import resolve

SOON = 4  # a review is about to expire in the last quarter of the policy's grace


class NothingToReport(Refusal):
    """The span is none that a report could be of."""

    code = "nothing-to-report"


@dataclass(frozen=True, slots=True)
class Span:
    """The cases that occurred from `since` up to `until`, which is outside; told at `at`."""

    since: datetime
    until: datetime
    at: datetime


def whole_span(transaction: Transaction, stood: Standing, at: datetime) -> Span:
    """Return the span from the rollout's beginning to the last slot of its grid."""
    started_at = next(Ledger(transaction, stood.rollout).events(until=1)).at
    return Span(started_at, instant(slot_before(at, stood.policy.tick), stood.policy.tick), at)


def stored_inputs(transaction: Transaction, stood: Standing, span: Span) -> Inputs:
    """Return what a report of a span is made of.

    Args:
        transaction: any; all of it is read at one instant of the database.
        stood: how the rollout stands.
        span: which cases, and now. The policy is the one that was in force at its end.

    Raises:
        NothingToReport: the span is empty, or ended before the rollout began.
    """
    ledger_inputs = _told(transaction, stood, span)
    record_inputs = _read(transaction, stood, span, ledger_inputs.policy)
    last_slot = Evidence(transaction, stood.rollout).through()
    history, policy = ledger_inputs.past, ledger_inputs.policy
    history.mark(slot_before(span.until, policy.tick))
    policy_periods = _eras(history)
    period_records = Spans(transaction, stood.rollout)
    is_counted = pl.col("slot") <= last_slot
    return Inputs(
        policy=policy,
        events=ledger_inputs.events,
        timelines=policy_periods[-1].timelines,
        sights=_sights(
            transaction, stood, ledger_inputs, span, last_slot, record_inputs.open_units
        ),
        units=record_inputs.units.filter(is_counted),
        records=record_inputs.records,
        cases=record_inputs.history.cases,
        left_out=record_inputs.history.left_out,
        first=max(span.since, ledger_inputs.events[0].at),
        last=span.until,
        salt=stood.rollout.salt,
        simulated=False,
        sources=tuple(_sources(policy, record_inputs.records)),
        command=command_of(stood.rollout.name, span),
        product=f"rollout-controller {version('rollout-controller')}",
        made_at=span.at,
        settled_until=max(instant(last_slot, policy.tick), ledger_inputs.events[0].at),
        due=_due(record_inputs.history.cases, policy, span),
        waiting=record_inputs.units.filter(~is_counted & (pl.col("track") == "gate")),
        kept_back=len(record_inputs.kept_back),
        actions=period_records.actions(record_inputs.numbers, ACTIONS),
        baselines=_baselines(transaction, stood),
        desk=_desk(period_records, span, policy.evidence.grace),
        heard=period_records.heard(),
        rows=ledger_inputs.rows,
        chain_fault=_chain_fault(transaction, stood),
        eras=policy_periods,
        cleanings=tuple(_cleanings(transaction, stood, record_inputs.numbers, span)),
    )


def command_of(name: str, span: Span) -> str:
    """Return the line that makes the same report again."""
    arguments = ["--since", span.since.isoformat(), "--until", span.until.isoformat()]
    return shlex.join(["rollout", "report", name, *arguments])


# The ledger, up to the end of the span


@dataclass(frozen=True)
class _Told:
    """What the ledger says by the end of the span."""

    rows: tuple[Row, ...]
    events: tuple[Event, ...]
    scope: Scope
    policy: Policy
    past: Past


def _told(transaction: Transaction, stood: Standing, span: Span) -> _Told:
    ledger = Ledger(transaction, stood.rollout)
    rows = list(ledger.rows(until=ledger.revision_at(span.until)))
    while rows and rows[-1].event_kind == ReportSealed.__name__:
        rows.pop()  # that a report was made changes no report
    events = tuple(map(event_of, rows))
    if not any(isinstance(event, PolicyApplied) for event in events):
        started_at = next(ledger.events(until=1)).at.isoformat()
        raise NothingToReport(
            f"{stood.rollout.name} began at {started_at}; let the span end after it"
        )
    if span.since >= span.until:
        raise NothingToReport(f"{span.since.isoformat()} is not before {span.until.isoformat()}")
    applied_hashes = {event.policy_hash for event in events if isinstance(event, PolicyApplied)}
    texts = Policies(transaction, stood.rollout).texts(applied_hashes)
    policies = {policy_hash: kept_policy(text) for policy_hash, text in texts.items()}
    history, scope = Past(), fold(events)
    history.take(events, policies.__getitem__)
    return _Told(tuple(rows), events, scope, policies[scope.policy_hash], history)


def _eras(past: Past) -> tuple[Era, ...]:
    """Return the policies that were in force, each with the stages of cells on its own ladder."""
    live_periods = past.eras
    return tuple(
        Era(
            since=instant(live_period.since, live_period.policy.tick),
            policy=live_period.policy,
            timelines={
                cell: _on_ladder(past.of(cell), live_periods, live_period)
                for cell in live_period.policy.cells
            },
        )
        for live_period in live_periods
    )


def _on_ladder(line: Timeline, eras: Sequence[PastEra], own: PastEra) -> Timeline:
    """Return a cell's stages as rungs of one era's ladder, by the names of the stages.

    A stage that the ladder does not have stands as the rung as high, at most its highest.
    """
    mapped_history = Timeline()
    for slot, row in zip(line.slots, line.rungs, strict=True):
        period_then = next(
            (candidate for candidate in reversed(eras) if candidate.since <= slot), eras[0]
        )
        mapped_history = mapped_history.after(
            slot, _rung(row - period_then.row if row else 0, period_then, own)
        )
    return mapped_history


def _rung(rung: int, then: PastEra, own: PastEra) -> int:
    stage_ids, stage_id = own.policy.rungs, then.policy.rungs[rung]
    if then.row == own.row or stage_id not in stage_ids:
        return min(rung, len(stage_ids) - 1)
    return stage_ids.index(stage_id)


# The records of the span


@dataclass(frozen=True)
class _Read:
    """The records of the span, without those of cases that somebody may still judge blind."""

    numbers: frozenset[int]
    kept_back: frozenset[int]
    records: Records
    history: History
    units: pl.DataFrame
    open_units: frozenset[str]


def _read(transaction: Transaction, stood: Standing, span: Span, policy: Policy) -> _Read:
    period_records = Spans(transaction, stood.rollout)
    case_ids, blind_case_ids = (
        period_records.cases(span.since, span.until),
        period_records.unseen(span.at),
    )
    attribute_names = sorted({*period_records.attributes(case_ids), *_asked_for(policy)})
    levers = [lever.id for lever in policy.levers]
    store = StoredHistory(transaction, stood.rollout, levers=levers, attributes=attribute_names)
    reviewer_checks = people_of(transaction, replace(stood, policy=policy))
    all_records = replace(
        store.records(_together(period_records, store, case_ids, span, policy)),
        people=reviewer_checks,
    )
    placed_history = place(all_records, policy, stood.rollout.salt, stood.trained_until)
    keys = CallerKeys(transaction, stood.rollout).keys_of({*case_ids, *blind_case_ids})
    hidden_keys = {keys[case_id] for case_id in blind_case_ids if case_id in keys}
    is_inside = pl.col("occurred_at").is_between(span.since, span.until, closed="left")
    visible_keys = all_records.cases.filter(
        is_inside & ~pl.col("case_key").is_in(list(hidden_keys))
    )["case_key"]
    records = _on_clocks(_of(all_records, visible_keys), policy)
    units: pl.DataFrame = resolve(placed_history.placed, policy).collect("polars").to_native()
    inside_keys = set(visible_keys)
    visible_case_ids = frozenset(
        case_id for case_id in case_ids - blind_case_ids if keys.get(case_id) in inside_keys
    )
    return _Read(
        numbers=visible_case_ids,
        kept_back=frozenset(case_ids & blind_case_ids),
        records=records,
        history=_history(placed_history, records, visible_keys, stood, policy),
        units=units.filter(pl.col("case_key").is_in(visible_keys.implode())),
        open_units=frozenset(_units_of(stood, store, blind_case_ids, policy)),
    )


def _asked_for(policy: Policy) -> set[str]:
    """Return the attributes that a policy names."""
    return {attribute for window in policy.windows for attribute in window.when} | {*policy.slices}


def _together(
    spans: Spans, store: StoredHistory, cases: Collection[int], span: Span, policy: Policy
) -> set[int]:
    """Return cases with the others of their episodes: which of them counts is drawn among all.

    Episodes without a name are spans of the clock: those that the ends of `span` lie in.
    """
    if policy.evidence.unit == "case":
        return set(cases)
    all_case_ids, episode_span = store.with_episodes(cases), policy.evidence.episode_span
    if episode_span is not None:
        last_instant = instant(slot_after(span.until, episode_span), episode_span)
        all_case_ids |= spans.cases(
            instant(slot_before(span.since, episode_span), episode_span), last_instant
        )
    return all_case_ids


def _of(records: Records, keys: pl.Series) -> Records:
    """Return the records of some cases."""
    is_selected = pl.col("case_key").is_in(keys.implode())
    return replace(
        records,
        cases=records.cases.filter(is_selected),
        predictions=records.predictions.filter(is_selected),
        decisions=records.decisions.filter(is_selected),
        outcomes=records.outcomes.filter(is_selected),
    )


def _on_clocks(records: Records, policy: Policy) -> Records:
    """Return records with the hour of each case on its site's clock: the store keeps instants."""
    timezones = {site.id: site.timezone for site in policy.sites}
    site_frames = [
        site_frame.with_columns(
            _hour(timezones.get(str(site), policy.timezone)).alias("hour_written")
        )
        for (site,), site_frame in records.cases.partition_by(
            "site", as_dict=True, maintain_order=True
        ).items()
    ]
    return replace(records, cases=pl.concat(site_frames)) if site_frames else records


def _hour(zone: str) -> pl.Expr:
    return pl.col("occurred_at").dt.convert_time_zone(zone).dt.hour()


def _history(
    placed: History, records: Records, mine: pl.Series, stood: Standing, policy: Policy
) -> History:
    """Return the placed cases of the span, and how many of it could not be placed."""
    if len(mine) == placed.cases.height + sum(placed.left_out.values()):
        return placed
    return place(records, policy, stood.rollout.salt, stood.trained_until)


def _units_of(
    stood: Standing, store: StoredHistory, cases: Collection[int], policy: Policy
) -> Iterator[str]:
    """Yield the keys of the units that some cases belong to, as they were counted."""
    if not cases:
        return
    placed_history = place(store.records(cases), policy, stood.rollout.salt)
    yield from placed_history.cases["unit"]


# What the engine was shown


def _sights(
    transaction: Transaction,
    stood: Standing,
    told: _Told,
    span: Span,
    through: int,
    left_out: Collection[str],
) -> Mapping[Key, Sight]:
    """Return per cell and version what was counted of the units that occurred by the end."""
    policy, scope, history = told.policy, told.scope, told.past
    units = KeptUnits(policy, history.meanings)
    until = slot_after(span.until, policy.tick)
    is_included = (pl.col("occurred") < until) & ~pl.col("unit").is_in(list(left_out))
    for frame in Counted(transaction, stood.rollout).frames(after=-1, until=through):
        units.add(frame.filter(is_included))
    granted_keys = (key for key in scope.cells if key[0] in policy.known)
    keys = sorted(key for key in {*units, *granted_keys} if key[1] in scope.versions)
    return {key: _sight(key, units, told) for key in keys}


def _sight(key: Key, units: KeptUnits, told: _Told) -> Sight:
    cell, version = key
    return Sight(
        cell=cell,
        version=version,
        rows=units.rows(key),
        kinds=units.kinds,
        policy=told.policy,
        state=told.scope.state(cell, version),
        first_seen=told.scope.versions[version].first_seen,
        timeline=told.past.of(cell),
        shares=told.past.shares,
        band_of=lambda rows: rows.unit,  # kept units carry their bands
        feeds=NO_FEEDS,
    )


# What only the store knows


def _due(cases: pl.DataFrame, policy: Policy, span: Span) -> datetime:
    """Return when the last case closes that occurred in the span, at the earliest as it ends."""
    last_instant = (
        cases.select(pl.max_horizontal("t", "received").max()).item() if cases.height else None
    )
    at = (
        span.until
        if last_instant is None
        else max(span.until, EPOCH + int(last_instant) * MICROSECOND)
    )
    return instant(slot_after(at + policy.evidence.grace, policy.tick), policy.tick)


def _desk(spans: Spans, span: Span, grace: timedelta) -> tuple[Waiting, ...]:
    rows = spans.waiting(span.since, span.at, span.at + grace / SOON)
    return tuple(Waiting(*row) for row in rows)


def _baselines(transaction: Transaction, stood: Standing) -> tuple[Baseline, ...]:
    return tuple(
        Baseline(*astuple(baseline)) for baseline in Baselines(transaction, stood.rollout).holding()
    )


def _cleanings(
    transaction: Transaction, stood: Standing, cases: Collection[int], span: Span
) -> Iterator[Choice]:
    """Yield what was chosen about the cases by the time that the report is made."""
    choices = Cleanings(transaction, stood.rollout).of(cases)
    yield from (choice for choice in choices if choice.at <= span.at)


def _chain_fault(transaction: Transaction, stood: Standing) -> str:
    try:
        Ledger(transaction, stood.rollout).verify()
    except BrokenChainError as error:
        return str(error)
    return ""


def _sources(policy: Policy, records: Records) -> Iterator[Source]:
    """Yield the policy and each kind of record with the hash of what was read of it."""
    yield Source(f"policy of {policy.rollout}", policy.hash)
    for table_name in ("cases", "predictions", "decisions", "outcomes"):
        frame: pl.DataFrame = getattr(records, table_name)
        rows = frame.select(sorted(frame.columns)).sort(sorted(frame.columns), nulls_last=True)
        yield Source(f"stored {table_name}", sha256(rows.write_csv().encode()).hexdigest())
