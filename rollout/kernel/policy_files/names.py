"""Checks of names in a policy, and of rows that never apply.

Names are unique, not reserved, and defined where they are used. A row never applies because an
earlier row always fits first.
"""

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from itertools import permutations

from rollout.kernel.calendar.instants import ALWAYS_WINDOW, OTHER_WINDOW, SHADOW, Cell, Site, Window
from rollout.kernel.calendar.opening_hours import follows_sun
from rollout.kernel.calendar.windows import REFERENCE_YEAR, compute_year_shares, find_hours_errors
from rollout.kernel.policy.policy import (
    Freeze,
    GateBase,
    GuardBase,
    Limit,
    Policy,
    matches_pattern,
)
from rollout.kernel.policy_files.sections import WrittenPolicy
from rollout.kernel.policy_files.yaml_reader import DocumentFault, DocumentPath
from rollout.kernel.units import DEFAULT_COSTS, CostRule, Lever, Margin

RESERVED = frozenset({SHADOW, OTHER_WINDOW, ALWAYS_WINDOW})
SAME_STAGE = "same-stage"
SIMILARITY = 0.7  # "bear" is no misspelt "clear" (0.67)

Faults = Iterator[DocumentFault]
PolicyCheck = tuple[tuple[str, ...], Callable[[WrittenPolicy, Policy], Faults]]
Selection = GateBase | GuardBase | Limit | Freeze
Sections = Iterable[tuple[str, Iterable[Selection]]]


def describe_unknown_name(name: str, valid_names: Iterable[str], kind: str) -> str:
    """Return the text of a fault for an undefined name, with the closest valid one.

    >>> describe_unknown_name("crek", ["creek", "meadow"], "site")
    "'crek' fits no site; did you mean creek?"
    """
    unique_names = list(dict.fromkeys(valid_names))
    close_names = get_close_matches(name, unique_names, n=1, cutoff=SIMILARITY)
    sample = ", ".join(unique_names[:8]) + (", …" if len(unique_names) > 8 else "")
    hint = f"did you mean {close_names[0]}?" if close_names else f"known: {sample}"
    return f"{name!r} fits no {kind}; {hint if unique_names else 'there are none'}"


def _check_unique_ids(written: WrittenPolicy, _: Policy) -> Faults:
    names = {
        ("sites", "id"): [site.id for site in written.sites],
        ("windows", "id"): [window.id for window in written.windows],
        ("stages", "id"): [stage.id for stage in written.stages],
        ("levers", "id"): [lever.id for lever in written.levers],
        ("versions", "id"): [version.id for version in written.versions],
        ("reports", "name"): [report.name for report in written.reports],
        ("import", "records"): [row.records for row in written.imports],
    }
    for (section, key), ids in names.items():
        yield from _check_unique(section, ids, key)


def _check_unique(section: str, ids: list[str], key: str) -> Faults:
    for i, name in enumerate(ids):
        path: DocumentPath = (section, i, key)
        if name in RESERVED:
            yield DocumentFault(
                path, f"{name!r} is a name that the engine uses itself; choose another"
            )
        elif name in ids[:i]:
            first = f"{section}[{ids.index(name)}]"
            yield DocumentFault(
                path, f"{name!r} is repeated, first as {first}; rename or remove one"
            )


def _check_former_ids(written: WrittenPolicy, _: Policy) -> Faults:
    for section, rows in (("sites", written.sites), ("windows", written.windows)):
        ids, former_ids = [row.id for row in rows], [row.was for row in rows]
        for i, was in enumerate(former_ids):
            path: DocumentPath = (section, i, "was")
            if was in ids:
                yield DocumentFault(path, f"{was!r} is still one of the {section}; leave was out")
            elif was and was in former_ids[:i]:
                yield DocumentFault(path, f"{was!r} is repeated; only one of the {section} was it")


def _check_unique_labels(written: WrittenPolicy, _: Policy) -> Faults:
    for i, lever in enumerate(written.levers):
        labels = lever.labels
        for j, label in enumerate(labels):
            if label in labels[:j]:
                yield DocumentFault(
                    ("levers", i, "labels", j), f"{label!r} is repeated; remove one"
                )


def _check_site_names(written: WrittenPolicy, policy: Policy) -> Faults:
    site_ids = [site.id for site in policy.sites]
    sections: Sections = (
        ("gates", written.gates),
        ("guards", written.guards),
        ("limits", written.limits),
        ("freezes", written.freezes),
    )
    for path, row in _list_rows(sections):
        for j, pattern in enumerate(row.where.sites):
            if not any(matches_pattern(pattern, name) for name in site_ids):
                yield DocumentFault(
                    (*path, "sites", j), describe_unknown_name(pattern, site_ids, "site")
                )


def _check_window_names(written: WrittenPolicy, policy: Policy) -> Faults:
    window_ids = [window.id for window in policy.windows]
    sections: Sections = (
        ("gates", written.gates),
        ("limits", written.limits),
    )
    for path, row in _list_rows(sections):
        for j, pattern in enumerate(row.where.windows):
            if not any(matches_pattern(pattern, name) for name in window_ids):
                yield DocumentFault(
                    (*path, "windows", j), describe_unknown_name(pattern, window_ids, "window")
                )


def _list_rows(sections: Sections) -> Iterator[tuple[DocumentPath, Selection]]:
    for name, rows in sections:
        for i, row in enumerate(rows):
            yield (name, i), row


def _check_stage_names(written: WrittenPolicy, _: Policy) -> Faults:
    stages = [stage.id for stage in written.stages]
    for path, name, special_names in _list_named_stages(written):
        if name not in (*stages, *special_names):
            yield DocumentFault(
                path, describe_unknown_name(name, (*stages, *special_names), "stage")
            )


def _list_named_stages(
    written: WrittenPolicy,
) -> Iterator[tuple[DocumentPath, str, tuple[str, ...]]]:
    """Yield path, stage name and other allowed names of each reference to a stage."""
    for i, gate in enumerate(written.gates):
        yield ("gates", i, "to"), gate.to, ()
    for i, limit in enumerate(written.limits):
        if limit.never_above is not None:
            yield ("limits", i, "never_above"), limit.never_above, (SHADOW,)
    if written.waves is not None:
        yield ("waves", "stage"), written.waves.stage, ()
    yield ("takeover",), written.takeover, (SAME_STAGE, SHADOW)


def _check_action_names(_: WrittenPolicy, policy: Policy) -> Faults:
    for i, lever in enumerate(policy.levers):
        for label in lever.named_actions:
            if lever.labels and label not in lever.labels:
                text = describe_unknown_name(label, lever.labels, "label")
                yield DocumentFault(("levers", i, "actions", label), text)
        for j, cost in enumerate(lever.costs):
            for key, action in (("did", cost.did), ("right", cost.right)):
                if lever.labels and action is not None and action not in lever.actions:
                    text = describe_unknown_name(action, lever.actions, "action")
                    yield DocumentFault(("levers", i, "costs", j, key), text)


def _check_expected_labels(written: WrittenPolicy, policy: Policy) -> Faults:
    valid_labels = list_expected_labels(policy)
    for name in written.expect.labels:
        if name not in valid_labels:
            yield DocumentFault(
                ("expect", "labels", name), describe_unknown_name(name, valid_labels, "label")
            )


def list_expected_labels(policy: Policy) -> tuple[str, ...]:
    """Return the names that `expect.labels` may have: labels, with several levers lever/label."""
    if len(policy.levers) == 1:
        return policy.levers[0].labels
    return tuple(f"{lever.id}/{label}" for lever in policy.levers for label in lever.labels)


_LABELS = ("levers.*.labels", "levers.*.labels.*")

NAME_CHECKS: tuple[PolicyCheck, ...] = (
    ((), _check_unique_ids),
    (("sites.*.was", "windows.*.was"), _check_former_ids),
    ((), _check_unique_labels),
    (("sites.*.id",), _check_site_names),
    (("windows.*.id",), _check_window_names),
    (("stages.*.id",), _check_stage_names),
    ((*_LABELS, "levers.*.actions.*"), _check_action_names),
    (_LABELS, _check_expected_labels),
)


ActionPair = tuple[str, str]
CHECKED_YEARS = range(REFERENCE_YEAR, REFERENCE_YEAR + 5)


def _check_cost_pairs(_: WrittenPolicy, policy: Policy) -> Faults:
    for i, lever in enumerate(policy.levers):
        is_checked = lever.labels and not lever.many and lever.costs != DEFAULT_COSTS
        if not is_checked or not _has_valid_actions(lever):
            continue
        remaining = list(permutations(dict.fromkeys(lever.actions), 2))  # of model and human
        for j, cost in enumerate(lever.costs):
            covered = {
                pair
                for pair in remaining
                if cost.did in (None, pair[0]) and cost.right in (None, pair[1])
            }
            if not covered:
                yield DocumentFault(("levers", i, "costs", j), _describe_unreached("row"))
            remaining = [pair for pair in remaining if pair not in covered]
        if remaining:
            yield DocumentFault(("levers", i, "costs"), _describe_missing_row(remaining))


def _has_valid_actions(lever: Lever) -> bool:
    """Return whether all rows name actions of the lever."""
    action_names = (
        name for cost in lever.costs for name in (cost.did, cost.right) if name is not None
    )
    return all(name in lever.actions for name in action_names)


def _describe_unreached(kind: str) -> str:
    return f"is never reached: the {kind}s before it take all that it fits; put it before them"


def _describe_missing_row(pairs: list[ActionPair]) -> str:
    model_action, human_action = pairs[0]
    more = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
    row = f"{{did: {model_action}, right: {human_action}, cost: 1}}"
    return (
        f"has no row for {model_action} where {human_action} is right{more}; add {row}, or {{cost:"
        " 1} last"
    )


def _check_cost_distances(_: WrittenPolicy, policy: Policy) -> Faults:
    for i, lever in enumerate(policy.levers):
        if lever.number is None:
            continue
        for j, cost in enumerate(lever.costs):
            if any(_covers_distance(earlier, cost) for earlier in lever.costs[:j]):
                yield DocumentFault(("levers", i, "costs", j), _describe_unreached("row"))


def _covers_distance(earlier: CostRule, cost: CostRule) -> bool:
    """Return whether `earlier` fits every distance that `cost` fits."""
    if earlier.under is earlier.over is earlier.off is None:
        return True
    return any(
        _is_nearer(limit, distance)
        for limit, distance in (
            (earlier.under, cost.under),
            (earlier.over, cost.over),
            (earlier.off, cost.off),
            (earlier.off, cost.under),
            (earlier.off, cost.over),
        )
    )


def _is_nearer(limit: Margin | None, distance: Margin | None) -> bool:
    if limit is None or distance is None or limit.relative != distance.relative:
        return False
    return limit.amount <= distance.amount


def _check_reachable_gates(_: WrittenPolicy, policy: Policy) -> Faults:
    for i, gate in enumerate(policy.gates):
        cells = {cell for cell in policy.cells if gate.where.fits(cell)}
        earlier = [g for g in policy.gates[:i] if g.to == gate.to]
        if cells and all(any(g.where.fits(cell) for g in earlier) for cell in cells):
            yield DocumentFault(("gates", i), _describe_unreached("gate"))


def _check_gate_ladder(_: WrittenPolicy, policy: Policy) -> Faults:
    if any(
        gate.to not in policy.stage_ids or not any(gate.where.fits(cell) for cell in policy.cells)
        for gate in policy.gates
    ):
        return  # the intended lower gate is unclear
    for i, gate in enumerate(policy.gates):
        stage_level = policy.stage_ids.index(gate.to)
        for lower_level in range(1, stage_level):
            name = policy.stage_ids[lower_level]
            uncovered_cells = [
                cell
                for cell in _list_target_cells(policy, i, stage_level)
                if policy.find_gate(lower_level, cell) is None
            ]
            if uncovered_cells:
                has_other_gate = any(other.to == name for other in policy.gates)
                cell_text = _format_cells(uncovered_cells) if has_other_gate else ""
                text = f"is above {name}, which has no gate{cell_text}; add a gate to {name}"
                yield DocumentFault(("gates", i), text)


def _list_target_cells(policy: Policy, i: int, stage_level: int) -> Iterator[Cell]:
    """Yield the cells that gate `i` can widen to its stage; limits exclude cells."""
    for cell in policy.cells:
        ceilings = [row.never_above for row in policy.limits if row.where.fits(cell)]
        is_limited = any(
            name in policy.stage_ids and policy.stage_ids.index(name) < stage_level
            for name in ceilings
            if name
        )
        if policy.find_gate(stage_level, cell) is policy.gates[i] and not is_limited:
            yield cell


def _format_cells(cells: list[Cell]) -> str:
    cell_names = ", ".join(str(cell) for cell in cells[:3])
    return f" in {cell_names}" + (f" and {len(cells) - 3} more cells" if len(cells) > 3 else "")


def _check_hours(written: WrittenPolicy, _: Policy) -> Faults:
    for path, hours in _list_hours(written):
        for text in _find_hours_faults(hours):
            yield DocumentFault(path, text)


def _list_hours(written: WrittenPolicy) -> Iterator[tuple[DocumentPath, str]]:
    for i, window in enumerate(written.windows):
        yield ("windows", i, "hours"), window.hours
    for i, freeze in enumerate(written.freezes):
        yield ("freezes", i, "hours"), freeze.hours
    for i, site in enumerate(written.sites):
        if site.open is not None:
            yield ("sites", i, "open"), site.open


def _find_hours_faults(hours: str) -> list[str]:
    """Return the errors of opening hours that do not depend on a site."""
    return find_hours_errors(hours, has_coordinates=True, has_country=True)


def _check_hours_at_sites(written: WrittenPolicy, policy: Policy) -> Faults:
    for path, hours in _list_hours(written):
        if not _find_hours_faults(hours):
            for text in _find_site_hours_faults(hours, _find_sites(path, policy)):
                yield DocumentFault(path, text)


def _find_sites(path: DocumentPath, policy: Policy) -> list[Site]:
    """Return the sites where the hours apply: all for a window, the selected for a freeze."""
    if path[0] == "windows":
        return list(policy.sites)
    if path[0] == "sites":
        return [policy.sites[int(path[1])]]
    selector = policy.freezes[int(path[1])].where
    site_ids = {cell.site for cell in policy.cells if selector.fits(cell)}
    return [site for site in policy.sites if site.id in site_ids]


def _find_site_hours_faults(hours: str, sites: Iterable[Site]) -> tuple[str, ...]:
    """Return the distinct errors of opening hours at the sites."""
    messages: dict[str, None] = {}
    for site in _select_distinct_sites(sites, [hours]):
        has_position, has_country = site.coordinates is not None, site.country is not None
        site_messages = find_hours_errors(
            hours, has_coordinates=has_position, has_country=has_country, site=site
        )
        messages.update(dict.fromkeys(site_messages))
    return tuple(messages)


def _select_distinct_sites(sites: Iterable[Site], hours: Iterable[str]) -> list[Site]:
    """Return one site for each combination of properties that can change the hours."""
    uses_sun = any(follows_sun(text) for text in hours)
    distinct_sites: dict[object, Site] = {}
    for site in sites:
        distinct_sites.setdefault(
            (site.country, site.coordinates, site.timezone if uses_sun else None), site
        )
    return list(distinct_sites.values())


def _check_reachable_windows(_: WrittenPolicy, policy: Policy) -> Faults:
    readable_indices = [
        i for i, window in enumerate(policy.windows) if _is_readable(window, policy)
    ]
    for i in readable_indices:
        window = policy.windows[i]
        earlier = [policy.windows[j] for j in readable_indices if j < i]
        shadowing_windows = [other for other in earlier if _is_less_strict(other, window)]
        if shadowing_windows and not _is_ever_open(window, shadowing_windows, policy.sites):
            yield DocumentFault(("windows", i), _describe_unreached("window"))


def _is_readable(window: Window, policy: Policy) -> bool:
    return not (
        _find_hours_faults(window.hours) or _find_site_hours_faults(window.hours, policy.sites)
    )


def _is_less_strict(earlier: Window, window: Window) -> bool:
    """Return whether cases with the window's attributes always fit the earlier window."""
    return all(
        name in window.when and set(window.when[name]) <= set(values)
        for name, values in earlier.when.items()
    )


def _is_ever_open(window: Window, earlier: list[Window], sites: tuple[Site, ...]) -> bool:
    plain_windows = [Window(item.id, item.hours) for item in (*earlier, window)]
    distinct_sites = _select_distinct_sites(sites, [item.hours for item in plain_windows])
    return any(
        compute_year_shares(site, plain_windows, year)[window.id] > 0
        for year in CHECKED_YEARS
        for site in distinct_sites
    )


_PLACES = ("timezone", "country", "sites.*.timezone", "sites.*.country", "sites.*.place")
_SELECTORS = ("gates.*.sites", "gates.*.windows", "gates.*.to", "sites.*.id", "windows.*.id")

_COSTS = tuple(
    f"levers.*.costs.*.{key}" for key in ("did", "right", "under", "over", "off", "cost")
)

REACH_CHECKS: tuple[PolicyCheck, ...] = (
    ((*_COSTS, "levers.*.labels.*", "levers.*.actions.*"), _check_cost_pairs),
    ((*_COSTS, "levers.*.number"), _check_cost_distances),
    ((*_SELECTORS, "gates.*.sites.*", "gates.*.windows.*"), _check_reachable_gates),
    ((*_SELECTORS, "stages.*.id", "limits.*.never_above"), _check_gate_ladder),
    ((), _check_hours),
    (_PLACES, _check_hours_at_sites),
    ((*_PLACES, "windows.*.hours", "windows.*.when"), _check_reachable_windows),
)
