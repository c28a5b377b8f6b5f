"""Count units again, from the records that they rest on.

A unit is resolved under the policy that counted it, from those of today's records whose hashes it
holds. So records that arrived later play no part.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from json import loads
from typing import Any, Final

from rollout.core.policy.policy import Policy
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.unit_counting import resolve_case_units
from rollout.store.counting.counts import CLASS_COLUMNS, load_classes
from rollout.store.counting.unit_digests import UnitLine
from rollout.store.counting.unit_records import SelectedRecords
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import CASE, EPISODE, ExternalKeys
from rollout.store.records.record_hashes import split_hashes
from rollout.tally.units import TRAINED_ON

UnitKey = tuple[int, str, str]
ClassValues = tuple[Any, ...]
UNRECORDED_REASONS: Final = frozenset({TRAINED_ON})
"""Reasons that depend on what was known of a version when the unit was counted."""


def find_recount_faults(
    transaction: Transaction,
    state: RolloutState,
    policies: Sequence[Policy],
    lines: Sequence[UnitLine],
) -> Iterator[str]:
    """Yield a sentence for each unit that its records don't give under any of `policies`."""
    for group in _split_by_records(lines):
        faults_by_policy = (
            tuple(_compare_units(transaction, replace(state, policy=policy), group))
            for policy in policies
        )
        yield from min(faults_by_policy, key=len, default=())


def _split_by_records(lines: Iterable[UnitLine]) -> Iterator[list[UnitLine]]:
    """Yield groups in which each unit has one set of records.

    The lines of a unit rest on different records where one came in between: in another slot, or in
    the same one, where a second pass counted what a first one had left.
    """
    records_by_unit: dict[int, list[bytes]] = defaultdict(list)
    groups: dict[int, list[UnitLine]] = defaultdict(list)
    for line in lines:
        records = records_by_unit[line.unit]
        if line.record_hashes not in records:
            records.append(line.record_hashes)
        groups[records.index(line.record_hashes)].append(line)
    yield from groups.values()


def _compare_units(
    transaction: Transaction, state: RolloutState, lines: Sequence[UnitLine]
) -> Iterator[str]:
    faults = _list_faults(transaction, state, lines)
    if faults and state.trained_until:
        # an end of training that was recorded later took no unit back that had been counted
        state = replace(state, versions={})
        others = _list_faults(transaction, state, [line for line, _ in faults])
        line_ids = {id(line) for line, _ in others}
        faults = [(line, fault) for line, fault in faults if id(line) in line_ids]
    case_ids = {line.case_id for line, _ in faults}
    case_keys = ExternalKeys(transaction, state.rollout).find_keys(case_ids) if faults else {}
    for line, fault in faults:
        case_key = case_keys.get(line.case_id, f"number {line.case_id}")
        yield (
            f"the {line.track} unit of case {case_key} and version {line.version}, "
            f"counted in slot {line.slot}: {fault}"
        )


def _list_faults(
    transaction: Transaction, state: RolloutState, lines: Sequence[UnitLine]
) -> list[tuple[UnitLine, str]]:
    """Return the units that differ from what their records give, each with what differs."""
    hashes = {part for line in lines for part in split_hashes(line.record_hashes)}
    case_ids = {line.case_id for line in lines}
    records = SelectedRecords(hashes, state.first_names)
    frame = resolve_case_units(transaction, state, case_ids, unit_records=records)
    units = _group_rows(transaction, state, frame.to_dicts())
    class_ids = {number for line in lines for number in loads(line.class_ids)}
    classes = load_classes(transaction, state.rollout, class_ids)
    compared = (
        (line, _compare_unit(line, units.get((line.unit, line.version, line.track)), classes))
        for line in lines
    )
    return [(line, fault) for line, fault in compared if fault]


def _group_rows(
    transaction: Transaction, state: RolloutState, rows: Sequence[Mapping[str, Any]]
) -> Mapping[UnitKey, list[Mapping[str, Any]]]:
    kind = CASE if state.policy.evidence.unit == "case" else EPISODE
    unit_ids = ExternalKeys(transaction, state.rollout, kind).find_ids(
        {row["unit"] for row in rows}
    )
    units: dict[UnitKey, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["unit"] in unit_ids:
            units[unit_ids[row["unit"]], row["version"], row["track"]].append(row)
    return units


def _compare_unit(
    line: UnitLine,
    rows: Sequence[Mapping[str, Any]] | None,
    classes: Mapping[int, ClassValues],
) -> str:
    """Return what differs, or ""."""
    if not rows:
        return "its records give no such unit"
    stored = sorted(map(str, (classes.get(number) for number in loads(line.class_ids))))
    expected = sorted(str(tuple(row[name] for name in CLASS_COLUMNS)) for row in rows)
    if stored != expected:
        return f"counted as {', '.join(stored)}; its records give {', '.join(expected)}"
    if (line.site, line.window) != (rows[0]["site"], rows[0]["window"]):
        return f"counted in {line.site} × {line.window}; that is not the cell of its case"
    if fault := _compare_values(line, rows[0]):
        return fault
    reasons = {line.exclusion_reason, rows[0]["excluded"]}
    if len(reasons) > 1 and reasons.isdisjoint(UNRECORDED_REASONS):
        texts = (reason or "evidence" for reason in (line.exclusion_reason, rows[0]["excluded"]))
        return "counted as {}; its records give {}".format(*texts)
    return ""


def _compare_values(line: UnitLine, row: Mapping[str, Any]) -> str:
    values = row.get("attribute_values") or None
    if line.attribute_values != values:
        return f"counted with {line.attribute_values}; its records give {values}"
    return find_slice_fault(line.slices, row["slices"])


def find_slice_fault(stored: str | None, expected: str) -> str:
    """Return what differs in the attributes that both name, or ""."""
    stored_values, values = loads(stored or "{}"), loads(expected or "{}")
    names = [n for n in stored_values if n in values and stored_values[n] != values[n]]
    return f"counted with {stored}; its records give {expected}" if names else ""
