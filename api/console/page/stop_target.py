"""How far a stop or a narrowing goes: everything, one site, or one cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import unquote

from api.console.page.text import segment
from api.console.page.time_format import took
from rollout.core.calendar.sites import Cell
from rollout.core.errors import Refusal
from rollout.reports.text.formatting import listed, several
from rollout.services.engine.state_cache import STALE
from rollout.services.stops.stop_latency import StopLatency
from rollout.services.stops.stop_targets import Holding, Stoppable
from rollout.services.stops.stops import Named

ALL, SITE, CELL = "all", "site", "cell"
CHOOSE: Final = "Choose how far: everything, a site or a cell"
MOST_CELLS: Final = 500  # that a page lists one by one: of more a site is chosen


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice of the form."""

    value: str
    says: str


@dataclass(frozen=True, slots=True)
class Far:
    """What is meant, and how a sentence calls it."""

    value: str
    named: Named
    says: str


def everything(found: Stoppable) -> Choice:
    """Return the widest choice: all that is the person's."""
    cells, sites = several(len(found.cells), "cell"), several(len(found.sites), "site")
    target_text = "Everything" if not found.others else "All that you operate"
    return Choice(ALL, f"{target_text}: {sites}, {cells}")


def sites_of(found: Stoppable) -> list[Choice]:
    """Return a choice for each site."""
    return [Choice(f"{SITE}/{segment(site)}", site) for site in found.sites]


def cells_of(found: Stoppable) -> list[Choice]:
    """Return a choice for each cell, none where they are too many to look through."""
    if len(found.cells) > MOST_CELLS:
        return []
    return [Choice(cell_value(cell_grant.cell), str(cell_grant.cell)) for cell_grant in found.cells]


def cell_value(cell: Cell) -> str:
    """Return a cell as a form sends it: names may hold anything."""
    return f"{CELL}/{segment(cell.site)}/{segment(cell.window)}"


def far_of(value: str) -> Far:
    """Read how far a form goes.

    Raises:
        Refusal: it is none of the choices.

    >>> far_of("site/north%2Fgate").says, far_of("cell/creek/day").says, far_of("all").says
    ('north/gate', 'creek · day', 'everything')
    """
    match [unquote(part) for part in value.split("/")]:
        case ["all"]:
            return Far(value, Named(everything=True), "everything")
        case ["site", str(site)] if site:
            return Far(value, Named(cells=(), sites=(_exactly(site),)), site)
        case ["cell", str(site), str(window)] if site and window:
            return Far(value, Named(cells=(Cell(site, window),)), str(Cell(site, window)))
    raise Refusal(CHOOSE)


def _exactly(site: str) -> str:
    """Refuse a pattern: a form chooses sites that there are, by name."""
    if "*" in site:
        raise Refusal(CHOOSE)
    return site


def span_text(within: float) -> str:
    """Say a reach; the half second of a replica's staleness stands beside longer leases unsaid.

    >>> span_text(60.5), span_text(43_200.5), span_text(0.5)
    ('1 min', '12 h', '1 s')
    """
    return took(timedelta(seconds=max(round(within - STALE), 1)))


def reach_text(reach: Sequence[StopLatency]) -> str:
    """Say how soon it holds, sites that are as quick as each other together, quickest first.

    >>> reach_text([Reach("far", 43_200.5), Reach("creek", 60.5), Reach("lake", 60.5)])
    'creek and lake within 1 min, far within 12 h'
    """
    sites_by_latency: dict[str, list[str]] = {}
    for latency in sorted(reach, key=lambda latency_item: latency_item.within_seconds):
        sites_by_latency.setdefault(span_text(latency.within_seconds), []).append(latency.site)
    return ", ".join(f"{_some(sites)} within {span}" for span, sites in sites_by_latency.items())


MOST_NAMED: Final = 6


def _some(sites: list[str]) -> str:
    hidden_count = len(sites) - MOST_NAMED
    if hidden_count < 2:
        return listed(sites)
    return listed([*sites[:MOST_NAMED], f"{hidden_count} more sites"])


def until_then(held: Sequence[Holding], site: str) -> str:
    """Say what may still be done at a site until a stop has reached it."""
    site_grants = [cell_grant for cell_grant in held if cell_grant.cell.site == site]
    deciding_versions = sorted(
        {cell_grant.version for cell_grant in site_grants if cell_grant.model_decides}
    )
    if deciding_versions:
        return f"{listed(deciding_versions)} may act alone on answers already given"
    supervised_versions = sorted(
        {cell_grant.version for cell_grant in site_grants if cell_grant.stage != "shadow"}
    )
    if supervised_versions:
        return f"People confirm what {listed(supervised_versions)} proposes, as now"
    if any(cell_grant.stopped for cell_grant in site_grants):
        return "Stopped already: people decide"
    return "Nothing acts here: people decide"
