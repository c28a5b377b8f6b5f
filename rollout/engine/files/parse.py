"""Parse sent items, JSON or NDJSON, into records.

A valid body is parsed as a whole. Otherwise each item is parsed on its own, so that a bad item
does not affect the others. Types are strict: no text for a number, no number for a time, no time
without a zone, no unknown name.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from operator import attrgetter
from typing import Any, Final, TypeVar

from msgspec import MsgspecError
from pydantic import ValidationError

from rollout.engine.decide.assignment import AssignmentClaim
from rollout.engine.files.label_set_texts import keep_wrong_set
from rollout.engine.files.schema import (
    ITEM_ADAPTER,
    ITEMS_DECODER,
    KIND,
    MAX_ITEMS,
    STRUCTS,
    WRAPPED_ITEMS_DECODER,
    list_sent_fields,
)
from rollout.engine.records.records import (
    Action,
    Case,
    Decision,
    Heartbeat,
    Outcome,
    Prediction,
    Record,
    RejectedItem,
)
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.stages import parse_content
from rollout.kernel.units import join_labels, read_label_set

MAX_CLOCK_AHEAD: Final = timedelta(minutes=5)
"""How far a client's clock can be ahead of ours."""

EARLIEST_TIME: Final = datetime(1900, 1, 1, tzinfo=UTC)
LATEST_TIME: Final = datetime(9999, 1, 1, tzinfo=UTC)  # has a local time everywhere
LINES_PER_CHUNK: Final = 1_000
CHUNK_BYTES: Final = 2**22
MAX_LINE_BYTES: Final = 2**20
MAX_REJECTED_LETTERS: Final = 2**20  # stored characters of a rejected item
MAX_LISTED_FAULTS: Final = 3
MAX_DETAILED_FAULTS: Final = 1_000
"""An item with more faults gets only their number: describing 100,000 takes seconds."""
STORED_ANSWER_TYPES: Final = frozenset({str, type(None)})
NO_CLAIM: Final = (None,) * 4
PARSE_ERRORS: Final = (MsgspecError, ValueError, RecursionError)
"""Errors of a batch with an invalid item; its items are then read one by one."""


class UnreadableBodyError(RefusalError):
    """Raised for a body without readable items; nothing is stored."""

    code = "unreadable"


class TooManyItemsError(RefusalError):
    """Raised for a request with too many items; nothing is stored."""

    code = "too-large"


@dataclass(frozen=True, slots=True)
class ActionWithPermit:
    """An action with its permit, which the service has yet to verify."""

    action: Action
    permit: str


@dataclass(frozen=True, slots=True)
class DeclaringPrediction:
    """A prediction that declares its version's content, its client's assignment, or both."""

    prediction: Prediction
    content: str
    claim: AssignmentClaim | None = None


@dataclass(frozen=True, slots=True)
class PlacedDecision:
    """A decision that names where its case occurred, and when, if that is known."""

    decision: Decision
    site: str
    occurred_at: datetime | None


SentItem = (
    Record | Heartbeat | ActionWithPermit | DeclaringPrediction | PlacedDecision | RejectedItem
)
RecordT = TypeVar("RecordT", bound=Record)
WindowFinder = Callable[[str, datetime, Mapping[str, str]], str]


@dataclass(frozen=True, slots=True)
class ItemReader:
    """Converts items to records; needs windows of cases, the current time, labels of sets."""

    find_window: WindowFinder
    now: datetime
    set_labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    latest: datetime = field(init=False)

    def __post_init__(self) -> None:
        """Set the latest valid time once for all items."""
        object.__setattr__(self, "latest", self.now + MAX_CLOCK_AHEAD)

    def read_body(self, body: bytes) -> list[SentItem]:
        """Return the items of a JSON body: a list, or an object whose `items` is one.

        Raises:
            UnreadableBodyError: the body is neither.
            TooManyItemsError: the body has more than `MAX_ITEMS` items.
        """
        is_bare_list = body[:100].lstrip()[:1] == b"["
        try:
            return self._read_all(
                ITEMS_DECODER.decode(body)
                if is_bare_list
                else WRAPPED_ITEMS_DECODER.decode(body).items,
                body,
            )
        except PARSE_ERRORS:
            return [self._read_item(item) for item in _extract_items(body)]

    def read_lines(self, lines: Sequence[bytes]) -> list[SentItem]:
        """Return the item of each line of NDJSON; no line is blank."""
        try:
            body = _join_lines(lines)
            items = self._read_all(ITEMS_DECODER.decode(body), body)
            return items if len(items) == len(lines) else [self._read_line(line) for line in lines]
        except PARSE_ERRORS:
            return [self._read_line(line) for line in lines]

    def _read_all(self, items: Sequence[Any], body: bytes) -> list[SentItem]:
        """Return the records of well-formed items; raise one of `PARSE_ERRORS` otherwise."""
        if b"\\u0000" in body:
            raise ValueError("a text has a NUL character")
        return [BUILDERS[type(item)](self, item) for item in items]

    def _read_line(self, line: bytes) -> SentItem:
        if len(line) > MAX_LINE_BYTES:
            return reject_line(line, f"a line has at most {MAX_LINE_BYTES} bytes")
        try:
            return self._read_item(_load_json(line))
        except UnreadableBodyError as error:
            return reject_line(line, str(error))

    def _read_item(self, item: Any) -> SentItem:
        """Return the record of an item, or a rejected item with the reason."""
        try:
            checked = ITEM_ADAPTER.validate_python(item)
        except ValidationError as error:
            return _reject_item(item, _describe_faults(error))
        except RecursionError:
            return _reject_item({}, "nested too deeply")
        if _has_nul(checked):
            return _reject_item(item, "a text has a NUL character; leave it out")
        struct = STRUCTS[checked.pop(KIND)](**checked)
        try:
            return BUILDERS[type(struct)](self, struct)
        except ValueError as fault:
            return _reject_item(item, str(fault))

    def read_answers(
        self, answers: Mapping[str, Any], *, is_prediction: bool = False
    ) -> Mapping[str, str | None]:
        """Return answers as they are stored: numbers and sets as text.

        A prediction with a wrong set stays, and agrees with nothing: without it the case would be
        no evidence, and the model's worst answers would be forgotten.

        Raises:
            ValueError: a list where an answer is no set, or a wrong set of a human.
        """
        if not self.set_labels and STORED_ANSWER_TYPES.issuperset(map(type, answers.values())):
            return answers
        return {
            lever: answer
            if answer is None
            else self.read_answer(lever, answer, is_kept=is_prediction)
            for lever, answer in answers.items()
        }

    def read_answer(self, lever: str, answer: Any, *, is_kept: bool = False) -> str:
        """Return one answer or action as text; a wrong set stays if `is_kept`."""
        labels = self.set_labels.get(lever)
        if labels is None and isinstance(answer, list):
            raise ValueError(f"{lever}: holds a list, and an answer is one value; send one")
        if labels is None or not isinstance(answer, str | list):
            return str(answer)
        try:
            join_labels(answer)  # says what is wrong with a list
            return read_label_set(answer, labels, lever)
        except ValueError:
            if is_kept:
                return keep_wrong_set(answer)
            raise

    def parse_instant(self, text: str, *, may_be_ahead: bool = False) -> datetime:
        """Return the instant of a text; `may_be_ahead` accepts times in the future.

        Raises:
            ValueError: it is not a time, has no zone, is in the future or before 1900.
        """
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is no time; write 2027-06-01T12:00:00Z") from None
        if at.tzinfo is None:
            raise ValueError(f"{text} has no zone; add its offset, as {text}+02:00")
        if at > (LATEST_TIME if may_be_ahead else self.latest):
            raise ValueError(f"{text} is in the future: here it is {self.now.isoformat()}")
        if at < EARLIEST_TIME:
            raise ValueError(f"{text} is before 1900; is the clock set?")
        return at

    def parse_optional_instant(self, text: str | None) -> datetime | None:
        """Return the instant of a text, or None for None."""
        return None if text is None else self.parse_instant(text)


def _make_builder(kind: type[RecordT], *parsed: str) -> Callable[..., RecordT]:
    """Return what makes a record of an item, all of which is stored as it was sent but for times.

    It changes the item. `parsed` are its times that the caller has replaced already; what only
    items have is left out, what only the record has is passed by name.
    """
    fields = list_sent_fields(kind)
    times = [f.sent_name for f in fields if f.plain is datetime and f.name not in parsed]
    get_values = attrgetter(*(field.sent_name for field in fields))

    def build(reader: ItemReader, item: Any, **filled: Any) -> RecordT:
        for name in times:
            if (text := getattr(item, name)) is not None:
                setattr(item, name, reader.parse_instant(text))
        return kind(*get_values(item), **filled)

    return build


CASES: Final = _make_builder(Case, "occurred_at")
PREDICTIONS: Final = _make_builder(Prediction)
DECISIONS: Final = _make_builder(Decision)
ACTIONS: Final = _make_builder(Action, "at")
OUTCOMES: Final = _make_builder(Outcome)


def _build_case(reader: ItemReader, item: Any) -> Case:
    item.occurred_at = reader.parse_instant(item.occurred_at)
    window = reader.find_window(item.site, item.occurred_at, item.attributes)
    return CASES(reader, item, window=window)


def _build_prediction(reader: ItemReader, item: Any) -> Prediction | DeclaringPrediction:
    item.answers = reader.read_answers(item.answers, is_prediction=True)
    prediction = PREDICTIONS(reader, item)
    claim = _build_claim(item)
    if item.content is None and claim is None:
        return prediction
    content = "" if item.content is None else parse_content(item.content)
    return DeclaringPrediction(prediction, content, claim)


def _build_claim(item: Any) -> AssignmentClaim | None:
    parts = (item.decider, item.exposure, item.share, item.scope_revision)
    if parts == NO_CLAIM:
        return None
    if None in parts:
        names = "`decider`, `exposure`, `share` and `scope_revision`"
        raise ValueError(f"an assignment has {names}; send all of them or none")
    return AssignmentClaim(*parts)


def _build_decision(reader: ItemReader, item: Any) -> Decision | PlacedDecision:
    item.answers = reader.read_answers(item.answers)
    if not item.unsure and not item.answers:
        raise ValueError("a decision has `answers`, or says `unsure: true`")
    occurred_at = reader.parse_optional_instant(item.occurred_at)
    if occurred_at is not None and item.site is None:
        raise ValueError("a decision that says when its case occurred names its `site`, too")
    decision = DECISIONS(reader, item, exposure=item.exposure)
    return decision if item.site is None else PlacedDecision(decision, item.site, occurred_at)


def _build_action(reader: ItemReader, item: Any) -> ActionWithPermit:
    if item.by == "model" and item.version is None:
        raise ValueError("an action by the model names its `version`")
    item.action = reader.read_answer(item.lever, item.action, is_kept=isinstance(item.action, str))
    item.at = reader.parse_instant(item.at, may_be_ahead=True)  # what was done is never refused
    return ActionWithPermit(ACTIONS(reader, item), item.permit or "")


def _build_outcome(reader: ItemReader, item: Any) -> Outcome:
    item.answers = reader.read_answers(item.answers)
    if not item.answers and not item.values and item.harm is None:
        raise ValueError("an outcome has `answers`, `values`, a `harm`, or several of them")
    return OUTCOMES(reader, item)


def _build_heartbeat(reader: ItemReader, item: Any) -> Heartbeat:
    return Heartbeat(site=item.site, at=reader.parse_instant(item.at))


BUILDERS: Final[Mapping[type, Callable[[ItemReader, Any], SentItem]]] = {
    STRUCTS["case"]: _build_case,
    STRUCTS["prediction"]: _build_prediction,
    STRUCTS["decision"]: _build_decision,
    STRUCTS["action"]: _build_action,
    STRUCTS["outcome"]: _build_outcome,
    STRUCTS["heartbeat"]: _build_heartbeat,
}


def _join_lines(lines: Sequence[bytes]) -> bytes:
    """Return lines as the body of a list, in which no item spans lines.

    Raises:
        ValueError: a line is too long, or does not begin with an object.
    """
    body = b"[" + b",\n".join(lines) + b"]"
    is_too_long = len(body) > MAX_LINE_BYTES and max(map(len, lines)) > MAX_LINE_BYTES
    # A `{` after a comma and a line break begins an item: no text has a break, no form a list.
    if is_too_long or {line[0] for line in lines} != {ord("{")}:
        raise ValueError("not an item a line")
    return body


def _extract_items(body: bytes) -> Iterable[Any]:
    """Return the unvalidated items of a body."""
    content = _load_json(body)
    items = content.get("items") if isinstance(content, dict) else content
    if not isinstance(items, list) or (isinstance(content, dict) and len(content) > 1):
        raise UnreadableBodyError('send a list of items, or {"items": [...]}')
    if len(items) > MAX_ITEMS:
        raise TooManyItemsError(f"{len(items)} items; send at most {MAX_ITEMS} at once, or NDJSON")
    return items


def _load_json(body: bytes) -> Any:
    try:
        return json.loads(body.decode())
    except UnicodeDecodeError as error:
        raise UnreadableBodyError(f"not UTF-8 at byte {error.start}; write it in UTF-8") from error
    except RecursionError as error:
        raise UnreadableBodyError("nested too deeply") from error
    except ValueError as error:
        raise UnreadableBodyError(f"no JSON: {error}") from error


def _has_nul(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, str) and "\0" in value


def _describe_faults(error: ValidationError) -> str:
    if error.error_count() > MAX_DETAILED_FAULTS:
        return f"{error.error_count()} faults; look at the form of its kind"
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    texts = [
        f"{_format_location(fault['loc'])}{fault['msg']}" for fault in errors[:MAX_LISTED_FAULTS]
    ]
    omitted_count = len(errors) - len(texts)
    return "; ".join([*texts, *([f"and {omitted_count} more"] if omitted_count else [])])


def _format_location(location: Sequence[object]) -> str:
    path = ".".join(str(part) for part in location[1:])[:200]
    return f"{path}: " if path else ""


def _reject_item(item: Any, reason: str) -> RejectedItem:
    fields: Mapping[str, Any] = item if isinstance(item, Mapping) else {}
    try:
        body = json.dumps(item, sort_keys=True)[:MAX_REJECTED_LETTERS]
    except (ValueError, RecursionError) as error:
        body = f"({error})"
    kind, text = _to_printable(fields.get("kind")) or "unknown", reason.replace("\0", "\\x00")
    return RejectedItem(kind, _to_printable(fields.get("key")), body, text)


def _to_printable(value: object) -> str:
    """Return a sent name, escaped for every database; empty if it is no text."""
    return json.dumps(value[:200])[1:-1] if isinstance(value, str) else ""


def split_lines(body: bytes) -> Iterator[tuple[list[int], list[bytes]]]:
    """Yield the lines of NDJSON with their indices, in chunks; blank lines are skipped."""
    numbers: list[int] = []
    lines: list[bytes] = []
    size = 0
    for number, line in enumerate(BytesIO(body)):
        stripped = line.strip()
        if stripped:
            numbers.append(number)
            lines.append(stripped)
            size += len(stripped)
        if len(lines) == LINES_PER_CHUNK or size > CHUNK_BYTES:
            yield numbers, lines
            numbers, lines, size = [], [], 0
    if lines:
        yield numbers, lines


def reject_line(line: bytes, reason: str) -> RejectedItem:
    """Return a malformed line as a rejected item, escaped for every database."""
    text = line[:MAX_REJECTED_LETTERS].decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    return RejectedItem("unknown", "", text, reason)
