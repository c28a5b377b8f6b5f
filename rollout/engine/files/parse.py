"""Sent items, JSON or NDJSON: their strict forms, and how they become records.

A valid body is parsed as a whole. Otherwise each item is parsed on its own, so that a bad item does
not affect the others. Types are strict: no text for a number, no number for a time, no time without
a zone, no unknown name.

Structs are generated from the forms for fast parsing.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import reduce
from io import BytesIO
from operator import attrgetter, or_
from types import MappingProxyType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from msgspec import NODEFAULT, Meta, MsgspecError, Struct, defstruct
from msgspec.json import Decoder
from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic import (
    with_config as of_form,
)
from typing_extensions import TypedDict

from rollout.engine.decide.assignment import AssignmentClaim
from rollout.engine.files.label_set_texts import keep_wrong_set
from rollout.engine.records.records import (
    RECORD_FIELDS,
    Action,
    Case,
    Decision,
    Heartbeat,
    Outcome,
    Prediction,
    Record,
    RecordField,
    RecordT,
    RejectedItem,
)
from rollout.engine.records.records import (
    Answers as StoredAnswers,
)
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.stages import parse_content
from rollout.kernel.units import join_labels, read_label_set

MAX_ITEMS: Final = 10_000
KIND: Final = "kind"
FormT = TypeVar("FormT")

Name = Annotated[str, Field(min_length=1, max_length=200)]
ShortText = Annotated[str, Field(max_length=2_000)]
TextMap = Annotated[dict[Name, ShortText], Field(max_length=100)]
WholeNumber = Annotated[int, Field(ge=-(10**15), le=10**15)]
LabelList = Annotated[list[Name], Field(max_length=100)]
Answers = Annotated[
    dict[Name, ShortText | WholeNumber | float | LabelList | None], Field(max_length=100)
]
Share = Annotated[float, Field(ge=0, le=1)]
TimeText = Annotated[
    str,
    Field(max_length=40, description="ISO 8601 with its offset", examples=["2027-06-01T12:00Z"]),
]
LIMIT_NAMES: Final = ("ge", "le", "lt", "min_length", "max_length")
STRICT: Final = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


SENT_TYPES: Final[Mapping[Any, Any]] = {
    StoredAnswers: Answers,
    Mapping[str, str]: TextMap,
    datetime: TimeText,
    (Prediction, "probabilities"): Annotated[dict[Name, Share], Field(max_length=1_000)],
    (Decision, "claims"): Literal["blind", "assisted", "revealed", "unknown"],
    (Action, "action"): Annotated[str, Field(min_length=1, max_length=500)] | LabelList,
    (Action, "by"): Literal["person", "model"],
    (Outcome, "values"): Annotated[dict[Name, float], Field(max_length=100)],
}
"""The types of what is sent in another form than it is stored, by type or by record and field."""


def _find_sent_type(kind: type[Record], field: RecordField) -> Any:
    hint = SENT_TYPES.get((kind, field.name), SENT_TYPES.get(field.plain, field.plain))
    if field.limits is not None:
        limits = {name: getattr(field.limits, name) for name in LIMIT_NAMES}
        hint = Annotated[hint, Field(**limits)]
    if field.is_optional:
        hint |= None
    return hint if field.default is NODEFAULT else NotRequired[hint]


def list_sent_fields(kind: type[Record]) -> list[RecordField]:
    """Return the fields of a record that clients send, which are its first."""
    return [field for field in RECORD_FIELDS[kind] if field.rule.is_sent]


def _add_fields(kind: type[Record]) -> Callable[[type[FormT]], type[FormT]]:
    """Return what adds the fields of a record to a form, which has what only a sent one has."""

    def add(form: type[FormT]) -> type[FormT]:
        fields = {f.sent_name: _find_sent_type(kind, f) for f in list_sent_fields(kind)}
        own = get_type_hints(form, include_extras=True)
        make: Any = TypedDict
        whole: type[FormT] = make(form.__name__, {KIND: own.pop(KIND), **fields, **own})
        whole.__doc__ = form.__doc__
        return of_form(STRICT)(whole)

    return add


@_add_fields(Case)
class CaseItem(TypedDict):
    """A case to decide. `key` is chosen by the client and identifies the case for ever."""

    kind: Literal["case"]


@_add_fields(Prediction)
class PredictionItem(TypedDict):
    """A version's answer to the case `key`; a lever without an answer has failed.

    Of a lever with `many` an answer is a list of labels, empty if none of them is there.

    `content` is the SHA-256 of the version's weights and pre-processing. The first prediction of a
    version sets it; a prediction with another one is rejected.

    An offline client sends `decider`, `exposure`, `share` and `scope_revision` of the answer that
    it gave itself. Without them the case is in the arm of its sampling value.
    """

    kind: Literal["prediction"]
    content: NotRequired[ShortText | None]
    decider: NotRequired[Literal["human", "model"] | None]
    exposure: NotRequired[Literal["blind", "assisted"] | None]
    share: NotRequired[Share | None]
    scope_revision: NotRequired[Annotated[int, Field(ge=0, lt=2**31)] | None]


@_add_fields(Decision)
class DecisionItem(TypedDict):
    """A human decision on the case `key`, made outside this service.

    `exposure` is the client's claim of what the reviewer had seen. It is used only if it makes the
    decision weaker evidence than what this service has shown, or if it has shown nothing.

    A decision whose case is not stored names its `site`, and if it is known when the case occurred.
    It counts there against the versions in use, unless its case comes in time.
    """

    kind: Literal["decision"]
    site: NotRequired[Name | None]
    occurred_at: NotRequired[TimeText | None]


@_add_fields(Action)
class ActionItem(TypedDict):
    """An action on a lever, by a human or the model; the model's has a permit."""

    kind: Literal["action"]
    permit: NotRequired[ShortText | None]


@_add_fields(Outcome)
class OutcomeItem(TypedDict):
    """The later known truth about a case: answers, values, a harm, or several of them.

    `values` has a number for ids of the policy's `outcomes`, such as `{"profit": 12.5}`. A later
    revision replaces the values that it names; the others stay.
    """

    kind: Literal["outcome"]


@of_form(STRICT)
class HeartbeatItem(TypedDict):
    """A sign of life from a site."""

    kind: Literal["heartbeat"]
    site: Name
    at: TimeText


ITEM_FORMS: Final[Mapping[str, Any]] = {
    "case": CaseItem,
    "prediction": PredictionItem,
    "decision": DecisionItem,
    "action": ActionItem,
    "outcome": OutcomeItem,
    "heartbeat": HeartbeatItem,
}

Item = Annotated[
    CaseItem | PredictionItem | DecisionItem | ActionItem | OutcomeItem | HeartbeatItem,
    Discriminator("kind"),
]


ITEM_ADAPTER: Final[TypeAdapter[Any]] = TypeAdapter(Item)


RECORD_KINDS: Final = {kind.__name__.lower(): kind for kind in RECORD_FIELDS}


def find_default(kind: str, name: str) -> Any:
    """Return the value of an absent name in an item of a kind, `NODEFAULT` for a required one."""
    if name not in ITEM_FORMS[kind].__optional_keys__:
        return NODEFAULT
    fields = list_sent_fields(RECORD_KINDS[kind]) if kind in RECORD_KINDS else ()
    return next((field.default for field in fields if field.sent_name == name), None)


def _build_struct(kind: str, form: type) -> type[Struct]:
    hints = get_type_hints(form, include_extras=True)
    del hints[KIND]
    return defstruct(
        form.__name__,
        [(name, convert_type(hint), find_default(kind, name)) for name, hint in hints.items()],
        tag_field=KIND,
        tag=kind,
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,  # items have no reference cycles
    )


def convert_type(hint: Any) -> Any:
    """Return a type of a pydantic form as msgspec needs it, with the same limits."""
    base, *rest = get_args(hint) or (hint,)
    match get_origin(hint):
        case origin if origin is NotRequired:
            return convert_type(base)
        case origin if origin is Annotated:
            return Annotated[convert_type(base), Meta(**_collect_limits(rest))]
        case origin if origin in {Union, UnionType}:
            return reduce(or_, map(convert_type, (base, *rest)))
        case origin if origin is list:
            return list[convert_type(base)]  # type: ignore[misc]
        case origin if origin is dict:
            return dict[convert_type(base), convert_type(rest[0])]  # type: ignore[misc]
    return hint


def _collect_limits(fields: list[Any]) -> Mapping[str, Any]:
    """Return the limits of a pydantic field by name."""
    rules = [rule for field in fields for rule in field.metadata]
    return {name: getattr(rule, name) for rule in rules for name in rule.__slots__}


STRUCTS: Final = MappingProxyType(
    {kind: _build_struct(kind, form) for kind, form in ITEM_FORMS.items()}
)
"""The struct for items of each kind."""

ItemStruct: Any = reduce(or_, STRUCTS.values())
ItemStructs: Any = Annotated[list[ItemStruct], Meta(max_length=MAX_ITEMS)]
ITEMS_DECODER: Final[Decoder[Any]] = Decoder(ItemStructs)
WRAPPED_ITEMS_DECODER: Final[Decoder[Any]] = Decoder(
    defstruct("Wrapped", [("items", ItemStructs)], forbid_unknown_fields=True)
)


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
    # with an error it has failed, whatever it says: so files are read, and actions judged
    item.answers = (
        reader.read_answers(item.answers, is_prediction=True) if item.error is None else {}
    )
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
    if set(item.answers.values()) - {None} if item.unsure else not item.answers:
        raise ValueError("a decision has `answers`, or says `unsure: true`; send one of them")
    occurred_at = None if item.occurred_at is None else reader.parse_instant(item.occurred_at)
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


BUILDERS: Final[Mapping[type, Callable[[ItemReader, Any], SentItem]]] = {
    STRUCTS["case"]: _build_case,
    STRUCTS["prediction"]: _build_prediction,
    STRUCTS["decision"]: _build_decision,
    STRUCTS["action"]: _build_action,
    STRUCTS["outcome"]: _build_outcome,
    STRUCTS["heartbeat"]: lambda reader, item: Heartbeat(
        site=item.site, at=reader.parse_instant(item.at)
    ),
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
        f"name its kind: {', '.join(ITEM_FORMS)}"
        if fault["type"] == "union_tag_not_found"
        else f"{_format_location(fault['loc'])}{fault['msg']}"
        for fault in errors[:MAX_LISTED_FAULTS]
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
