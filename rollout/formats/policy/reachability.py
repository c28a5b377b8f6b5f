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
        left = _pairs(lever)
        for j, cost in enumerate(lever.costs):
            taken = {pair for pair in left if _fits(cost, pair)}
            if not taken:
                yield Fault(("levers", i, "costs", j), _unreached("row"))
            left = [pair for pair in left if pair not in taken]
        if left:
            yield Fault(("levers", i, "costs"), _without_a_row(left))


def _pairs(lever: Lever) -> list[Pair]:
    actions = list(dict.fromkeys(lever.actions))
    return [(did, right) for did in actions for right in actions if did != right]


def _fits(cost: Cost, pair: Pair) -> bool:
    return cost.did in (None, pair[0]) and cost.right in (None, pair[1])


def _names_actions(lever: Lever) -> bool:
    """Say whether every row names actions of the lever; one that does not is a fault already."""
    named = (name for cost in lever.costs for name in (cost.did, cost.right) if name is not None)
    return all(name in lever.actions for name in named)


def _unreached(what: str) -> str:
    return f"is never reached: the {what}s before it take all that it fits; put it before them"


def _without_a_row(left: list[Pair]) -> str:
    did, right = left[0]
    more = f" and {len(left) - 1} more" if len(left) > 1 else ""
    row = f"{{did: {did}, right: {right}, cost: 1}}"
    return f"has no row for {did} where {right} is right{more}; add {row}, or {{cost: 1}} last"


def _each_distance_counts(shape: PolicyShape, policy: Policy) -> Checked:
    for i, (row, lever) in enumerate(zip(shape.levers, policy.levers, strict=True)):
        if row.costs is None or lever.number is None:
            continue
        for j, cost in enumerate(lever.costs):
            if any(_takes_all(before, cost) for before in lever.costs[:j]):
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
        rung = policy.rungs.index(gate.to)
        for below in range(1, rung):
            name = policy.rungs[below]
            bare = [cell for cell in _meant(policy, i, rung) if policy.gate(below, cell) is None]
            if bare:
                some = any(other.to == name for other in policy.gates)
                where = _cells_text(bare) if some else ""
                says = f"stands above {name}, which has no gate{where}; add a gate to {name}"
                yield Fault(("gates", i), says)


def _fits_some(gate: Gate, policy: Policy) -> bool:
    return any(gate.where.fits(cell) for cell in policy.cells)


def _meant(policy: Policy, i: int, rung: int) -> Iterator[Cell]:
    """The cells that gate i may one day bring to its rung: no limit holds them below for good."""
    for cell in policy.cells:
        holds = [row.never_above for row in policy.limits if row.where.fits(cell)]
        low = any(
            name in policy.rungs and policy.rungs.index(name) < rung for name in holds if name
        )
        if policy.gate(rung, cell) is policy.gates[i] and not low:
            yield cell


def _cells_text(cells: list[Cell]) -> str:
    listed = ", ".join(str(cell) for cell in cells[:3])
    return f" in {listed}" + (f" and {len(cells) - 3} more cells" if len(cells) > 3 else "")


def _hours_read(shape: PolicyShape, _: Policy) -> Checked:
    for place, hours in _all_hours(shape):
        for says in _anywhere(hours):
            yield Fault(place, says)


def _all_hours(shape: PolicyShape) -> Iterator[tuple[Place, str]]:
    for i, window in enumerate(shape.windows or ()):
        yield ("windows", i, "hours"), window.hours
    for i, freeze in enumerate(shape.freezes):
        yield ("freezes", i, "hours"), freeze.hours


def _anywhere(hours: str) -> list[str]:
    """Return what is wrong with hours wherever they are meant."""
    return hours_faults(hours, has_place=True, has_country=True)


def _hours_fit_their_sites(shape: PolicyShape, policy: Policy) -> Checked:
    for place, hours in _all_hours(shape):
        if not _anywhere(hours):
            for says in _at_sites(hours, _sites_of(place, policy)):
                yield Fault(place, says)


def _sites_of(place: Place, policy: Policy) -> list[Site]:
    """Return the sites at which hours count: a window's at all, a freeze's where it fits."""
    if place[0] == "windows":
        return list(policy.sites)
    where = policy.freezes[int(place[1])].where
    meant = {cell.site for cell in policy.cells if where.fits(cell)}
    return [site for site in policy.sites if site.id in meant]


def _at_sites(hours: str, sites: Iterable[Site]) -> tuple[str, ...]:
    """Return what is wrong with hours at any of the sites, each sentence once."""
    found: dict[str, None] = {}
    for site in _kinds(sites, [hours]):
        placed, homed = site.place is not None, site.country is not None
        says = hours_faults(hours, has_place=placed, has_country=homed, site=site)
        found.update(dict.fromkeys(says))
    return tuple(found)


def _kinds(sites: Iterable[Site], hours: Iterable[str]) -> list[Site]:
    """Return one site of each kind: by the clock alone, only the country tells them apart."""
    sun = any(follows_sun(text) for text in hours)
    kinds: dict[object, Site] = {}
    for site in sites:
        kinds.setdefault((site.country, site.place, site.timezone if sun else None), site)
    return list(kinds.values())


def _windows_reached(_: PolicyShape, policy: Policy) -> Checked:
    sound = [i for i, window in enumerate(policy.windows) if _readable(window, policy)]
    for i in sound:
        window = policy.windows[i]
        earlier = [policy.windows[j] for j in sound if j < i]
        before = [other for other in earlier if _asks_no_more(other, window)]
        if before and not _is_ever_open(window, before, policy.sites):
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
    by_hours = [Window(w.id, w.hours) for w in (*before, window)]
    kinds = _kinds(sites, [w.hours or "" for w in by_hours])
    return any(share_of_year(s, by_hours, year)[window.id] > 0 for year in YEARS for s in kinds)


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
