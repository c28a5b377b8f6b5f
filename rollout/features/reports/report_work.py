"""Reports and their pages, computed in processes of low priority: the replica's side and theirs.

What they need stays with a process that once needed it: over 100 MiB, mostly what draws charts. So
a process ends with its work.

A process writes nothing but its answer, so its end at any time leaves nothing half done.
"""

import json
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from hashlib import sha256
from threading import Lock
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from rollout.data.database.session import Database
from rollout.features.reports.builder import ReportDraft, ReportOptions
from rollout.live.work.user_runs import (
    ProcessWork,
    StepCallback,
    answer_parent,
    build_answer,
    report_step,
)

COMMAND: Final = (sys.executable, "-P", "-m", "rollout.features.reports.report_work")
"""`-P` keeps modules of the working directory out."""
LONGEST_DRAWING: Final = 300.0  # seconds; a reader waits for it
MAX_KEPT: Final = 2**22
"""Letters of pages that are kept: a report goes to several channels, and readers come back."""


class ReportWork:
    """The processes of one replica; pages never wait for figures."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._drafts, self._drawing = ProcessWork(command), ProcessWork(command, LONGEST_DRAWING)
        self._pages: OrderedDict[str, str] = OrderedDict()
        self._lock = Lock()

    def draft_report(
        self,
        database: Database,
        rollout_name: str,
        report_name: str,
        options: ReportOptions,
        at: datetime,
        on_step: StepCallback,
    ) -> ReportDraft:
        """Return the next version of a report, or the last one if nothing changed.

        Raises:
            RefusalError: as in this process.
            StoreError: as in this process.
            WorkBusyError: too many callers wait already.
            ProcessFailedError: it failed for another reason.
        """
        values = {
            "database": database.engine.url.render_as_string(hide_password=False),
            "rollout": rollout_name,
            "report": report_name,
            "options": to_jsonable_python(options),
            "at": at.isoformat(),
        }
        return TypeAdapter(ReportDraft).validate_python(self._drafts.run(values, on_step))

    def format_page(self, body: Mapping[str, Any], report_format: str, view: str | None) -> str:
        """Return the values of a report as `html` or `summary`.

        Raises:
            UnreadableReportError: the report can't be shown so.
            WorkBusyError: too many readers wait already.
            ProcessFailedError: it failed for another reason.
        """
        values = {"body": body, "format": report_format, "view": view}
        key = sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        page = self._find_page(key)
        if page is not None:
            return page
        with self._drawing.take_place():
            page = self._find_page(key)  # another reader may have had it drawn meanwhile
            if page is None:
                page = str(self._drawing.run_in_place(values))
                self._keep_page(key, page)
        return page

    def _find_page(self, key: str) -> str | None:
        """Return a page that is kept, and keep it longest; None if it isn't kept."""
        with self._lock:
            if key in self._pages:
                self._pages.move_to_end(key)
            return self._pages.get(key)

    def _keep_page(self, key: str, page: str) -> None:
        """Keep a page as the newest, and the newest of the others that fit beside it."""
        if len(page) > MAX_KEPT:
            return
        with self._lock:
            self._pages[key] = page
            while sum(map(len, self._pages.values())) > MAX_KEPT:
                self._pages.popitem(last=False)


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
    from rollout.features.reports.pages.html_report import format_page

    return format_page(values["body"], values["format"], values["view"])


if __name__ == "__main__":
    os.nice(NICENESS)
    answer_parent(answer_report_request)
