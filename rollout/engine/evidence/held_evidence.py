"""Compare evidence in memory with the counted units of a part of the slots, row by row."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Final, NamedTuple

import numpy as np

from rollout.engine.evidence.outcome_buffer import OutcomeBuffer
from rollout.engine.evidence.unit_arrays import BoolArray, Column, IntArray, UnitArrays
from rollout.engine.evidence.unit_buffer import BufferDigests, UnitBuffer
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.units import UnitClass

SlotPosition = tuple[int, int]
"""A slot of counting and the slot in which its units occurred."""
FIRST_POSITION: Final[SlotPosition] = (-(2**62), -(2**62))
LAST_POSITION: Final[SlotPosition] = (2**62, 2**62)
OUTCOME: Final = "outcome"
SeriesName = tuple[Cell, str, str]  # cell, version, track or outcome
Rows = Counter[tuple[object, ...]]


class HeldEvidence(NamedTuple):
    """Counted units and outcomes as a process holds them, up to a slot."""

    units: UnitBuffer
    outcomes: OutcomeBuffer
    last_slot: int


def find_differences(
    memory: HeldEvidence, counted: HeldEvidence, after: SlotPosition, until: SlotPosition
) -> Mapping[Cell, str]:
    """Return by cell how `memory` differs from what was counted at positions (`after`, `until`].

    `counted` holds nothing else. A unit in another slot, or with another answer, is a difference.
    """
    held_rows, counted_rows = _collect_rows(memory, after, until), _collect_rows(counted)
    texts: dict[Cell, list[str]] = defaultdict(list)
    for name in sorted(held_rows.keys() | counted_rows.keys()):
        parts = held_rows.get(name, Counter()), counted_rows.get(name, Counter())
        if parts[0] != parts[1]:
            texts[name[0]].append(_describe_difference(name, *parts))
    return {cell: "; ".join(parts) for cell, parts in texts.items()}


def compare_snapshot(stored: HeldEvidence, memory: HeldEvidence) -> Mapping[Cell, str]:
    """Return by cell how a restored snapshot differs from what is held, up to the slot of both."""
    sums = []
    for evidence in (stored, memory):
        digests = BufferDigests(min(stored.last_slot, memory.last_slot))
        digests.add(evidence.units, evidence.outcomes)
        sums.append(digests.sums)
    texts: dict[Cell, list[str]] = defaultdict(list)
    for key in sorted(sums[0].keys() | sums[1].keys()):
        counts = [part.get(key, (0, 0)) for part in sums]
        if counts[0] != counts[1]:
            site, window, version, *series = key[1:] if key[0] == OUTCOME else key
            texts[Cell(site, window)].append(
                f"{version} ({' '.join(series)}) has {counts[0][0]} units in the stored snapshot,"
                f" {counts[1][0]} in memory{', others' * (counts[0][0] == counts[1][0])}"
            )
    return {cell: "; ".join(parts) for cell, parts in texts.items()}


def _collect_rows(
    evidence: HeldEvidence,
    after: SlotPosition = FIRST_POSITION,
    until: SlotPosition = LAST_POSITION,
) -> dict[SeriesName, Rows]:
    """Return the rows of each series that has any, with classes and reviewers for their numbers."""
    series: dict[SeriesName, Rows] = {}
    classes = dict(enumerate(evidence.units.unit_classes.classes))
    reviewers = dict(enumerate(evidence.units.reviewers))
    for (site, window, version, track), table in evidence.units.list_series():
        rows = UnitArrays(*table)
        if (is_near := _select_positions(rows.slot, rows.occurred, after, until)).any():
            part = rows.select(is_near)
            answers = map(classes.get, part.unit_class.tolist())
            deciders = map(reviewers.get, part.reviewer.tolist())  # -1 is without a reviewer
            columns = (part.slot, part.occurred, part.day, part.unit)
            values = (column.tolist() for column in columns)
            series[Cell(site, window), version, track] = Counter(
                zip(answers, deciders, *values, strict=True)
            )
    for (cell, version, *names), units in evidence.outcomes.list_units():
        if (is_near := _select_positions(units.slot, units.occurred, after, until)).any():
            bits = [_list_bits(getattr(units, item.name)[is_near]) for item in fields(units)]
            counts: Rows = Counter(zip(*bits, strict=True))
            series[cell, version, " ".join((OUTCOME, *names))] = counts
    return series


def _select_positions(
    slots: IntArray, occurred: IntArray, after: SlotPosition, until: SlotPosition
) -> BoolArray:
    is_later = (slots > after[0]) | ((slots == after[0]) & (occurred > after[1]))
    is_not_beyond = (slots < until[0]) | ((slots == until[0]) & (occurred <= until[1]))
    is_near: BoolArray = is_later & is_not_beyond
    return is_near


def _list_bits(column: Column) -> list[int]:
    """Return the values of a column, floats as their bits: a missing share equals itself."""
    bits: list[int] = np.ascontiguousarray(column).view(np.int64).tolist()
    return bits


def _describe_difference(name: SeriesName, memory: Rows, counted: Rows) -> str:
    """Say what a series holds and what was counted; of the answers only those that differ."""
    _, version, track = name
    numbers = (memory.total(), counted.total())
    text = f"{version} ({track}) holds {numbers[0]} units of a part, {numbers[1]} were counted"
    if track.startswith(OUTCOME):
        return text if numbers[0] != numbers[1] else f"{text}, with other values"
    answers = [_count_answers(rows) for rows in (memory, counted)]
    for answer in sorted(answers[0].keys() | answers[1].keys()):
        if answers[0][answer] != answers[1][answer]:
            predicted, decided = answer
            return (
                f"{text}; predicted {predicted} and decided {decided}:"
                f" {answers[0][answer]} held, {answers[1][answer]} counted"
            )
    return f"{text}, with other times, reviewers or attributes"


def _count_answers(rows: Rows) -> Counter[tuple[str, str]]:
    counts = Counter[tuple[str, str]]()
    for unit_class, number in _list_classes(rows):
        counts[unit_class.predicted, unit_class.decided or "by nobody"] += number
    return counts


def _list_classes(rows: Rows) -> Iterator[tuple[UnitClass, int]]:
    """Yield the classes of rows; a number without a class has none."""
    for row, number in rows.items():
        if isinstance(row[0], UnitClass):
            yield row[0], number
