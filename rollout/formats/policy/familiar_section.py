"""The section `evidence.familiar` of a policy file."""

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema

from rollout.core.policy.familiarity import FamiliarAttribute, FamiliarityRule
from rollout.formats.policy import fields as kinds
from rollout.formats.policy import scalars
from rollout.formats.policy.sections import PolicySection, key

MAX_ATTRIBUTES: Final = 8
"""Attributes and combinations of a policy; snapshots list the familiar values of each."""
FORMS: Final = "an attribute, a list of attributes, or {of: NUMBER, cuts: [0, 20, 50]}"


def read_attributes(value: Any) -> tuple[FamiliarAttribute, ...]:
    """Read attributes: names, combinations, and numbers with their cuts.

    Raises:
        ValueError: an entry has none of these forms, or two are equal.
    """
    if not isinstance(value, list) or not value:
        raise ValueError("names no attribute; write a list such as [form]")
    if len(value) > MAX_ATTRIBUTES:
        raise ValueError(f"has {len(value)} attributes; write at most {MAX_ATTRIBUTES}")
    attributes = tuple(_read_attribute(entry) for entry in value)
    ids = [attribute.id for attribute in attributes]
    for i, name in enumerate(ids):
        if name in ids[:i]:
            raise ValueError(f"names {name} twice; remove one")
    return attributes


def _read_attribute(entry: Any) -> FamiliarAttribute:
    match entry:
        case str() if entry.strip():
            return FamiliarAttribute((scalars.read_text(entry),))
        case [str(), str(), *others] if all(isinstance(name, str) for name in others):
            names = tuple(scalars.read_text(name) for name in entry)
            if len(set(names)) == len(names):
                return FamiliarAttribute(names)
        case {"of": str() as name, "cuts": [str(), str(), *_] as cuts} if len(entry) == 2:
            return FamiliarAttribute((scalars.read_text(name),), _read_cuts(cuts))
    raise ValueError(f"holds {entry!r}; write {FORMS}")


def _read_cuts(texts: list[Any]) -> tuple[float, ...]:
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"holds {texts!r}; write cuts as numbers, such as [0, 20, 50]")
    cuts = tuple(scalars.read_number(text) for text in texts)
    if sorted(set(cuts)) != list(cuts):
        raise ValueError(f"has cuts {', '.join(texts)}; write them in ascending order")
    return cuts


FamiliarAttributes = Annotated[
    tuple[FamiliarAttribute, ...],
    BeforeValidator(read_attributes),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_ATTRIBUTES,
            "items": {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "minItems": 2},
                    {
                        "type": "object",
                        "properties": {
                            "of": {"type": "string"},
                            "cuts": {
                                "type": "array",
                                "items": {"type": ["number", "string"]},
                                "minItems": 2,
                            },
                        },
                        "required": ["of", "cuts"],
                        "additionalProperties": False,
                    },
                ]
            },
        }
    ),
]


class FamiliarShape(PolicySection):
    """Attributes whose values a version must have met in a cell, and handled well."""

    attributes: FamiliarAttributes = key(
        description="Attributes, lists of attributes for combinations, and numbers with cuts: "
        "`{of: brightness, cuts: [0, 20, 50]}`. Name none with personal data: their values "
        "stand in the ledger.",
        examples=["[form]"],
    )
    at_least: kinds.Ordinal = key("20", description="Judged units with the value, in the cell.")
    line: kinds.Share | None = key(
        None,
        description="Share of the newest judged units, twice at_least, that must agree. "
        "Default: the threshold of the cell's loosest agreement guard.",
    )


def build_familiarity(shape: FamiliarShape | None) -> FamiliarityRule | None:
    """Return the rule of a section; None without one."""
    if shape is None:
        return None
    return FamiliarityRule(shape.attributes, shape.at_least, shape.line)
