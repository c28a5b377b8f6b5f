"""Assignments of one scope, compiled by site and version, each with the time for which it holds.

`rollout.engine.decide.assignment` has the rules. While no window, grant or limit begins or ends, an
assignment depends on the case only through its window, its doubts and its sampling bucket, so its
few answers are made once. Where an instant is close to such an edge, or anything is missing, there
is no compiled answer, and the caller evaluates the rules. A table is of one scope: a stop makes
another scope, and so another table.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Final, Generic, TypeVar

from rollout.engine.decide.assignment import (
    BELOW_FLOOR,
    MAX_CLOCK_SKEW,
    NO_WINDOW_FITS,
    Assignment,
    assign_by_sampling,
    assign_human,
    assign_in_shadow,
    compute_end,
    compute_unit_key,
    describe_sample,
    describe_unfamiliar_case,
    find_acting_stage,
    find_open_span,
    get_full_lease,
)
from rollout.engine.decide.scope import Scope
from rollout.kernel.calendar.sites import OTHER_WINDOW, Cell, Site, Window
from rollout.kernel.calendar.windows import select_window
from rollout.kernel.policy.confidence_floors import reaches_floor
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.gate_thresholds import SAMPLING_PURPOSE, build_bucket_finder

Answer = TypeVar("Answer")
BuildAnswer = Callable[[str, Assignment, float], Answer]
"""Builds the answer of a site from an assignment, and the second at which that may change.

The assignment has the site's full lease. The second is infinite in shadow, where no lease ends.
"""

EDGE_MARGIN: Final = 0.001
"""Seconds on both sides of an edge without compiled answers: floats are rounded."""
PRESENT: Final = 1.0
"""Seconds for which the times of cases that are answered are computed once."""
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
        floor: the confidence from which the version decides; None for any.
    """

    in_shadow: Answer | None
    by_bucket: tuple[Answer, ...] = ()
    cell: Cell = NO_CELL
    stage: str = ""
    until: float = inf
    floor: float | None = None


@dataclass(frozen=True, slots=True)
class CompiledSegment(Generic[Answer]):
    """The answers of a site and version while no edge is passed.

    Attributes:
        opens, closes: cases in between are answered.
        since, until: seconds in between which are asked about.
        answers: None if they are those of the window chosen from `windows`.
    """

    opens: datetime
    closes: datetime
    since: float
    until: float
    answers: CellAnswers[Answer] | None
    windows: tuple[Window, ...]
    answers_by_window: Mapping[str, CellAnswers[Answer]]

    @property
    def in_shadow(self) -> Answer | None:
        """Return the answer to every case, if there is only one."""
        return None if self.answers is None else self.answers.in_shadow

    def select_answers(self, attributes: Mapping[str, str] | None) -> CellAnswers[Answer]:
        """Return the answers of the window that fits a case."""
        if self.answers is not None:
            return self.answers
        return self.answers_by_window[select_window(self.windows, attributes)]


PresentSegment = tuple[float, float, datetime, datetime, Answer | None, CompiledSegment[Answer]]
"""Questions in [0, 1) about cases in [2, 3) get the answer 4, or if it is None, one of 5.

A tuple, because it is unpacked for each question. Comparing the case's time with two instants takes
half the time of computing how long ago it was.
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
        "_has_familiar_rule",
        "_is_case_unit",
        "_policy",
        "_present_segments",
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
        self._find_bucket = build_bucket_finder(salt, SAMPLING_PURPOSE, policy.blind_edges)
        evidence = policy.evidence
        self._has_familiar_rule = evidence.familiar is not None
        self._is_case_unit = evidence.unit == "case"
        self._segments: dict[tuple[str, str], CompiledSegment[Answer]] = {}
        self._present_segments: dict[tuple[str, str], PresentSegment[Answer]] = {}
        no_segment: CompiledSegment[Answer] = CompiledSegment(base, base, inf, inf, None, (), {})
        self._uncompiled: PresentSegment[Answer] = (inf, inf, base, base, None, no_segment)

    def find_answer(  # noqa: PLR0911, PLR0913, PLR0917 - calls and objects would cost as much
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
        since, until, earliest, latest, in_shadow, segment = self._present_segments.get(
            (site, version), self._uncompiled
        )
        if not since <= now < until:
            present = self._find_present_segment(site, version, now)
            if present is None:
                return None
            _, _, earliest, latest, in_shadow, segment = present
        try:
            if not (earliest < at < latest and key):  # type: ignore[operator]
                return None
        except TypeError:  # no time, or one without a zone
            return None
        if in_shadow is not None:
            return in_shadow
        answers = segment.select_answers(attributes)
        if answers.in_shadow is not None:
            return answers.in_shadow
        doubt = "" if reaches_floor(confidence, answers.floor) else BELOW_FLOOR
        if not doubt and self._has_familiar_rule:
            doubt = describe_unfamiliar_case(
                self._scope, self._policy, answers.cell, version, attributes
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

    def _find_present_segment(
        self, site: str, version: str, now: float
    ) -> PresentSegment[Answer] | None:
        """Return a segment with the times of cases for the next second, or None without one."""
        segment = self._segments.get((site, version))
        if segment is None or not segment.since <= now < segment.until:
            segment = self._compile_segment(site, version, now)
        if segment is None:
            return None
        # of a second, the last question needs the latest beginning, and the first the earliest end
        until = min(segment.until, now + PRESENT)
        instant = self._base + timedelta(seconds=now)
        earliest = instant + timedelta(seconds=until - now + EDGE_MARGIN) - MAX_CLOCK_SKEW
        latest = instant - timedelta(seconds=EDGE_MARGIN) + MAX_CLOCK_SKEW
        present = (
            now,
            until,
            max(segment.opens, earliest),
            min(segment.closes, latest),
            segment.in_shadow,
            segment,
        )
        self._present_segments[site, version] = present
        return present

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
        margin = timedelta(seconds=EDGE_MARGIN)
        segment = CompiledSegment(
            opens.astimezone(UTC) + margin,
            closes.astimezone(UTC) - margin,
            since,
            until,
            answers,
            open_windows,
            answers_by_window,
        )
        if len(self._segments) >= MAX_SEGMENTS:
            self._segments.clear()
            self._present_segments.clear()
        self._segments[site_id, version] = segment
        return segment

    def _list_edges(self, cells: Iterable[Cell]) -> Iterable[datetime]:
        """Yield when the stages in some cells may change without an event."""
        if self._scope.at is not None:
            yield self._scope.at
        for cell in cells:
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
        acting = find_acting_stage(scope, policy, cell, version, instant)
        if acting is None:
            assignment = assign_in_shadow(scope, policy, full_lease, cell)
            return CellAnswers(self._build_answer(site.id, assignment, inf))
        until = self._count_seconds(
            compute_end(scope, policy, cell, scope.get_first_name(version), instant, closes)
        )
        stage = acting.stage
        if doubt := describe_sample(scope, policy, version):
            human = assign_human(scope, policy, full_lease, doubt, stage.id)
            return CellAnswers(self._build_answer(site.id, human, until))
        lowest_values = (0.0, *policy.blind_edges)  # of the buckets
        by_bucket = tuple(
            self._build_answer(
                site.id, assign_by_sampling(stage, value, scope, policy, full_lease), until
            )
            for value in lowest_values
        )
        return CellAnswers(None, by_bucket, cell, stage.id, until, acting.floor)

    def _compile_no_cell(self, site: Site) -> CellAnswers[Answer]:
        full_lease = get_full_lease(self._policy, site)
        assignment = assign_in_shadow(self._scope, self._policy, full_lease, None, NO_WINDOW_FITS)
        return CellAnswers(self._build_answer(site.id, assignment, inf))

    def _count_seconds(self, instant: datetime) -> float:
        return (instant - self._base).total_seconds()
