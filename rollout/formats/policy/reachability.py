"""Rows that could never count: the first that fits does, so the special one stands first."""

from collections.abc import Iterable, Iterator

from rollout.core.calendar.sites import Cell, Site, Window
from rollout.core.calendar.windows import FIRST_LOOK, follows_sun, hours_faults, share_of_year
from rollout.core.policy.levers import Cost, Lever, Margin
from rollout.core.policy.policy import Gate, Policy
from rollout.formats.policy.model import PolicyShape
from rollout.formats.policy.names import Check, Checked
from rollout.formats.policy.yaml_reader import Fault, Place

Pair = tuple[str, str]
YEARS = range(FIRST_LOOK, FIRST_LOOK + 5)


def _each_pair_has_a_cost(shape: PolicyShape, policy: Policy) -> Checked:
    for i, (row, lever) in enumerate(zip(shape.levers, policy.levers, strict=True)):
        if row.costs is None or not lever.labels or not _names_actions(lever):
            continue
        remaining = _pairs(lever)
        for j, cost in enumerate(lever.costs):
            covered = {pair for pair in remaining if _fits(cost, pair)}
            if not covered:
                yield Fault(("levers", i, "costs", j), _unreached("row"))
            remaining = [pair for pair in remaining if pair not in covered]
        if remaining:
            yield Fault(("levers", i, "costs"), _without_a_row(remaining))


def _pairs(lever: Lever) -> list[Pair]:
    actions = list(dict.fromkeys(lever.actions))
    return [
        (model_action, human_action)
        for model_action in actions
        for human_action in actions
        if model_action != human_action
    ]


def _fits(cost: Cost, pair: Pair) -> bool:
    return cost.did in (None, pair[0]) and cost.right in (None, pair[1])


def _names_actions(lever: Lever) -> bool:
    """Say whether every row names actions of the lever; one that does not is a fault already."""
    action_names = (
        name for cost in lever.costs for name in (cost.did, cost.right) if name is not None
    )
    return all(name in lever.actions for name in action_names)


def _unreached(what: str) -> str:
    return f"is never reached: the {what}s before it take all that it fits; put it before them"


def _without_a_row(left: list[Pair]) -> str:
    model_action, human_action = left[0]
    more = f" and {len(left) - 1} more" if len(left) > 1 else ""
    row = f"{{did: {model_action}, right: {human_action}, cost: 1}}"
    return (
        f"has no row for {model_action} where {human_action} is right{more}; add {row}, or {{cost:"
        " 1} last"
    )


def _each_distance_counts(shape: PolicyShape, policy: Policy) -> Checked:
    for i, (row, lever) in enumerate(zip(shape.levers, policy.levers, strict=True)):
        if row.costs is None or lever.number is None:
            continue
        for j, cost in enumerate(lever.costs):
            if any(_takes_all(earlier, cost) for earlier in lever.costs[:j]):
                yield Fault(("levers", i, "costs", j), _unreached("row"))


def _takes_all(before: Cost, cost: Cost) -> bool:
    """Say whether every distance that `cost` fits, `before` fits too."""
    if before.under is before.over is before.off is None:
        return True
    return any(
        _nearer(limit, distance)
        for limit, distance in (
            (before.under, cost.under),
            (before.over, cost.over),
            (before.off, cost.off),
            (before.off, cost.under),
            (before.off, cost.over),
        )
    )


def _nearer(limit: Margin | None, distance: Margin | None) -> bool:
    if limit is None or distance is None or limit.relative != distance.relative:
        return False
    return limit.amount <= distance.amount


def _gates_reached(_: PolicyShape, policy: Policy) -> Checked:
    for i, gate in enumerate(policy.gates):
        cells = {cell for cell in policy.cells if gate.where.fits(cell)}
        earlier = [g for g in policy.gates[:i] if g.to == gate.to]
        if cells and all(any(g.where.fits(cell) for g in earlier) for cell in cells):
            yield Fault(("gates", i), _unreached("gate"))


def _gates_stand_on_gates(_: PolicyShape, policy: Policy) -> Checked:
    if any(gate.to not in policy.rungs or not _fits_some(gate, policy) for gate in policy.gates):
        return  # which gate was meant to stand below is not known
    for i, gate in enumerate(policy.gates):
        stage_level = policy.rungs.index(gate.to)
        for lower_level in range(1, stage_level):
            name = policy.rungs[lower_level]
            uncovered_cells = [
                cell
                for cell in _meant(policy, i, stage_level)
                if policy.gate(lower_level, cell) is None
            ]
            if uncovered_cells:
                has_other_gate = any(other.to == name for other in policy.gates)
                cell_text = _cells_text(uncovered_cells) if has_other_gate else ""
                text = f"stands above {name}, which has no gate{cell_text}; add a gate to {name}"
                yield Fault(("gates", i), text)


def _fits_some(gate: Gate, policy: Policy) -> bool:
    return any(gate.where.fits(cell) for cell in policy.cells)


def _meant(policy: Policy, i: int, rung: int) -> Iterator[Cell]:
    """The cells that gate i may one day bring to its rung: no limit holds them below for good."""
    for cell in policy.cells:
        ceilings = [row.never_above for row in policy.limits if row.where.fits(cell)]
        is_limited = any(
            name in policy.rungs and policy.rungs.index(name) < rung for name in ceilings if name
        )
        if policy.gate(rung, cell) is policy.gates[i] and not is_limited:
            yield cell


def _cells_text(cells: list[Cell]) -> str:
    cell_names = ", ".join(str(cell) for cell in cells[:3])
    return f" in {cell_names}" + (f" and {len(cells) - 3} more cells" if len(cells) > 3 else "")


def _hours_read(shape: PolicyShape, _: Policy) -> Checked:
    for path, hours in _all_hours(shape):
        for text in _anywhere(hours):
            yield Fault(path, text)


def _all_hours(shape: PolicyShape) -> Iterator[tuple[Place, str]]:
    for i, window in enumerate(shape.windows or ()):
        yield ("windows", i, "hours"), window.hours
    for i, freeze in enumerate(shape.freezes):
        yield ("freezes", i, "hours"), freeze.hours


def _anywhere(hours: str) -> list[str]:
    """Return what is wrong with hours wherever they are meant."""
    return hours_faults(hours, has_place=True, has_country=True)


def _hours_fit_their_sites(shape: PolicyShape, policy: Policy) -> Checked:
    for path, hours in _all_hours(shape):
        if not _anywhere(hours):
            for text in _at_sites(hours, _sites_of(path, policy)):
                yield Fault(path, text)


def _sites_of(place: Place, policy: Policy) -> list[Site]:
    """Return the sites at which hours count: a window's at all, a freeze's where it fits."""
    if place[0] == "windows":
        return list(policy.sites)
    selector = policy.freezes[int(place[1])].where
    site_ids = {cell.site for cell in policy.cells if selector.fits(cell)}
    return [site for site in policy.sites if site.id in site_ids]


def _at_sites(hours: str, sites: Iterable[Site]) -> tuple[str, ...]:
    """Return what is wrong with hours at any of the sites, each sentence once."""
    messages: dict[str, None] = {}
    for site in _kinds(sites, [hours]):
        has_position, has_country = site.place is not None, site.country is not None
        site_messages = hours_faults(
            hours, has_place=has_position, has_country=has_country, site=site
        )
        messages.update(dict.fromkeys(site_messages))
    return tuple(messages)


def _kinds(sites: Iterable[Site], hours: Iterable[str]) -> list[Site]:
    """Return one site of each kind: by the clock alone, only the country tells them apart."""
    uses_sun = any(follows_sun(text) for text in hours)
    distinct_sites: dict[object, Site] = {}
    for site in sites:
        distinct_sites.setdefault(
            (site.country, site.place, site.timezone if uses_sun else None), site
        )
    return list(distinct_sites.values())


def _windows_reached(_: PolicyShape, policy: Policy) -> Checked:
    readable_indices = [i for i, window in enumerate(policy.windows) if _readable(window, policy)]
    for i in readable_indices:
        window = policy.windows[i]
        earlier = [policy.windows[j] for j in readable_indices if j < i]
        shadowing_windows = [other for other in earlier if _asks_no_more(other, window)]
        if shadowing_windows and not _is_ever_open(window, shadowing_windows, policy.sites):
            yield Fault(("windows", i), _unreached("window"))


def _readable(window: Window, policy: Policy) -> bool:
    hours = window.hours or "24/7"
    return not _anywhere(hours) and not _at_sites(hours, policy.sites)


def _asks_no_more(earlier: Window, window: Window) -> bool:
    """Say whether a case that fits the window's attributes always fits the earlier one's."""
    return all(
        name in window.when and set(window.when[name]) <= set(values)
        for name, values in earlier.when.items()
    )


def _is_ever_open(window: Window, before: list[Window], sites: tuple[Site, ...]) -> bool:
    plain_windows = [Window(item.id, item.hours) for item in (*before, window)]
    distinct_sites = _kinds(sites, [item.hours or "" for item in plain_windows])
    return any(
        share_of_year(site, plain_windows, year)[window.id] > 0
        for year in YEARS
        for site in distinct_sites
    )


_PLACES = ("timezone", "country", "sites.*.timezone", "sites.*.country", "sites.*.place")
_SELECTORS = ("gates.*.sites", "gates.*.windows", "gates.*.to", "sites.*.id", "windows.*.id")

_COSTS = tuple(
    f"levers.*.costs.*.{key}" for key in ("did", "right", "under", "over", "off", "cost")
)

REACH_CHECKS: tuple[Check, ...] = (
    ((*_COSTS, "levers.*.labels.*", "levers.*.actions.*"), _each_pair_has_a_cost),
    ((*_COSTS, "levers.*.number"), _each_distance_counts),
    ((*_SELECTORS, "gates.*.sites.*", "gates.*.windows.*"), _gates_reached),
    ((*_SELECTORS, "stages.*.id", "limits.*.never_above"), _gates_stand_on_gates),
    ((), _hours_read),
    (_PLACES, _hours_fit_their_sites),
    ((*_PLACES, "windows.*.hours", "windows.*.when"), _windows_reached),
)
