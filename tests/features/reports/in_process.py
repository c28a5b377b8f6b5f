"""Reports computed and drawn in this process, for tests that are not about processes."""

import pytest

from rollout.features.reports.archive import format_here
from rollout.features.reports.builder import draft_here
from rollout.features.reports.report_work import ReportWork


@pytest.fixture(autouse=True)
def _reports_in_this_process(monkeypatch):
    """Save the start of a process for each report and page."""
    monkeypatch.setattr(ReportWork, "draft_report", staticmethod(draft_here))
    monkeypatch.setattr(ReportWork, "format_page", staticmethod(format_here))
