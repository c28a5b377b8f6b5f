"""Count units again, from the records that they rest on.

A unit is resolved under the policy that counted it, from those of today's records whose hashes it
holds. So records that arrived later play no part.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from json import loads
from typing import Any, Final, TypeVar

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.policy.record_definition import compute_definition
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.unit_counting import resolve_case_units
from rollout.store.counting.counts import CLASS_COLUMNS, load_classes
from rollout.store.counting.unit_digests import UnitLine
from rollout.store.counting.unit_records import SelectedRecords
from rollout.store.database.session import Transaction
from rollout.store.records.erased_keys import is_name_refused
from rollout.store.records.external_keys import CASE, EPISODE, ExternalKeys
from rollout.store.records.record_hashes import split_hashes
from rollout.tally.outcome_buffer import CountedOutcome
from rollout.tally.units import TRAINED_ON

UnitKey = tuple[int, str, str]
ClassValues = tuple[Any, ...]
UnitFault = tuple[UnitLine, str]
LineT = TypeVar("LineT", UnitLine, CountedOutcome)
UNRECORDED_REASONS: Final = frozenset({TRAINED_ON})
"""Reasons that depend on what was known of a version when the unit was counted."""


def recount_units(
    transaction: Transaction,
    state: RolloutState,
    policies: Sequence[Policy],
    lines: Sequence[UnitLine],
) -> tuple[str, ...]:
    """Return a sentence for each unit that its records give under none of `policies`.

    These are the policies that were in force when the units were counted.
    """
    faults = [
        fault
        for group in split_by_records(lines)
        for fault in min(
            (
                _find_faults(transaction, replace(state, policy=policy), group)
                for policy in policies
            ),
            key=len,
            default=[],
        )
    ]
    faults += _find_other_series(policies, lines)
    return _describe_faults(transaction, state, faults)


def split_by_records(lines: Iterable[LineT]) -> Iterator[list[LineT]]:
    """Yield groups in which each unit has one set of records.

    The lines of a unit rest on different records where one came in between: in another slot, or in
    the same one, where a second pass counted what a first one had left.
    """
    records_by_unit: dict[int, list[bytes]] = defaultdict(list)
    groups: dict[int, list[LineT]] = defaultdict(list)
    for line in lines:
        records = records_by_unit[line.unit]
        if line.record_hashes not in records:
            records.append(line.record_hashes)
        groups[records.index(line.record_hashes)].append(line)
    yield from groups.values()


def _find_faults(
    transaction: Transaction, state: RolloutState, lines: Sequence[UnitLine]
) -> list[UnitFault]:
    faults = _list_faults(transaction, state, lines)
    if not faults or not state.trained_until:
        return faults
    # an end of training that was recorded later took no unit back that had been counted
    untrained = replace(state, versions={})
    others = _list_faults(transaction, untrained, [line for line, _ in faults])
    line_ids = {id(line) for line, _ in others}
    return [(line, fault) for line, fault in faults if id(line) in line_ids]


def _describe_faults(
    transaction: Transaction, state: RolloutState, faults: Sequence[UnitFault]
) -> tuple[str, ...]:
    case_ids = {line.case_id for line, _ in faults}
    case_keys = ExternalKeys(transaction, state.rollout).find_keys(case_ids) if faults else {}
    return tuple(
        f"the {line.track} unit of case {case_keys.get(line.case_id, f'number {line.case_id}')}"
        f" and version {line.version}, counted in slot {line.slot}: {fault}"
        for line, fault in faults
    )


def _find_other_series(policies: Sequence[Policy], lines: Iterable[UnitLine]) -> list[UnitFault]:
    """Return the units with another series, by whose columns evidence is read, than their own.

    A pass that was interrupted by an edit counts some units under each policy.
    """
    definitions_by_cell: dict[Cell, set[str]] = {}
    faults: list[UnitFault] = []
    for line in lines:
        cell = Cell(line.site, line.window)
        if cell not in definitions_by_cell:
            definitions_by_cell[cell] = {
                compute_definition(policy, cell) if cell in policy.cell_set else ""
                for policy in policies
            }
        *own, definition = line.series
        if own != [line.track, line.version]:
            faults.append((line, f"its series is of {' and '.join(own)}"))
        elif definition not in definitions_by_cell[cell]:
            faults.append((line, "no policy in force has the definition of its series"))
    return faults


def _list_faults(
    transaction: Transaction, state: RolloutState, lines: Sequence[UnitLine]
) -> list[UnitFault]:
    """Return the units that differ from what their records give, each with what differs."""
    hashes = {part for line in lines for part in split_hashes(line.record_hashes)}
    case_ids = {line.case_id for line in lines}
    records = SelectedRecords(hashes, state.first_names)
    frame = resolve_case_units(transaction, state, case_ids, records)
    units = _group_rows(transaction, state, frame.to_dicts())
    class_ids = {number for line in lines for number in loads(line.class_ids)}
    classes = load_classes(transaction, state.rollout, class_ids)
    compared = (
        (line, _compare_unit(line, units.get((line.unit, line.version, line.track)), classes))
        for line in lines
    )
    faults = [(line, fault) for line, fault in compared if fault]
    return faults + _find_other_reviewers(transaction, state, lines, units)


def _find_other_reviewers(
    transaction: Transaction,
    state: RolloutState,
    lines: Sequence[UnitLine],
    units: Mapping[UnitKey, list[Mapping[str, Any]]],
) -> list[UnitFault]:
    """Return the units with another reviewer than their records, by whom gates count reviewers.

    Not those with a name that an erasure replaces at this moment: decisions lose it first.
    """
    faults: list[UnitFault] = []
    for line in lines:
        rows = units.get((line.unit, line.version, line.track))
        if not rows or line.reviewer == (reviewer := rows[0]["reviewer"]):
            continue
        name = line.reviewer or ""
        if not is_name_refused(transaction, state.rollout, name):
            faults.append((line, f"counted with reviewer {name}; its records give {reviewer}"))
    return faults


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
    if line.band != row.get("band"):
        return f"counted in confidence band {line.band}; its records give {row.get('band')}"
    values = row.get("attribute_values") or None
    if line.attribute_values != values:
        return f"counted with {line.attribute_values}; its records give {values}"
    return find_slice_fault(line.slices, row["slices"])


def find_slice_fault(stored: str | None, expected: str) -> str:
    """Return what differs in the attributes that both name, or ""."""
    stored_values, values = loads(stored or "{}"), loads(expected or "{}")
    names = [n for n in stored_values if n in values and stored_values[n] != values[n]]
    return f"counted with {stored}; its records give {expected}" if names else ""
