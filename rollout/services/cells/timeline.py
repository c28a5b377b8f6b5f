"""The timeline of a cell, loaded for a caller."""

from datetime import datetime, timedelta
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.errors import RefusalError, UnknownCellError, UnknownVersionError
from rollout.core.scope.event_base import LedgerEvent
from rollout.core.scope.permissions import (
    Caller,
    Permission,
    may_be_asked_blind,
    require_permission,
)
from rollout.core.scope.record_events import RecordsPurged
from rollout.reports.figures.cell_timeline import (
    TimelineSource,
    build_cell_timeline,
    find_first_unit,
)
from rollout.reports.figures.timeline_marks import list_cell_marks
from rollout.reports.figures.timeline_parts import CellTimeline, TimelineRequest
from rollout.reports.inputs.gate_progress import build_state_periods
from rollout.services.cells.cells import build_evidence_inputs
from rollout.services.engine.evidence_reader import load_counted_views, load_events
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service

DEFAULT_SPAN: Final = timedelta(days=42)
EMPTY_SPAN: Final = timedelta(hours=1)


def load_cell_timeline(
    service: Service, caller: Caller, rollout_name: str, request: TimelineRequest, *, at: datetime
) -> CellTimeline:
    """Return what is drawn of a cell, by default the last six weeks of all its versions.

    For a caller who may review at the site, agreement moves in batches and has no bounds: a sum
    read before and after an own answer exposes no case.

    Raises:
        NotAllowedError: the caller may not read the site.
        UnknownCellError: the policy has no such cell.
        UnknownVersionError: the rollout has no such version.
        RefusalError: the span ends before it begins.
    """
    cell, version = request.cell, request.version
    require_permission(caller, Permission.READ, rollout_name)
    require_permission(caller, Permission.READ, rollout_name, (cell.site,))
    state = service.state_cache.reload_rollout(rollout_name).state
    if cell not in state.policy.cell_set:
        raise UnknownCellError(f"the policy has no {cell}; list the cells to see their names")
    version = state.scope.get_first_name(version)
    if version and version not in state.scope.versions:
        raise UnknownVersionError(f"no version {version} was seen in {rollout_name}")
    events = load_events(service.database, state)
    source = _load_source(service, state, events, cell, version, at)
    until = min(request.until or at, at)
    if request.since is not None and request.since >= until:
        raise RefusalError("nothing is in this span: `from` has to be before `until` and now")
    first = min(find_first_unit(source) or at, events[0].at)
    since = max(first, request.since or until - DEFAULT_SPAN)
    since = since if since < until else until - EMPTY_SPAN  # before the first event
    is_batched = may_be_asked_blind(caller, rollout_name, (cell.site,))
    return build_cell_timeline(source, since, until, is_batched=is_batched)


def _load_source(
    service: Service,
    state: RolloutState,
    events: tuple[LedgerEvent, ...],
    cell: Cell,
    version: str,
    at: datetime,
) -> TimelineSource:
    last_slot, views = load_counted_views(service.database, state, cell)
    inputs = build_evidence_inputs(state, events, views, at, has_retired=True)
    return TimelineSource(
        cell=cell,
        policy=state.policy,
        holder=state.scope.get_holder(cell),
        views={name: view for (_, name), view in views.items()},
        periods={name: periods for (_, name), periods in build_state_periods(inputs).items()},
        shown=(version,) if version else tuple(state.scope.versions),
        marks=list_cell_marks(events, cell),
        purged_before=max(
            (event.before for event in events if isinstance(event, RecordsPurged)), default=None
        ),
        last_slot=last_slot,
    )
