"""The part of a policy that gives records their meaning.

Evidence, grants and counts belong to one definition. Thresholds, risks and minimums are not part
of it: a confidence sequence is valid for every threshold at once (Howard et al. 2021). How evidence
is forgotten is: whoever picked the blocks after a look would pick the best start. So are the sites
that a gate counts together: whoever picked them after a look would drop the bad ones. So would a
new clock or place of one of them, whose records before it no longer count.
"""

import json
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

from rollout.kernel.calendar.instants import Cell, Window
from rollout.kernel.calendar.opening_hours import uses_holidays
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import Lever, Margin


def compute_definition(policy: Policy, cell: Cell) -> str:
    """Return the SHA-256 of a cell's record definition, as hexadecimal digits.

    It covers levers, evidence rules, the cell's window with those before it, and the site's
    timezone and coordinates. Appended labels change the hash but no earlier record: `is_redefined`
    returns False for them, and the evidence keeps the old hash.

    Raises:
        KeyError: the policy has no such site.
    """
    body = {
        "levers": [_lever_to_json(lever) for lever in policy.levers],
        "evidence": {
            "unit": policy.evidence.unit,
            "episode_span": _to_seconds(policy.evidence.episode_span)
            if policy.evidence.unit == "episode"
            else None,
            "grace": _to_seconds(policy.evidence.grace),
            "verdicts": policy.evidence.verdicts,
            "outside_blind": policy.evidence.outside_blind,
            "confidence_floor": policy.evidence.lowest_floor,
            **(
                {"higher_floors": list(policy.evidence.higher_floors)}
                if policy.evidence.higher_floors
                else {}
            ),
        },
        "where": describe_cell(policy, cell),
    }
    return sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def is_redefined(old: Policy, new: Policy, cell: Cell) -> bool:
    """Return whether the edit changes what a record in `cell` means.

    Labels appended at the end of a lever's list don't count. Both policies must have the cell.
    """
    label_counts = {lever.id: len(lever.labels) for lever in old.levers}
    levers = tuple(_limit_labels(lever, label_counts.get(lever.id, 0)) for lever in new.levers)
    return compute_definition(old, cell) != compute_definition(replace(new, levers=levers), cell)


def _limit_labels(lever: Lever, label_count: int) -> Lever:
    """Return the lever with only its first `label_count` labels."""
    return replace(lever, labels=lever.labels[:label_count], actions=lever.actions[:label_count])


def _lever_to_json(lever: Lever) -> dict[str, Any]:
    number = lever.number
    sets = {"many": True, "overlap": float(lever.overlap)} if lever.many else {}
    if lever.many and len(lever.labels) == 1:  # `costs` below has no pair of different sets
        sets["cost"] = float(lever.largest_cost)
    return {
        **sets,  # left out without sets, so that older policies keep their hash
        "id": lever.id,
        "labels": lever.labels,
        "actions": lever.actions,
        "costs": [
            [float(lever.compute_cost(lever_fields, correct)) for correct in lever.actions]
            for lever_fields in lever.actions
        ],
        "number": None
        if number is None
        else [
            number.unit,
            float(number.low),
            float(number.high),
            _margin_to_json(number.tolerance),
        ],
        "distances": []
        if number is None
        else [
            [
                float(cost.cost),
                _margin_to_json(cost.under),
                _margin_to_json(cost.over),
                _margin_to_json(cost.off),
            ]
            for cost in lever.costs
        ],
        "answer_within": _to_seconds(lever.answer_within),
    }


def _margin_to_json(margin: Margin | None) -> list[Any] | None:
    return None if margin is None else [float(margin.amount), margin.relative]


def _to_seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()


def describe_cell(policy: Policy, cell: Cell) -> dict[str, Any]:
    """Return the site's clock and place, and the windows up to the cell's."""
    site, windows = policy.sites_by_id[cell.site], _list_windows(policy, cell)
    has_holidays = any(uses_holidays(window.hours) for window in windows)
    return {
        "timezone": site.timezone,
        "place": site.coordinates,
        "country": site.country if has_holidays else None,
        "windows": [
            [window.hours, sorted((k, sorted(v)) for k, v in window.when.items())]
            for window in windows
        ],
    }


def _list_windows(policy: Policy, cell: Cell) -> tuple[Window, ...]:
    """Return the windows up to the cell's, all of them if the policy has it no more."""
    ids = [window.id for window in policy.windows]
    return policy.windows[: ids.index(cell.window) + 1] if cell.window in ids else policy.windows
