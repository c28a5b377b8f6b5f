"""The timeline of a cell, loaded for a caller."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

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
from rollout.services.engine.evidence_reader import (
    EvidenceKey,
    load_counted_views,
    load_events,
)
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.tally.evidence_view import EvidenceView

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
    if request.since is not None and request.since >= min(request.until or at, at):
        raise RefusalError("nothing is in this span: `from` has to be before `until` and now")
    request = replace(request, version=version)
    (timeline,) = load_state_timelines(service, caller, state, (request,), at=at)
    return timeline


def load_state_timelines(
    service: Service,
    caller: Caller,
    state: RolloutState,
    requests: Sequence[TimelineRequest],
    *,
    at: datetime,
) -> tuple[CellTimeline, ...]:
    """Return timelines of cells that the caller may read; all cost one read of the evidence."""
    events = load_events(service.database, state)
    cells = tuple(request.cell for request in requests)
    last_slot, views = load_counted_views(service.database, state, cells)
    return tuple(
        _build_timeline(
            _build_source(state, events, views, request, last_slot, at),
            request,
            events[0].at,
            at,
            is_batched=may_be_asked_blind(caller, state.rollout.name, (request.cell.site,)),
        )
        for request in requests
    )


def _build_timeline(
    source: TimelineSource,
    request: TimelineRequest,
    began_at: datetime,
    at: datetime,
    *,
    is_batched: bool,
) -> CellTimeline:
    until = min(request.until or at, at)
    first = min(find_first_unit(source) or at, began_at)
    since = max(first, request.since or until - DEFAULT_SPAN)
    since = since if since < until else until - EMPTY_SPAN  # before the first event
    return build_cell_timeline(source, since, until, is_batched=is_batched)


def _build_source(
    state: RolloutState,
    events: tuple[LedgerEvent, ...],
    views: Mapping[EvidenceKey, EvidenceView],
    request: TimelineRequest,
    last_slot: int,
    at: datetime,
) -> TimelineSource:
    cell = request.cell
    own_views = {key: view for key, view in views.items() if key[0] == cell}
    inputs = build_evidence_inputs(state, events, own_views, at, has_retired=True)
    return TimelineSource(
        cell=cell,
        policy=state.policy,
        holder=state.scope.get_holder(cell),
        views={name: view for (_, name), view in own_views.items()},
        periods={name: periods for (_, name), periods in build_state_periods(inputs).items()},
        shown=(request.version,) if request.version else tuple(state.scope.versions),
        marks=list_cell_marks(events, cell),
        purged_before=max(
            (event.before for event in events if isinstance(event, RecordsPurged)), default=None
        ),
        last_slot=last_slot,
    )
