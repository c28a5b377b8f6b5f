"""The JSON Schema of a policy file, and what it says about any place in one.

Editors check a policy with it while it is written; faults take their suggestions from it.
`config/policy.schema.json` is this module's output: `python -m rollout.formats.policy.json_schema`.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from rollout.formats.policy.model import PolicyShape
from rollout.formats.policy.yaml_reader import Place

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@cache
def policy_schema() -> Mapping[str, Any]:
    """Return the schema, generated from `policy_file`."""
    schema = _cleaned(PolicyShape.model_json_schema(mode="validation"))
    return {"$schema": DIALECT, "title": "rollout policy", **schema}


def _cleaned(node: Any) -> Any:
    """Drop what only pydantic needs: titles, null (a key is left out instead), class names."""
    if isinstance(node, list):
        return [_cleaned(item) for item in node if item != {"type": "null"}]
    if not isinstance(node, dict):
        return node.replace("Shape", "") if isinstance(node, str) and "$defs/" in node else node
    return _unwrapped(
        {_key(key): _cleaned(value) for key, value in node.items() if _kept(key, value)}
    )


def _key(key: str) -> str:
    return key.removesuffix("Shape")


def _kept(key: str, value: Any) -> bool:
    return not (key == "title" and isinstance(value, str)) and not (key == "default" and not value)


def _unwrapped(node: dict[str, Any]) -> dict[str, Any]:
    """Write a choice of one as that one."""
    choices = node.get("anyOf")
    if not isinstance(choices, list) or len(choices) != 1:
        return node
    return {**choices[0], **{key: value for key, value in node.items() if key != "anyOf"}}


def keys_at(place: Place) -> tuple[str, ...]:
    """Return the keys that a mapping at `place` may have; none where any are free."""
    return tuple(_node(place).get("properties", ()))


def example_at(place: Place) -> str:
    """Return what could stand at `place`, empty where the schema has no example."""
    examples: list[str] = _node(place).get("examples", [])
    return examples[0] if examples else ""


def homes_of(key: str) -> tuple[str, ...]:
    """Return the paths at which `key` is known, such as `evidence.grace` for `grace`."""
    return tuple(path for path in paths() if path.replace("[]", "").split(".")[-1] == key)


@cache
def paths() -> tuple[str, ...]:
    """Return the path of every key, lists marked by []: `gates[].require[].measure`."""
    return tuple(_paths(policy_schema(), ""))


def _paths(node: Mapping[str, Any], at: str) -> Iterator[str]:
    for key, child in node.get("properties", {}).items():
        shape = _resolved(child)
        path = f"{at}{key}"
        if "items" in shape and "properties" in (row := _resolved(shape["items"])):
            yield f"{path}[]"
            yield from _paths(row, f"{path}[].")
        else:
            yield path
            yield from _paths(shape, f"{path}.")


def _node(place: Place) -> Mapping[str, Any]:
    node: Mapping[str, Any] = policy_schema()
    for step in place:
        node = _resolved(node)
        inner = node.get("items", {}) if isinstance(step, int) else node.get("properties", {})
        node = inner if isinstance(step, int) else inner.get(step, {})
    return {**_resolved(node), **node}


def _resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference; of several shapes take the one with keys."""
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        node = policy_schema()["$defs"][name]
    choices = [choice for choice in node.get("anyOf", ()) if "properties" in choice]
    return choices[0] if choices else node


def schema_text() -> str:
    """Return the schema as the file `config/policy.schema.json` holds it."""
    return json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
