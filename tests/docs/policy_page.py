"""The page of a policy file's keys, from the model that reads the file."""

from rollout.kernel.calendar.instants import format_duration
from rollout.kernel.measures import MEASURES
from rollout.kernel.policy_files.document import build_policy_schema

HEAD = """\
# Policy reference

Generated from the model that reads policy files. [Write a policy](../how-to/policy.md) explains how
to choose values and how they are read. Editors check a file against `config/policy.schema.json`;
`config/policies` has examples.

`[]` marks a list of rows. A default in words means: the key may be absent.
"""


def written():
    schema = build_policy_schema()
    flat = {"$defs": schema["$defs"], "properties": {}, "required": schema["required"]}
    lines = [HEAD]
    for name, node in schema["properties"].items():
        if not _keys_of(node):
            flat["properties"][name] = node
    lines += ["## The rollout\n", *_table(flat, "")]
    for name, node in schema["properties"].items():
        keys, suffix = _keys_of(node), "[]" if "items" in _resolve(node) else ""
        if keys:
            lines += [f"## {name.capitalize()}\n", f"{_about(node)}\n"]
            needed = "required" if name in schema["required"] else "optional"
            lines += [f"`{name}{suffix}` is {needed}.\n", *_table(keys, f"{name}{suffix}.")]
    return "\n".join([*lines, *_measures()])


def _about(node):
    return node.get("description") or _resolve(node)["description"]


def _resolve(node):
    if "$ref" in node:
        node = build_policy_schema()["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    with_keys = [choice for choice in node.get("anyOf", ()) if "properties" in choice]
    return with_keys[0] if with_keys else node


def _keys_of(node):
    """Return the mapping of a key, or of a row of its list; None if it has no keys."""
    shape = _resolve(node)
    shape = _resolve(shape["items"]) if "items" in shape else shape
    return shape if "properties" in shape else None


def _table(node, prefix):
    yield "| key | default | meaning |"
    yield "|---|---|---|"
    yield from _rows(node, prefix)
    yield ""


def _rows(node, prefix):
    for key, child in node["properties"].items():
        below, suffix = _keys_of(child), "[]" if "items" in _resolve(child) else ""
        is_list_of_rows = suffix if below else ""
        default = "required" if key in node.get("required", ()) else _default(child)
        meaning = child.get("description", "").replace("|", "\\|")
        yield f"| `{prefix}{key}{is_list_of_rows}` | {default} | {meaning} |"
        if below:
            yield from _rows(below, f"{prefix}{key}{is_list_of_rows}.")


def _default(node):
    value = node.get("default")
    return f"`{value}`" if isinstance(value, str) and value else "–"


def _measures():
    yield "## Measures\n"
    yield "A gate or a guard compares a measure with `at_least` or `at_most`.\n"
    yield "| measure | definition | example | direction | gate | guard does | over |"
    yield "|---|---|---|---|---|---|---|"
    for name, measure in MEASURES.items():
        direction = "`at_least`" if measure.at_least else "`at_most`"
        gate = "yes" if measure.for_gate else "–"
        effect = f"`{measure.guard_effect}`" if measure.guard_effect else "–"
        span = format_duration(measure.guard_span) if measure.guard_span else "–"
        yield (
            f"| `{name}` | {measure.definition} | `{measure.example}` | {direction} | {gate}"
            f" | {effect} | {span} |"
        )
    yield ""
