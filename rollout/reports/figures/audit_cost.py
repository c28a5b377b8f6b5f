"""The price of auditing little: when somebody who saw every verdict would have narrowed.

The engine is shown what the stage shows; a replay knows the rest. For each narrowing by a quality
guard the same detector runs over all verdicts, and the model's cases until then are counted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
import scipy
from numpy.typing import NDArray

from rollout.core.policy.measures import DETECTED, MISSING
from rollout.core.policy.policy import Guard, Policy
from rollout.core.scope.events import Narrowed
from rollout.reports.figures.model_cost import Price, price_of
from rollout.reports.inputs.gate_progress import Leg
from rollout.reports.inputs.inputs import Inputs, Key
from rollout.reports.statistics.intervals import Share, Weighted, share, weighted_share
from rollout.tally.evidence_view import Sight
from rollout.tally.guard_series import detector_path
from rollout.tally.slots import instant, slot_after, slot_before
from rollout.tally.unit_arrays import Bools, Kinds, Rows


@dataclass(frozen=True, slots=True)
class Hindsight:
    """One narrowing by a guard, beside what an observer of everything would have done.

    Attributes:
        site, window, version, guard: who was narrowed by what.
        came_from, to: the stages.
        changed_at: since when the guard had been counting.
        began_at: best estimate, from all verdicts, of when the measure fell.
        narrowed_at: when the engine narrowed.
        seen_at: when the same guard would have given alarm, had it seen every verdict; None if
            it would not have. It may be after `narrowed_at`: other verdicts are other luck.
        shown, all: bad and all records of the guard by the narrowing: shown to it, and in all.
        price: what the model decided from `began_at` to `narrowed_at`.
        price_if_seen: the same until `seen_at`; None where that is unknown or later.
    """

    site: str
    window: str
    version: str
    guard: str
    came_from: str
    to: str
    changed_at: datetime
    began_at: datetime
    narrowed_at: datetime
    seen_at: datetime | None
    shown: Share
    all: Share
    price: Price
    price_if_seen: Price | None


@dataclass(frozen=True, slots=True)
class Sighted:
    """One cell and version: agreement as the engine saw it, weighted, and of all verdicts.

    `shown` are the judged units of the attempt that the engine was given. `weighted` corrects
    them for the share that each stage shows; `all` are all judged units of the attempt.
    """

    site: str
    window: str
    version: str
    shown: Share
    weighted: Weighted
    all: Share


def hindsights(
    inputs: Inputs, courses: Mapping[Key, tuple[Leg, ...]], priced: pl.DataFrame
) -> tuple[Hindsight, ...]:
    """Return every narrowing by a guard of a quality measure, in order."""
    return tuple(
        _hindsight(event, guard, period, inputs, priced)
        for event, guard, period in _narrowings(inputs, courses)
    )


def _narrowings(
    inputs: Inputs, courses: Mapping[Key, tuple[Leg, ...]]
) -> Iterator[tuple[Narrowed, Guard, Leg]]:
    for event in inputs.events:
        if not isinstance(event, Narrowed) or not event.guard:
            continue
        guards = {guard.id: guard for guard in inputs.policy.guards_of(event.cell)}
        guard = guards.get(event.guard)
        periods = courses.get((event.cell, event.version), ())
        earlier = [period for period in periods if period.since < event.at <= period.until]
        if guard is not None and earlier and _quality(guard):
            yield event, guard, earlier[-1]


def _quality(guard: Guard) -> bool:
    return guard.condition.measure in DETECTED - {"override"}


def _hindsight(
    event: Narrowed, guard: Guard, leg: Leg, inputs: Inputs, priced: pl.DataFrame
) -> Hindsight:
    policy, view = inputs.policy, inputs.sights[event.cell, event.version]
    rows = since_change(view.rows.guard, leg.state.changed_at, policy)
    alarm = detector_path(guard, rows, view.kinds, policy).next_alarm(0)
    detected_at = None if alarm is None else instant(alarm, policy.tick)
    counted_rows = rows.where(rows.slot <= slot_before(event.at, policy.tick))
    began_at = began(counted_rows, guard, view.kinds, policy) or leg.state.changed_at
    cell_cases = priced.filter(
        (pl.col("site") == event.cell.site)
        & (pl.col("window") == event.cell.window)
        & (pl.col("version") == event.version)
    )
    is_sooner = detected_at is not None and detected_at <= event.at
    return Hindsight(
        site=event.cell.site,
        window=event.cell.window,
        version=event.version,
        guard=str(guard.condition),
        came_from=event.from_stage,
        to=event.to_stage,
        changed_at=leg.state.changed_at,
        began_at=began_at,
        narrowed_at=event.at,
        seen_at=detected_at,
        shown=_bad(counted_rows.where(_shown(view, counted_rows)), guard, view.kinds, policy),
        all=_bad(counted_rows, guard, view.kinds, policy),
        price=price_between(cell_cases, began_at, event.at),
        price_if_seen=price_between(cell_cases, began_at, detected_at)
        if is_sooner and detected_at
        else None,
    )


def since_change(rows: Rows, changed_at: datetime, policy: Policy) -> Rows:
    """Return the rows that a guard counts which started anew at `changed_at`."""
    return rows.where(rows.occurred >= slot_after(changed_at, policy.tick))


def price_between(priced: pl.DataFrame, since: datetime, until: datetime) -> Price:
    """Return the price of the cases that occurred in [since, until)."""
    t = pl.from_epoch("t", time_unit="us").dt.replace_time_zone("UTC")
    return price_of(priced.filter((t >= since) & (t < until)))


def _shown(sight: Sight, rows: Rows) -> Bools:
    """Say of which rows the engine was shown the verdict."""
    if not sight.timeline.ever_left_shadow:
        return np.ones(len(rows), dtype=bool)
    visible_share = sight.shares.seen[sight.timeline.at(rows.occurred)]
    return np.asarray(sight.band_of(rows) < visible_share)


def _losses(rows: Rows, guard: Guard, kinds: Kinds, policy: Policy) -> NDArray[np.float64]:
    """Return each record's loss as the guard's measure sees it, in [0, 1]; NaN for other units."""
    matches = kinds.takes(guard.condition)[rows.kind]
    if guard.condition.measure == "cost":
        weights = np.array(policy.cost_levels) / policy.largest_cost
    elif guard.condition.measure == "action_change":
        weights = np.array([1.0, 0.0, 0.5])
    else:
        weights = np.array([0.0, 1.0])
    return np.where(matches.any(axis=1), matches @ weights, np.nan)


def _bad(rows: Rows, guard: Guard, kinds: Kinds, policy: Policy) -> Share:
    losses = _losses(rows, guard, kinds, policy)
    return share(int(np.sum(losses > 0)), int(np.sum(~np.isnan(losses))))


def began(rows: Rows, guard: Guard, kinds: Kinds, policy: Policy) -> datetime | None:
    """Return when the measure most likely fell: the split that explains the losses best.

    Records stand in order of their cases; before the split one mean loss, after it a higher one.
    A split has to explain more than one that is there by luck (ln n, as by Schwarz's criterion);
    else the first record is the answer: it was so from the start. None without records.
    """
    order = np.argsort(rows.occurred, kind="stable")
    losses = _losses(rows, guard, kinds, policy)[order]
    is_valid = ~np.isnan(losses)
    losses, occurred = losses[is_valid], rows.occurred[order][is_valid]
    if not len(losses):
        return None
    n, total = len(losses), losses.sum()
    before = np.concatenate([[0.0], np.cumsum(losses)[:-1]])
    count = np.arange(n)
    gain = _likelihood(before, count) + _likelihood(total - before, n - count)
    with np.errstate(invalid="ignore", divide="ignore"):
        is_worse = (count == 0) | ((total - before) / (n - count) > before / count)
    index = int(np.argmax(np.where(is_worse, gain, -np.inf)))
    index = index if gain[index] - gain[0] > np.log(n) else 0
    return instant(int(occurred[index]), policy.tick)


def _likelihood(losses: NDArray[np.float64], n: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the largest log-likelihood of so many losses in n records."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(n > 0, losses / n, 0.0)
    return np.asarray(scipy.special.xlogy(losses, mean) + scipy.special.xlogy(n - losses, 1 - mean))


def sighted(inputs: Inputs) -> tuple[Sighted, ...]:
    """Return every cell and version; where the cell never left shadow, everything was shown."""
    order = {cell: index for index, cell in enumerate(inputs.policy.cells)}
    keys = sorted(inputs.sights, key=lambda key: (order[key[0]], key[1]))
    return tuple(_sighted(inputs.sights[key], inputs.policy) for key in keys)


def _sighted(sight: Sight, policy: Policy) -> Sighted:
    rows = sight.rows.gate
    rows = rows.where(rows.occurred >= slot_before(sight.state.attempt_since, policy.tick))
    rows = rows.where(sight.kinds.whole[rows.kind] & ~sight.kinds.missing[rows.kind])
    is_visible = _shown(sight, rows)
    kind_agrees = np.array(
        [kind.agrees and kind.decided != MISSING for kind in sight.kinds.kinds], dtype=bool
    )
    is_agreeing = kind_agrees[rows.kind]
    sampling_rates = np.array([1.0, *(stage.seen for stage in policy.stages)])
    row_rates = sampling_rates[sight.timeline.at(rows.occurred)]
    return Sighted(
        site=sight.cell.site,
        window=sight.cell.window,
        version=sight.version,
        shown=share(int(is_agreeing[is_visible].sum()), int(is_visible.sum())),
        weighted=weighted_share(is_agreeing[is_visible], row_rates[is_visible]),
        all=share(int(is_agreeing.sum()), len(rows)),
    )
