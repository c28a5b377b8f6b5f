"""The forms of items as callers send them: strict, with no name that a form does not have."""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from types import MappingProxyType, UnionType
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
from typing_extensions import TypedDict  # of a plain one pydantic knows too little before 3.12

MOST_ITEMS: Final = 10_000

Name = Annotated[str, Field(min_length=1, max_length=200)]
Short = Annotated[str, Field(max_length=2_000)]
Texts = Annotated[dict[Name, Short], Field(max_length=100)]
Whole = Annotated[int, Field(ge=-(10**15), le=10**15)]
Answers = Annotated[dict[Name, Short | Whole | float | None], Field(max_length=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[int, Field(ge=1, lt=2**31)]
Time = Annotated[
    str,
    Field(max_length=40, description="ISO 8601 with its offset", examples=["2027-06-01T12:00Z"]),
]
STRICT: Final = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@of_form(STRICT)
class CaseItem(TypedDict):
    """One thing to decide. `key` is the caller's, and says for ever which case is meant."""

    kind: Literal["case"]
    key: Name
    site: Name
    occurred_at: Time
    episode: NotRequired[Name | None]
    attributes: NotRequired[Texts]
    media: NotRequired[Texts]
    revision: NotRequired[Number]


@of_form(STRICT)
class PredictionItem(TypedDict):
    """A version's answer to the case `key`; a lever left out, or null, has failed."""

    kind: Literal["prediction"]
    key: Name
    version: Name
    answers: Answers
    confidence: NotRequired[Share | None]
    probabilities: NotRequired[Annotated[dict[Name, Share], Field(max_length=1_000)] | None]
    latency_ms: NotRequired[Annotated[float, Field(ge=0)] | None]
    error: NotRequired[Short | None]
    at: NotRequired[Time | None]
    revision: NotRequired[Number]


@of_form(STRICT)
class DecisionItem(TypedDict):
    """A person's verdict on the case `key`, given elsewhere.

    `exposure` is what the caller claims that the person had seen; it is believed only where it
    makes the verdict worse as evidence than what was shown here, or where nothing was.
    """

    kind: Literal["decision"]
    key: Name
    reviewer: Name
    answers: NotRequired[Answers]
    unsure: NotRequired[bool]
    exposure: NotRequired[Literal["blind", "assisted", "revealed", "unknown"]]
    started_at: NotRequired[Time | None]
    submitted_at: NotRequired[Time | None]
    note: NotRequired[Annotated[str, Field(max_length=10_000)] | None]
    revision: NotRequired[Number]


@of_form(STRICT)
class ActionItem(TypedDict):
    """What was done about a lever, by a person or the model; the model's names its permit."""

    kind: Literal["action"]
    key: Name
    lever: Name
    action: Name
    by: Literal["person", "model"]
    at: Time
    version: NotRequired[Name | None]
    permit: NotRequired[Short | None]
    revision: NotRequired[Number]


@of_form(STRICT)
class OutcomeItem(TypedDict):
    """What later turned out to be true: answers, a harm, or both."""

    kind: Literal["outcome"]
    key: Name
    at: Time
    answers: NotRequired[Answers]
    harm: NotRequired[Name | None]
    source: NotRequired[Short]
    revision: NotRequired[Number]


@of_form(STRICT)
class HeartbeatItem(TypedDict):
    """A site was heard."""

    kind: Literal["heartbeat"]
    site: Name
    at: Time


FORMS: Final = {
    "case": CaseItem,
    "prediction": PredictionItem,
    "decision": DecisionItem,
    "action": ActionItem,
    "outcome": OutcomeItem,
    "heartbeat": HeartbeatItem,
}
"""By kind the form of its items."""

Item = Annotated[
    CaseItem | PredictionItem | DecisionItem | ActionItem | OutcomeItem | HeartbeatItem,
    Discriminator("kind"),
]


ITEM: Final[TypeAdapter[Any]] = TypeAdapter(Item)


KIND: Final = "kind"
LEFT_OUT: Final[Mapping[str, Any]] = {
    "answers": {},
    "attributes": {},
    "media": {},
    "exposure": "unknown",
    "revision": 1,
    "source": "",
    "unsure": False,
}
"""What a name stands for that an item doesn't have; None for all others."""


def _struct(form: type) -> type[Struct]:
    hints = get_type_hints(form, include_extras=True)
    (kind,) = get_args(hints.pop(KIND))
    return defstruct(
        form.__name__,
        [(name, type_of(hint), _default(name, hint)) for name, hint in hints.items()],
        tag_field=KIND,
        tag=kind,
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,  # it holds nothing that could hold it
    )


def _default(name: str, hint: Any) -> Any:
    return LEFT_OUT.get(name) if get_origin(hint) is NotRequired else NODEFAULT


def type_of(hint: Any) -> Any:
    """Return a type as pydantic's forms have it, its limits in msgspec's words."""
    base, *rest = get_args(hint) or (hint,)
    match get_origin(hint):
        case origin if origin is NotRequired:
            return type_of(base)
        case origin if origin is Annotated:
            return Annotated[type_of(base), Meta(**_limits(rest))]
        case origin if origin in {Union, UnionType}:
            return reduce(or_, map(type_of, (base, *rest)))
        case origin if origin is dict:
            return dict[type_of(base), type_of(rest[0])]  # type: ignore[misc]
    return hint


def _limits(fields: list[Any]) -> Mapping[str, Any]:
    """Return the limits of a pydantic field, each an object with one attribute of its name."""
    rules = [rule for field in fields for rule in field.metadata]
    return {name: getattr(rule, name) for rule in rules for name in rule.__slots__}


STRUCTS: Final = MappingProxyType({kind: _struct(form) for kind, form in FORMS.items()})
"""By kind what its items are read into."""

ItemStruct: Any = reduce(or_, STRUCTS.values())
ItemStructs: Any = Annotated[list[ItemStruct], Meta(max_length=MOST_ITEMS)]
ITEMS: Final[Decoder[Any]] = Decoder(ItemStructs)
WRAPPED: Final[Decoder[Any]] = Decoder(
    defstruct("Wrapped", [("items", ItemStructs)], forbid_unknown_fields=True)
)
