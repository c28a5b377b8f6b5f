"""A policy draft against the policy in force, replayed over the same closed cases, and its words.

The words say what opens earlier or later, figures with ranges, and what is unknown.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from itertools import pairwise
from typing import Final

from rollout.engine.words.formatting import (
    describe_duration,
    format_count,
    format_percent,
    format_quantity,
    format_zoned_time,
    join_words,
)
from rollout.features.replay.requests import Progress
from rollout.features.reports.inputs.cell_facts import CellFacts, StageInterval
from rollout.features.what_if.replayed_policy import (
    APPROVAL_DELAY,
    CellReplay,
    WhatIfFigures,
    WhatIfRecords,
    check_comparable,
    replay_policy,
)
from rollout.kernel.calendar.instants import SHADOW, Cell, Site
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import InvalidPolicyError, parse_policy
from rollout.kernel.policy_files.yaml_reader import DocumentValue, read_document

DRAW_COUNT: Final = 10
MAX_CHANGES: Final = 8  # sections replayed alone; each takes as long as the draft


@dataclass(frozen=True, slots=True)
class WhatIfRange:
    """Least and greatest value of a figure over other draws."""

    least: float
    most: float


@dataclass(frozen=True, slots=True)
class WhatIfTotals:
    """Sums over the cells that can be known under both policies.

    Attributes:
        figures: of the first draw.
        is_sure: whether nothing that matters to these cells is unknown or estimated.
        answered, needed: of all cells: answers that exist of those the policy would ask for.
        model_range, human_range, wrong_range, cost_range: over the other draws that can be known;
            None without any.
    """

    figures: WhatIfFigures
    answered: int
    needed: int
    is_sure: bool
    model_range: WhatIfRange | None = None
    human_range: WhatIfRange | None = None
    wrong_range: WhatIfRange | None = None
    cost_range: WhatIfRange | None = None


@dataclass(frozen=True, slots=True)
class CellPair(CellFacts):
    """A cell under both policies; None where a policy lacks the cell.

    `effect` is wider, narrower, other, same or unknown; `timezone` is the site's.
    """

    timezone: str
    effect: str
    current: CellReplay | None
    draft: CellReplay | None


@dataclass(frozen=True, slots=True)
class ChangeAlone:
    """The sums with one section of the draft alone; None if the section can't stand alone.

    `is_known` is false if a cell of the sums can't be known with this section.
    """

    section: str
    totals: WhatIfTotals | None
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class WhatIfResult:
    """What a draft would have changed.

    Attributes:
        rollout: its name.
        revision: of the ledger when the records were read; 0 for files.
        current_hash, draft_hash: of the policies' texts.
        since, until: span in which the cases occurred.
        salts: SHA-256 of the salt of each draw, the first one first.
        cases: closed cases that were replayed.
        answered: those with a blind human answer.
        open_cases: cases of the span that were left out because they are still open.
        stages, deciding_stages: both policies' stages, and those in which the model decides, with
            the share of cases drawn for it, the draft's where both have one.
        cells: in the order of the policy in force, new cells last.
        current, draft: the sums.
        difference_range: `draft` less `current` divergences, over the draws known under both.
        known_draws: number of other draws in which the same cells can be known.
        unknown_in_draws: names of the cells that can't be known in one of the others.
        changes: each changed section alone; () if the draft changes one or none.
    """

    rollout: str
    revision: int
    current_hash: str
    draft_hash: str
    since: datetime
    until: datetime
    salts: tuple[str, ...]
    cases: int
    answered: int
    open_cases: int
    stages: tuple[str, ...]
    deciding_stages: Mapping[str, float]
    cells: tuple[CellPair, ...]
    current: WhatIfTotals
    draft: WhatIfTotals
    difference_range: WhatIfRange | None
    known_draws: int
    unknown_in_draws: tuple[str, ...]
    changes: tuple[ChangeAlone, ...]


@dataclass(frozen=True, slots=True)
class WhatIfInputs:
    """What a comparison is made of.

    `salt` and `audit_salt` are those of the first draw: the rollout's own may be given, as all
    cases are closed.
    """

    current_text: str
    draft_text: str
    records: WhatIfRecords
    salt: bytes
    since: datetime
    until: datetime
    revision: int = 0
    open_cases: int = 0
    audit_salt: bytes = b""


Cells = tuple[CellReplay, ...]


def compare_policies(inputs: WhatIfInputs, report_step: Progress | None = None) -> WhatIfResult:
    """Return what a draft would have changed over closed cases.

    Raises:
        InvalidPolicyError: the draft is not valid.
        RefusalError: the policies can't be compared.
        NothingToReplayError: no record can be evidence.
    """
    current, draft = parse_policy(inputs.current_text), parse_policy(inputs.draft_text)
    check_comparable(current, draft)
    variants = dict(_iterate_variants(inputs.current_text, inputs.draft_text))
    own_salts = inputs.salt, inputs.audit_salt
    salts = (own_salts, *((salt, b"") for salt in list_made_up_salts()))
    run = _StepCounter(inputs.records, report_step, 2 * len(salts) + len(variants))
    first = run.replay(current, own_salts, "policy in force"), run.replay(draft, own_salts, "draft")
    known_cells = _list_known_cells(*first)
    alone = {
        section: None if policy is None else run.replay(policy, own_salts)
        for section, policy in variants.items()
    }
    draws = [
        (run.replay(current, drawn_by, "other draws"), run.replay(draft, drawn_by, "other draws"))
        for drawn_by in salts[1:]
    ]
    unknown_cells = [known_cells - _list_known_cells(*draw) for draw in draws]
    sums = [
        (_sum(before, known_cells), _sum(after, known_cells))
        for (before, after), unknown in zip(draws, unknown_cells, strict=True)
        if known_cells and not unknown
    ]
    totals = [_sum(cells, known_cells) for cells in first]
    return WhatIfResult(
        rollout=current.rollout,
        revision=inputs.revision,
        current_hash=current.hash,
        draft_hash=draft.hash,
        since=inputs.since,
        until=inputs.until,
        salts=tuple(sha256(salt).hexdigest() for salt, _ in salts),
        cases=inputs.records.records.cases.height,
        answered=sum(cell.answered for cell in first[0]),
        open_cases=inputs.open_cases,
        stages=merge_stages(current.stage_ids, draft.stage_ids),
        deciding_stages={
            stage.id: stage.decided_share
            for policy in (current, draft)
            for stage in policy.stages
            if stage.decided_share is not None
        },
        cells=tuple(_pair_cells(*first, {**draft.sites_by_id, **current.sites_by_id})),
        current=_add_ranges(totals[0], [before for before, _ in sums]),
        draft=_add_ranges(totals[1], [after for _, after in sums]),
        difference_range=_find_range(
            [
                None
                if before.figures.wrong is None or after.figures.wrong is None
                else after.figures.wrong - before.figures.wrong
                for before, after in sums
            ]
        ),
        known_draws=len(sums),
        unknown_in_draws=tuple(
            cell.cell_name for cell in first[0] if cell.cell in set[Cell]().union(*unknown_cells)
        ),
        changes=tuple(
            ChangeAlone(section, None)
            if cells is None
            else ChangeAlone(
                section,
                _sum(cells, known_cells),
                is_known=known_cells <= _list_known_cells(cells, cells),
            )
            for section, cells in alone.items()
        ),
    )


def list_made_up_salts() -> tuple[bytes, ...]:
    """Return the salts of the other draws: made up, and the same in every run."""
    return tuple(
        sha256(f"rollout what-if, draw {number}".encode()).digest()
        for number in range(1, DRAW_COUNT + 1)
    )


class _StepCounter:
    """Replays policies and reports each replay."""

    def __init__(self, records: WhatIfRecords, report_step: Progress | None, total: int) -> None:
        self._records, self._report_step, self._total = records, report_step, total
        self._done = 0

    def replay(
        self, policy: Policy, salts: tuple[bytes, bytes], name: str = "each change alone"
    ) -> Cells:
        if self._report_step is not None:
            self._report_step(name, self._done, self._total)
        self._done += 1
        return replay_policy(policy, self._records, *salts)


def _iterate_variants(current_text: str, draft_text: str) -> Iterator[tuple[str, Policy | None]]:
    """Yield the policy in force with one changed section of the draft, for each such section.

    None for a section that is not valid without another; nothing if a single section changed.
    """
    current, draft = read_document(current_text).value, read_document(draft_text).value
    if not (isinstance(current, dict) and isinstance(draft, dict)):
        return
    sections = [
        section
        for section in dict.fromkeys((*current, *draft))
        if current.get(section) != draft.get(section)
    ]
    if len(sections) == 1:  # alone it is the draft
        return
    for section in sections[:MAX_CHANGES]:
        changed: dict[str, DocumentValue] = {**current}
        if section in draft:
            changed[section] = draft[section]
        else:
            del changed[section]
        try:
            yield section, parse_policy(json.dumps(changed, ensure_ascii=False))
        except InvalidPolicyError:
            yield section, None


def merge_stages(current: Sequence[str], draft: Sequence[str]) -> tuple[str, ...]:
    """Return the stages of both policies, a new one before the next that both have.

    >>> merge_stages(("shadow", "autonomous"), ("shadow", "pilot", "autonomous"))
    ('shadow', 'pilot', 'autonomous')
    """
    merged = list(current)
    for number, stage in enumerate(draft):
        if stage not in merged:
            later = next((other for other in draft[number + 1 :] if other in current), None)
            merged.insert(len(merged) if later is None else merged.index(later), stage)
    return tuple(merged)


def _list_known_cells(current: Cells, draft: Cells) -> set[Cell]:
    """Return the cells with figures under both policies."""
    sides = [
        {cell.cell for cell in cells if cell.figures is not None} for cells in (current, draft)
    ]
    return sides[0] & sides[1]


def _sum(cells: Cells, known_cells: set[Cell]) -> WhatIfTotals:
    counted = [cell for cell in cells if cell.cell in known_cells]
    figures = [cell.figures for cell in counted if cell.figures is not None]
    return WhatIfTotals(
        WhatIfFigures(
            model=sum(part.model for part in figures),
            human=sum(part.human for part in figures),
            known=sum(part.known for part in figures),
            wrong=_add([part.wrong for part in figures]),
            cost=_add([part.cost for part in figures]),
            is_estimated=any(part.is_estimated for part in figures),
        ),
        answered=sum(cell.needed - cell.missing for cell in cells),
        needed=sum(cell.needed for cell in cells),
        is_sure=bool(counted) and all(cell.is_sure for cell in counted),
    )


def _add(values: Sequence[float | None]) -> float | None:
    """Return the sum, None if a value is unknown."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) if len(numbers) == len(values) else None


def _add_ranges(totals: WhatIfTotals, draws: Sequence[WhatIfTotals]) -> WhatIfTotals:
    figures = [draw.figures for draw in draws]
    return replace(
        totals,
        model_range=_find_range([part.model for part in figures]),
        human_range=_find_range([part.human for part in figures]),
        wrong_range=_find_range([part.wrong for part in figures]),
        cost_range=_find_range([part.cost for part in figures]),
    )


def _find_range(values: Sequence[float | None]) -> WhatIfRange | None:
    """Return the range of values, None if one is unknown or there is none."""
    numbers = [float(value) for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return None
    return WhatIfRange(min(numbers), max(numbers))


def _pair_cells(
    current: Cells, draft: Cells, sites_by_id: Mapping[str, Site]
) -> Iterator[CellPair]:
    before = {replay.cell: replay for replay in current}
    after = {replay.cell: replay for replay in draft}
    for cell in dict.fromkeys((*before, *after)):
        pair = before.get(cell), after.get(cell)
        timezone = sites_by_id[cell.site].timezone
        yield CellPair(cell.site, cell.window, timezone, _find_effect(*pair), *pair)


def _find_effect(current: CellReplay | None, draft: CellReplay | None) -> str:
    """Return in one word what the draft changes: by the cases that the model decides."""
    if current is None or draft is None:
        return "other"
    if current.figures is None or draft.figures is None:
        return "unknown"
    stages = [
        [(part.stage, part.version, part.since) for part in cell.intervals]
        for cell in (current, draft)
    ]
    if stages[0] == stages[1] and current.figures == draft.figures:
        return "same"
    gain = draft.figures.model - current.figures.model
    return "other" if gain == 0 else "wider" if gain > 0 else "narrower"


APPROVAL_TEXT: Final = describe_duration(APPROVAL_DELAY)
NO_FIGURE: Final = "unknown"
MAX_CELLS: Final = 3  # named in a sentence
ESTIMATED: Final = frozenset({"wrong", "cost"})
EFFECT_WORDS: Final = {
    "wider": "Wider",
    "narrower": "Narrower",
    "other": "Differs",
    "same": "Same",
    "unknown": "Unknown",
}


@dataclass(frozen=True, slots=True)
class FigureRow:
    """A figure of the policy in force and of the draft, with their ranges and the difference."""

    name: str
    current: str
    current_range: str
    draft: str
    draft_range: str
    difference: str


@dataclass(frozen=True, slots=True)
class CellRow:
    """A cell: its effect, what changes, and the figures of both policies."""

    name: str
    effect: str
    changes: tuple[str, ...]
    model: str
    wrong: str


def describe_coverage(result: WhatIfResult) -> tuple[str, ...]:
    """Return for how many cases a human answer exists, before any figure."""
    open_text = (
        f" {format_quantity(result.open_cases, 'case')} of these days can still be reviewed,"
        " and are not counted."
        if result.open_cases
        else ""
    )
    cases_text = (
        f"{format_count(result.cases)} closed cases; humans answered"
        f" {format_count(result.answered)} of them without seeing the model's answer.{open_text}"
    )
    needed_text = (
        f"Both policies begin in shadow; approvals are simulated after {APPROVAL_TEXT}. The one in"
        f" force needs {_describe_needed(result.current)}; the draft needs"
        f" {_describe_needed(result.draft)}."
    )
    return cases_text, needed_text


def _describe_needed(totals: WhatIfTotals) -> str:
    return (
        f"{format_quantity(totals.needed, 'answer')}, of which"
        f" {format_count(totals.answered)} exist"
    )


def describe_result(result: WhatIfResult) -> str:
    """Return the first sentence: what the draft would have changed."""
    known_cells = [
        pair
        for pair in result.cells
        if all(side is not None and side.figures is not None for side in (pair.current, pair.draft))
    ]
    if not known_cells:
        return "What the draft would have changed can't be known from these records."
    count, current, draft = len(result.cells), result.current, result.draft
    where = (
        "The model"
        if len(known_cells) == count
        else f"In the {len(known_cells)} of {count} cells that can be known under both, the model"
    )
    return (
        f"{where} would have decided {format_figure('model', draft)} cases instead of"
        f" {format_figure('model', current)}, and differed in {format_figure('wrong', draft)}"
        f" instead of {format_figure('wrong', current)}."
    )


def list_figures(result: WhatIfResult) -> tuple[FigureRow, ...]:
    """Return the figures of all cells that can be known under both policies."""
    current, draft = result.current, result.draft
    names = (
        ("model", "Decided by the model"),
        ("wrong", "Divergences of the model"),
        ("cost", "Cost of these divergences"),
        ("human", "Decisions of humans"),
    )
    return tuple(
        FigureRow(
            label,
            format_figure(name, current),
            _format_range(getattr(current, f"{name}_range")),
            format_figure(name, draft),
            _format_range(getattr(draft, f"{name}_range")),
            _format_difference(getattr(current.figures, name), getattr(draft.figures, name)),
        )
        for name, label in names
    )


def format_figure(name: str, side: WhatIfTotals | CellReplay) -> str:
    """Return a figure; with "about" or "probably" unless nothing in it is unknown or estimated.

    No divergence among the judged cases is no estimate of 0: it says so, and of how many.
    """
    figures = side.figures
    value: float | None = None if figures is None else getattr(figures, name)
    if figures is None or value is None:
        return NO_FIGURE
    if round(value):
        return f"{'' if side.is_sure else 'about '}{format_count(round(value))}"
    if name in ESTIMATED and figures.is_estimated and not value:
        return f"none in {format_count(figures.known)} known"
    return f"{'' if side.is_sure else 'probably '}{'less than 1' if value else '0'}"


def _format_range(span: WhatIfRange | None) -> str:
    if span is None:
        return ""
    return f"{format_count(round(span.least))}–{format_count(round(span.most))}"


def _format_difference(current: float | None, draft: float | None) -> str:
    if current is None or draft is None:
        return NO_FIGURE
    difference = draft - current
    if difference and not round(difference):
        return "less than 1"
    return format_signed_count(round(difference))


def format_signed_count(value: int) -> str:
    """Return a whole number with its sign: +1,204, −3, 0."""
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{format_count(abs(value))}"


def describe_ranges(result: WhatIfResult) -> str:
    """Return what the ranges are of, and the range of the difference."""
    draws = len(result.salts) - 1
    cells = _list_unknown_cells(result.unknown_in_draws)
    if not result.known_draws:
        return (
            f"No ranges are given: each of {draws} other random draws audits other cases, and too"
            f" many of those have no human answer. {cells}"
            if cells
            else "No ranges are given, since no cell can be known under both policies."
        )
    unknown = draws - result.known_draws
    text = f"Ranges are over {result.known_draws} other random draws of the audited cases" + (
        f"; in {unknown} more, too many audited cases have no human answer. {cells}"
        if unknown
        else "."
    )
    span = result.difference_range
    if span is None:
        return text
    least, most = (format_signed_count(round(value)) for value in (span.least, span.most))
    return f"{text} With the draft, divergences change by {least} to {most}."


def _list_unknown_cells(names: Sequence[str]) -> str:
    """Return the sentence of the first cells that some draws leave unknown; "" without any."""
    if not names:
        return ""
    rest = len(names) - MAX_CELLS
    listed = [*names[:MAX_CELLS], *([f"{rest} more"] if rest > 0 else [])]
    return f"This happens in {join_words(listed)}."


def list_changes(result: WhatIfResult) -> Iterator[tuple[str, str, str]]:
    """Yield each changed section alone: its name, cases of the model, divergences."""
    for change in result.changes:
        totals = change.totals
        if totals is None:
            yield change.section, "not valid alone", ""
        elif not change.is_known:
            yield change.section, NO_FIGURE, NO_FIGURE
        else:
            yield (
                change.section,
                format_figure("model", totals),
                format_figure("wrong", totals),
            )


def list_cells(result: WhatIfResult) -> tuple[CellRow, ...]:
    """Return a row a cell; times are on the clock of its site."""
    return tuple(_build_row(pair, result.stages) for pair in result.cells)


def _build_row(pair: CellPair, stages: tuple[str, ...]) -> CellRow:
    return CellRow(
        pair.cell_name,
        pair.effect,
        tuple(_describe_cell(pair, stages)),
        _format_sides(pair, "model"),
        _format_sides(pair, "wrong"),
    )


def _format_sides(pair: CellPair, name: str) -> str:
    texts = [
        "no cell" if side is None else format_figure(name, side)
        for side in (pair.current, pair.draft)
    ]
    return " → ".join(texts)


def _describe_cell(pair: CellPair, stages: tuple[str, ...]) -> Iterator[str]:
    current, draft, timezone = pair.current, pair.draft, pair.timezone
    if current is None or draft is None:
        yield "Only the draft has this cell." if current is None else "The draft has no such cell."
        return
    unknown = [
        (name, side.unknown, side)
        for name, side in (("the policy in force", current), ("the draft", draft))
        if side.unknown is not None
    ]
    for name, start, side in unknown:
        share = format_percent(side.answered / side.cases, 0) if side.cases else "none"
        yield (
            f"Under {name}: can't be known from these records from"
            f" {format_zoned_time(start.at, timezone)} on: {format_count(start.missing)} of the"
            f" {format_quantity(start.needed, 'answer')} needed until then do not exist (humans"
            f" answered {share} of the cases here)."
        )
    if unknown:
        return
    starts = [_find_starts(side.intervals) for side in (current, draft)]
    sentences = [
        _describe_start(stage, starts[0].get(stage), starts[1].get(stage), timezone)
        for stage in dict.fromkeys((*starts[0], *starts[1]))
    ]
    narrowings = [_find_narrowing(side.intervals, stages) for side in (current, draft)]
    if narrowings[0] != narrowings[1]:
        now, instead = (
            "never" if at is None else format_zoned_time(at, timezone) for at in narrowings[::-1]
        )
        sentences.append(f"First narrowed {now} instead of {instead}.")
    changed = [sentence for sentence in sentences if sentence]
    yield from changed
    if not changed:
        yield "Opens and narrows at the same times." if any(starts) else "Stays in shadow."
    if draft.missing or current.missing:
        yield (
            f"{format_quantity(draft.missing, 'answer')} that the draft needs, and"
            f" {format_count(current.missing)} that the policy in force needs, do not exist: times"
            " may differ."
        )


def _find_starts(intervals: tuple[StageInterval, ...]) -> dict[str, datetime]:
    """Return when each stage above shadow first began."""
    starts: dict[str, datetime] = {}
    for interval in intervals:
        if interval.stage != SHADOW:
            starts.setdefault(interval.stage, interval.since)
    return starts


def _find_narrowing(
    intervals: tuple[StageInterval, ...], stages: tuple[str, ...]
) -> datetime | None:
    """Return when a lower stage first followed a higher one; None for never."""
    steps = pairwise(intervals)
    return next(
        (
            later.since
            for earlier, later in steps
            if stages.index(later.stage) < stages.index(earlier.stage)
        ),
        None,
    )


def _describe_start(
    stage: str, current: datetime | None, draft: datetime | None, timezone: str
) -> str:
    name = stage[:1].upper() + stage[1:]
    if current is None or draft is None:
        if draft is None and current is not None:
            return f"Never {stage}, instead of from {format_zoned_time(current, timezone)}."
        if draft is not None:
            return f"{name} from {format_zoned_time(draft, timezone)} instead of never."
    elif current != draft:
        word = "earlier" if draft < current else "later"
        return (
            f"{name} {describe_duration(abs(draft - current))} {word}: from"
            f" {format_zoned_time(draft, timezone)} instead of"
            f" {format_zoned_time(current, timezone)}."
        )
    return ""
