"""The list of examples as text and as JSON."""

import json
from collections.abc import Iterator
from typing import Any

from rollout.reports.text.formatting import wrap_text
from rollout.services.examples.catalog import ExampleSystem, list_examples

INDENT = "    "


def format_catalog() -> str:
    """Return the examples for a terminal."""
    paragraphs = ["\n".join(_describe_example(example)) for example in list_examples()]
    return "\n\n".join([*paragraphs, "Play one: rollout demo NAME"])


def _describe_example(example: ExampleSystem) -> Iterator[str]:
    yield f"{example.name}: {example.title}"
    yield from wrap_text(example.idea, INDENT)
    sentence = f"held: {_name_held_cell(example)}. {example.held.because}"
    yield from wrap_text(sentence, INDENT)


def _name_held_cell(example: ExampleSystem) -> str:
    return " ".join(filter(None, (example.held.site, example.held.window, example.held.version)))


def render_catalog_json() -> str:
    """Return the examples as a JSON array."""
    return json.dumps([_build_item(example) for example in list_examples()], indent=2)


def _build_item(example: ExampleSystem) -> dict[str, Any]:
    from rollout.formats.policy.reader import read_policy  # noqa: PLC0415 - slow to import

    policy = read_policy(example.policy_path)
    return {
        "name": example.name,
        "title": example.title,
        "idea": example.idea,
        "sites": [site.id for site in policy.sites],
        "windows": [window.id for window in policy.windows],
        "versions": sorted(example.versions),
        "held": example.held.model_dump(),
        "policy": str(example.policy_path),
        "records": str(example.records_folder),
    }
