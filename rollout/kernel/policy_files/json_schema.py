"""Generate the JSON Schema of a policy file and look up keys and examples in it.

Editors check policies with the schema, and faults take their suggestions from it. To write
`config/policy.schema.json`, run `python -m rollout.kernel.policy_files.json_schema`.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from rollout.kernel.policy_files.sections import WrittenPolicy, build_model
from rollout.kernel.policy_files.yaml_reader import DocumentPath

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@cache
def build_policy_schema() -> Mapping[str, Any]:
    """Return the JSON Schema of `WrittenPolicy`."""
    schema = _clean_schema(build_model(WrittenPolicy).model_json_schema(mode="validation"))
    return {"$schema": DIALECT, "title": "rollout policy", **schema}


def _clean_schema(node: Any) -> Any:
    """Return a schema without titles and null choices."""
    if isinstance(node, list):
        return [_clean_schema(item) for item in node if item != {"type": "null"}]
    if not isinstance(node, dict):
        return node
    return _unwrap_choice(
        {key: _clean_schema(value) for key, value in node.items() if _should_keep(key, value)}
    )


def _should_keep(key: str, value: Any) -> bool:
    return not (key == "title" and isinstance(value, str)) and not (key == "default" and not value)


def _unwrap_choice(node: dict[str, Any]) -> dict[str, Any]:
    """Return a node with a single choice as that choice."""
    choices = node.get("anyOf")
    if not isinstance(choices, list) or len(choices) != 1:
        return node
    return {**choices[0], **{key: value for key, value in node.items() if key != "anyOf"}}


def list_keys(path: DocumentPath) -> tuple[str, ...]:
    """Return the allowed keys of a mapping at `path`; empty if any key is allowed."""
    return tuple(_find_node(path).get("properties", ()))


def is_required(path: DocumentPath) -> bool:
    """Return whether the mapping around `path` needs its key."""
    return path[-1] in _find_node(path[:-1]).get("required", ())


def find_example(path: DocumentPath) -> str:
    """Return an example value for `path`, or an empty text."""
    examples: list[str] = _find_node(path).get("examples", [])
    return examples[0] if examples else ""


def find_key_paths(key: str) -> tuple[str, ...]:
    """Return the paths of a key, such as `evidence.grace` for `grace`."""
    return tuple(path for path in list_paths() if path.replace("[]", "").split(".")[-1] == key)


@cache
def list_paths() -> tuple[str, ...]:
    """Return the path of every key; lists have [], as `gates[].require[].measure`."""
    return tuple(_list_node_paths(build_policy_schema(), ""))


def _list_node_paths(node: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, child in node.get("properties", {}).items():
        shape = _resolve_reference(child)
        path = f"{prefix}{key}"
        if "items" in shape and "properties" in (row := _resolve_reference(shape["items"])):
            yield f"{path}[]"
            yield from _list_node_paths(row, f"{path}[].")
        else:
            yield path
            yield from _list_node_paths(shape, f"{path}.")


def _find_node(path: DocumentPath) -> Mapping[str, Any]:
    node: Mapping[str, Any] = build_policy_schema()
    for step in path:
        node = _resolve_reference(node)
        inner = node.get("items", {}) if isinstance(step, int) else node.get("properties", {})
        node = inner if isinstance(step, int) else inner.get(step, {})
    return {**_resolve_reference(node), **node}


def _resolve_reference(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the target of a reference; of several choices, the one with keys."""
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        node = build_policy_schema()["$defs"][name]
    choices = [choice for choice in node.get("anyOf", ()) if "properties" in choice]
    return choices[0] if choices else node


def render_policy_schema() -> str:
    """Return the content of `config/policy.schema.json`."""
    return json.dumps(build_policy_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render_policy_schema())
