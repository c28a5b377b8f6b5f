"""What floors and unfamiliar values leave to people, in words."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from rollout.engine.words.event_text import EventDescription
from rollout.engine.words.formatting import (
    choose_words,
    format_cell_name,
    format_count,
    format_percent,
    format_quantity,
    join_words,
    to_sentence,
)
from rollout.features.reports.figures.evidence_facts import EvidenceFacts, FloorEvidence
from rollout.features.reports.figures.facts import ReportFacts
from rollout.features.reports.figures.funnel import UnfamiliarCases
from rollout.features.reports.figures.methods import FLOORS, WHOLE_CELL, MethodOutcome
from rollout.kernel.measures import MEASURES

MAX_ROWS: Final = 3  # one sentence each


def describe_unfamiliar(rows: Sequence[UnfamiliarCases]) -> Iterator[str]:
    """Yield a sentence for each set of unfamiliar values, most cases first."""
    for row in rows[:MAX_ROWS]:
        yield (
            f"{format_cell_name(row.site, row.window)}: {format_quantity(row.cases, 'case')} with"
            f" {row.values} ({format_percent(row.share)} of its cases under {row.version}) went to"
            f" humans, because {row.version} was not familiar with them{_describe_effect(row)}"
        )
    others = rows[MAX_ROWS:]
    if others:
        cases = format_quantity(sum(row.cases for row in others), "more case")
        yield f"{cases} with other unfamiliar values went to humans; report.json lists them."


def _describe_effect(row: UnfamiliarCases) -> str:
    """Describe how the version did on these cases, and what it would have done."""
    judged = row.agreement.n
    if not judged:
        return "."
    words = choose_words(row.by_outcome, judged)
    counts = f"{format_count(row.agreement.count)} of {format_count(judged)}"
    text = f"; it decided {words.right} in {counts}"
    if not row.model_cases:
        return f"{text}."
    return (
        f"{text}. At its stage it would have decided {format_count(row.model_cases)} of them until"
        f" narrowed, {format_count(row.prevented)} {words.wrong} in the action."
    )


STAGE_EVENTS: Final = ("Widened", "TakenOver", "Narrowed", "GrantExpired")
MIN_UNITS: Final = 30  # fewer say little about a share


def count_events(timeline: Sequence[EventDescription]) -> tuple[Counter[str], Counter[str]]:
    """Return the number of events by kind, and of those that moved a stage's floor alone.

    The first number has none of the second: a stage that stays is neither widened nor narrowed. Nor
    is one whose version began its next attempt.
    """
    stages: dict[tuple[str | None, str | None], tuple[str | None, str | None]] = {}
    kinds, floor_steps = Counter[str](), Counter[str]()
    for event in timeline:
        if event.kind == "Narrowed" and event.to is None:
            continue
        cell, now = (event.site, event.window), (event.version, event.to)
        has_stayed = event.kind in {"Widened", "Narrowed"} and stages.get(cell) == now
        (floor_steps if has_stayed else kinds)[event.kind] += 1
        if event.kind in STAGE_EVENTS:
            stages[cell] = now
    return kinds, floor_steps


def describe_held_floors(facts: ReportFacts) -> Iterator[str]:
    """Yield a sentence for each version in a cell that opens at no confidence floor."""
    shadow_cells = {(cell.site, cell.window) for cell in facts.stages if not cell.was_above_shadow}
    rows = [
        item
        for item in facts.evidence
        if (item.site, item.window) in shadow_cells
        and item.decided_units
        and item.floors
        and all(floor.state == "not met" for floor in item.floors)
    ]
    rows.sort(key=lambda item: -item.decided_units)
    yield from (_describe_held_floors(item) for item in rows[:MAX_ROWS])
    if len(rows) > MAX_ROWS:
        yield f"{format_quantity(len(rows) - MAX_ROWS, 'more version')} met no confidence floor."


def _describe_held_floors(item: EvidenceFacts) -> str:
    threshold = (
        next(
            (
                row.threshold
                for row in item.gate.conditions
                if MEASURES[row.measure].covers_all_labels
            ),
            None,
        )
        if item.gate
        else None
    )
    floors = [floor for floor in item.floors if floor.reached.n]
    needed = f" The gate needs agreement of {format_percent(threshold, 0)}." if threshold else ""
    shares = [
        f"{format_percent(_compute_gate_share(floor))} of"
        f" {format_count(floor.reached.n + floor.undecided_units)} ({floor.cases})"
        for floor in floors
    ]
    text = (
        f"{format_cell_name(item.site, item.window)}: {item.version} met no confidence floor."
        f"{needed} Of units, those without a decision counted as disagreements, agree"
        f" {join_words(shares)}."
    )
    return text + _describe_worth(floors, threshold)


def _compute_gate_share(floor: FloorEvidence) -> float:
    return floor.reached.count / (floor.reached.n + floor.undecided_units)


def _describe_worth(floors: Sequence[FloorEvidence], threshold: float | None) -> str:
    """Say that confidence tells little: the surest cases miss the threshold, or a band is worse."""
    large = [floor for floor in floors if floor.reached.n >= MIN_UNITS]
    is_short = bool(large) and threshold is not None and _compute_gate_share(large[-1]) < threshold
    falls = [
        f"from {format_percent(lower.band.rate)} to {format_percent(higher.band.rate)} at"
        f" {higher.floor}"
        for lower, higher in pairwise(floors)
        if min(lower.band.n, higher.band.n) >= MIN_UNITS
        and (lower.band.rate or 0.0) > (higher.band.rate or 0.0)
    ]
    if not is_short and not falls:
        return ""
    text = " The version's confidence says little there"
    parts = [f"even {large[-1].cases} agree too rarely"] if is_short else []
    parts += [f"from band to band agreement falls {join_words(falls)}"] if falls else []
    return f"{text}: {'; '.join(parts)}."


def describe_methods(methods: Sequence[MethodOutcome]) -> Iterator[str]:
    """Yield sentences on the model's decisions and errors under other ways to open cells."""
    for kind in dict.fromkeys(row.kind for row in methods):
        rows = [row for row in methods if row.kind == kind]
        counts = [f"with {name_method(row)} {_count_decisions(row)}" for row in rows]
        yield f"{to_sentence('; '.join(counts))}"


def name_method(method: MethodOutcome) -> str:
    """Return the name of a way to open cells."""
    if method.kind == FLOORS:
        return "a gate for each confidence floor"
    if method.kind == WHOLE_CELL:
        return "one gate for the whole cell"
    return f"a plain threshold of confidence {method.floor}, without evidence"


def _count_decisions(method: MethodOutcome) -> str:
    wrong = method.model_cost.wrong_action
    words = choose_words(method.model_cost.by_outcome, method.model_cost.known_cases)
    wrong_text = f", {format_count(wrong.count)} {words.wrong}" if wrong.n else ""
    return (
        f"the model decides {format_quantity(method.model_cost.cases, 'case')}{wrong_text};"
        f" {format_quantity(method.human_decisions, 'human decision')}"
    )
