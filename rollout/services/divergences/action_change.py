"""How often a version takes each action compared with humans, from counted sums."""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from rollout.core.calendar.sites import Cell
from rollout.core.policy.levers import Lever
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.reports.inputs.pairs import OTHER_ACTION
from rollout.reports.statistics.intervals import PairedChange, compute_paired_change
from rollout.services.divergences.count_frames import load_count_frame
from rollout.services.engine.service import Service


@dataclass(frozen=True, slots=True)
class CountedActionChange:
    """Counts of one action of a version; `change` is model minus human."""

    version: str
    lever: str
    action: str
    by_humans: int
    by_model: int
    change: PairedChange


def load_action_changes(
    service: Service,
    caller: Caller,
    rollout_name: str,
    versions: tuple[str, ...],
    cell: Cell | None = None,
) -> tuple[CountedActionChange, ...]:
    """Return the change of every action at the sites the caller may read.

    Levers with numbers are excluded: they have no list of actions.

    Args:
        cell: restricts the counts to one cell.

    Raises:
        NotAllowedError: the caller may not read any site.
    """
    require_permission(caller, Permission.READ, rollout_name)
    state = service.state_cache.reload_rollout(rollout_name).state
    frames = {version: load_count_frame(service, state, caller, version) for version in versions}
    return tuple(
        change
        for version, frame in frames.items()
        for lever in state.policy.levers
        if lever.has_single_labels
        for change in _compute_lever_changes(
            frame.filter(_build_cell_filter([*state.policy.sites_by_id], cell)), version, lever
        )
    )


def _build_cell_filter(sites: list[str], cell: Cell | None) -> pl.Expr:
    """Build the row filter for sites and, optionally, one cell."""
    site_filter = pl.col("site").is_in(sites)
    if cell is None:
        return site_filter
    return site_filter & (pl.col("site") == cell.site) & (pl.col("window") == cell.window)


def _compute_lever_changes(
    frame: pl.DataFrame, version: str, lever: Lever
) -> Iterator[CountedActionChange]:
    rows = frame.filter((pl.col("lever") == lever.id) & (pl.col("human") != ""))
    pairs: dict[tuple[str, str], int] = {}
    for human, model_action, count in rows.select("human", "model", "n").iter_rows():
        key = (
            lever.find_action(human) or OTHER_ACTION,
            lever.find_action(model_action) or OTHER_ACTION,
        )
        pairs[key] = pairs.get(key, 0) + count
    total = sum(pairs.values())
    for action in dict.fromkeys(lever.actions):
        human_count = sum(count for (human, _), count in pairs.items() if human == action)
        model_action = sum(
            count for (_, model_answer), count in pairs.items() if model_answer == action
        )
        agreed_count = pairs.get((action, action), 0)
        if human_count or model_action:
            change = compute_paired_change(
                model_action - agreed_count, human_count - agreed_count, total
            )
            yield CountedActionChange(version, lever.id, action, human_count, model_action, change)
