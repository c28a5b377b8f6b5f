"""Stop targets: everything, one site or one cell; and their latency in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from api.web_kit.text import encode_segment
from rollout.engine.decide.stop_targets import StopTarget
from rollout.engine.words.formatting import format_quantity, join_words
from rollout.features.stops.stop_options import (
    CellGrant,
    StopLatency,
    StopOptions,
    format_stop_latency,
)
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.errors import RefusalError

ALL, SITE, CELL = "all", "site", "cell"
CHOOSE_TARGET_TEXT: Final = "Choose how far: everything, a site or a cell"
MAX_CELLS: Final = 500  # beyond this number of cells the form offers only sites


@dataclass(frozen=True, slots=True)
class TargetChoice:
    """One choice of the form."""

    value: str
    text: str


@dataclass(frozen=True, slots=True)
class TargetSelection:
    """The chosen target, and its name in sentences."""

    value: str
    target: StopTarget
    text: str


def build_widest_choice(options: StopOptions) -> TargetChoice:
    """Return the widest choice: everything that the user may stop."""
    cells = format_quantity(len(options.cells), "cell")
    sites = format_quantity(len(options.sites), "site")
    target_text = "Everything" if not options.other_sites else "All that you operate"
    return TargetChoice(ALL, f"{target_text}: {sites}, {cells}")


def build_site_choices(options: StopOptions) -> list[TargetChoice]:
    """Return a choice for each site."""
    return [TargetChoice(f"{SITE}/{encode_segment(site)}", site) for site in options.sites]


def build_cell_choices(options: StopOptions) -> list[TargetChoice]:
    """Return a choice for each cell; none if there are too many."""
    if len(options.cells) > MAX_CELLS:
        return []
    return [
        TargetChoice(format_cell_value(cell_grant.cell), str(cell_grant.cell))
        for cell_grant in options.cells
    ]


def format_cell_value(cell: Cell) -> str:
    """Return a cell's form value; names are percent-encoded."""
    return f"{CELL}/{encode_segment(cell.site)}/{encode_segment(cell.window)}"


def parse_target(value: str) -> TargetSelection:
    """Parse the target of a form.

    Raises:
        RefusalError: unknown target.

    >>> (
    ...     parse_target("site/north%2Fgate").text,
    ...     parse_target("cell/creek/day").text,
    ...     parse_target("all").text,
    ... )
    ('north/gate', 'creek · day', 'everything')
    """
    match [unquote(part) for part in value.split("/")]:
        case ["all"]:
            return TargetSelection(value, StopTarget(is_everything=True), "everything")
        case ["site", str(site)] if site:
            return TargetSelection(
                value, StopTarget(cells=(), sites=(_check_exact_site(site),)), site
            )
        case ["cell", str(site), str(window)] if site and window:
            return TargetSelection(
                value, StopTarget(cells=(Cell(site, window),)), str(Cell(site, window))
            )
    raise RefusalError(CHOOSE_TARGET_TEXT)


def _check_exact_site(site: str) -> str:
    """Reject patterns: the form offers only exact site names."""
    if "*" in site:
        raise RefusalError(CHOOSE_TARGET_TEXT)
    return site


def describe_stop_latency(latencies: Sequence[StopLatency]) -> str:
    """Describe the stop latency by groups of equally fast sites, fastest first.

    `creek and lake within 1 min 1 s, far within 12 h 1 min`
    """
    sites_by_latency: dict[str, list[str]] = {}
    for latency in sorted(latencies, key=lambda latency_item: latency_item.within_seconds):
        sites_by_latency.setdefault(format_stop_latency(latency.within_seconds), []).append(
            latency.site
        )
    return ", ".join(
        f"{_join_sites(sites)} within {latency_text}"
        for latency_text, sites in sites_by_latency.items()
    )


MAX_NAMED_SITES: Final = 6


def _join_sites(sites: list[str]) -> str:
    hidden_count = len(sites) - MAX_NAMED_SITES
    if hidden_count < 2:
        return join_words(sites)
    return join_words([*sites[:MAX_NAMED_SITES], f"{hidden_count} more sites"])


def describe_interim(cell_grants: Sequence[CellGrant], site: str) -> str:
    """Describe what may still happen at a site until a stop takes effect."""
    site_grants = [cell_grant for cell_grant in cell_grants if cell_grant.cell.site == site]
    deciding_versions = sorted(
        {cell_grant.version for cell_grant in site_grants if cell_grant.model_decides}
    )
    if deciding_versions:
        return f"{join_words(deciding_versions)} may act alone on earlier assignments"
    supervised_versions = sorted(
        {cell_grant.version for cell_grant in site_grants if cell_grant.stage != "shadow"}
    )
    if supervised_versions:
        return f"Humans confirm what {join_words(supervised_versions)} proposes, as now"
    if any(cell_grant.is_stopped for cell_grant in site_grants):
        return "Already stopped: humans decide"
    return "No version acts here at this hour: humans decide"
