"""Strict forms of sent items, and structs generated from them for fast parsing."""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from types import MappingProxyType, NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
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

MAX_ITEMS: Final = 10_000

Name = Annotated[str, Field(min_length=1, max_length=200)]
ShortText = Annotated[str, Field(max_length=2_000)]
TextMap = Annotated[dict[Name, ShortText], Field(max_length=100)]
WholeNumber = Annotated[int, Field(ge=-(10**15), le=10**15)]
LabelList = Annotated[list[Name], Field(max_length=100)]
Answers = Annotated[
    dict[Name, ShortText | WholeNumber | float | LabelList | None], Field(max_length=100)
]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveInteger = Annotated[int, Field(ge=1, lt=2**31)]
TimeText = Annotated[
    str,
    Field(max_length=40, description="ISO 8601 with its offset", examples=["2027-06-01T12:00Z"]),
]
STRICT: Final = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@of_form(STRICT)
class CaseItem(TypedDict):
    """A case to decide. `key` is chosen by the client and identifies the case for ever."""

    kind: Literal["case"]
    key: Name
    site: Name
    occurred_at: TimeText
    episode: NotRequired[Name | None]
    attributes: NotRequired[TextMap]
    media: NotRequired[TextMap]
    revision: NotRequired[PositiveInteger]


@of_form(STRICT)
class PredictionItem(TypedDict):
    """A version's answer to the case `key`; a lever without an answer has failed.

    Of a lever with `many` an answer is a list of labels, empty if none of them is there.

    `content` is the SHA-256 of the version's weights and pre-processing. The first prediction of a
    version sets it; a prediction with another one is rejected.

    An offline client sends `decider`, `exposure`, `share` and `scope_revision` of the answer that
    it gave itself. Without them the case is in the arm of its sampling value.
    """

    kind: Literal["prediction"]
    key: Name
    version: Name
    answers: Answers
    confidence: NotRequired[Share | None]
    probabilities: NotRequired[Annotated[dict[Name, Share], Field(max_length=1_000)] | None]
    latency_ms: NotRequired[Annotated[float, Field(ge=0)] | None]
    error: NotRequired[ShortText | None]
    content: NotRequired[ShortText | None]
    decider: NotRequired[Literal["human", "model"] | None]
    exposure: NotRequired[Literal["blind", "assisted"] | None]
    share: NotRequired[Share | None]
    scope_revision: NotRequired[Annotated[int, Field(ge=0, lt=2**31)] | None]
    at: NotRequired[TimeText | None]
    revision: NotRequired[PositiveInteger]


@of_form(STRICT)
class DecisionItem(TypedDict):
    """A human decision on the case `key`, made outside this service.

    `exposure` is the client's claim of what the reviewer had seen. It is used only if it makes the
    decision weaker evidence than what this service has shown, or if it has shown nothing.

    A decision whose case is not stored names its `site`, and if it is known when the case occurred.
    It counts there against the versions in use, unless its case comes in time.
    """

    kind: Literal["decision"]
    key: Name
    reviewer: Name
    answers: NotRequired[Answers]
    unsure: NotRequired[bool]
    exposure: NotRequired[Literal["blind", "assisted", "revealed", "unknown"]]
    started_at: NotRequired[TimeText | None]
    submitted_at: NotRequired[TimeText | None]
    site: NotRequired[Name | None]
    occurred_at: NotRequired[TimeText | None]
    note: NotRequired[Annotated[str, Field(max_length=10_000)] | None]
    revision: NotRequired[PositiveInteger]


@of_form(STRICT)
class ActionItem(TypedDict):
    """An action on a lever, by a human or the model; the model's has a permit."""

    kind: Literal["action"]
    key: Name
    lever: Name
    action: Annotated[str, Field(min_length=1, max_length=500)] | LabelList
    by: Literal["person", "model"]
    at: TimeText
    version: NotRequired[Name | None]
    permit: NotRequired[ShortText | None]
    revision: NotRequired[PositiveInteger]


@of_form(STRICT)
class OutcomeItem(TypedDict):
    """The later known truth about a case: answers, values, a harm, or several of them.

    `values` has a number for ids of the policy's `outcomes`, such as `{"profit": 12.5}`. A later
    revision replaces the values that it names; the others stay.
    """

    kind: Literal["outcome"]
    key: Name
    at: TimeText
    answers: NotRequired[Answers]
    values: NotRequired[Annotated[dict[Name, float], Field(max_length=100)]]
    harm: NotRequired[Name | None]
    source: NotRequired[ShortText]
    revision: NotRequired[PositiveInteger]


@of_form(STRICT)
class HeartbeatItem(TypedDict):
    """A sign of life from a site."""

    kind: Literal["heartbeat"]
    site: Name
    at: TimeText


ITEM_FORMS: Final = {
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


KIND: Final = "kind"
DEFAULTS: Final[Mapping[str, Any]] = {
    "answers": {},
    "attributes": {},
    "media": {},
    "exposure": "unknown",
    "revision": 1,
    "source": "",
    "unsure": False,
    "values": {},
}
"""Value of an absent name; None for all others, and where null is allowed."""


def _build_struct(form: type) -> type[Struct]:
    hints = get_type_hints(form, include_extras=True)
    (kind,) = get_args(hints.pop(KIND))
    return defstruct(
        form.__name__,
        [(name, convert_type(hint), find_default(name, hint)) for name, hint in hints.items()],
        tag_field=KIND,
        tag=kind,
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,  # items have no reference cycles
    )


def find_default(name: str, hint: Any) -> Any:
    """Return the value of an absent name, `NODEFAULT` for one that is required."""
    if get_origin(hint) is not NotRequired:
        return NODEFAULT
    (base,) = get_args(hint)
    return None if NoneType in get_args(base) else DEFAULTS.get(name)


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


STRUCTS: Final = MappingProxyType({kind: _build_struct(form) for kind, form in ITEM_FORMS.items()})
"""The struct for items of each kind."""

ItemStruct: Any = reduce(or_, STRUCTS.values())
ItemStructs: Any = Annotated[list[ItemStruct], Meta(max_length=MAX_ITEMS)]
ITEMS_DECODER: Final[Decoder[Any]] = Decoder(ItemStructs)
WRAPPED_ITEMS_DECODER: Final[Decoder[Any]] = Decoder(
    defstruct("Wrapped", [("items", ItemStructs)], forbid_unknown_fields=True)
)
