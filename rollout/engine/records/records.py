"""Records that clients send about cases, what their fields are for, and why a row is rejected.

Records arrive in any order and name their case by the client's key. The highest `revision` counts.
Fields that the service fills in don't count when a repeat is compared with a conflict.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, StrEnum
from types import MappingProxyType, NoneType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Self,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from msgspec import NODEFAULT, Meta, Struct, field, structs
from msgspec.structs import fields

from rollout.engine.decide.permissions import Permission

Name = Annotated[str, Meta(min_length=1, max_length=200)]


ShortText = Annotated[str, Meta(max_length=2_000)]


LongText = Annotated[str, Meta(max_length=10_000)]


Share = Annotated[float, Meta(ge=0, le=1)]


Revision = Annotated[int, Meta(ge=1, lt=2**31)]


Number = Annotated[int, Meta(lt=2**63)]
"""A number that the database counts up."""


Answers = Mapping[str, str | None]


class Personal(Enum):
    """What an erasure of a user's name does with a field."""

    NO = "leaves it"
    NAME = "replaces it by the pseudonym"
    TEXT = "replaces it by its default"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRule:
    """What a field is for; its type and limits stand beside it.

    Attributes:
        personal: what an erasure of a name does with it; a text without it stops the start.
        is_sent: whether clients send it; otherwise the service fills it in.
        is_content: whether records of one key that differ in it are in conflict.
        is_exported: whether the user who is named by the record gets it; names never are.
        is_shown: whether page and API of the case have it.
        is_key: whether it is a part of the row's key.
        is_numbered: whether the row has the number of this external key.
        is_null_if_empty: whether an empty mapping is stored as null.
        column: the column's name; "" for that of the field.
        sent_as: its name in what clients send; "" for its own.
        shown_as: its name in the API; "" for that of the column.
    """

    personal: Personal | None = None
    is_sent: bool = True
    is_content: bool = True
    is_exported: bool = True
    is_shown: bool = True
    is_key: bool = False
    is_numbered: bool = False
    is_null_if_empty: bool = False
    column: str = ""
    sent_as: str = ""
    shown_as: str = ""


@dataclass(frozen=True, slots=True)
class RecordField:
    """A field of a record, as declared.

    Attributes:
        hint: the type with its limits.
        plain: the type without limits and None.
        default: NODEFAULT if it is required.
    """

    name: str
    hint: Any
    plain: Any
    limits: Meta | None
    is_optional: bool
    default: Any
    rule: FieldRule

    @property
    def kind(self) -> Any:
        """Return the type without what it is of: `Mapping` of any mapping."""
        return get_origin(self.plain) or self.plain

    @property
    def column(self) -> str:
        """Return the name of its column."""
        return self.rule.column or self.name

    @property
    def sent_name(self) -> str:
        """Return its name in what clients send."""
        return self.rule.sent_as or self.name

    @property
    def shown_name(self) -> str:
        """Return its name in the API."""
        return self.rule.shown_as or self.column


def read_fields(record: type[Struct]) -> tuple[RecordField, ...]:
    """Return the fields of a record, in the order of their declaration.

    Raises:
        TypeError: a field has no rule or a wrong place, or a text does not say whether it is
            personal.
    """
    hints = get_type_hints(record, include_extras=True)
    read = tuple(
        _read_field(record, field.name, hints[field.name], _find_default(field))
        for field in fields(record)
    )
    if list(read) != sorted(read, key=lambda field: not field.rule.is_sent):
        raise TypeError(f"{record.__name__}: declare what is sent before what the service fills in")
    return read


def _find_default(field: Any) -> Any:
    return field.default if field.default_factory is NODEFAULT else field.default_factory()


def _read_field(record: type[Struct], name: str, declared: Any, default: Any) -> RecordField:
    base, *extras = get_args(declared) if get_origin(declared) is Annotated else (declared,)
    rule = next((extra for extra in extras if isinstance(extra, FieldRule)), None)
    limits = [extra for extra in extras if isinstance(extra, Meta)]
    hint = Annotated[base, limits[0]] if limits else base
    if rule is None or (rule.personal is None and TEXT_TYPES.intersection(_list_types(base))):
        raise TypeError(f"{record.__name__}.{name}: say in its `FieldRule` whether it is personal")
    is_optional = NoneType in get_args(base)
    part = next(each for each in get_args(base) if each is not NoneType) if is_optional else hint
    is_limited = get_origin(part) is Annotated
    plain, *others = get_args(part) if is_limited else (part,)
    return RecordField(
        name=name,
        hint=hint,
        plain=plain,
        limits=others[0] if others else None,
        is_optional=is_optional,
        default=default,
        rule=rule,
    )


TEXT_TYPES: Final = frozenset({str, Any})


def _list_types(hint: Any) -> Iterator[Any]:
    """Yield the types of which a type is made."""
    if get_origin(hint) is Annotated:
        yield from _list_types(get_args(hint)[0])
        return
    yield hint
    for part in get_args(hint):
        yield from _list_types(part)


@dataclass(frozen=True, slots=True)
class PlantedDeclaration:
    """The key of a planted case, and when it was declared."""

    key: str
    declared_at: datetime


@dataclass(frozen=True, slots=True)
class BaselineCount:
    """How often humans chose `action` in a cell in [since, until)."""

    site: str
    window: str
    lever: str
    action: str
    n: int
    since: datetime
    until: datetime
    imported_by: str = ""

    @property
    def identity(self) -> tuple[object, ...]:
        """Return the key under which a later baseline replaces this one."""
        return (self.site, self.window, self.lever, self.action, self.since, self.until)


UNREGISTERED: Final = -(2**31)
"""Added to the revisions of cases whose sender doesn't register cases: all are below those that do,
so that a case of a registering sender replaces them."""
NAMED_BY_DECISION: Final = UNREGISTERED
"""Revision of a case that only a decision places; clients' own begin with 1."""
UNTIMED: Final = MappingProxyType({"occurred_at": "that of its decision"})
"""Attributes of such a case whose decision names its site only."""


NOT_PERSONAL: Final = FieldRule(personal=Personal.NO)
FILLED: Final = FieldRule(
    personal=Personal.NO, is_sent=False, is_content=False, is_exported=False, is_shown=False
)
FILLED_AND_SHOWN: Final = replace(FILLED, is_shown=True)
CLAIMED_EXPOSURE: Final = replace(
    NOT_PERSONAL, is_exported=False, column="claimed_exposure", sent_as="exposure"
)
NOT_SHOWN: Final = replace(NOT_PERSONAL, is_shown=False)
VALUES: Final = replace(
    NOT_PERSONAL, is_null_if_empty=True, column="outcome_values", shown_as="values"
)
ROW_KEY: Final = FieldRule(personal=Personal.NO, is_key=True, is_content=False)
REVISION: Final = replace(ROW_KEY, is_shown=False)


class Record(Struct, frozen=True, gc=False):
    """What a client sent about the case `key`.

    Everything that lists the fields of a record derives from its declaration: see `FieldRule`. What
    is sent comes first.
    """

    needs: ClassVar[Permission] = Permission.SEND_CASES
    """The permission to send such a record."""

    key: Annotated[Name, replace(REVISION, is_numbered=True, is_exported=False)]

    def with_source(self, _kind: str | None) -> Self:
        """Return the record with the kind of its source, if records of its kind have one."""
        return self


RecordT = TypeVar("RecordT", bound=Record)


def select_kind(records: Iterable[Record], kind: type[RecordT]) -> list[RecordT]:
    """Return the records of one kind, in their order.

    A kind has no subclasses, and `isinstance` takes six times as long for a `Struct` of another.
    """
    return [record for record in records if type(record) is kind]


class Case(Record, frozen=True):
    """One thing to decide. The service computes `window` from time and policy."""

    site: Annotated[Name, NOT_PERSONAL]
    occurred_at: Annotated[datetime, FieldRule()]
    episode: Annotated[Name | None, replace(NOT_PERSONAL, is_numbered=True)] = None
    attributes: Annotated[Mapping[str, str], NOT_PERSONAL] = field(default_factory=dict)
    media: Annotated[Mapping[str, str], NOT_SHOWN] = field(default_factory=dict)
    revision: Annotated[Revision, REVISION] = 1
    window: Annotated[Name, FILLED] = ""


class Prediction(Record, frozen=True):
    """A version's answers to a case; a missing lever is a failure.

    `at` None is the case's time. The service fills in `scope_revision` and the fields after it from
    the assignment that was returned with the prediction, or that an offline client made. An import
    knows `decider` and `exposure` alone.
    """

    needs: ClassVar[Permission] = Permission.SEND_PREDICTIONS

    version: Annotated[Name, ROW_KEY]
    answers: Annotated[Answers, NOT_PERSONAL]
    confidence: Annotated[Share | None, FieldRule()] = None
    probabilities: Annotated[Mapping[str, float] | None, NOT_SHOWN] = None
    latency_ms: Annotated[Annotated[float, Meta(ge=0)] | None, FieldRule()] = None
    error: Annotated[ShortText | None, NOT_PERSONAL] = None
    at: Annotated[datetime | None, FieldRule()] = None
    revision: Annotated[Revision, REVISION] = 1
    scope_revision: Annotated[int | None, FILLED_AND_SHOWN] = None
    decider: Annotated[str | None, FILLED_AND_SHOWN] = None
    exposure: Annotated[str | None, FILLED_AND_SHOWN] = None
    share: Annotated[float | None, FILLED_AND_SHOWN] = None


class Decision(Record, frozen=True):
    """A human decision; a missing or None lever is "unsure".

    `claims` is the exposure that the client claims, `exposure` the one that counts. The service
    fills in `exposure`, `seat` (number of the review task), `review`, `basis` (what `exposure`
    follows from, by `rollout.data.records.record_check`) and `source`: a kind of
    `rollout.kernel.policy.evidence_sources`, None for a record without one.
    """

    needs: ClassVar[Permission] = Permission.SEND_DECISIONS

    reviewer: Annotated[Name, replace(ROW_KEY, personal=Personal.NAME)]
    answers: Annotated[Answers, NOT_PERSONAL] = field(default_factory=dict)
    unsure: Annotated[bool, FieldRule()] = False
    claims: Annotated[str, CLAIMED_EXPOSURE] = "unknown"
    started_at: Annotated[datetime | None, FieldRule(is_shown=False)] = None
    submitted_at: Annotated[datetime | None, FieldRule()] = None
    note: Annotated[LongText | None, FieldRule(personal=Personal.TEXT)] = None
    revision: Annotated[Revision, REVISION] = 1
    exposure: Annotated[str, replace(FILLED_AND_SHOWN, is_exported=True)] = "unknown"
    seat: Annotated[int | None, replace(FILLED_AND_SHOWN, column="task_number")] = None
    review: Annotated[Number | None, FILLED] = None
    basis: Annotated[Mapping[str, Any] | None, FILLED] = None
    source: Annotated[str | None, FILLED] = None

    def with_source(self, kind: str | None) -> Self:
        """Return the record with the kind of its source."""
        return structs.replace(self, source=kind)


class Action(Record, frozen=True):
    """An action taken by `person` or `model`.

    The service fills in `permission`, and `permit_kind` if a permit of ours came with it.
    """

    lever: Annotated[Name, ROW_KEY]
    action: Annotated[str, NOT_PERSONAL]
    by: Annotated[str, NOT_PERSONAL]
    at: Annotated[datetime, FieldRule()]
    version: Annotated[Name | None, NOT_PERSONAL] = None
    revision: Annotated[Revision, REVISION] = 1
    scope_revision: Annotated[int | None, FILLED_AND_SHOWN] = None
    permission: Annotated[str, replace(FILLED_AND_SHOWN, column="authorization")] = ""
    permit_kind: Annotated[str | None, FILLED] = None


class Outcome(Record, frozen=True):
    """The later known truth of a case: answers, values, a harm, or several of them.

    `values` are by id of an outcome of the policy, as sent: also beyond its range. The service
    fills in `source_kind`, which is to an outcome what `source` is to a decision.
    """

    needs: ClassVar[Permission] = Permission.SEND_OUTCOMES

    at: Annotated[datetime, FieldRule()]
    answers: Annotated[Answers, NOT_PERSONAL] = field(default_factory=dict)
    values: Annotated[Mapping[str, float], VALUES] = field(default_factory=dict)
    harm: Annotated[Name | None, NOT_PERSONAL] = None
    source: Annotated[ShortText, NOT_PERSONAL] = ""
    revision: Annotated[Revision, REVISION] = 1
    source_kind: Annotated[str | None, FILLED] = None

    def with_source(self, kind: str | None) -> Self:
        """Return the record with the kind of its source."""
        return structs.replace(self, source_kind=kind)


RECORD_FIELDS: Final[Mapping[type[Record], tuple[RecordField, ...]]] = MappingProxyType(
    {kind: read_fields(kind) for kind in (Case, Prediction, Decision, Action, Outcome)}
)


@dataclass(frozen=True, slots=True)
class RejectedItem:
    """An item that can't be used: kind, key, its text as sent, and the reason.

    Attributes:
        is_placeless: whether it is a decision that belongs to no cell.
    """

    kind: str
    key: str
    body: str
    reason: str
    is_placeless: bool = False


class Heartbeat(Struct, frozen=True, kw_only=True):
    """A sign of life of a site."""

    site: str
    at: datetime


def is_registered(revision: int) -> bool:
    """Return whether a case's revision is of a sender that registers cases."""
    return revision > 0


def mark_unregistered(case: Case) -> Case:
    """Return a case as of a sender that registers none; an invalid revision stays as it is.

    >>> from datetime import UTC, datetime
    >>> case = Case(key="a", site="creek", occurred_at=datetime(2027, 1, 1, tzinfo=UTC), window="")
    >>> mark_unregistered(case).revision == UNREGISTERED + 1
    True
    """
    if not 0 < case.revision < -UNREGISTERED:
        return case
    return structs.replace(case, revision=case.revision + UNREGISTERED)


def pick_first_draws(case_rows: Collection[Any]) -> dict[int, str]:
    """Return by case the draws of the revision that was received first; those without are left out.

    Later revisions never draw anew, whatever the policy says by then. Those of senders that
    register no cases draw only as long as there are no others.
    """
    drawn_ids = {row.case_id for row in case_rows if row.draws is not None}
    first_rows: dict[int, Any] = {}
    for row in case_rows if drawn_ids else ():
        first = first_rows.setdefault(row.case_id, row)
        if _get_order(row) < _get_order(first):
            first_rows[row.case_id] = row
    return {n: row.draws for n, row in first_rows.items() if row.draws is not None}


def _get_order(row: Any) -> tuple[bool, int, int]:
    counts = row.revision == NAMED_BY_DECISION or is_registered(row.revision)
    return not counts, row.received_at, row.revision


def list_drawn(draws: Mapping[str, bool]) -> tuple[str, ...] | None:
    """Return the versions with a sample that run on a case; None if none has a sample."""
    return tuple(version for version, is_drawn in draws.items() if is_drawn) if draws else None


class RemarkReason(StrEnum):
    """Why a row was rejected, or the note on a used row."""

    # Rejected: the row can't be read.
    BAD_ENCODING = "bad-encoding"  # bytes that are not UTF-8
    BAD_QUOTING = "bad-quoting"  # a quote that is not closed, or inside an unquoted field
    FIELD_COUNT = "field-count"  # more or fewer fields than the header
    BAD_JSON = "bad-json"  # not a JSON object, or with a duplicate key
    MISSING_VALUE = "missing-value"  # a required value is blank
    BAD_NUMBER = "bad-number"
    BAD_WORD = "bad-word"  # not one of the column's allowed words
    # Rejected for a record's own time; a note for the case's time.
    IMPOSSIBLE_TIME = "impossible-time"  # valid form, but no such date or hour: 30 February
    UNREADABLE_TIME = "unreadable-time"  # not a time
    # Rejected: the row can be read, but is not used.
    NO_CASE_YET = "no case yet"  # no file has the case's site
    DUPLICATE = "duplicate"  # repeats an earlier row
    CONFLICT = "conflict"  # key of an earlier row, other content; as a note: of the case
    OTHER_SOURCE = "other-source"  # a decision of a source that a replay leaves out
    MODEL_REVIEWER = "model-reviewer"  # a decision in the name of a version
    SEVERAL_LABELS = "several-labels"  # one reviewer, one case, different answers
    # Notes: the row is used.
    NO_TIME = "no-time"  # no file has the case's time
    GAP_TIME = "gap-time"  # a local time skipped by the change to summer time
    AMBIGUOUS_TIME = "ambiguous-time"  # a local time that occurs twice at the change to winter time
    FAILED = "failed"  # a prediction without an answer
    UNSURE = "unsure"  # a decision without an answer
    DROPPED_ANSWER = "dropped-answer"  # an answer together with an error or "unsure"
    VARIES = "varies"  # an attribute with several values within one case; the first is kept
    PLACEHOLDER = "placeholder"  # a text such as `nan`, read as missing
    IGNORED = "ignored"  # an unused column
    NO_COLUMN = "no-column"  # an optional column is missing, and another may be it


UNREADABLE_REASONS = frozenset(
    {
        RemarkReason.BAD_ENCODING,
        RemarkReason.BAD_QUOTING,
        RemarkReason.FIELD_COUNT,
        RemarkReason.BAD_JSON,
        RemarkReason.MISSING_VALUE,
        RemarkReason.BAD_NUMBER,
        RemarkReason.BAD_WORD,
        RemarkReason.IMPOSSIBLE_TIME,
        RemarkReason.UNREADABLE_TIME,
    }
)
"""Reasons at which strict reading stops: a part of the row is unreadable."""
