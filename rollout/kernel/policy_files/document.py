"""A policy document checked for faults of form, and the JSON Schema, keys and examples of policies.

All faults are collected and what is readable is kept. Unreadable values are dropped and the rest is
validated again, so that one run also finds the faults that need several fields. `unreadable` lists
the dropped paths, so that checks which need them are skipped.

Editors check policies with the schema, and faults take their suggestions from it. To write
`config/policy.schema.json`, run `python -m rollout.kernel.policy_files.document`.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import chain
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rollout.kernel.policy_files.fields import EmptyTextError
from rollout.kernel.policy_files.sections import WrittenPolicy, build_model, read_section
from rollout.kernel.policy_files.yaml_reader import (
    Document,
    DocumentFault,
    DocumentPath,
    DocumentValue,
)

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
        {
            key: _clean_schema(value)
            for key, value in node.items()
            if not (key == "title" and isinstance(value, str))
            if not (key == "default" and not value)
        }
    )


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
        node = build_policy_schema()["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    choices = [choice for choice in node.get("anyOf", ()) if "properties" in choice]
    return choices[0] if choices else node


def render_policy_schema() -> str:
    """Return the content of `config/policy.schema.json`."""
    return json.dumps(build_policy_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render_policy_schema())


MAX_FAULTS = 100
"""Faults of form in one run; comparing more of them would take minutes."""

# Replacements for unreadable required sections, so that the other sections are still checked.
_STAND_INS: Mapping[str, DocumentValue] = {
    "rollout": "unread",
    "timezone": "UTC",
    "levers": [{"id": "unread", "labels": ["unread"]}],
    "sites": ["unread"],
    "evidence": {"unit": "case"},
    "gates": [
        {"to": "supervised", "require": [{"measure": "agreement", "at_least": "95%"}]},
    ],
}


@dataclass(frozen=True, slots=True)
class ParsedPolicy:
    """A validated document with its unreadable paths and a fault for each.

    Attributes:
        written: the model, without the unreadable values.
        value: the document as read.
    """

    written: WrittenPolicy
    unreadable: frozenset[DocumentPath]
    faults: tuple[DocumentFault, ...]
    value: DocumentValue

    def find_origin(self, path: DocumentPath) -> DocumentPath:
        """Return the document path of a model path; list indices differ after drops."""
        return _find_origin(path, self.value, self.unreadable)

    def is_unreadable(self, path: DocumentPath) -> bool:
        """Return whether a path is in an unreadable value."""
        return any(
            path[: len(unreadable_path)] == unreadable_path for unreadable_path in self.unreadable
        )

    def list_rows(self, section: str) -> Iterator[tuple[int, dict[str, DocumentValue]]]:
        """Return the rows of a section that are keys and values, as written, with their places."""
        rows = _find_value(self.value, (section,))
        places = enumerate(rows if isinstance(rows, list) else ())
        return ((place, row) for place, row in places if isinstance(row, dict))

    def has_paths(self, *paths: str) -> bool:
        """Return whether all values at the paths, such as `sites.*.id`, are readable."""
        path_parts = [tuple(parts.split(".")) for parts in paths]
        return not any(
            _covers(unreadable_path, parts)
            for unreadable_path in self.unreadable
            for parts in path_parts
        )


def _covers(unreadable_path: DocumentPath, path: tuple[str, ...]) -> bool:
    """Return whether the unreadable path is the pattern's path or contains it."""
    pairs = zip(unreadable_path, path, strict=False)
    return len(unreadable_path) <= len(path) and all(
        part in ("*", str(step)) for step, part in pairs
    )


def parse_document(document: Document) -> ParsedPolicy:
    """Return the readable part of a document as a policy model, with all faults of form."""
    unreadable: set[DocumentPath] = set()
    faults: list[DocumentFault] = []
    value: DocumentValue = document.value if document.value is not None else {}
    if not isinstance(value, dict):
        faults.append(DocumentFault((), "holds no keys; a policy starts with `rollout: its-name`"))
        value = {}
        unreadable.update((key,) for key in _STAND_INS)
    while True:
        try:
            written = read_section(WrittenPolicy, _drop_unreadable(value, unreadable))
            return ParsedPolicy(written, frozenset(unreadable), tuple(faults), value)
        except ValidationError as error:
            unreadable_count, errors = len(unreadable), error.errors(include_url=False)
            faults.extend(_collect_faults(errors[:MAX_FAULTS], value, unreadable))
            # No progress: validate the replacements alone, which always succeeds.
            if len(unreadable) == unreadable_count or len(faults) >= MAX_FAULTS:
                value = {}
                unreadable.update((key,) for key in _STAND_INS)


def _collect_faults(
    errors: Iterable[ErrorDetails], value: DocumentValue, unreadable: set[DocumentPath]
) -> list[DocumentFault]:
    """Return each new fault once and add its path to `unreadable`."""
    unreadable_before = frozenset(unreadable)
    located = [(error, _find_origin(error["loc"], value, unreadable_before)) for error in errors]
    unknown_keys = [path for error, path in located if error["type"] == "extra_forbidden"]
    unreadable.update(
        target
        for path in unknown_keys
        if (target := _find_misspelt_target(path, value)) is not None
    )
    faults = []
    for error, path in located:
        is_repeated = any(unreadable_path[: len(path)] == path for unreadable_path in unreadable)
        if not is_repeated:
            faults.append(DocumentFault(path, _describe_error(error, path)))
        row = path[:-1] or path  # a section at the top is its own row
        unreadable.update({path, row} if is_repeated or error["type"] == "missing" else {path})
    return faults


def _find_misspelt_target(path: DocumentPath, value: DocumentValue) -> DocumentPath | None:
    """Return the path that a misspelt key was probably meant for, or None."""
    row, close_key = _find_value(value, path[:-1]), _find_close_key(path)
    is_absent = close_key is not None and isinstance(row, dict) and close_key not in row
    return (
        (*path[:-1], close_key)
        if close_key and is_absent and not find_key_paths(str(path[-1]))
        else None
    )


def _find_close_key(path: DocumentPath) -> str | None:
    return next(iter(get_close_matches(str(path[-1]), list_keys(path[:-1]), n=1)), None)


def _drop_unreadable(
    value: DocumentValue, unreadable: set[DocumentPath]
) -> dict[str, DocumentValue]:
    """Return the values without unreadable ones; required sections are replaced."""
    values = _remove_paths(value, (), unreadable)
    assert isinstance(values, dict)  # noqa: S101 - the caller passes a mapping
    stand_ins = {key: stand_in for key, stand_in in _STAND_INS.items() if (key,) in unreadable}
    return values | stand_ins


def _remove_paths(
    value: DocumentValue, path: DocumentPath, unreadable: set[DocumentPath]
) -> DocumentValue:
    if isinstance(value, dict):
        remaining = {key: inner for key, inner in value.items() if (*path, key) not in unreadable}
        return {
            key: _remove_paths(inner, (*path, key), unreadable) for key, inner in remaining.items()
        }
    if isinstance(value, list):
        rows = [(i, row) for i, row in enumerate(value) if (*path, i) not in unreadable]
        return [_remove_paths(row, (*path, i), unreadable) for i, row in rows]
    return value


def _find_origin(
    path: DocumentPath, value: DocumentValue, unreadable: frozenset[DocumentPath]
) -> DocumentPath:
    origin: DocumentPath = ()
    for step in path:
        rows = _find_value(value, origin)
        if isinstance(step, int) and isinstance(rows, list):
            indices = [i for i in range(len(rows)) if (*origin, i) not in unreadable]
            origin = (*origin, indices[step] if step < len(indices) else step)
        else:
            origin = (*origin, step)
    return origin


def _find_value(value: DocumentValue, path: DocumentPath) -> DocumentValue | None:
    """Return the value at a path, or None if the document has none."""
    current: DocumentValue | None = value
    for step in path:
        if isinstance(current, dict):
            current = current.get(str(step))
        elif isinstance(current, list) and isinstance(step, int) and step < len(current):
            current = current[step]
        else:
            return None
    return current


def _describe_error(error: ErrorDetails, path: DocumentPath) -> str:
    value, kind = error["input"], error["type"]
    sentences: dict[str, Callable[[], str]] = {
        "missing": lambda: f"is missing; write it, such as {path[-1]}: {find_example(path)}",
        "extra_forbidden": lambda: _describe_unknown_key(path, value),
        "literal_error": lambda: _describe_invalid_choice(error, value),
        "too_short": lambda: _describe_empty("write at least one", path),
        "value_error": lambda: _describe_fault(error["ctx"]["error"], path),
    }
    return sentences.get(kind, lambda: _describe_wrong_form(kind, value, path))()


def _describe_empty(remedy: str, path: DocumentPath) -> str:
    return f"is empty; {remedy}{'' if is_required(path) else ', or leave the key out'}"


def _describe_fault(fault: Exception, path: DocumentPath) -> str:
    return _describe_empty("write it", path) if isinstance(fault, EmptyTextError) else str(fault)


def _describe_wrong_form(kind: str, value: Any, path: DocumentPath) -> str:
    if value == "":
        return _describe_empty("write it", path)
    example = find_example(path)
    if "tuple" in kind:
        expected = "a list: [a, b]"
    elif example.startswith("{"):
        expected = f"{path[-1]}: {example}"
    else:
        expected = "keys and values: {key: value}"
    return f"has the wrong form; write {expected}"


def _describe_unknown_key(path: DocumentPath, value: Any) -> str:
    key, close_key = str(path[-1]), _find_close_key(path)
    key_paths = " or ".join(find_key_paths(key)[:3])
    if value == "" and ":" in key:
        return "is no key; quote hours that contain a comma"
    if key_paths:
        here = f"; those known here are {', '.join(list_keys(path[:-1]))}" if path[:-1] else ""
        return f"is no key here; it belongs at {key_paths}{here}"
    if close_key:
        return f"is no key here; did you mean {close_key}?"
    return f"is no key here; those known are {', '.join(list_keys(path[:-1]))}"


def _describe_invalid_choice(error: ErrorDetails, value: Any) -> str:
    choices = error["ctx"]["expected"].replace("'", "")
    words = choices.replace(" or ", ", ").split(", ")
    close_words = get_close_matches(str(value), words, n=1)
    hint = f"did you mean {close_words[0]}?" if close_words else f"write {choices}"
    return f"{value!r} is not offered; {hint}"


MAX_CELLS = 10_000
MAX_ROWS = 200_000
"""Cells times gates and guards."""
MAX_ITEMS = 500
"""Of each list except the sites, and of each mapping."""
MAX_TEXT_LENGTH = 4_000
"""Of each text."""


def find_length_faults(value: DocumentValue) -> tuple[DocumentFault, ...]:
    """Return a fault for each list, mapping or text that is too long."""
    return tuple(
        chain.from_iterable(_check_length(part, path) for part, path in _list_parts(value, ()))
    )


def _list_parts(
    value: DocumentValue, path: DocumentPath
) -> Iterator[tuple[DocumentValue, DocumentPath]]:
    yield value, path
    if isinstance(value, dict) and len(value) <= _get_limit(path):
        for key, inner in value.items():
            yield from _list_parts(inner, (*path, key))
    if isinstance(value, list) and len(value) <= _get_limit(path):
        for i, row in enumerate(value):
            yield from _list_parts(row, (*path, i))


def _get_limit(path: DocumentPath) -> int:
    return MAX_CELLS if path == ("sites",) else MAX_ITEMS


def _check_length(value: DocumentValue, path: DocumentPath) -> Iterator[DocumentFault]:
    if isinstance(value, list | dict) and len(value) > _get_limit(path):
        yield DocumentFault(path, f"holds {len(value)}; write at most {_get_limit(path)}")
    if isinstance(value, str) and len(value) > MAX_TEXT_LENGTH:
        yield DocumentFault(path, f"has {len(value)} characters; write at most {MAX_TEXT_LENGTH}")


def find_size_faults(written: WrittenPolicy) -> tuple[DocumentFault, ...]:
    """Return a fault if the policy has too many cells or rows."""
    cells = len(written.sites) * len(written.windows or (1,))
    rows = cells * (len(written.gates) + len(written.guards))
    if cells > MAX_CELLS:
        text = f"makes {cells} cells with its windows; at most {MAX_CELLS}: make several rollouts"
        return (DocumentFault(("sites",), text),)
    if rows > MAX_ROWS:
        text = f"and its guards for each of {cells} cells are {rows}; at most {MAX_ROWS}"
        return (DocumentFault(("gates",), text),)
    return ()
