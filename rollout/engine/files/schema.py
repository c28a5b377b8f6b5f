"""Strict forms of sent items, and structs generated from them for fast parsing."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import reduce
from operator import or_
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

from msgspec import NODEFAULT, Meta, Struct, defstruct
from msgspec.json import Decoder
from pydantic import ConfigDict, Discriminator, Field, TypeAdapter
from pydantic import with_config as of_form
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from rollout.engine.records.record_fields import Answers as StoredAnswers
from rollout.engine.records.record_fields import RecordField
from rollout.engine.records.records import (
    RECORD_FIELDS,
    Action,
    Case,
    Decision,
    Outcome,
    Prediction,
    Record,
)

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
