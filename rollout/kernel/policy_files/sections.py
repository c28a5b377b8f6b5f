"""Sections of a policy file: what reads each, with its JSON Schema, is built from its class.

Where the file has other values than the policy, gates, guards, readings and the whole policy have a
class of their own here.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields
from datetime import timedelta
from functools import cache
from types import GenericAlias, NoneType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NamedTuple,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import pydantic
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from rollout.kernel.calendar.instants import format_duration
from rollout.kernel.measures import MEASURES
from rollout.kernel.policy.evidence_sources import ReadingBase
from rollout.kernel.policy.policy import GateBase, GuardBase, PolicyBase
from rollout.kernel.policy_files import fields as kinds
from rollout.kernel.units import Key, Spread


class PolicySection(BaseModel):
    """A mapping of the file; unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def _allow_name_alone(schema: JsonSchemaValue) -> None:
    object_schema = {
        key: schema.pop(key) for key in list(schema) if key not in {"description", "title"}
    }
    schema["anyOf"] = [{"type": ["string", "number"]}, object_schema]


class NamedSection(PolicySection):
    """A mapping, for which its id alone is enough."""

    model_config = ConfigDict(json_schema_extra=_allow_name_alone)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _expand_name(cls, value: Any) -> Any:
        return {"id": value} if isinstance(value, str) else value


class AsSection:
    """Makes pydantic read a class whose fields are keys, from a mapping of the file."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Return the schema of the section's model, whose values become the class."""
        return core_schema.no_info_after_validator_function(
            lambda model: _build_value(source, model), handler.generate_schema(build_model(source))
        )


AS_SECTION: Final = AsSection()


Section = TypeVar("Section")


def read_section(section: Callable[..., Section], value: Any) -> Section:
    """Return a section as the file has it.

    Raises:
        pydantic.ValidationError: it has faults.
    """
    read: Section = _build_value(section, build_model(section).model_validate(value))
    return read


def _build_value(section: Any, model: Any, names: tuple[str, ...] = ()) -> Any:
    """Return a section with the values of a model that has its keys, or those of `names`."""
    return section(
        **{
            name: _build_value(hint, model, rule.keys)
            if isinstance(rule, Spread)
            else getattr(model, name)
            for name, hint, rule, _ in _list_fields(section)
            if not names or name in names
        }
    )


@cache
def build_model(section: Any) -> type[PolicySection]:
    """Return the model of a class, its required keys first.

    The first line of the class's docstring describes it in the schema.
    """
    keys = sorted(_list_keys(section), key=lambda each: each.default is not None)
    definitions: dict[str, Any] = {each.name: _define_key(each) for each in keys}
    return pydantic.create_model(
        section.__name__.removeprefix("Written"),
        __base__=NamedSection if any(each.rule.is_enough for each in keys) else PolicySection,
        __doc__=(section.__doc__ or "").partition("\n")[0],
        **definitions,
    )


class SectionField(NamedTuple):
    """A field that stands in the file, with its type and what is said of it.

    Attributes:
        default: makes it; None if the file must have the key.
    """

    name: str
    hint: Any
    rule: Any
    default: Callable[[], Any] | None


@cache
def _list_fields(section: Any) -> tuple[SectionField, ...]:
    hints = get_type_hints(section, include_extras=True)
    annotated = [each for each in fields(section) if get_origin(hints[each.name]) is Annotated]
    parts = [get_args(hints[field.name]) for field in annotated]
    return tuple(
        SectionField(field.name, hint, rule, _find_default(field))
        for field, (hint, rule) in zip(annotated, parts, strict=True)
    )


def _find_default(field: Field[Any]) -> Callable[[], Any] | None:
    if field.default is not MISSING:
        return lambda: field.default
    return None if field.default_factory is MISSING else field.default_factory


def _list_keys(section: Any) -> Iterator[SectionField]:
    """Yield the fields that are keys of a section's row."""
    for field in _list_fields(section):
        if isinstance(field.rule, Spread):
            yield from (each for each in _list_keys(field.hint) if each.name in field.rule.keys)
        else:
            yield field._replace(default=None) if field.rule.is_required else field


def _define_key(field: SectionField) -> tuple[Any, Any]:
    """Return type and field of a key in a model."""
    rule: Key = field.rule
    kind = Literal[rule.choices] if rule.choices else rule.kind and getattr(kinds, rule.kind)
    written = rule.written or (_find_written(kind, field.default()) if field.default else "")
    default: dict[str, Any] = {"default_factory": field.default} if field.default else {}
    return _find_type(field.hint, kind), pydantic.Field(
        **default,
        alias=rule.name or None,
        description=rule.description,
        examples=[rule.example] if rule.example else None,
        min_length=1 if rule.is_filled else None,
        json_schema_extra={"default": written} if written else None,
    )


def _find_type(hint: Any, kind: Any) -> Any:
    """Return what reads a value of a type whose scalars are of a kind."""
    if get_origin(kind) is Annotated and get_args(kind)[0] == hint:
        return kind
    parts = get_args(hint)
    if NoneType in parts:
        return _find_type(next(part for part in parts if part is not NoneType), kind) | None
    if get_origin(hint) is tuple:
        return GenericAlias(tuple, (_find_type(parts[0], kind), ...))
    if get_origin(hint) is Mapping:
        return GenericAlias(dict, (str, _find_type(parts[1], kind)))
    return kind or Annotated[hint, AS_SECTION]


def _find_written(kind: Any, default: Any) -> str:
    """Return a default as the file would have it; "" if it can't be written."""
    if get_origin(kind) is Literal:
        return default if default in get_args(kind) else ""
    texts = ["true" if default else "false", str(default)]
    if isinstance(default, timedelta):
        texts = [format_duration(default)]
    elif isinstance(default, float):
        texts = [f"{default * 100:g}%", f"{default:g}"]
    for text in texts if kind else ():
        with suppress(ValueError):
            if (read := get_args(kind)[1].func(text)) == default and type(read) is type(default):
                return text
    return ""


@dataclass(frozen=True, kw_only=True)
class WrittenCondition:
    """A measure with its threshold."""

    measure: Annotated[str, Key("", "What is looked at.", "agreement", choices=tuple(MEASURES))]
    at_least: Annotated[
        str | None,
        Key("RawText", "Threshold, for agreement, recall, precision: 95%; for gain: 0."),
    ] = None
    at_most: Annotated[str | None, Key("RawText", "Threshold, for costs, counts and spans.")] = None
    label: Annotated[
        str | None, Key("NonEmptyText", "For recall and precision, or a named harm.")
    ] = None
    lever: Annotated[str | None, Key("Name", "Which lever, where there are several.")] = None
    action: Annotated[str | None, Key("NonEmptyText", "For action_change.")] = None
    of: Annotated[
        str | None,
        Key(
            "Name",
            "For gain: which of the outcomes. For agreement and recall in gates: planted, "
            "for the planted cases alone; else they are about the cases that occur.",
        ),
    ] = None
    slice: Annotated[
        str | None,
        Key(
            "NonEmptyText",
            "For agreement: an attribute, each of whose values must pass by itself. For "
            "drift: whose shares are watched; without it, those of the human decisions. Cases "
            "without the attribute have the value (none).",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class WrittenGate(GateBase):
    """Conditions to widen by one stage."""

    require: Annotated[
        tuple[WrittenCondition, ...],
        Key(
            "",
            "Conditions; all must hold, with those of the gates below.",
            "[{measure: agreement, at_least: 95%}]",
            is_filled=True,
        ),
    ]
    risk: Annotated[
        float | None,
        Key(
            "Risk",
            "Chance of ever opening wrongly. Default: 5%, and 1% where the model decides.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class WrittenGuard(GuardBase, WrittenCondition):
    """A condition under which scope narrows or is suspended, or an incident is reported."""

    false_alarm_every: Annotated[
        float | timedelta | None,
        Key(
            "FalseAlarmInterval",
            "Mean units, or for latency_p95, failures, missing, unaudited and heartbeat "
            "time, between two false alarms, at least. Default: 10000 units, and 1y.",
        ),
    ] = None
    then: Annotated[
        str | None,
        Key(
            "",
            "What an alarm does. Default: the measure's own.",
            choices=("one-stage", "shadow", "suspend", "report"),
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class WrittenReading(ReadingBase):
    """How recorded files of one kind are written; `rollout init` drafts it."""

    records: Annotated[
        str,
        Key(
            "",
            "Which file; pairs is the file of `rollout compare`.",
            "predictions",
            choices=("cases", "predictions", "decisions", "outcomes", "pairs"),
        ),
    ]
    columns: Annotated[
        dict[str, Any] | None,
        Key(
            "ColumnSources",
            "Their column by our name, {value: TEXT} for one text in all rows, and "
            "attributes: a list of columns.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class WrittenPolicy(PolicyBase):
    """Policy of a rollout: what can widen, when, with whose approval, and what narrows it."""

    gates: Annotated[
        tuple[WrittenGate, ...],
        Key(
            "",
            "What widens a cell by one stage; the first that fits counts.",
            "[{to: supervised, require: [{measure: agreement, at_least: 95%}]}]",
            is_filled=True,
        ),
    ]
    guards: Annotated[
        tuple[WrittenGuard, ...],
        Key("", "What narrows; all that fit apply. Missing ones are added: see plan."),
    ] = ()
    imports: Annotated[
        tuple[WrittenReading, ...],
        Key(
            "",
            "How recorded files are written, for replay, plan and import.",
            name="import",
        ),
    ] = ()
