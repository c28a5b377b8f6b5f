"""Assignments of one scope, compiled by site and version, each with the time for which it holds.

`rollout.core.scope.assignment` has the rules. While no window, grant or limit begins or ends, an
assignment depends on the case only through its window, its doubts and its sampling bucket, so its
few answers are made once. Where an instant is close to such an edge, or anything is missing, there
is no compiled answer, and the caller evaluates the rules. A table is of one scope: a stop makes
another scope, and so another table.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from typing import Final, Generic, TypeVar

from rollout.core.calendar.sites import OTHER_WINDOW, Cell, Site, Window
from rollout.core.calendar.windows import select_window
from rollout.core.policy.policy import Policy
from rollout.core.scope.assignment import (
    MAX_CLOCK_SKEW,
    NO_WINDOW_FITS,
    SAMPLING_PURPOSE,
    Assignment,
    assign_by_sampling,
    assign_human,
    assign_in_shadow,
    compute_end,
    compute_unit_key,
    find_acting_stage,
    find_case_doubt,
    find_open_span,
    get_full_lease,
)
from rollout.core.scope.scope import Scope
from rollout.core.statistics.sampling import build_bucket_finder

Answer = TypeVar("Answer")
BuildAnswer = Callable[[str, Assignment, float], Answer]
"""Builds the answer of a site from an assignment, and the second at which that may change.

The assignment has the site's full lease. The second is infinite in shadow, where no lease ends.
"""

EDGE_MARGIN: Final = 0.001
"""Seconds on both sides of an edge without compiled answers: floats are rounded."""
MAX_SKEW: Final = MAX_CLOCK_SKEW.total_seconds() - EDGE_MARGIN
NO_CELL: Final = Cell("", "")
MAX_SEGMENTS: Final = 20_000
"""Segments in memory: clients choose the names of versions."""


@dataclass(frozen=True, slots=True)
class CellAnswers(Generic[Answer]):
    """The answers of a version in a cell.

    Attributes:
        in_shadow: the only answer where the version does not act.
        by_bucket: otherwise, by the bucket of the sampling value.
        cell, stage, until: what answers to doubtful cases are made of.
    """

    in_shadow: Answer | None
    by_bucket: tuple[Answer, ...] = ()
    cell: Cell = NO_CELL
    stage: str = ""
    until: float = inf


CompiledSegment = tuple[
    float,
    float,
    float,
    float,
    CellAnswers[Answer] | None,
    tuple[Window, ...],
    Mapping[str, CellAnswers[Answer]],
]
"""Cases in [0, 1) asked about in [2, 3) get the answers 4.

If these are None, the answers are those of the window that is chosen from 5, in 6.
"""


class AssignmentTable(Generic[Answer]):
    """The compiled assignments of one scope; a segment is compiled at its first question.

    Several threads may use it: what two compile at once is equal.

    Args:
        base: the instant from which seconds are counted.
        build_answer: builds what `find_answer` returns.
    """

    __slots__ = (
        "_base",
        "_build_answer",
        "_find_bucket",
        "_has_doubts",
        "_is_case_unit",
        "_policy",
        "_scope",
        "_segments",
        "_uncompiled",
    )

    def __init__(
        self,
        scope: Scope,
        policy: Policy,
        salt: bytes,
        base: datetime,
        build_answer: BuildAnswer[Answer],
    ) -> None:
        self._scope, self._policy, self._base = scope, policy, base
        self._build_answer = build_answer
        self._find_bucket = build_bucket_finder(salt, SAMPLING_PURPOSE, policy.bucket_edges)
        evidence = policy.evidence
        self._has_doubts = evidence.confidence_floor is not None or evidence.familiar is not None
        self._is_case_unit = evidence.unit == "case"
        self._segments: dict[tuple[str, str], CompiledSegment[Answer]] = {}
        self._uncompiled: CompiledSegment[Answer] = (inf, inf, inf, inf, None, (), {})

    def find_answer(  # noqa: PLR0913, PLR0917 - an object of these would cost as much
        self,
        site: str,
        at: datetime | None,
        version: str,
        key: str,
        now: float,
        episode: str | None = "",
        confidence: float | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> Answer | None:
        """Return the answer to a question, or None if the rules must be evaluated.

        Args:
            at: when the case occurred.
            now: the second of the question.
        """
        opens, closes, since, until, answers, windows, answers_by_window = self._segments.get(
            (site, version), self._uncompiled
        )
        if not since <= now < until:
            segment = self._compile_segment(site, version, now)
            if segment is None:
                return None
            opens, closes, since, until, answers, windows, answers_by_window = segment
        try:
            occurred = (at - self._base).total_seconds()  # type: ignore[operator]
        except TypeError:  # no time, or one without a zone
            return None
        if not (opens <= occurred < closes and -MAX_SKEW < occurred - now < MAX_SKEW and key):
            return None
        if answers is None:
            answers = answers_by_window[select_window(windows, attributes)]
        if answers.in_shadow is not None:
            return answers.in_shadow
        if self._has_doubts:
            doubt = find_case_doubt(
                self._scope, self._policy, answers.cell, version, confidence, attributes
            )
            if doubt:
                return self._answer_doubt(answers, doubt)
        unit_key = (
            key if self._is_case_unit else compute_unit_key(self._policy, key, site, at, episode)
        )
        return answers.by_bucket[self._find_bucket(unit_key)]

    def _answer_doubt(self, answers: CellAnswers[Answer], doubt: str) -> Answer:
        site = answers.cell.site
        lease = get_full_lease(self._policy, self._policy.sites_by_id[site])
        assignment = assign_human(self._scope, self._policy, lease, doubt, answers.stage)
        return self._build_answer(site, assignment, answers.until)

    def _compile_segment(
        self, site_id: str, version: str, now: float
    ) -> CompiledSegment[Answer] | None:
        """Compile the answers around an instant; None too close to an edge, or without rules."""
        site, instant = self._policy.sites_by_id.get(site_id), self._base + timedelta(seconds=now)
        started = self._scope.at
        if site is None or not version or (started is not None and instant < started):
            return None
        open_windows, opens, closes = find_open_span(site, self._policy.windows, instant)
        if open_windows and not open_windows[0].when:
            open_windows = open_windows[:1]  # it fits every case
        cells = [Cell(site_id, window.id) for window in open_windows]
        since, until = self._find_span(now, (opens, closes, *self._list_edges(cells)))
        if not since <= now < until:
            return None
        answers_by_window = {
            cell.window: self._compile_cell(site, cell, version, instant, closes) for cell in cells
        }
        if not open_windows or open_windows[0].when:
            answers_by_window[OTHER_WINDOW] = self._compile_no_cell(site)
        answers = next(iter(answers_by_window.values())) if len(answers_by_window) == 1 else None
        segment = (
            self._count_seconds(opens) + EDGE_MARGIN,
            self._count_seconds(closes) - EDGE_MARGIN,
            since,
            until,
            answers,
            open_windows,
            answers_by_window,
        )
        if len(self._segments) >= MAX_SEGMENTS:
            self._segments.clear()
        self._segments[site_id, version] = segment
        return segment

    def _list_edges(self, cells: Iterable[Cell]) -> Iterable[datetime]:
        """Yield when the stages in some cells may change without an event."""
        if self._scope.at is not None:
            yield self._scope.at
        for cell in cells:
            yield self._policy.compute_start(cell)
            yield self._policy.compute_end(cell)
            holder = self._scope.get_holder(cell)
            if holder is not None:
                for grant in self._scope.get_cell_state(cell, holder).grants:
                    yield grant.since
                    yield grant.until

    def _find_span(self, now: float, edges: Iterable[datetime]) -> tuple[float, float]:
        """Return the span around `now` without edges."""
        seconds = [self._count_seconds(edge) for edge in edges]
        since = max((second for second in seconds if second <= now), default=-inf)
        until = min((second for second in seconds if second > now), default=inf)
        return since + EDGE_MARGIN, until - EDGE_MARGIN

    def _compile_cell(
        self, site: Site, cell: Cell, version: str, instant: datetime, closes: datetime
    ) -> CellAnswers[Answer]:
        scope, policy, full_lease = self._scope, self._policy, get_full_lease(self._policy, site)
        stage = find_acting_stage(scope, policy, cell, version, instant)
        if stage is None:
            assignment = assign_in_shadow(scope, policy, full_lease, cell)
            return CellAnswers(self._build_answer(site.id, assignment, inf))
        until = self._count_seconds(
            compute_end(scope, policy, cell, scope.get_first_name(version), instant, closes)
        )
        lowest_values = (0.0, *policy.bucket_edges)  # of the buckets
        by_bucket = (
            assign_by_sampling(stage, value, scope, policy, full_lease) for value in lowest_values
        )
        answers = tuple(self._build_answer(site.id, assignment, until) for assignment in by_bucket)
        return CellAnswers(None, answers, cell, stage.id, until)

    def _compile_no_cell(self, site: Site) -> CellAnswers[Answer]:
        full_lease = get_full_lease(self._policy, site)
        assignment = assign_in_shadow(self._scope, self._policy, full_lease, None, NO_WINDOW_FITS)
        return CellAnswers(self._build_answer(site.id, assignment, inf))

    def _count_seconds(self, instant: datetime) -> float:
        return (instant - self._base).total_seconds()
