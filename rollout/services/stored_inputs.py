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

from rollout.core.cleaning import Choice
from rollout.core.errors import Refusal
from rollout.core.events import Event, PolicyApplied, ReportSealed
from rollout.core.evolve import fold
from rollout.core.ledger import BrokenChainError, Row, event_of
from rollout.core.policy import Policy
from rollout.core.scope import Scope
from rollout.reports.inputs import ACTIONS, Baseline, Era, Inputs, Key, Source, Waiting
from rollout.services.checking import people_of
from rollout.services.past import Era as PastEra
from rollout.services.past import Past
from rollout.services.sights import NO_FEEDS
from rollout.services.standing import Standing, kept_policy
from rollout.store.baselines import Baselines
from rollout.store.caller_keys import CallerKeys
from rollout.store.cleanings import Cleanings
from rollout.store.counted import Counted
from rollout.store.evidence import Evidence
from rollout.store.history import StoredHistory
from rollout.store.ledger import Ledger
from rollout.store.policies import Policies
from rollout.store.session import Transaction
from rollout.store.spans import Spans
from rollout.tally.frames import Records
from rollout.tally.kept_units import KeptUnits
from rollout.tally.placing import History, place
from rollout.tally.sight import Sight
from rollout.tally.slots import EPOCH, MICROSECOND, instant, slot_after, slot_before
from rollout.tally.timeline import Timeline
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
    began = next(Ledger(transaction, stood.rollout).events(until=1)).at
    return Span(began, instant(slot_before(at, stood.policy.tick), stood.policy.tick), at)


def stored_inputs(transaction: Transaction, stood: Standing, span: Span) -> Inputs:
    """Return what a report of a span is made of.

    Args:
        transaction: any; all of it is read at one instant of the database.
        stood: how the rollout stands.
        span: which cases, and now. The policy is the one that was in force at its end.

    Raises:
        NothingToReport: the span is empty, or ended before the rollout began.
    """
    told = _told(transaction, stood, span)
    read = _read(transaction, stood, span, told.policy)
    through = Evidence(transaction, stood.rollout).through()
    past, policy = told.past, told.policy
    past.mark(slot_before(span.until, policy.tick))
    eras = _eras(past)
    spans = Spans(transaction, stood.rollout)
    counted = pl.col("slot") <= through
    return Inputs(
        policy=policy,
        events=told.events,
        timelines=eras[-1].timelines,
        sights=_sights(transaction, stood, told, span, through, read.open_units),
        units=read.units.filter(counted),
        records=read.records,
        cases=read.history.cases,
        left_out=read.history.left_out,
        first=max(span.since, told.events[0].at),
        last=span.until,
        salt=stood.rollout.salt,
        simulated=False,
        sources=tuple(_sources(policy, read.records)),
        command=command_of(stood.rollout.name, span),
        product=f"rollout-controller {version('rollout-controller')}",
        made_at=span.at,
        settled_until=max(instant(through, policy.tick), told.events[0].at),
        due=_due(read.history.cases, policy, span),
        waiting=read.units.filter(~counted & (pl.col("track") == "gate")),
        kept_back=len(read.kept_back),
        actions=spans.actions(read.numbers, ACTIONS),
        baselines=_baselines(transaction, stood),
        desk=_desk(spans, span, policy.evidence.grace),
        heard=spans.heard(),
        rows=told.rows,
        chain_fault=_chain_fault(transaction, stood),
        eras=eras,
        cleanings=tuple(_cleanings(transaction, stood, read.numbers, span)),
    )


def command_of(name: str, span: Span) -> str:
    """Return the line that makes the same report again."""
    own = ["--since", span.since.isoformat(), "--until", span.until.isoformat()]
    return shlex.join(["rollout", "report", name, *own])


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
        began = next(ledger.events(until=1)).at.isoformat()
        raise NothingToReport(f"{stood.rollout.name} began at {began}; let the span end after it")
    if span.since >= span.until:
        raise NothingToReport(f"{span.since.isoformat()} is not before {span.until.isoformat()}")
    applied = {event.policy_hash for event in events if isinstance(event, PolicyApplied)}
    texts = Policies(transaction, stood.rollout).texts(applied)
    policies = {said: kept_policy(text) for said, text in texts.items()}
    past, scope = Past(), fold(events)
    past.take(events, policies.__getitem__)
    return _Told(tuple(rows), events, scope, policies[scope.policy_hash], past)


def _eras(past: Past) -> tuple[Era, ...]:
    """Return the policies that were in force, each with the stages of cells on its own ladder."""
    eras = past.eras
    return tuple(
        Era(
            since=instant(era.since, era.policy.tick),
            policy=era.policy,
            timelines={cell: _on_ladder(past.of(cell), eras, era) for cell in era.policy.cells},
        )
        for era in eras
    )


def _on_ladder(line: Timeline, eras: Sequence[PastEra], own: PastEra) -> Timeline:
    """Return a cell's stages as rungs of one era's ladder, by the names of the stages.

    A stage that the ladder does not have stands as the rung as high, at most its highest.
    """
    found = Timeline()
    for slot, row in zip(line.slots, line.rungs, strict=True):
        then = next((era for era in reversed(eras) if era.since <= slot), eras[0])
        found = found.after(slot, _rung(row - then.row if row else 0, then, own))
    return found


def _rung(rung: int, then: PastEra, own: PastEra) -> int:
    names, name = own.policy.rungs, then.policy.rungs[rung]
    if then.row == own.row or name not in names:
        return min(rung, len(names) - 1)
    return names.index(name)


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
    spans = Spans(transaction, stood.rollout)
    found, unseen = spans.cases(span.since, span.until), spans.unseen(span.at)
    names = sorted({*spans.attributes(found), *_asked_for(policy)})
    levers = [lever.id for lever in policy.levers]
    store = StoredHistory(transaction, stood.rollout, levers=levers, attributes=names)
    people = people_of(transaction, replace(stood, policy=policy))
    whole = replace(store.records(_together(spans, store, found, span, policy)), people=people)
    placed = place(whole, policy, stood.rollout.salt, stood.trained_until)
    keys = CallerKeys(transaction, stood.rollout).keys_of({*found, *unseen})
    hidden = {keys[number] for number in unseen if number in keys}
    inside = pl.col("occurred_at").is_between(span.since, span.until, closed="left")
    mine = whole.cases.filter(inside & ~pl.col("case_key").is_in(list(hidden)))["case_key"]
    records = _on_clocks(_of(whole, mine), policy)
    units: pl.DataFrame = resolve(placed.placed, policy).collect("polars").to_native()
    inside_keys = set(mine)
    kept = frozenset(number for number in found - unseen if keys.get(number) in inside_keys)
    return _Read(
        numbers=kept,
        kept_back=frozenset(found & unseen),
        records=records,
        history=_history(placed, records, mine, stood, policy),
        units=units.filter(pl.col("case_key").is_in(mine.implode())),
        open_units=frozenset(_units_of(stood, store, unseen, policy)),
    )


def _asked_for(policy: Policy) -> set[str]:
    """Return the attributes that a policy names."""
    return {name for window in policy.windows for name in window.when} | {*policy.slices}


def _together(
    spans: Spans, store: StoredHistory, cases: Collection[int], span: Span, policy: Policy
) -> set[int]:
    """Return cases with the others of their episodes: which of them counts is drawn among all.

    Episodes without a name are spans of the clock: those that the ends of `span` lie in.
    """
    if policy.evidence.unit == "case":
        return set(cases)
    together, length = store.with_episodes(cases), policy.evidence.episode_span
    if length is not None:
        last = instant(slot_after(span.until, length), length)
        together |= spans.cases(instant(slot_before(span.since, length), length), last)
    return together


def _of(records: Records, keys: pl.Series) -> Records:
    """Return the records of some cases."""
    own = pl.col("case_key").is_in(keys.implode())
    return replace(
        records,
        cases=records.cases.filter(own),
        predictions=records.predictions.filter(own),
        decisions=records.decisions.filter(own),
        outcomes=records.outcomes.filter(own),
    )


def _on_clocks(records: Records, policy: Policy) -> Records:
    """Return records with the hour of each case on its site's clock: the store keeps instants."""
    zones = {site.id: site.timezone for site in policy.sites}
    parts = [
        part.with_columns(_hour(zones.get(str(site), policy.timezone)).alias("hour_written"))
        for (site,), part in records.cases.partition_by(
            "site", as_dict=True, maintain_order=True
        ).items()
    ]
    return replace(records, cases=pl.concat(parts)) if parts else records


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
    placed = place(store.records(cases), policy, stood.rollout.salt)
    yield from placed.cases["unit"]


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
    policy, scope, past = told.policy, told.scope, told.past
    units = KeptUnits(policy, past.meanings)
    until = slot_after(span.until, policy.tick)
    wanted = (pl.col("occurred") < until) & ~pl.col("unit").is_in(list(left_out))
    for frame in Counted(transaction, stood.rollout).frames(after=-1, until=through):
        units.add(frame.filter(wanted))
    held = (key for key in scope.cells if key[0] in policy.known)
    keys = sorted(key for key in {*units, *held} if key[1] in scope.versions)
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
    last = cases.select(pl.max_horizontal("t", "received").max()).item() if cases.height else None
    at = span.until if last is None else max(span.until, EPOCH + int(last) * MICROSECOND)
    return instant(slot_after(at + policy.evidence.grace, policy.tick), policy.tick)


def _desk(spans: Spans, span: Span, grace: timedelta) -> tuple[Waiting, ...]:
    rows = spans.waiting(span.since, span.at, span.at + grace / SOON)
    return tuple(Waiting(*row) for row in rows)


def _baselines(transaction: Transaction, stood: Standing) -> tuple[Baseline, ...]:
    return tuple(Baseline(*astuple(b)) for b in Baselines(transaction, stood.rollout).holding())


def _cleanings(
    transaction: Transaction, stood: Standing, cases: Collection[int], span: Span
) -> Iterator[Choice]:
    """Yield what was chosen about the cases by the time that the report is made."""
    made = Cleanings(transaction, stood.rollout).of(cases)
    yield from (choice for choice in made if choice.at <= span.at)


def _chain_fault(transaction: Transaction, stood: Standing) -> str:
    try:
        Ledger(transaction, stood.rollout).verify()
    except BrokenChainError as broken:
        return str(broken)
    return ""


def _sources(policy: Policy, records: Records) -> Iterator[Source]:
    """Yield the policy and each kind of record with the hash of what was read of it."""
    yield Source(f"policy of {policy.rollout}", policy.hash)
    for name in ("cases", "predictions", "decisions", "outcomes"):
        frame: pl.DataFrame = getattr(records, name)
        rows = frame.select(sorted(frame.columns)).sort(sorted(frame.columns), nulls_last=True)
        yield Source(f"stored {name}", sha256(rows.write_csv().encode()).hexdigest())
