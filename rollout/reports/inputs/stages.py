"""Stage history of each cell, and its grants at the end."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.scope.projection import apply_events
from rollout.core.scope.scope import Scope, compute_stage_level
from rollout.reports.inputs.decided_by import find_acting_versions
from rollout.reports.inputs.inputs import ReportInputs
from rollout.tally.slots import to_instant
from rollout.tally.stage_history import StageHistory


@dataclass(frozen=True, slots=True)
class StageInterval:
    """A period on one stage; `version` is the acting one, None in shadow."""

    stage: str
    version: str | None
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class GrantFacts(StageInterval):
    """A grant that is valid at the end, and its proposal."""

    version: str
    proposal: str


@dataclass(frozen=True, slots=True)
class CellStages:
    """Stage history of one cell.

    Attributes:
        site, window: the cell.
        stage, version: at the end.
        since: when the last stage and version began, also if that was before the report's span.
        intervals: from the first instant to the last, without gaps.
        grants: valid at the end, the lowest stage first.
        widened, narrowed: how often the stage went up, and down, in the report's span.
        days_above: days above shadow.
    """

    site: str
    window: str
    stage: str
    version: str | None
    since: datetime
    intervals: tuple[StageInterval, ...]
    grants: tuple[GrantFacts, ...]
    widened: int
    narrowed: int
    days_above: float

    @property
    def was_above_shadow(self) -> bool:
        """Return whether the cell was above shadow at any time of the report's span."""
        return self.widened > 0 or any(interval.stage != SHADOW for interval in self.intervals)


def compute_stage_histories(inputs: ReportInputs) -> tuple[CellStages, ...]:
    """Return the stage history of every cell of the policy, in its order."""
    scope, acting_versions = apply_events(inputs.events), find_acting_versions(inputs)
    return tuple(
        _build_cell_stages(cell, inputs, scope, acting_versions.get(cell, []))
        for cell in inputs.policy.cells
    )


def _build_cell_stages(
    cell: Cell, inputs: ReportInputs, scope: Scope, acting_versions: list[tuple[datetime, str]]
) -> CellStages:
    timeline = inputs.timelines.get(cell, StageHistory())
    intervals = tuple(_list_intervals(timeline, acting_versions, inputs))
    last = intervals[-1]
    steps = [
        step
        for slot, step in zip(timeline.slots, pairwise((0, *timeline.stage_levels)), strict=True)
        if to_instant(slot, inputs.policy.tick) >= inputs.first
    ]
    time_above = sum(
        (interval.until - interval.since for interval in intervals if interval.stage != SHADOW),
        timedelta(),
    )
    return CellStages(
        site=cell.site,
        window=cell.window,
        stage=last.stage,
        version=last.version,
        since=_find_start(timeline, acting_versions, inputs, last),
        intervals=intervals,
        grants=_list_grants(cell, inputs, scope),
        widened=sum(after > before for before, after in steps),
        narrowed=sum(after < before for before, after in steps),
        days_above=time_above / timedelta(days=1),
    )


def _find_start(
    timeline: StageHistory,
    acting_versions: list[tuple[datetime, str]],
    inputs: ReportInputs,
    last: StageInterval,
) -> datetime:
    """Return when an interval's stage and version began, also before the report's span."""
    if last.since > inputs.first:
        return last.since
    changes = [to_instant(slot, inputs.policy.tick) for slot in timeline.slots]
    if last.version is not None:
        changes += [at for at, _ in acting_versions]
    starts = [*(event.at for event in inputs.events[:1]), *changes]
    return max((at for at in starts if at <= inputs.first), default=inputs.first)


def _list_intervals(
    timeline: StageHistory, acting_versions: list[tuple[datetime, str]], inputs: ReportInputs
) -> Iterator[StageInterval]:
    """Yield the periods without a change of stage or acting version."""
    starts = [to_instant(slot, inputs.policy.tick) for slot in timeline.slots]
    changes = sorted({inputs.first, *starts, *(at for at, _ in acting_versions)})
    changes = [at for at in changes if inputs.first <= at < inputs.last] or [inputs.first]
    current: StageInterval | None = None
    for since, until in zip(changes, [*changes[1:], inputs.last], strict=True):
        stage_level = (0, *timeline.stage_levels)[bisect_right(starts, since)]
        index = bisect_right([at for at, _ in acting_versions], since) - 1
        version = acting_versions[index][1] if stage_level and index >= 0 else None
        stage = inputs.policy.stage_ids[stage_level]
        if current is not None and (current.stage, current.version) == (stage, version):
            current = StageInterval(stage, version, current.since, until)
            continue
        if current is not None:
            yield current
        current = StageInterval(stage, version, since, until)
    if current is not None:
        yield current


def _list_grants(cell: Cell, inputs: ReportInputs, scope: Scope) -> tuple[GrantFacts, ...]:
    acting_version = scope.get_holder(cell)
    if acting_version is None or not compute_stage_level(
        scope, inputs.policy, cell, acting_version, inputs.last
    ):
        return ()
    return tuple(
        GrantFacts(grant.stage, acting_version, grant.since, grant.until, grant.proposal)
        for grant in scope.get_cell_state(cell, acting_version).grants
        if grant.is_valid(inputs.last)
    )
