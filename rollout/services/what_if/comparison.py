"""A policy draft against the policy in force, replayed over the same closed cases."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Final

from rollout.core.calendar.sites import Site
from rollout.core.policy.policy import Policy
from rollout.formats.policy.reader import InvalidPolicyError, parse_policy
from rollout.formats.policy.yaml_reader import DocumentValue, read_document
from rollout.reports.text.formatting import format_cell_name
from rollout.services.what_if.replayed_policy import (
    CellReplay,
    WhatIfFigures,
    WhatIfRecords,
    check_comparable,
    replay_policy,
)

DRAW_COUNT: Final = 10
MAX_CHANGES: Final = 8  # sections replayed alone; each takes as long as the draft
ReportStep = Callable[[str, int, int], None]
"""Receives what is done, the number of finished replays, and that of all."""


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
class CellPair:
    """A cell under both policies; None where a policy lacks the cell.

    `effect` is wider, narrower, other, same or unknown; `timezone` is the site's.
    """

    site: str
    window: str
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


def compare_policies(inputs: WhatIfInputs, report_step: ReportStep | None = None) -> WhatIfResult:
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
        difference_range=_find_difference_range(sums),
        known_draws=len(sums),
        unknown_in_draws=tuple(
            format_cell_name(cell.site, cell.window)
            for cell in first[0]
            if (cell.site, cell.window) in set[tuple[str, str]]().union(*unknown_cells)
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

    def __init__(self, records: WhatIfRecords, report_step: ReportStep | None, total: int) -> None:
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


def _list_known_cells(current: Cells, draft: Cells) -> set[tuple[str, str]]:
    """Return the cells with figures under both policies."""
    sides = [
        {(cell.site, cell.window) for cell in cells if cell.figures is not None}
        for cells in (current, draft)
    ]
    return sides[0] & sides[1]


def _sum(cells: Cells, known_cells: set[tuple[str, str]]) -> WhatIfTotals:
    counted = [cell for cell in cells if (cell.site, cell.window) in known_cells]
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


def _find_difference_range(
    sums: Sequence[tuple[WhatIfTotals, WhatIfTotals]],
) -> WhatIfRange | None:
    return _find_range(
        [
            None
            if before.figures.wrong is None or after.figures.wrong is None
            else after.figures.wrong - before.figures.wrong
            for before, after in sums
        ]
    )


def _pair_cells(
    current: Cells, draft: Cells, sites_by_id: Mapping[str, Site]
) -> Iterator[CellPair]:
    before = {(cell.site, cell.window): cell for cell in current}
    after = {(cell.site, cell.window): cell for cell in draft}
    for site, window in dict.fromkeys((*before, *after)):
        pair = before.get((site, window)), after.get((site, window))
        yield CellPair(site, window, sites_by_id[site].timezone, _find_effect(*pair), *pair)


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
