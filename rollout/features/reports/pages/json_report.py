"""`report.json`: the unrounded facts in a versioned format."""

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from rollout.features.reports.figures.facts import ReportFacts
from rollout.features.reports.figures.report_version import (
    SCHEMA,
    UnknownReportFormError,
    UnreadableReportError,
    check_report_form,
)

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
    return dict(FACTS_ADAPTER.dump_python(facts, mode="json"))


def parse_report_facts(body: Mapping[str, Any]) -> ReportFacts:
    """Return the facts in a stored body.

    Raises:
        UnreadableReportError: another version of the program made it in another form.
    """
    try:
        check_report_form(body)
        return FACTS_ADAPTER.validate_python(body)
    except (ValidationError, UnknownReportFormError) as error:
        made_by = body.get("identity", {}).get("product", "another program")
        raise UnreadableReportError(
            f"{made_by} made it in another form; read it as JSON or CSV, or have it made again"
        ) from error


def build_report_schema() -> str:
    """Return the JSON Schema of the report, as in `config/report.schema.json`."""
    schema = FACTS_ADAPTER.json_schema(mode="serialization")
    properties = {**schema["properties"], "schema": {"const": SCHEMA, "type": "string"}}
    document = {"$schema": DIALECT, **schema, "title": "rollout report", "properties": properties}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
