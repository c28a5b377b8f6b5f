"""The table of a scope, as GET `scope?form=table-1` sends it.

Times are whole microseconds since the table's first instant, so that edges are exact. References
between parts are resolved as the table is read: a table that names what it lacks is refused whole.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeVar

from rollout_client.familiar_values import FamiliarValues, RequiredAttribute
from rollout_client.json_values import check_number, check_text
from rollout_client.questions import LeverFallback, ReadyAnswer

TABLE_FORM: Final = 1
"""The form that this program knows."""
NEVER: Final = 2**62
MICROSECOND: Final = timedelta(microseconds=1)
MICROS: Final = 1_000_000
DECIDERS: Final = frozenset({"human", "model"})
FIRST_YEAR, LAST_YEAR = 1970, 9000  # sums of instants and leases stay within the calendar

Item = TypeVar("Item")


class UnknownFormError(ValueError):
    """The table has a form that this program doesn't know: install a newer one."""


class LocalWindow(NamedTuple):
    """A window, and the values that it asks of a case's attributes."""

    id: str
    when: Mapping[str, tuple[str, ...]]


class StageAnswers(NamedTuple):
    """A stage and its answers by bucket."""

    id: str
    by_bucket: tuple[ReadyAnswer, ...]


class CellSpan(NamedTuple):
    """Which stage acts from an instant on, at which confidence, and until when at most."""

    stage: StageAnswers | None
    floor: float | None
    until: int

    def reaches_floor(self, confidence: float | None) -> bool:
        """Return whether a case is sure enough for the stage."""
        return self.floor is None or (confidence is not None and self.floor <= confidence <= 1)


NO_SPAN: Final = CellSpan(None, None, NEVER)


class LocalCell(NamedTuple):
    """A cell: the version that may act, when it does, and the answer when it doesn't."""

    version: str
    shadow: ReadyAnswer
    familiar: FamiliarValues
    starts: tuple[int, ...]
    spans: tuple[CellSpan, ...]

    def find_span(self, at: int) -> CellSpan:
        """Return the span of an instant."""
        place = bisect_right(self.starts, at)
        return self.spans[place - 1] if place else NO_SPAN


class LocalSite(NamedTuple):
    """A site: which windows are open from when on, and its cells by window."""

    until: int
    starts: tuple[int, ...]
    windows: tuple[tuple[LocalWindow, ...], ...]
    cells: Mapping[str, LocalCell]

    def find_place(self, at: int) -> int | None:
        """Return the place of the span with an instant; None where the table has none."""
        place = bisect_right(self.starts, at)
        return place - 1 if place and at < self.until else None

    def get_close(self, place: int) -> int:
        """Return when a span ends."""
        return self.starts[place + 1] if place + 1 < len(self.starts) else NEVER


class LocalTable(NamedTuple):
    """The table of a scope for some sites."""

    since: datetime
    is_case_unit: bool
    episode_span: int | None
    edges: tuple[float, ...]
    names: Mapping[str, str]
    required: tuple[RequiredAttribute, ...]
    fallbacks: tuple[LeverFallback, ...]
    sites: Mapping[str, LocalSite]

    def count_micros(self, at: datetime) -> int:
        """Return the microseconds to an instant."""
        return (at - self.since) // MICROSECOND


def parse_table(body: Mapping[str, Any]) -> LocalTable:
    """Return the table of a parsed JSON object.

    Raises:
        UnknownFormError: it has another form.
        LookupError, TypeError, ValueError: a part is missing or malformed.
    """
    if type(body["form"]) is not int or body["form"] != TABLE_FORM:
        raise UnknownFormError(f"the table has form {body['form']}; this client knows {TABLE_FORM}")
    span = body["episode_span"]
    return LocalTable(
        since=parse_instant(body["since"]),
        is_case_unit=body["unit"] == "case",
        episode_span=None if span is None else _check_span(_to_micros(span)),
        edges=_check_ascending(map(check_number, body["edges"])),
        names={check_text(name): check_text(first) for name, first in body["names"].items()},
        required=tuple(
            RequiredAttribute(
                _read_texts(row["names"]), _check_ascending(map(check_number, row["cuts"]))
            )
            for row in body["familiar"]
        ),
        fallbacks=tuple(
            LeverFallback(
                check_text(row["lever"]),
                check_text(row["action"]),
                timedelta(seconds=check_number(row["within"])),
            )
            for row in body["fallbacks"]
        ),
        sites=_parse_sites(body),
    )


def parse_instant(text: str) -> datetime:
    """Return the instant of a text.

    Raises:
        ValueError: it is none, or has no zone.
    """
    at = datetime.fromisoformat(text)
    if at.utcoffset() is None:
        raise ValueError(f"{text} has no zone")
    if not FIRST_YEAR <= at.year <= LAST_YEAR:
        raise ValueError(f"{text} is not of these centuries")
    return at


def _parse_sites(body: Mapping[str, Any]) -> dict[str, LocalSite]:
    answers = [_parse_answer(row) for row in body["answers"]]
    stages = [_parse_stage(row, answers, len(body["edges"]) + 1) for row in body["stages"]]
    windows = [
        LocalWindow(
            check_text(row["id"]),
            {name: _read_texts(texts) for name, texts in row["when"].items()},
        )
        for row in body["windows"]
    ]
    values = [
        {name: frozenset(_read_texts(texts)) for name, texts in row.items()}
        for row in body["values"]
    ]
    _check_distinct("windows", [window.id for window in windows])
    _check_distinct("sites", [check_text(row["site"]) for row in body["sites"]])
    sites = {}
    for row in body["sites"]:
        _check_distinct("cells", [cell["window"] for cell in row["cells"]])
        cells = {
            _pick(windows, cell["window"]).id: _parse_cell(cell, answers, stages, values)
            for cell in row["cells"]
        }
        open_windows = tuple(
            tuple(_pick(windows, number) for number in numbers) for _, numbers in row["open"]
        )
        missing = {window.id for span in open_windows for window in span} - cells.keys()
        if missing:
            raise ValueError(f"site {row['site']} lacks the cells of {sorted(missing)}")
        starts = _check_ascending(_to_micros(since) for since, _ in row["open"])
        sites[row["site"]] = LocalSite(_to_micros(row["until"]), starts, open_windows, cells)
    return sites


def _parse_answer(row: Mapping[str, Any]) -> ReadyAnswer:
    answer = ReadyAnswer(
        check_text(row["decider"]),
        check_text(row["stage"]),
        check_text(row["exposure"]),
        check_number(row["share"]),
        check_text(row["reason"]),
    )
    if answer.decider not in DECIDERS:
        raise ValueError(f"{answer.decider} decides nothing")
    return answer


def _parse_stage(
    row: Mapping[str, Any], answers: Sequence[ReadyAnswer], bucket_count: int
) -> StageAnswers:
    by_bucket = tuple(_pick(answers, number) for number in row["buckets"])
    if len(by_bucket) != bucket_count:
        raise ValueError(f"stage {row['stage']} has not an answer for each bucket")
    return StageAnswers(check_text(row["stage"]), by_bucket)


def _parse_cell(
    row: Mapping[str, Any],
    answers: Sequence[ReadyAnswer],
    stages: Sequence[StageAnswers],
    values: Sequence[FamiliarValues],
) -> LocalCell:
    starts = _check_ascending(_to_micros(span[0]) for span in row["spans"])
    spans = tuple(_parse_span(span, stages) for span in row["spans"])
    for place, span in enumerate(spans):
        next_start = starts[place + 1] if place + 1 < len(starts) else NEVER
        if span.stage is not None and not next_start <= span.until:
            raise ValueError("a stage acts past its end")
    familiar = {} if row["values"] is None else _pick(values, row["values"])
    shadow = _pick(answers, row["shadow"])
    if shadow.decider != "human":
        raise ValueError("a model decides in shadow")
    return LocalCell(check_text(row["version"]), shadow, familiar, starts, spans)


def _parse_span(span: Sequence[Any], stages: Sequence[StageAnswers]) -> CellSpan:
    _, number, floor, until = span
    if floor is not None and not check_number(floor) >= 0:
        raise ValueError(f"a confidence floor of {floor} is none")
    return CellSpan(
        None if number is None else _pick(stages, number),
        floor,
        NEVER if until is None else _to_micros(until),
    )


def _pick(items: Sequence[Item], number: int) -> Item:
    """Return an item by its place, which is never counted from the end."""
    if type(number) is not int or number < 0:
        raise ValueError(f"{number} is no place")
    return items[number]


def _check_ascending(numbers: Iterable[Any]) -> tuple[Any, ...]:
    items = tuple(numbers)
    if any(not first < second for first, second in pairwise(items)):
        raise ValueError(f"{items} don't ascend")
    return items


def _check_distinct(kind: str, items: Sequence[Any]) -> None:
    if len(set(items)) < len(items):
        raise ValueError(f"two {kind} are the same")


def _check_span(micros: int) -> int:
    if micros <= 0:
        raise ValueError(f"an episode of {micros} microseconds is none")
    return micros


def _read_texts(items: Any) -> tuple[str, ...]:
    if not isinstance(items, list):
        raise TypeError(f"{items!r} is no list of texts")
    return tuple(check_text(item) for item in items)


def _to_micros(seconds: Any) -> int:
    return round(check_number(seconds) * MICROS)
