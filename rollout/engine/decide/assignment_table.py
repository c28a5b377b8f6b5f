"""A scope compiled for fast answers, or as a table for clients; and signed heads of the ledger.

`rollout.engine.decide.assignment` has the rules.

Compiled assignments are by site and version, each with the time for which it holds. While no
window, grant or limit begins or ends, an assignment depends on the case only through its window,
its doubts and its sampling bucket, so its few answers are made once. Where an instant is close to
such an edge, or anything is missing, there is no compiled answer, and the caller evaluates the
rules. A table is of one scope: a stop makes another scope, and so another table.

The table of clients needs neither the policy's rules nor its calendar. It covers the time from now
to the end of each site's lease and a day more. Each of its times is a number of seconds from the
table's first one, to the microsecond. A client only looks up: which windows are open when the case
occurred, which stage acts in the cell now, and which answer stands at the case's sampling value.

Head codes sign the ledger heads that clients get. A client returns the newest head it knows with
its code. A right code proves that the service gave out this head, so a ledger that lacks it was set
back. Nobody else can make such a code.
"""

import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from rollout.engine.decide.assignment import (
    BELOW_FLOOR,
    CODE_LENGTH,
    DAY,
    MAX_CLOCK_SKEW,
    NO_WINDOW_FITS,
    Assignment,
    TableAnswer,
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
    list_fallbacks,
)
from rollout.engine.decide.scope import Scope
from rollout.kernel.calendar.instants import OTHER_WINDOW, Cell, Site, Window
from rollout.kernel.calendar.windows import select_window
from rollout.kernel.policy.cell_evidence import reaches_floor
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy.stages import Stage
from rollout.kernel.statistics.sampling import SAMPLING_PURPOSE, build_bucket_finder
from rollout.kernel.units import group_pairs

if TYPE_CHECKING:
    from rollout.kernel.policy.familiarity import AttributeValue

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


TABLE_FORM: Final = 1
"""The number of the form; a client refuses a form that it doesn't know."""
NEVER_REACHED: Final = 2.0
"""A confidence floor that no case reaches."""
SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class TableFallback:
    """The action of a lever if no human answers within a number of seconds."""

    lever: str
    action: str
    within: float


OpenWindows = tuple[float, tuple[int, ...]]
"""From when on which windows are open at a site, as places in the table's windows."""
ActingSpan = tuple[float, int | None, float | None, float | None]
"""From when on which stage acts in a cell, its confidence floor, and when the stage may end.

A stage is its place in the table's stages; None is shadow. Cases below the floor are decided by a
human. The last is the second at which the stage may end without an event, None after the table's
end.
"""


@dataclass(frozen=True, slots=True)
class TableCell:
    """A cell.

    `version` is the one that may act, `shadow` the place of the answer where it doesn't, and
    `values` that of the familiar values, null unless they are asked for. A span is a list: from
    when on, the place of the stage that acts, its confidence floor, and when the stage may end.
    """

    window: int
    version: str
    shadow: int
    values: int | None
    spans: list[ActingSpan]


@dataclass(frozen=True, slots=True)
class TableSite:
    """A site and its cells, until the end of its part of the table.

    An entry of `open` is a list: from when on, and the places of the open windows.
    """

    site: str
    until: float
    open: list[OpenWindows]
    cells: list[TableCell]


@dataclass(frozen=True, slots=True)
class TableWindow:
    """A window: the values of attributes that it asks for; its hours are those of the sites."""

    id: str
    when: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class TableStage:
    """A stage: `buckets` has the place of the answer of each sampling bucket."""

    stage: str
    buckets: list[int]


@dataclass(frozen=True, slots=True)
class TableAttribute:
    """An attribute whose values must be familiar; a number has cuts between its bins."""

    names: list[str]
    cuts: list[float]


@dataclass(frozen=True, slots=True)
class ScopeTable:
    """A scope as a table.

    `edges` separate the sampling buckets. `names` has by later name of a version its first one.
    `values` are sets of familiar values by attribute, to which cells refer.
    """

    form: int
    since: datetime
    unit: str
    episode_span: float | None
    edges: list[float]
    windows: list[TableWindow]
    stages: list[TableStage]
    answers: list[TableAnswer]
    names: dict[str, str]
    familiar: list[TableAttribute]
    values: list[dict[str, list[str]]]
    fallbacks: list[TableFallback]
    sites: list[TableSite]


class _TableBuilder:
    """Collects what several cells refer to, while their sites are read."""

    def __init__(self, scope: Scope, policy: Policy, since: datetime) -> None:
        self.scope, self.policy, self.since = scope, policy, since
        self.answers: dict[TableAnswer, int] = {}
        self.values: dict[tuple[AttributeValue, ...], int] = {}
        self.stages = [self._build_stage(stage) for stage in policy.stages]
        self.stage_numbers = {stage.id: number for number, stage in enumerate(policy.stages)}
        self.window_numbers = {window.id: number for number, window in enumerate(policy.windows)}

    def count_seconds(self, instant: datetime) -> float:
        """Return the seconds to an instant."""
        return (instant - self.since) / SECOND

    def build_site(self, site_id: str, lease: timedelta) -> TableSite:
        """Return a site until its lease's end and a day more."""
        until = self.since + SECOND + lease + DAY
        spans = list(self._list_open_windows(site_id, until))
        numbers = sorted({number for _, open_windows in spans for number in open_windows})
        cells = [self._build_cell(site_id, number, until) for number in numbers]
        return TableSite(site_id, self.count_seconds(until), spans, cells)

    def _list_open_windows(self, site_id: str, until: datetime) -> Iterator[OpenWindows]:
        """Yield the open windows from the earliest case on; a case may be older than now."""
        site, at = self.policy.sites_by_id[site_id], self.since - MAX_CLOCK_SKEW
        while at < until:
            windows, _, closes = find_open_span(site, self.policy.windows, at)
            numbers = tuple(self.window_numbers[w.id] for w in _list_reachable(windows))
            yield self.count_seconds(at), numbers
            at = closes

    def _build_cell(self, site_id: str, number: int, until: datetime) -> TableCell:
        cell, policy = Cell(site_id, self.policy.windows[number].id), self.policy
        holder = self.scope.get_holder(cell)
        lease = get_full_lease(policy, policy.sites_by_id[site_id])
        shadow = self._add_answer(assign_in_shadow(self.scope, policy, lease, cell))
        if holder is None:
            return TableCell(number, "", shadow, None, [])
        if doubt := describe_sample(self.scope, policy, holder):  # only the service can draw
            shadow = self._add_answer(assign_human(self.scope, policy, lease, doubt))
            return TableCell(number, "", shadow, None, [])
        spans = list(self._list_spans(cell, holder, until))
        if all(stage is None for _, stage, _, _ in spans):
            return TableCell(number, "", shadow, None, [])
        return TableCell(number, holder, shadow, self._add_values(cell, holder), spans)

    def _list_spans(self, cell: Cell, holder: str, until: datetime) -> Iterator[ActingSpan]:
        """Yield the spans in which one stage acts, each with its end."""
        scope, policy = self.scope, self.policy
        grants = scope.get_cell_state(cell, holder).grants
        limit = policy.compute_end(cell)
        edges = {limit, *(edge for grant in grants for edge in (grant.since, grant.until))}
        last: tuple[int | None, float | None, float | None] | None = None
        for at in (self.since, *sorted(edge for edge in edges if self.since < edge < until)):
            acting = find_acting_stage(scope, policy, cell, holder, at)
            if acting is None:
                row: tuple[int | None, float | None, float | None] = None, None, None
            else:
                end = min((limit, *(grant.until for grant in grants if grant.is_valid(at))))
                floor = None if acting.floor is None else min(acting.floor, NEVER_REACHED)
                end_second = self.count_seconds(end) if end < until else None
                row = self.stage_numbers[acting.stage.id], floor, end_second
            if row != last:
                yield self.count_seconds(at), *row
            last = row

    def _build_stage(self, stage: Stage) -> TableStage:
        lowest_values = (0.0, *self.policy.blind_edges)  # of the buckets
        buckets = [
            self._add_answer(
                assign_by_sampling(stage, value, self.scope, self.policy, self.policy.lease)
            )
            for value in lowest_values
        ]
        return TableStage(stage.id, buckets)

    def _add_answer(self, made: Assignment) -> int:
        answer = TableAnswer(made.decider, made.stage, made.exposure, made.share, made.reason)
        return self.answers.setdefault(answer, len(self.answers))

    def _add_values(self, cell: Cell, holder: str) -> int | None:
        """Return the place of a cell's familiar values."""
        if self.policy.evidence.familiar is None:
            return None
        values = tuple(self.scope.get_cell_values(cell, holder).familiar_values)
        return self.values.setdefault(values, len(self.values))


def _list_reachable(windows: Iterable[Window]) -> Iterator[Window]:
    """Yield open windows up to the first that fits every case."""
    for window in windows:
        yield window
        if not window.when:
            return


def build_scope_table(
    scope: Scope, policy: Policy, leases: Mapping[str, timedelta], now: datetime
) -> ScopeTable:
    """Return the table of some sites, given by their leases.

    Args:
        now: when the leases begin or later.
    """
    builder = _TableBuilder(scope, policy, now.astimezone(UTC).replace(microsecond=0))
    sites = [builder.build_site(site, lease) for site, lease in leases.items()]
    evidence, familiar = policy.evidence, policy.evidence.familiar
    versions = {cell.version for site in sites for cell in site.cells}
    return ScopeTable(
        form=TABLE_FORM,
        since=builder.since,
        unit=evidence.unit,
        episode_span=None if evidence.episode_span is None else evidence.episode_span / SECOND,
        edges=list(policy.blind_edges),
        windows=[
            TableWindow(window.id, {name: list(texts) for name, texts in window.when.items()})
            for window in policy.windows
        ],
        stages=builder.stages,
        answers=list(builder.answers),
        names={name: first for name, first in scope.aliases.items() if first in versions},
        familiar=[
            TableAttribute(list(attribute.names), list(attribute.cuts))
            for attribute in (() if familiar is None else familiar.attributes)
        ],
        values=[group_pairs(values) for values in builder.values],
        fallbacks=[
            TableFallback(lever.lever, lever.action, lever.after / SECOND)
            for lever in list_fallbacks(policy)
        ],
        sites=sites,
    )


HEAD_DOMAIN: Final = b"rollout-head-1\x1f"
PART_COUNT: Final = 3
MAX_DIGITS: Final = 9  # of a key's number and of an era


@dataclass(frozen=True, slots=True)
class IssuedHead:
    """A ledger head as the service gives it to clients."""

    rollout: str
    era: int
    revision: int
    hash: str


def sign_head(head: IssuedHead, secret: bytes, key_number: int) -> str:
    """Return a head's code; `key_number` finds the secret again.

    >>> head = IssuedHead("ramps", 1, 41, "9f2c")
    >>> code = sign_head(head, bytes(32), 1)
    >>> read_head_era(code, {1: bytes(32)}, "ramps", 41, "9f2c")
    1
    >>> read_head_era(code, {1: bytes(32)}, "ramps", 42, "9f2c") is None
    True
    """
    return f"{key_number}.{head.era}.{_compute_code(head, secret)}"


def read_head_era(
    code: str, secrets: Mapping[int, bytes], rollout: str, revision: int, row_hash: str
) -> int | None:
    """Return the era of a head if its code is right, else None.

    `secrets` are the valid keys by number.
    """
    parts = code.split(".")
    if len(parts) != PART_COUNT or not code.isascii():
        return None
    key_number, era, digits = parts
    if not all(n.isdigit() and len(n) <= MAX_DIGITS for n in (key_number, era)):
        return None
    secret = secrets.get(int(key_number))
    if secret is None:
        return None
    head = IssuedHead(rollout, int(era), revision, row_hash)
    return head.era if hmac.compare_digest(digits, _compute_code(head, secret)) else None


def _compute_code(head: IssuedHead, secret: bytes) -> str:
    parts = (head.rollout, str(head.era), str(head.revision), head.hash)
    text = "".join(f"{len(part)}:{part}" for part in parts)  # lengths make the parts unambiguous
    message = HEAD_DOMAIN + text.encode("utf-8", "surrogatepass")  # a bad hash must fail, not raise
    return hmac.digest(secret, message, "sha256").hex()[:CODE_LENGTH]
