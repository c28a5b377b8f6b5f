"""Where a version differs in a cell or a filter, without an incident: loaded for a caller.

The same population, search and error rate as for an incident (decision record 0076).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from rollout.core.calendar.instants import EPOCH, to_micros
from rollout.core.calendar.sites import Cell
from rollout.core.errors import RefusalError, UnknownCellError, UnknownVersionError
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.reports.figures.incident_cause import BATCH_SIZE, find_incident_cause
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.services.incidents.case_properties import (
    build_judged_units,
    load_lever_answers,
    select_with_attributes,
)
from rollout.services.incidents.incident_causes import (
    LoadedCause,
    find_cause_start,
    load_answered_units,
    load_whole_batches,
    withhold_values,
)
from rollout.store.counting.judged_units import JudgedUnitStore

DEFAULT_SPAN: Final = timedelta(days=30)
MAX_SPAN: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class CauseQuery:
    """Which cases to search; what is empty or None is not narrowed.

    Without a version, the acting one of the cell, else the newest.
    """

    version: str = ""
    site: str = ""
    window: str = ""
    since: datetime | None = None
    until: datetime | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_narrowed(self) -> bool:
        """Return whether days or attributes choose among a cell's cases."""
        return bool(self.since or self.until or self.attributes)


def load_cause(
    service: Service, caller: Caller, rollout_name: str, query: CauseQuery, *, at: datetime
) -> LoadedCause:
    """Return since when and in which cases a version differs, by default of the last 30 days.

    For a caller who may review at a site, its cases count in whole batches of closed ones.

    Raises:
        NotAllowedError: the caller may not read the site.
        UnknownCellError: no cell of the policy matches.
        UnknownVersionError: the rollout has no such version.
        RefusalError: the span ends before it begins or is too long; or a caller who may be asked
            for blind reviews chooses days or attributes, which could single out a case.
    """
    require_permission(caller, Permission.READ, rollout_name)
    if query.site:
        require_permission(caller, Permission.READ, rollout_name, (query.site,))
    state = service.state_cache.reload_rollout(rollout_name).state
    cells = _list_cells(state, caller, query)
    version = _find_version(state, cells, query)
    is_batched = {
        cell: caller.has_permission(Permission.REVIEW, rollout_name, cell.site) for cell in cells
    }
    if query.is_narrowed and any(is_batched.values()):
        raise RefusalError(
            "because you may be asked for blind reviews here, leave days and attributes empty: they"
            " could single out a case"
        )
    since, until = _find_span(query, at)
    names_reviewers = all(
        caller.has_permission(Permission.OPERATE, rollout_name, cell.site) for cell in cells
    )
    with service.database.begin_read() as transaction:
        stores = {
            cell: JudgedUnitStore(transaction, state.rollout, cell, version) for cell in cells
        }
        units = [
            load_whole_batches(transaction, state, store, since, until, at)
            if is_batched[cell]
            else load_answered_units(transaction, state, store, since, until, at)
            for cell, store in stores.items()
        ]
        judged = build_judged_units(
            select_with_attributes(pl.concat(units), query.attributes),
            load_lever_answers(stores[cells[0]], state.policy),
            state.policy,
            names_reviewers=names_reviewers,
        )
        cause = find_incident_cause(judged, to_micros(until))
        cause = withhold_values(cause) if any(is_batched.values()) else cause
        started = find_cause_start(stores, judged, cause, since)
    timezone = state.policy.get_timezone(cells[0].site if len(cells) == 1 else "")
    return LoadedCause(
        *(query.site, query.window, version, timezone),
        *(since, until, None),
        started,
        BATCH_SIZE if any(is_batched.values()) else None,
        names_reviewers,
        cause,
        query.attributes,
    )


def _list_cells(state: RolloutState, caller: Caller, query: CauseQuery) -> tuple[Cell, ...]:
    cells = tuple(
        cell
        for cell in state.policy.cells
        if query.site in {"", cell.site}
        and query.window in {"", cell.window}
        and caller.has_permission(Permission.READ, state.rollout.name, cell.site)
    )
    if not cells:
        place = " · ".join(filter(None, (query.site, query.window)))
        raise UnknownCellError(f"the policy has no {place}; list the cells to see their names")
    return cells


def _find_version(state: RolloutState, cells: tuple[Cell, ...], query: CauseQuery) -> str:
    versions = state.scope.versions
    if query.version:
        version = state.scope.get_first_name(query.version)
        if version not in versions:
            raise UnknownVersionError(f"no version {version} was seen in {state.rollout.name}")
        return version
    return state.scope.get_holder(cells[0]) or next(reversed(list(versions)), "")


def _find_span(query: CauseQuery, at: datetime) -> tuple[datetime, datetime]:
    until = min(query.until or at, at)
    if until <= EPOCH:
        raise RefusalError("no case is older than 1970; choose a later end")
    since = query.since or until - DEFAULT_SPAN
    if since >= until:
        raise RefusalError("nothing is in this span: its begin has to be before its end and now")
    if until - since > MAX_SPAN:
        raise RefusalError(f"choose at most {MAX_SPAN.days} days")
    return since, until
