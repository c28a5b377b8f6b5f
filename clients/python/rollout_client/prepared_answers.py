"""Answers of one snapshot made ahead, by site and version, in seconds of the boot clock.

While no window, stage or lease begins or ends, an answer depends on the case only through its
window, its doubts and its sampling bucket. Where an instant is close to such an edge, or anything
is missing, there is no prepared answer, and the caller asks the table itself.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

from rollout_client.assignments import LeaseBounds, LocalAssignment, build_local_assignment
from rollout_client.local_scope import LocalScope
from rollout_client.local_table import (
    MICROS,
    MICROSECOND,
    CellSpan,
    LocalCell,
    LocalTable,
    LocalWindow,
)
from rollout_client.questions import ReadyAnswer, answer_human
from rollout_client.rules import (
    MAX_CLOCK_SKEW,
    NO_WINDOW_FITS,
    compute_unit_key,
    describe_doubt,
    select_window,
)

EDGE_MARGIN: Final = 0.001
"""Seconds on both sides of an edge without prepared answers: floats are rounded."""
PRESENT: Final = 1.0
"""Seconds for which the times of cases that are answered are computed once."""
MAX_SEGMENTS: Final = 20_000
"""Segments in memory: callers choose the names of versions."""

BuildAssignment = Callable[[ReadyAnswer, float], LocalAssignment]


class PreparedCell:
    """The answers of a version in a cell: one in shadow, else one for each bucket."""

    __slots__ = ("_build", "_cell", "_span", "_until", "by_bucket", "in_shadow")

    def __init__(
        self, cell: LocalCell, span: CellSpan, is_holder: bool, until: float, build: BuildAssignment
    ) -> None:
        self._cell, self._span, self._until, self._build = cell, span, until, build
        self.in_shadow: LocalAssignment | None = None
        self.by_bucket: tuple[LocalAssignment, ...] = ()
        if span.stage is None or not is_holder:
            self.in_shadow = build(cell.shadow, float("inf"))
            return
        ready: dict[ReadyAnswer, LocalAssignment] = {}
        self.by_bucket = tuple(
            ready.setdefault(answer, build(answer, until)) for answer in span.stage.by_bucket
        )

    @property
    def plain_answers(self) -> tuple[LocalAssignment, ...] | None:
        """Return the answers by bucket if a case's confidence makes no difference."""
        return self.by_bucket if self.by_bucket and self._span.floor is None else None

    def find_doubt(
        self, table: LocalTable, confidence: float | None, attributes: Mapping[str, str] | None
    ) -> LocalAssignment | None:
        """Return the answer to a case that the version doesn't decide, or None."""
        doubt = describe_doubt(table, self._cell, self._span, confidence, attributes)
        stage = self._span.stage
        if not doubt or stage is None:
            return None
        return self._build(answer_human(doubt, stage.id), self._until)


class PreparedSegment(NamedTuple):
    """The answers of a site and version in [since, until), to cases between two instants."""

    since: float
    until: float
    opens: datetime
    closes: datetime
    bounds: LeaseBounds
    windows: tuple[LocalWindow, ...]
    by_window: Mapping[str, PreparedCell]
    other: LocalAssignment  # where no window fits

    def select_answers(self, attributes: Mapping[str, str] | None) -> PreparedCell | None:
        """Return the answers of the window that fits a case, or None."""
        window = select_window(self.windows, attributes)
        return None if window is None else self.by_window[window.id]


PresentEntry = tuple[
    float,
    float,
    float,
    float,
    datetime,
    datetime,
    LocalAssignment | None,
    tuple[LocalAssignment, ...] | None,
    Callable[[str], int],
    Callable[..., LocalAssignment],
]
"""Questions in [0, 1) of the boot clock and (2, 3) of the wall clock get an answer.

That is, about cases in (4, 5), item 6, or if it is None, one of 7 by the bucket that 8 finds for
the case's key, or if that is None too, what 9 answers.

A tuple, because it is unpacked for each question.
"""


class PreparedAnswers:
    """The prepared answers of a snapshot; a segment is made at its first question.

    Several threads may use it: what two make at once is equal.

    Args:
        requested_boot: the second of the boot clock to which the service's time is counted.
        get_bounds: returns the bounds of a site's lease; None without one.
    """

    __slots__ = (
        "_base",
        "_find_bucket",
        "_get_bounds",
        "_offset",
        "_scope",
        "_segments",
        "_table",
        "present",
    )

    def __init__(
        self,
        scope: LocalScope,
        table: LocalTable,
        find_bucket: Callable[[str], int],
        requested_boot: float,
        get_bounds: Callable[[str], LeaseBounds | None],
    ) -> None:
        self._scope, self._table, self._find_bucket = scope, table, find_bucket
        self._get_bounds = get_bounds
        self._base = scope.issued_at.astimezone(UTC) - timedelta(seconds=requested_boot)
        self._offset = (table.since - self._base) / timedelta(seconds=1)
        self._segments: dict[tuple[str, str], PreparedSegment] = {}
        self.present: dict[tuple[str, str], PresentEntry] = {}

    def find_present(self, site: str, version: str, boot: float) -> PresentEntry | None:
        """Return the answers for the next second, or None where the table must be asked."""
        segment = self._segments.get((site, version))
        if segment is None or not segment.since <= boot < segment.until:
            segment = self._prepare_segment(site, version, boot)
        if segment is None:
            return None
        # of a second, the last question needs the latest beginning, and the first the earliest end
        until = min(segment.until, boot + PRESENT)
        instant = self._base + timedelta(seconds=boot)
        earliest = instant + timedelta(seconds=until - boot + EDGE_MARGIN) - MAX_CLOCK_SKEW
        latest = instant - timedelta(seconds=EDGE_MARGIN) + MAX_CLOCK_SKEW
        in_shadow, by_bucket = None, None
        if not segment.windows:
            in_shadow = segment.other
        elif not segment.windows[0].when:
            only = segment.by_window[segment.windows[0].id]
            in_shadow = only.in_shadow
            if self._table.is_case_unit and not self._table.required:
                by_bucket = only.plain_answers
        entry = (
            boot,
            until,
            segment.bounds.wall_since,
            segment.bounds.wall_until,
            max(segment.opens, earliest),
            min(segment.closes, latest),
            in_shadow,
            by_bucket,
            self._find_bucket,
            partial(self._answer_case, segment),
        )
        self.present[site, version] = entry
        return entry

    def _answer_case(
        self,
        segment: PreparedSegment,
        site: str,
        at: datetime | None,
        key: str,
        episode: str,
        confidence: float | None,
        attributes: Mapping[str, str] | None,
    ) -> LocalAssignment:
        """Return the answer of a segment to a case that has a key and a time of the segment."""
        table, find_bucket = self._table, self._find_bucket
        answers = segment.select_answers(attributes)
        if answers is None:
            return segment.other
        if answers.in_shadow is not None:
            return answers.in_shadow
        doubt = answers.find_doubt(table, confidence, attributes)
        if doubt is not None:
            return doubt
        unit_key = key if table.is_case_unit else compute_unit_key(table, key, site, at, episode)
        return answers.by_bucket[find_bucket(unit_key)]

    def _prepare_segment(self, site_id: str, version: str, boot: float) -> PreparedSegment | None:
        """Prepare the answers around an instant; None close to an edge, or without a lease."""
        table, bounds = self._table, self._get_bounds(site_id)
        if bounds is None or not version:
            return None
        now, scope_at = self._base + timedelta(seconds=boot), self._scope.scope_at
        site, micros = table.sites[site_id], table.count_micros(now)
        place = site.find_place(micros)
        if place is None or (scope_at is not None and now < scope_at):
            return None
        windows = _list_reachable(site.windows[place])
        cells = {window.id: site.cells[window.id] for window in windows}
        opens, closes = site.starts[place], min(site.get_close(place), site.until)
        edges = [opens, closes, *(edge for cell in cells.values() for edge in cell.starts)]
        if scope_at is not None:
            edges.append(table.count_micros(scope_at))
        since = max(edge for edge in edges if edge <= micros)
        until = min(edge for edge in edges if edge > micros)
        usable_since = max(self._to_boot(since) + EDGE_MARGIN, bounds.boot_since)
        usable_until = min(self._to_boot(until), bounds.boot_until) - EDGE_MARGIN
        if not usable_since <= boot < usable_until:
            return None

        def build(answer: ReadyAnswer, end: float) -> LocalAssignment:
            return build_local_assignment(
                answer,
                self._scope.head.revision,
                table.fallbacks,
                min(end, bounds.boot_until),
                bounds,
            )

        holder = table.names.get(version, version)
        by_window = {}
        for window_id, cell in cells.items():
            span = cell.find_span(micros)
            end = self._to_boot(min(closes, span.until))
            by_window[window_id] = PreparedCell(cell, span, holder == cell.version, end, build)
        segment = PreparedSegment(
            usable_since,
            usable_until,
            self._to_instant(opens) + timedelta(seconds=EDGE_MARGIN),
            self._to_instant(closes) - timedelta(seconds=EDGE_MARGIN),
            bounds,
            windows,
            by_window,
            build(NO_WINDOW_FITS, float("inf")),
        )
        if len(self._segments) >= MAX_SEGMENTS:
            self._segments.clear()
            self.present.clear()
        self._segments[site_id, version] = segment
        return segment

    def _to_boot(self, micros: int) -> float:
        return micros / MICROS + self._offset

    def _to_instant(self, micros: int) -> datetime:
        return self._table.since + micros * MICROSECOND


def _list_reachable(windows: tuple[LocalWindow, ...]) -> tuple[LocalWindow, ...]:
    """Return open windows up to the first that fits every case."""
    for place, window in enumerate(windows):
        if not window.when:
            return windows[: place + 1]
    return windows
