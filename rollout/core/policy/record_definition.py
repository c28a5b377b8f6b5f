"""What a record is: the part of a policy whose change makes earlier records mean something else.

Evidence, grants and tallies belong to a definition. Lines, risks and minimums are not in it: a
confidence sequence holds for every line at once, so moving one restarts nothing (model.md §1).
"""

import json
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

from rollout.core.calendar.opening_hours import on_holidays
from rollout.core.calendar.sites import Cell
from rollout.core.policy.levers import Cost, Lever, Margin
from rollout.core.policy.policy import EvidenceRules, Policy


def definition(policy: Policy, cell: Cell) -> str:
    """Return the SHA-256 of what a record in `cell` is, 64 hexadecimal digits.

    It covers levers (labels, actions, costs, tolerance, time to answer), the evidence rules, the
    cell's window with those before it, and the site's zone and place. Labels appended to a list
    change it although they change no earlier record: ask `redefined` whether evidence goes on,
    and go on with the former hash where it does.

    Raises:
        KeyError: the policy has no such site.
    """
    body = {
        "levers": [_lever(lever) for lever in policy.levers],
        "evidence": _evidence(policy.evidence),
        "where": _where(policy, cell),
    }
    return sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def redefined(old: Policy, new: Policy, cell: Cell) -> bool:
    """Say whether a record in `cell` means something else under `new` than under `old`.

    Labels appended at the end of a lever's list don't count. Both policies must have the cell.
    """
    label_counts = {lever.id: len(lever.labels) for lever in old.levers}
    levers = tuple(_cut(lever, label_counts.get(lever.id, 0)) for lever in new.levers)
    return definition(old, cell) != definition(replace(new, levers=levers), cell)


def _cut(lever: Lever, known: int) -> Lever:
    """Return the lever as if it had only the labels that the old one had."""
    return replace(lever, labels=lever.labels[:known], actions=lever.actions[:known])


def _lever(lever: Lever) -> dict[str, Any]:
    number = lever.number
    return {
        "id": lever.id,
        "labels": lever.labels,
        "actions": lever.actions,
        "costs": [
            [float(lever.cost(chosen, correct)) for correct in lever.actions]
            for chosen in lever.actions
        ],
        "number": None
        if number is None
        else [number.unit, float(number.low), float(number.high), _margin(number.tolerance)],
        "distances": [] if number is None else [_distance(cost) for cost in lever.costs],
        "answer_within": _seconds(lever.answer_within),
    }


def _distance(cost: Cost) -> list[Any]:
    return [float(cost.cost), _margin(cost.under), _margin(cost.over), _margin(cost.off)]


def _margin(margin: Margin | None) -> list[Any] | None:
    return None if margin is None else [float(margin.amount), margin.relative]


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()


def _evidence(rules: EvidenceRules) -> dict[str, Any]:
    return {
        "unit": rules.unit,
        "episode_span": _seconds(rules.episode_span) if rules.unit == "episode" else None,
        "grace": _seconds(rules.grace),
        "verdicts": rules.verdicts,
        "outside_blind": rules.outside_blind,
        "confidence_floor": rules.confidence_floor,
        "min_reviewer_agreement": rules.min_reviewer_agreement,
    }


def _where(policy: Policy, cell: Cell) -> dict[str, Any]:
    """The window with those before it, which take their hours first, on the site's clock."""
    site = policy.site[cell.site]
    ids = [window.id for window in policy.windows]
    windows = policy.windows[: ids.index(cell.window) + 1] if cell.window in ids else policy.windows
    holidays = any(on_holidays(window.hours) for window in windows if window.hours)
    return {
        "timezone": site.timezone,
        "place": site.place,
        "country": site.country if holidays else None,
        "windows": [
            [window.hours or "24/7", sorted((k, sorted(v)) for k, v in window.when.items())]
            for window in windows
        ],
    }
