"""The largest losses of what was counted, by an index: it takes as long for ten as for ten million.

Counting keeps each pair that differs with how sure the version was (`store.losses`); here it gets
its price by the policy in force, and what records say of its case. Nothing is listed that somebody
may still judge blind, as on the work list of `cleaning`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from heapq import merge
from itertools import islice

import polars as pl

from rollout.core.errors import UnknownVersion
from rollout.core.records.label_cleaning import Choice, holding
from rollout.core.records.reviews import due_at
from rollout.core.scope.permissions import Act, Caller, require
from rollout.reports.figures.label_issues import WorkItem
from rollout.reports.inputs.losses import DIFFER, TOP, Loss, described, surprise
from rollout.reports.inputs.pairs import compare
from rollout.services.engine.rollout_state import Standing, standing
from rollout.store.counting.count_windows import Spans
from rollout.store.counting.top_losses import Differing, Losses
from rollout.store.database.session import Database, Transaction
from rollout.store.records.history import StoredHistory
from rollout.store.records.recent_units import Newest
from rollout.store.reviews.cleanings import Cleanings
from rollout.tally.case_placement import place


@dataclass(frozen=True, slots=True)
class _Pair:
    """A pair that was counted and differs, as it is listed."""

    case_id: int
    version: str
    lever: str
    human: str
    model: str
    confidence: float
    loss: float
    cost: float


def counted_losses(
    database: Database,
    caller: Caller,
    name: str,
    at: datetime,
    *,
    version: str | None = None,
    chosen: bool | None = None,
    most: int = TOP,
) -> Sequence[WorkItem]:
    """Return the counted pairs with the largest cost times loss, at sites that the caller may read.

    Each is of a unit that is evidence: its first blind verdict in time, beside what the version
    said, under every policy so far; the cost is that of the policy in force. Levers with numbers
    are left out: what a number costs is not kept.

    Args:
        database: where the rollout is.
        caller: who asks. Who may read few sites waits while the index passes over the others.
        name: of the rollout.
        at: now.
        version: whose; by default all.
        chosen: only those about which something was chosen, only the others, or, by None, all.
        most: how many.

    Raises:
        NotAllowed: the caller may not read the rollout.
        UnknownRollout: there is none that they may see.
        UnknownVersion: it was never seen.
    """
    require(caller, Act.READ, name)
    with database.reading() as transaction:
        state = standing(transaction, name)
        if version is not None and version not in state.scope.versions:
            raise UnknownVersion(f"no version {version} was seen in {name}")
        versions = sorted(state.scope.versions) if version is None else [version]
        is_readable = partial(caller.may, Act.READ, name)
        pairs = _dearest(transaction, state, versions, is_readable, most)
        visible_pairs = _told(transaction, state, pairs, at, is_readable, most)
        matching_pairs = (item for item in visible_pairs if chosen in {None, item[2] is not None})
        selected_pairs = list(islice(matching_pairs, most))
        losses = _described(transaction, state, {pair: key for pair, key, _ in selected_pairs})
    choices = (choice for *_, choice in selected_pairs)
    return [WorkItem(loss, choice) for loss, choice in zip(losses, choices, strict=True)]


def _dearest(
    transaction: Transaction,
    stood: Standing,
    versions: Iterable[str],
    may_read: Callable[[str], bool],
    at_once: int,
) -> Iterator[_Pair]:
    """Yield pairs, the dearest first; of equally dear ones the surest, then the last sent."""
    losses = Losses(transaction, stood.rollout)
    levers = {lever.id: lever for lever in stood.policy.levers if lever.number is None}

    def of_class(
        version: str, series: Collection[int] | None, kind: int, one: Differing
    ) -> Iterator[_Pair]:
        *_, cost = compare(levers[one.lever], one.human, one.model)
        for case_id, confidence in losses.surest(version, kind, at_once=at_once, series=series):
            pair_values = (one.lever, one.human, one.model, confidence, surprise(confidence), cost)
            yield _Pair(case_id, version, *pair_values)

    classes = losses.classes().items()
    streams = (
        of_class(version, series, class_id, answer_class)
        for version in versions
        for series in [_readable(losses.sites(version), may_read)]
        for class_id, answer_class in classes
        if answer_class.lever in levers
    )
    listed_keys = (
        set()
    )  # under two policies a case may have been counted as a unit and in an episode
    for pair in merge(*streams, key=lambda p: (-p.cost * p.loss, -p.confidence, -p.case_id)):
        if (pair_key := (pair.case_id, pair.version, pair.lever)) not in listed_keys:
            listed_keys.add(pair_key)
            yield pair


def _readable(sites: Mapping[int, str], may_read: Callable[[str], bool]) -> Collection[int] | None:
    """Return the series of units that somebody may read of; None for whoever may read of all."""
    readable_series = [series_id for series_id, site in sites.items() if may_read(site)]
    return None if len(readable_series) == len(sites) else readable_series


def _told(
    transaction: Transaction,
    stood: Standing,
    pairs: Iterator[_Pair],
    at: datetime,
    may_read: Callable[[str], bool],
    at_once: int,
) -> Iterator[tuple[_Pair, str, Choice | None]]:
    """Yield the pairs that may be shown, each with its case's key and what was chosen.

    Closed is a case that nobody is to judge unseen, by the grace of the policy in force.
    """
    blind_case_ids = Spans(transaction, stood.rollout).unseen(at)
    newest, cleanings = Newest(transaction, stood.rollout), Cleanings(transaction, stood.rollout)
    while batch := list(islice(pairs, at_once)):
        case_ids = {pair.case_id for pair in batch} - blind_case_ids
        cases, received_times = newest.cases(case_ids), newest.received(case_ids)
        current_choices = holding(cleanings.of(case_ids))
        for pair in batch:
            case = cases.get(pair.case_id)
            if case is None or not may_read(case.site):
                continue
            if due_at(stood.policy, case.occurred_at, received_times[pair.case_id]) <= at:
                yield pair, case.key, current_choices.get((case.key, pair.lever))


def _described(
    transaction: Transaction, stood: Standing, found: Mapping[_Pair, str]
) -> Sequence[Loss]:
    """Return pairs with what records say of their cases now."""
    case_ids = {pair.case_id for pair in found}
    attribute_names = Spans(transaction, stood.rollout).attributes(case_ids)
    levers = [lever.id for lever in stood.policy.levers]
    store = StoredHistory(transaction, stood.rollout, levers=levers, attributes=attribute_names)
    records = store.records(case_ids)
    placement = place(records, stood.policy, stood.rollout.salt)
    rows = [{**asdict(pair), "case_key": key, "kind": DIFFER} for pair, key in found.items()]
    return described(pl.DataFrame(rows), records, placement.cases) if rows else ()
