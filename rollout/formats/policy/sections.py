"""Sections of a policy file."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from rollout.core.policy.familiarity import FamiliarAttribute, FamiliarityRule
from rollout.formats.policy import fields as kinds
from rollout.formats.policy import scalars


def key(default: Any = ..., **field_options: Any) -> Any:
    """Return a field of the model; its default is written as in a file."""
    return Field(default, **field_options)


class PolicySection(BaseModel):
    """A mapping of the file; unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)


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


class ImportShape(PolicySection):
    """How recorded files of one kind are written; `rollout init` drafts it."""

    records: Literal["cases", "predictions", "decisions", "outcomes", "pairs"] = key(
        description="Which file; pairs is the file of `rollout compare`.", examples=["predictions"]
    )
    encoding: kinds.Encoding | None = key(
        None, description="Encoding of a text file, such as latin-1 or utf-16. Default: UTF-8."
    )
    delimiter: kinds.Delimiter | None = key(
        None, description="Between columns: , ; | or tab. Default: by suffix, .csv or .tsv."
    )
    decimal: Literal[".", ","] | None = key(
        None, description="Decimal sign of numbers. Default: a point."
    )
    date_format: list[kinds.DateFormat] | None = key(
        None,
        min_length=1,
        description="Forms of times other than ISO 8601: day-first, month-first, year-first, "
        "basic (20270503T140509Z), unix-seconds, unix-milliseconds, or a pattern as "
        "%d-%b-%Y %H:%M; a Z at its end means UTC.",
    )
    percent: kinds.Flag | None = key(
        None, description="Confidence is from 0 to 100. Default: from 0 to 1."
    )
    unsure: list[kinds.NonEmptyText] | None = key(
        None, min_length=1, description="Labels that mean: no answer."
    )
    exposure: Literal["blind", "assisted", "unknown"] | None = key(
        None,
        description="What reviewers had seen, where the file does not say. Default:"
        " evidence.outside.",
    )
    columns: kinds.ColumnSources | None = key(
        None,
        description="Their column by our name, {value: TEXT} for one text in all rows, and "
        "attributes: a list of columns.",
    )


class OutcomeShape(PolicySection):
    """A value that becomes known after a case, such as its profit."""

    id: kinds.Name = key(description="Name, as records write it.", examples=["profit"])
    low: kinds.Number = key(
        alias="from", description="Lower end; a lower value counts as this.", examples=["-20"]
    )
    high: kinds.Number = key(
        alias="to", description="Upper end; a higher value counts as this.", examples=["60"]
    )
    unit: kinds.NonEmptyText | None = key(
        None, alias="in", description="Unit of the value, such as EUR."
    )
    better: Literal["more", "less"] = key(
        "more", description="Whether more or less is better. With `less` a decrease is a gain."
    )
    closes: kinds.PositiveDuration = key(
        description="How long after a case its value may arrive; then it is missing.",
        examples=["14d"],
    )
    missing_at_most: kinds.Share = key(
        "2%", description="A larger share of units without a value holds gates on its gain."
    )


class AccountSourceShape(PolicySection):
    """A service account whose decisions are evidence, for some reviewers."""

    account: kinds.NonEmptyText = key(
        description="Name of the service account.", examples=["people-system"]
    )
    reviewers: list[kinds.Pattern] = key(
        min_length=1,
        description="Reviewers for whom it may speak: names, or patterns with *.",
        examples=["[ana, bo]"],
    )


class VouchedSenderShape(PolicySection):
    """A service account that sends late, and for which somebody vouches that it sees no answers."""

    account: kinds.NonEmptyText = key(
        description="Name of the service account.", examples=["box-7"]
    )
    within: kinds.PositiveDuration = key(
        description="Its cases and predictions count as made before the decision if they come at"
        " most this long after the case occurred. At most `grace`.",
        examples=["50h"],
    )


class SourcesShape(PolicySection):
    """From where records are evidence, besides reviews made here and imports.

    Others are stored and reported only.
    """

    accounts: list[AccountSourceShape] = key(
        default_factory=list, description="Service accounts that send decisions made elsewhere."
    )
    vouched: list[VouchedSenderShape] = key(
        default_factory=list,
        description="Service accounts that may send cases and predictions after humans decided:"
        " devices that send at night, batches, services that race each other, desks whose clocks"
        " differ.",
    )
    outcomes: list[kinds.NonEmptyText] | None = key(
        None,
        description="Service accounts whose outcomes count; default: all that may send them. None"
        " counts to widen for a case that it predicted.",
        examples=["[till]"],
    )
    cases: list[kinds.NonEmptyText] | None = key(
        None,
        description="Service accounts whose cases count for gates; default: all that may send them."
        " Other accounts' cases are as if not stored, except for guards. Imports always count.",
        examples=["[camera-1]"],
    )


class StageShape(PolicySection):
    """A stage above shadow."""

    id: kinds.Name = key(description="Name of the stage.", examples=["supervised"])
    blind: kinds.Share = key("0%", description="Share of units that humans decide blind.")
    audit: kinds.Share | None = key(
        None,
        description="The model decides, and humans decide this share blind afterwards. "
        "Without it a human confirms each case.",
    )
    share: kinds.Share | None = key(
        None,
        description="The model decides this share of units, sampled at random; humans decide the "
        "rest and see nothing of it. Instead of blind; audit is then of the model's part.",
    )
    lasts: kinds.PositiveDuration = key(
        "90d", description="Length of a grant until it is renewed on fresh evidence."
    )


class VersionShape(PolicySection):
    """What holds for one model version."""

    id: kinds.Name = key(description="Name of the version, as records write it.", examples=["v7"])
    content: kinds.ContentHash | None = key(
        None,
        description="SHA-256 of weights and pre-processing: predictions that declare another are "
        "rejected.",
    )
    sample: kinds.SampleShare = key(
        "100%",
        description="Share of cases on which it runs: the service samples and names them, the "
        "others are no units.",
        examples=["10%"],
    )


class WavesShape(PolicySection):
    """Which sites go next, and after what."""

    stage: kinds.Name = key(description="Stage that a wave must hold.", examples=["supervised"])
    hold: kinds.Duration = key(
        "7d", description="For how long it must hold it without a stop or suspension."
    )
    share: kinds.Share = key(
        "100%", description="Share of the wave's cells in the same window that must."
    )
    at_once: kinds.Ordinal | None = key(
        None, description="At most so many cells within settle of a widening. Default: all."
    )
    settle: kinds.Duration = key("3d", description="How long a widened cell counts as settling.")
