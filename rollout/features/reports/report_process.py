"""A report's figures or one of its pages, in a process of low priority that ends.

It writes nothing but its answer, so its end at any time leaves nothing half done.
"""

import os
from contextlib import closing
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter

from rollout.data.database.session import Database
from rollout.features.reports.builder import ReportDraft, ReportOptions
from rollout.live.work.user_runs import answer_parent, build_answer, report_step

NICENESS: Final = 10
"""A tenth of the share of a process of usual priority; alone it runs at full speed."""
MEMORY_TEXT: Final = "it needs more memory than there is; report a shorter span"


def answer_report_request(values: dict[str, Any]) -> dict[str, Any]:
    """Return the message that answers a request: a draft, a page or an error."""
    work = _format_page if "body" in values else _draft_report
    return build_answer(lambda: work(values), MEMORY_TEXT)


def _draft_report(values: dict[str, Any]) -> ReportDraft:
    from rollout.features.reports.drafts import draft_report

    options = TypeAdapter(ReportOptions).validate_python(values["options"])
    with closing(Database(values["database"])) as database:
        at = datetime.fromisoformat(values["at"])
        return draft_report(database, values["rollout"], values["report"], options, at, report_step)


def _format_page(values: dict[str, Any]) -> str:
    from rollout.features.reports.report_pages import format_page

    return format_page(values["body"], values["format"], values["view"])


if __name__ == "__main__":
    os.nice(NICENESS)
    answer_parent(answer_report_request)
