"""`report.json`: the unrounded facts in a versioned format."""

import json
from typing import Any, Final

from pydantic import TypeAdapter

from rollout.features.reports.figures.facts import ReportFacts
from rollout.features.reports.figures.report_version import SCHEMA

FACTS_ADAPTER: Final[TypeAdapter[ReportFacts]] = TypeAdapter(ReportFacts)
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def render_json_report(facts: ReportFacts) -> str:
    """Return the report as JSON: unrounded numbers, UTC instants, nulls for no data.

    Raises:
        ValueError: a figure is infinite or undefined.
    """
    return json.dumps(to_plain_values(facts), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_plain_values(facts: ReportFacts) -> dict[str, Any]:
    """Return the facts as JSON-compatible values."""
    values: dict[str, Any] = FACTS_ADAPTER.dump_python(facts, mode="json")
    return values


def build_report_schema() -> str:
    """Return the JSON Schema of the report, as in `config/report.schema.json`."""
    schema = FACTS_ADAPTER.json_schema(mode="serialization")
    properties = {**schema["properties"], "schema": {"const": SCHEMA, "type": "string"}}
    document = {"$schema": DIALECT, **schema, "title": "rollout report", "properties": properties}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
