"""Values as facts: what ledgers hash and others read, JSON without floats or sentences.

A value of a policy is a dataclass. Its facts are its fields by name; what has its default is left
out, numbers are decimal text, spans are seconds.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta
from functools import cache
from types import MappingProxyType, UnionType
from typing import Any, Final, TypeVar, get_args, get_type_hints

from rollout.kernel.measures import MEASURES, Condition, Measure
from rollout.kernel.populations import POPULATIONS, Population

KIND: Final = "kind"
Value = TypeVar("Value")


def to_facts(value: Any) -> Any:
    """Return the facts of a value.

    >>> to_facts(Condition(MEASURES["recall"], 0.8, label="bear"))
    {'measure': 'recall', 'threshold': '0.8', 'label': 'bear'}
    """
    match value:
        case Measure():
            return value.name
        case float():
            return repr(value + 0.0)
        case timedelta():
            return repr(value.total_seconds())
        case tuple():
            return [to_facts(item) for item in value]
    return _list_facts(value) if is_dataclass(value) else value


def _list_facts(value: Any) -> dict[str, Any]:
    parts = {each.name: getattr(value, each.name) for each in fields(value)}
    defaults = {each.name: each.default for each in fields(value)}
    facts = {name: to_facts(part) for name, part in parts.items() if part != defaults[name]}
    return {KIND: value.kind, **facts} if isinstance(value, Population) else facts


def parse_condition(facts: Mapping[str, Any]) -> Condition:
    """Return the condition with such facts.

    Raises:
        KeyError, TypeError, ValueError: they are not those of a condition.

    >>> str(parse_condition({"measure": "recall", "threshold": "0.8", "label": "bear"}))
    'recall of bear at least 80 %'
    """
    return parse_facts(Condition, facts)


def parse_facts(kind: type[Value], facts: Mapping[str, Any]) -> Value:
    """Return the value of a class with such facts.

    Raises:
        KeyError, TypeError, ValueError: they are not those of one.
    """
    value: Value = _build(kind, facts)
    return value


def _parse(hint: Any, value: Any) -> Any:
    if value is None or isinstance(hint, UnionType):
        return None if value is None else _parse(get_args(hint)[0], value)
    if hint in _PARSERS:
        return _PARSERS[hint](value)
    if is_dataclass(hint):
        return _build(hint, value)
    if type(value) is not hint:  # a boolean is no number
        raise TypeError(f"{value!r} is no {hint.__name__}")
    return value


def _build(kind: Any, facts: Mapping[str, Any]) -> Any:
    hints = _list_hints(kind)
    return kind(**{name: _parse(hints[name], value) for name, value in facts.items()})


@cache
def _list_hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


_PARSERS: Final[Mapping[Any, Callable[[Any], Any]]] = MappingProxyType(
    {
        Measure: MEASURES.__getitem__,
        Population: lambda facts: _build(
            POPULATIONS[facts[KIND]], {name: facts[name] for name in facts if name != KIND}
        ),
        float: float,
        timedelta: lambda text: timedelta(seconds=float(text)),
    }
)
