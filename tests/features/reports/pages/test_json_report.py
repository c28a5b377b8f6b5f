import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from rollout.features.reports.pages.json_report import (
    build_report_schema,
    render_json_report,
    to_plain_values,
)

SCHEMA = Path(__file__).parents[4] / "config/report.schema.json"


def test_the_report_fits_its_schema(facts):
    report = json.loads(render_json_report(facts))
    jsonschema.Draft202012Validator(json.loads(build_report_schema())).validate(report)
    assert report["schema"] == "rollout-report/1"


def test_the_written_schema_is_current():
    assert SCHEMA.read_text(encoding="utf-8") == build_report_schema(), (
        "write it anew: python -c 'from rollout.features.reports.pages.json_report import "
        'build_report_schema; print(build_report_schema(), end="")\' > config/report.schema.json'
    )


@pytest.mark.slow
def test_a_report_of_another_form_is_told_apart(facts):
    report = {**json.loads(render_json_report(facts)), "schema": "rollout-report/2"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report, json.loads(build_report_schema()))


def test_numbers_are_not_rounded(facts):
    report = json.loads(render_json_report(facts))
    agreement = facts.agreements[0].agreement
    assert report["agreements"][0]["agreement"]["rate"] == agreement.count / agreement.n


def test_what_is_no_number_is_refused(facts):
    broken = replace(facts, model_cost=replace(facts.model_cost, cost=float("nan")))
    with pytest.raises(ValueError, match="nan"):
        render_json_report(broken)


def test_the_report_of_the_story_stays_the_same(facts, snapshot):
    assert rounded(to_plain_values(facts)) == snapshot


def rounded(value):
    """Return the report with nine digits, which special functions agree on everywhere."""
    match value:
        case dict():
            return {key: rounded(item) for key, item in value.items()}
        case list():
            return [rounded(item) for item in value[:12]]
        case float():
            return float(f"{value:.9g}")
        case _:
            return value
