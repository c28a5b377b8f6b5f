"""Questions as structs: what they are read into, several times as fast as by their forms.

What a struct doesn't take is read by the forms of `api.schemas.assignments`, which say what is
wrong: also a prediction with the question, and times written otherwise or in smaller parts.
"""

import re
from typing import Annotated, Any, Final, get_type_hints

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct
from msgspec.json import Decoder

from api.schemas.assignments import MOST, AssignmentQuestion, ClientLedgerHead, QuestionFields
from rollout.formats.live_items import AMISS
from rollout.formats.live_structs import type_of

SMALLER: Final = re.compile(rb"\.[0-9]{7}(?<=:[0-9]{2}\.[0-9]{7})")  # by its point, which is rare
"""A time in less than microseconds: msgspec would round it, and records leave the rest off."""

ESCAPED: Final = re.compile(rb"\\u00[0-7]")
"""An ASCII letter escaped: of a time it could hide smaller parts, or a NUL, where msgspec stops."""

NOTHING: Final = AssignmentQuestion()
FIELDS: Final = [
    (name, type_of(hint), getattr(NOTHING, name))
    for name, hint in get_type_hints(AssignmentQuestion, include_extras=True).items()
    if name != "prediction"
]


class Alone(QuestionFields):
    """A question without a prediction."""

    __slots__ = ()
    prediction = None


class Body(Alone):
    """One question or many."""

    __slots__ = ()
    questions: Any

    @property
    def many(self) -> bool:
        """Say whether it is the form of many."""
        return self.questions is not UNSET


def _struct(name: str, fields: list[Any], *bases: type) -> Any:
    more = (*bases, Struct)
    return defstruct(name, fields, bases=more, forbid_unknown_fields=True, gc=False)


_LedgerHead: Final = _struct(
    "LedgerHead",
    [
        (name, type_of(hint))
        for name, hint in get_type_hints(ClientLedgerHead, include_extras=True).items()
    ],
)
_Question: Any = _struct("Question", FIELDS, Alone)
_Questions: Any = Annotated[list[_Question], Meta(max_length=MOST)]
_Body: Final = _struct(
    "Body",
    [
        *FIELDS,
        ("ledger_head", _LedgerHead | None, None),
        ("questions", _Questions | UnsetType, UNSET),
    ],
    Body,
)
_BODY: Final[Decoder[Any]] = Decoder(_Body)


def quickly(body: bytes) -> Any | None:
    """Return what is asked, as `BodyIn` gives it; None where the forms have to look at it."""
    if SMALLER.search(body) or (b"\\" in body and ESCAPED.search(body)):
        return None
    try:
        found = _BODY.decode(body)
    except AMISS:
        return None
    muddled = found.many and found != _Body(
        questions=found.questions, ledger_head=found.ledger_head
    )
    return None if muddled else found
