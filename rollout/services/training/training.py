"""Training rows of a live rollout, made by the code that makes them from recorded files.

A case that people may still judge without the model's answer in sight is in no export, whoever
asks: neither while its verdicts are due, nor while a seat at it is open.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import polars as pl

from rollout.core.errors import StaleRevision
from rollout.core.policy.policy import Policy
from rollout.core.records.reviews import PREDICTION
from rollout.core.scope.permissions import Act, Caller, require
from rollout.reports.figures.label_sources import PEOPLES, assigned_of
from rollout.reports.figures.training import Export, export_of_records
from rollout.reports.inputs.inputs import Inputs
from rollout.services.engine.rollout_state import Standing, standing
from rollout.services.reports.inputs import Span, stored_inputs, whole_span
from rollout.services.reviews.exposure import hidden_from, record_shown
from rollout.store.counting.count_windows import Spans
from rollout.store.database.session import Database, Transaction
from rollout.store.records.recent_units import Newest
from rollout.tally.frames import Records

PAGE = "training"
AT_ONCE = 3_000  # cases that are noted in one transaction


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows: of cases that occurred from `since` up to `until`, outside; None is open."""

    sources: Sequence[str] = PEOPLES
    since: datetime | None = None
    until: datetime | None = None


def training(database: Database, caller: Caller, name: str, wanted: Wanted, at: datetime) -> Export:
    """Return the rows of a live rollout to train on, of sites that the caller may read.

    All of it is read at one instant. What a person is shown is noted first.

    Raises:
        NotAllowed: the caller may not read the rollout.
        UnknownRollout: there is none that they may see.
        NothingToReport: the span is empty.
        ValueError: a source is none that there is.
        StaleRevision: a case was put before them just now; ask again.
    """
    require(caller, Act.READ, name)
    with database.reading() as transaction:
        state = standing(transaction, name)
        inputs, open_case_sites = settled(transaction, state, wanted, at)
    readable_inputs = narrowed(inputs, _at_sites(inputs.records.cases, caller, name))
    export = export_of_records(
        readable_inputs.policy,
        readable_inputs.records,
        readable_inputs.cases,
        sources=wanted.sources,
        assigned=assigned_of(readable_inputs),
        choices=readable_inputs.cleanings,
        kept_back=sum(caller.may(Act.READ, name, site) for site in open_case_sites),
    )
    _note(database, state, caller, export.rows["case_key"].unique().sort().to_list(), at)
    return export


def _note(
    database: Database, stood: Standing, caller: Caller, keys: Sequence[str], at: datetime
) -> None:
    """Note what a person is shown, who may judge tomorrow; no stop waits for all of it."""
    for start in range(0, 0 if caller.machine else len(keys), AT_ONCE):
        batch = keys[start : start + AT_ONCE]
        with database.writing() as transaction:
            record_shown(transaction, stood, caller, batch, what=PREDICTION, page=PAGE, at=at)
            if hidden_from(transaction, stood, caller, batch, at):  # they took one meanwhile
                raise StaleRevision("you have just been given one of these cases; ask again")


def settled(
    transaction: Transaction, stood: Standing, wanted: Wanted, at: datetime
) -> tuple[Inputs, Sequence[str]]:
    """Return what is known of closed cases, and of each that is kept back as open its site."""
    whole_period = whole_span(transaction, stood, at)
    since = whole_period.since if wanted.since is None else wanted.since
    until = at if wanted.until is None else min(wanted.until, at)
    inputs = stored_inputs(transaction, stood, Span(since, until, at))
    cases = inputs.records.cases
    closed_keys = cases.filter(_closes(inputs.policy) <= at)["case_key"]
    period_records = Spans(transaction, stood.rollout)
    blind_cases = Newest(transaction, stood.rollout).cases(
        period_records.cases(since, until) & period_records.unseen(at)
    )
    pending_sites = cases.filter(~pl.col("case_key").is_in(closed_keys.implode()))["site"].to_list()
    return narrowed(inputs, closed_keys), [
        *pending_sites,
        *(case.site for case in blind_cases.values()),
    ]


def _at_sites(cases: pl.DataFrame, caller: Caller, name: str) -> pl.Series:
    sites = [site for site in cases["site"].unique() if caller.may(Act.READ, name, site)]
    return cases.filter(pl.col("site").is_in(sites))["case_key"]


def _closes(policy: Policy) -> pl.Expr:
    """Return when verdicts on a case stop being asked for."""
    received_at = pl.max_horizontal("occurred_at", "received_at")
    return received_at + policy.evidence.grace


def narrowed(inputs: Inputs, keys: pl.Series) -> Inputs:
    """Return the inputs with the records of some cases alone."""
    is_selected = pl.col("case_key").is_in(keys.implode())
    records = inputs.records
    return replace(
        inputs,
        cases=inputs.cases.filter(is_selected),
        records=Records(
            cases=records.cases.filter(is_selected),
            predictions=records.predictions.filter(is_selected),
            decisions=records.decisions.filter(is_selected),
            outcomes=records.outcomes.filter(is_selected),
            set_aside=records.set_aside,
            notes=records.notes,
            read=records.read,
        ),
    )
