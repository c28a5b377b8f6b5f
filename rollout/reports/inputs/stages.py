"""Where each cell stood on the ladder, from when to when, and what the grants are at the end."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.scope.projection import fold
from rollout.core.scope.scope import Scope, stage_at
from rollout.reports.inputs.decided_by import holders_of
from rollout.reports.inputs.inputs import Inputs
from rollout.tally.slots import instant
from rollout.tally.stage_history import Timeline


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch on one stage; `version` is the acting one, None in shadow."""

    stage: str
    version: str | None
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """A grant that holds at the end: what, since when, until when, on which proposal."""

    stage: str
    version: str
    since: datetime
    until: datetime
    proposal: str


@dataclass(frozen=True, slots=True)
class CellStages:
    """One cell's way up and down the ladder.

    Attributes:
        site, window: the cell.
        stage, version: at the end.
        since: since when it has stood there.
        intervals: from the first instant to the last, without gaps.
        grants: those that are valid at the end, lowest first.
        widened, narrowed: how often it went up, and down.
        days_above: days on some stage above shadow.
    """

    site: str
    window: str
    stage: str
    version: str | None
    since: datetime
    intervals: tuple[Interval, ...]
    grants: tuple[GrantFacts, ...]
    widened: int
    narrowed: int
    days_above: float


def stages_of(inputs: Inputs) -> tuple[CellStages, ...]:
    """Return every cell of the policy, in its order; cells without records stood in shadow."""
    scope, acting_versions = fold(inputs.events), holders_of(inputs)
    return tuple(
        _of(cell, inputs, scope, acting_versions.get(cell, [])) for cell in inputs.policy.cells
    )


def _of(
    cell: Cell, inputs: Inputs, scope: Scope, holders: list[tuple[datetime, str]]
) -> CellStages:
    timeline = inputs.timelines.get(cell, Timeline())
    intervals = tuple(_intervals(timeline, holders, inputs))
    last = intervals[-1]
    stage_levels = (0, *timeline.rungs)
    steps = list(pairwise(stage_levels))
    time_above = sum(
        (interval.until - interval.since for interval in intervals if interval.stage != SHADOW),
        timedelta(),
    )
    return CellStages(
        site=cell.site,
        window=cell.window,
        stage=last.stage,
        version=last.version,
        since=last.since,
        intervals=intervals,
        grants=_grants(cell, inputs, scope),
        widened=sum(after > before for before, after in steps),
        narrowed=sum(after < before for before, after in steps),
        days_above=time_above / timedelta(days=1),
    )


def _intervals(
    timeline: Timeline, holders: list[tuple[datetime, str]], inputs: Inputs
) -> Iterator[Interval]:
    """Yield the stretches in which neither the stage nor the acting version changes."""
    starts = [instant(slot, inputs.policy.tick) for slot in timeline.slots]
    changes = sorted({inputs.first, *starts, *(at for at, _ in holders)})
    changes = [at for at in changes if inputs.first <= at < inputs.last] or [inputs.first]
    current: Interval | None = None
    for since, until in zip(changes, [*changes[1:], inputs.last], strict=True):
        stage_level = (0, *timeline.rungs)[bisect_right(starts, since)]
        index = bisect_right([at for at, _ in holders], since) - 1
        version = holders[index][1] if stage_level and index >= 0 else None
        stage = inputs.policy.rungs[stage_level]
        if current is not None and (current.stage, current.version) == (stage, version):
            current = Interval(stage, version, current.since, until)
            continue
        if current is not None:
            yield current
        current = Interval(stage, version, since, until)
    if current is not None:
        yield current


def _grants(cell: Cell, inputs: Inputs, scope: Scope) -> tuple[GrantFacts, ...]:
    acting_version = scope.holder(cell)
    if acting_version is None or not stage_at(
        scope, inputs.policy, cell, acting_version, inputs.last
    ):
        return ()
    return tuple(
        GrantFacts(grant.stage, acting_version, grant.since, grant.until, grant.proposal)
        for grant in scope.state(cell, acting_version).grants
        if grant.valid(inputs.last)
    )
