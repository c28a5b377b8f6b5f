"""What a copy of the program with one more column shows, for test_divergence_columns.py."""

import csv
import io

from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.records import Prediction
from rollout.features.reports.archive import format_report, load_report
from rollout.features.reports.builder import ReportOptions, create_report
from rollout.features.reports.inputs.divergence_columns import COLUMNS
from tests.console.divergences.divergence_rows import HERE, count
from tests.console.told_cases import AT, CLOSED, case, tell, verdict
from tests.factories import HOUR, NOON

VIEWER = Caller("viewer", role_assignments=(AssignedRole("viewer"),))


def test_added_column_is_in_api_page_file_and_report(browser, service, clock):
    assert "latency_ms" in COLUMNS
    answer = Prediction(
        key="slow", version="v1", answers={"alarm": "bear"}, at=AT, latency_ms=1400.5
    )
    tell(service.database, case("slow"), answer, verdict("slow", "none"))
    clock.advance(CLOSED - NOON)
    count(service.database)
    page = browser.as_("vic").page(HERE)
    assert '<th role="columnheader" scope="col">Latency</th>' in page
    assert '<td role="cell" data-label="Latency">1,400.5</td>' in page
    (row,) = browser.get("/v1/rollouts/bears/divergences").json()["items"]
    assert row["latency_ms"] == 1400.5
    text = browser.get("/v1/rollouts/bears/divergences?format=csv").text
    assert [line["latency_ms"] for line in csv.DictReader(io.StringIO(text))] == ["1400.5"]
    schemas = browser.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["Divergence"]["properties"]["latency_ms"]["description"] == "of its answer"
    at = CLOSED + HOUR
    number = create_report(service.database, "bears", "week", ReportOptions(), at).number
    view = load_report(service.database, VIEWER, "bears", number, at)
    assert view.body["divergences"]["top"][0]["latency_ms"] == 1400.5
    html = format_report(view, "html", "operator").decode()
    assert '<th scope="col">Latency</th>' in html
    assert ">1,400.5</td>" in html
