"""`report.json`: the facts, unrounded, in a form with a version."""

import json
from typing import Any

from pydantic import TypeAdapter

from rollout.reports.figures.facts import SCHEMA, Facts

_FACTS: TypeAdapter[Facts] = TypeAdapter(Facts)
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_report(facts: Facts) -> str:
    """Return the report as JSON text: numbers unrounded, instants in UTC, nulls for no data.

    Raises:
        ValueError: a figure is not a number (infinite, or undefined); that is a fault of ours.
    """
    return json.dumps(plain(facts), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def plain(facts: Facts) -> dict[str, Any]:
    """Return the facts as dictionaries, lists, text, numbers and None."""
    values: dict[str, Any] = _FACTS.dump_python(facts, mode="json")
    return values


def report_schema() -> str:
    """Return the JSON Schema of the report, as it stands in `config/report.schema.json`."""
    schema = _FACTS.json_schema(mode="serialization")
    properties = {**schema["properties"], "schema": {"const": SCHEMA, "type": "string"}}
    document = {"$schema": DIALECT, **schema, "title": "rollout report", "properties": properties}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
