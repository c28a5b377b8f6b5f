"""Compiled forms of charts: Vega-Lite compiles charts that differ only in values once.

It takes a quarter of a drawing's time and looks at encodings, never at values. So the data, the
ends of axes and the thresholds of a specification are replaced by slots, the rest is compiled and
kept, and the values are put back into the result.
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

_FIRST_SLOT = 987_100_000  # numbers from here on are slots: no size of a chart is as large
_SLOT_KEY = "slot"

Compiler = Callable[[str], Mapping[str, Any]]


def compile_chart(spec: Mapping[str, Any], compile_form: Compiler) -> str:
    """Return a Vega-Lite specification compiled to Vega, as JSON."""
    values: list[object] = []
    form = json.dumps(_take_values(spec, "", values))
    return json.dumps(_put_values(_compile_form(compile_form, form), values))


@lru_cache(maxsize=64)
def _compile_form(compile_form: Compiler, form: str) -> Mapping[str, Any]:
    return compile_form(form)


def _take_values(part: Any, key: str, values: list[object]) -> Any:
    """Return a part of a specification with slots, and append what they stand for."""
    if key == "data":
        return {"values": [{_SLOT_KEY: _add_slot(part["values"], values)}]}
    if key == "datum":
        return _add_slot(part, values)
    if key == "domain":
        return [_add_slot(end, values) for end in part]
    if isinstance(part, dict):
        return {name: _take_values(item, name, values) for name, item in part.items()}
    if isinstance(part, list):
        return [_take_values(item, "", values) for item in part]
    return part


def _add_slot(value: object, values: list[object]) -> int:
    values.append(value)
    return _FIRST_SLOT + len(values) - 1


def _put_values(part: Any, values: list[object]) -> Any:
    """Return a part of a compiled form with values in its slots."""
    if isinstance(part, dict):
        return {name: _put_values(item, values) for name, item in part.items()}
    if isinstance(part, list):
        if len(part) == 1 and isinstance(part[0], dict) and _SLOT_KEY in part[0]:
            return values[part[0][_SLOT_KEY] - _FIRST_SLOT]
        return [_put_values(item, values) for item in part]
    if isinstance(part, int) and part >= _FIRST_SLOT:
        return values[part - _FIRST_SLOT]
    return part
