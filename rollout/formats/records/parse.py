"""Items as callers send them, JSON or NDJSON, read into records one by one.

A body is read as a whole where nothing is wrong with it; where something is, item by item, so that
one bad item takes nothing from its neighbours. Types are strict: no text for a number, no number
for a time, no time without its zone, no name that the form does not have.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any, Final

from msgspec import MsgspecError
from pydantic import ValidationError

from rollout.core.errors import Refusal
from rollout.core.records.records import (
    Action,
    AnyRecord,
    Heartbeat,
    Outcome,
    SentCase,
    SentDecision,
    SentPrediction,
)
from rollout.formats.records.schema import ITEM, ITEMS, KIND, MOST_ITEMS, STRUCTS, WRAPPED

AHEAD: Final = timedelta(minutes=5)
"""How far a caller's clock may be ahead of ours."""

FIRST: Final = datetime(1900, 1, 1, tzinfo=UTC)
LINES_AT_ONCE: Final = 1_000
LINES_SIZE: Final = 2**22
LONGEST_LINE: Final = 2**20
LONGEST_KEPT: Final = 2**20  # letters of an unusable item that are kept to be looked at
MOST_FAULTS: Final = 3
MOST_TOLD: Final = 1_000
"""Faults of one item up to which they are told: to tell hundreds of thousands takes seconds."""
AMISS: Final = (MsgspecError, ValueError, RecursionError)
"""What is raised where something is wrong with a batch; its items are then read one by one."""


class Unreadable(Refusal):
    """The body as a whole is none that items could be found in; nothing was kept."""

    code = "unreadable"


class TooManyItems(Refusal):
    """More items than one request may bring; nothing was kept."""

    code = "too-large"


@dataclass(frozen=True, slots=True)
class Acted:
    """An action with the permit that it names; the service says what that is worth."""

    action: Action
    permit: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """An item that can't be read: what it is called by, its text as it came, and why."""

    kind: str
    key: str
    body: str
    reason: str


Sent = AnyRecord | Heartbeat | Acted | Unusable
WindowAt = Callable[[str, datetime, Mapping[str, str]], str]


@dataclass(frozen=True, slots=True)
class Reader:
    """What turns items into records: the window of a case at its site, and the present."""

    window_at: WindowAt
    now: datetime
    latest: datetime = field(init=False)

    def __post_init__(self) -> None:
        """Say once how late a time may be; each item has some."""
        object.__setattr__(self, "latest", self.now + AHEAD)

    def body(self, body: bytes) -> list[Sent]:
        """Return the items of a JSON body: a list, or an object whose `items` is one.

        Raises:
            Unreadable: it is neither.
            TooManyItems: there are more than `MOST_ITEMS`.
        """
        is_bare_list = body[:100].lstrip()[:1] == b"["
        try:
            return self._all(
                ITEMS.decode(body) if is_bare_list else WRAPPED.decode(body).items, body
            )
        except AMISS:
            return [self._one(item) for item in _items(body)]

    def lines(self, lines: Sequence[bytes]) -> list[Sent]:
        """Return the item of each line of NDJSON; none of them is blank."""
        try:
            body = _together(lines)
            items = self._all(ITEMS.decode(body), body)
            return items if len(items) == len(lines) else [self._line(line) for line in lines]
        except AMISS:
            return [self._line(line) for line in lines]

    def _all(self, items: Sequence[Any], body: bytes) -> list[Sent]:
        """Read items that have the right form; `AMISS` is raised where one can't be used."""
        if b"\\u0000" in body:
            raise ValueError("a text has a NUL character")
        return [OF_KIND[type(item)](self, item) for item in items]

    def _line(self, line: bytes) -> Sent:
        if len(line) > LONGEST_LINE:
            return unusable_text(line, f"a line has at most {LONGEST_LINE} bytes")
        try:
            return self._one(_loaded(line))
        except Unreadable as error:
            return unusable_text(line, str(error))

    def _one(self, item: Any) -> Sent:
        """Read an item of which something may be wrong, and say what."""
        try:
            checked = ITEM.validate_python(item)
        except ValidationError as error:
            return _unusable(item, _faults(error))
        except RecursionError:
            return _unusable({}, "nested too deeply")
        if _has_nul(checked):
            return _unusable(item, "a text has a NUL character; leave it out")
        struct = STRUCTS[checked.pop(KIND)](**checked)
        try:
            return OF_KIND[type(struct)](self, struct)
        except ValueError as fault:
            return _unusable(item, str(fault))

    def instant(self, written: str) -> datetime:
        """Return a written time.

        Raises:
            ValueError: it is none, has no zone, or lies in the future.
        """
        try:
            at = datetime.fromisoformat(written)
        except ValueError:
            raise ValueError(f"{written!r} is no time; write 2027-06-01T12:00:00Z") from None
        if at.tzinfo is None:
            raise ValueError(f"{written} has no zone; add its offset, as {written}+02:00")
        if at > self.latest:
            raise ValueError(f"{written} is in the future: here it is {self.now.isoformat()}")
        if at < FIRST:
            raise ValueError(f"{written} is before 1900; is the clock set?")
        return at

    def maybe(self, written: str | None) -> datetime | None:
        """Return a written time, None where there is none."""
        return None if written is None else self.instant(written)


def _case(reader: Reader, item: Any) -> SentCase:
    site, at, attributes = item.site, reader.instant(item.occurred_at), item.attributes
    return SentCase(
        item.key,
        site,
        at,
        reader.window_at(site, at, attributes),
        item.episode,
        attributes,
        item.media,
        item.revision,
    )


def _prediction(reader: Reader, item: Any) -> SentPrediction:
    return SentPrediction(
        item.key,
        item.version,
        _texts(item.answers),
        item.confidence,
        item.probabilities,
        item.latency_ms,
        item.error,
        reader.maybe(item.at),
        item.revision,
    )


def _decision(reader: Reader, item: Any) -> SentDecision:
    answers, unsure = _texts(item.answers), item.unsure
    if not unsure and not answers:
        raise ValueError("a decision has `answers`, or says `unsure: true`")
    return SentDecision(
        item.key,
        item.reviewer,
        answers,
        item.exposure,
        item.exposure,
        unsure,
        reader.maybe(item.started_at),
        reader.maybe(item.submitted_at),
        item.note,
        item.revision,
    )


def _action(reader: Reader, item: Any) -> Acted:
    if item.by == "model" and item.version is None:
        raise ValueError("an action by the model names its `version`")
    action = Action(
        key=item.key,
        lever=item.lever,
        action=item.action,
        by=item.by,
        at=reader.instant(item.at),
        permission="",
        version=item.version,
        revision=item.revision,
    )
    return Acted(action, item.permit or "")


def _outcome(reader: Reader, item: Any) -> Outcome:
    answers = _texts(item.answers)
    if not answers and item.harm is None:
        raise ValueError("an outcome has `answers`, a `harm`, or both")
    return Outcome(
        key=item.key,
        at=reader.instant(item.at),
        answers=answers,
        harm=item.harm,
        source=item.source,
        revision=item.revision,
    )


def _heartbeat(reader: Reader, item: Any) -> Heartbeat:
    return Heartbeat(site=item.site, at=reader.instant(item.at))


OF_KIND: Final[Mapping[type, Callable[[Reader, Any], Sent]]] = {
    STRUCTS["case"]: _case,
    STRUCTS["prediction"]: _prediction,
    STRUCTS["decision"]: _decision,
    STRUCTS["action"]: _action,
    STRUCTS["outcome"]: _outcome,
    STRUCTS["heartbeat"]: _heartbeat,
}


def _texts(answers: Mapping[str, Any]) -> Mapping[str, str | None]:
    """Return answers as they are kept: a number as its text."""
    for answer in answers.values():
        if answer is not None and type(answer) is not str:
            return {
                lever: value if value is None or type(value) is str else str(value)
                for lever, value in answers.items()
            }
    return answers


def _together(lines: Sequence[bytes]) -> bytes:
    """Return lines as the body of a list, in which none of them can go on in the next.

    Raises:
        ValueError: one is too long, or begins with no item.
    """
    body = b"[" + b",\n".join(lines) + b"]"
    is_too_long = len(body) > LONGEST_LINE and max(map(len, lines)) > LONGEST_LINE
    # a `{` after a comma and a break begins an item: no text holds a break, and no form a list
    if is_too_long or {line[0] for line in lines} != {ord("{")}:
        raise ValueError("not an item a line")
    return body


def _items(body: bytes) -> Iterable[Any]:
    """Return the items of a body that is not well formed as a whole, each as it is."""
    content = _loaded(body)
    items = content.get("items") if isinstance(content, dict) else content
    if not isinstance(items, list) or (isinstance(content, dict) and len(content) > 1):
        raise Unreadable('send a list of items, or {"items": [...]}')
    if len(items) > MOST_ITEMS:
        raise TooManyItems(f"{len(items)} items; send at most {MOST_ITEMS} at once, or NDJSON")
    return items


def _loaded(body: bytes) -> Any:
    try:
        return json.loads(body.decode())
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8 at byte {error.start}; write it in UTF-8") from error
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error
    except ValueError as error:
        raise Unreadable(f"no JSON: {error}") from error


def _has_nul(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, str) and "\0" in value


def _faults(error: ValidationError) -> str:
    if error.error_count() > MOST_TOLD:
        return f"{error.error_count()} faults; look at the form of its kind"
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    texts = [f"{_where(fault['loc'])}{fault['msg']}" for fault in errors[:MOST_FAULTS]]
    omitted_count = len(errors) - len(texts)
    return "; ".join([*texts, *([f"and {omitted_count} more"] if omitted_count else [])])


def _where(place: Sequence[object]) -> str:
    path = ".".join(str(part) for part in place[1:])[:200]
    return f"{path}: " if path else ""


def _unusable(item: Any, reason: str) -> Unusable:
    fields: Mapping[str, Any] = item if isinstance(item, Mapping) else {}
    try:
        body = json.dumps(item, sort_keys=True)[:LONGEST_KEPT]
    except (ValueError, RecursionError) as error:
        body = f"({error})"
    kind, text = _shown(fields.get("kind")) or "unknown", reason.replace("\0", "\\x00")
    return Unusable(kind, _shown(fields.get("key")), body, text)


def _shown(value: object) -> str:
    """Return a name of the sender's in letters that every database takes."""
    return json.dumps(value)[1:-1][:200] if isinstance(value, str) else ""


def numbered_lines(body: bytes) -> Iterator[tuple[list[int], list[bytes]]]:
    """Yield the lines of NDJSON with their numbers from 0, some at a time; blank ones are none."""
    numbers: list[int] = []
    lines: list[bytes] = []
    size = 0
    for number, line in enumerate(BytesIO(body)):
        stripped = line.strip()
        if stripped:
            numbers.append(number)
            lines.append(stripped)
            size += len(stripped)
        if len(lines) == LINES_AT_ONCE or size > LINES_SIZE:
            yield numbers, lines
            numbers, lines, size = [], [], 0
    if lines:
        yield numbers, lines


def unusable_text(line: bytes, reason: str) -> Unusable:
    """Return a line that is no item, in letters that every database takes."""
    text = line[:LONGEST_KEPT].decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    return Unusable("unknown", "", text, reason)
