"""What would be done otherwise: a version's actions against people's on the same cases, as counted.

Sums that are kept with the tallies are read, and no record: see `services.matrices`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from rollout.core.calendar.sites import Cell
from rollout.core.policy.levers import Lever
from rollout.core.scope.permissions import Act, Caller, require
from rollout.reports.inputs.pairs import OTHER_ACTION
from rollout.reports.statistics.intervals import Change, paired_change
from rollout.services.engine.service import Service
from rollout.store.counting.matrices import Matrices

TRACK = "gate"


@dataclass(frozen=True, slots=True)
class ActionChange:
    """One action of one version; `change` is the version less people, on the same cases."""

    version: str
    lever: str
    action: str
    by_people: int
    by_model: int
    change: Change


def action_changes_of(
    service: Service,
    caller: Caller,
    name: str,
    versions: tuple[str, ...],
    cell: Cell | None = None,
) -> tuple[ActionChange, ...]:
    """Return the change of every action that anybody took, at the sites that the caller may read.

    Levers with numbers have no list of actions and are left out.

    Args:
        service: the replica that is asked.
        caller: who asks.
        name: of the rollout.
        versions: whose actions.
        cell: of this cell alone; by default of all of them.

    Raises:
        NotAllowed: the caller may read no site.
    """
    require(caller, Act.READ, name)
    state = service.watch.confirmed(name).standing
    readable_sites = [site for site in state.policy.site if caller.may(Act.READ, name, site)]
    with service.database.reading() as transaction:
        matrices = Matrices(transaction, state.rollout)
        frames = {version: matrices.frame(track=TRACK, version=version) for version in versions}
    return tuple(
        change
        for version, frame in frames.items()
        for lever in state.policy.levers
        if lever.number is None
        for change in _of_lever(frame.filter(_there(readable_sites, cell)), version, lever)
    )


def _there(sites: list[str], cell: Cell | None) -> pl.Expr:
    """Return what rows must be: of these sites, and of one cell where one is asked for."""
    site_filter = pl.col("site").is_in(sites)
    if cell is None:
        return site_filter
    return site_filter & (pl.col("site") == cell.site) & (pl.col("window") == cell.window)


def _of_lever(frame: pl.DataFrame, version: str, lever: Lever) -> Iterator[ActionChange]:
    rows = frame.filter((pl.col("lever") == lever.id) & (pl.col("human") != ""))
    pairs: dict[tuple[str, str], int] = {}
    for human, model_action, count in rows.select("human", "model", "n").iter_rows():
        key = (lever.action(human) or OTHER_ACTION, lever.action(model_action) or OTHER_ACTION)
        pairs[key] = pairs.get(key, 0) + count
    total = sum(pairs.values())
    for action in dict.fromkeys(lever.actions):
        human_count = sum(count for (human, _), count in pairs.items() if human == action)
        model_action = sum(
            count for (_, model_answer), count in pairs.items() if model_answer == action
        )
        agreed_count = pairs.get((action, action), 0)
        if human_count or model_action:
            change = paired_change(model_action - agreed_count, human_count - agreed_count, total)
            yield ActionChange(version, lever.id, action, human_count, model_action, change)
