"""Pages of stored reports, made of their values alone."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from rollout.features.reports.archive import UnreadableReportError
from rollout.features.reports.figures.facts import ReportFacts
from rollout.features.reports.figures.report_version import (
    UnknownReportFormError,
    check_report_form,
)
from rollout.features.reports.pages.html_report import render_html_report
from rollout.features.reports.pages.json_report import FACTS_ADAPTER
from rollout.features.reports.pages.text_report import render_message_summary


def format_page(body: Mapping[str, Any], report_format: str, view: str | None) -> str:
    """Return the values of a report as `html` or `summary`.

    Raises:
        UnreadableReportError: the report can't be shown so.
    """
    facts = parse_report_facts(body)
    if report_format == "summary":
        return render_message_summary(facts, view)
    return render_html_report(facts, view)


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
