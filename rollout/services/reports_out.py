"""Reports as they leave the service: made for a schedule, and written out for a channel.

Who reads a channel may be anybody who still judges a case. So what leaves is what a reviewer of
every site would be shown: in no row a case that somebody may yet judge unseen.

What makes reports is imported when the first one is made: at rest a service does without.
"""

from datetime import datetime

from rollout.core.rights import REVIEWER, VIEWER, Caller, Right
from rollout.services.delivering import Written
from rollout.services.report_rounds import Beside, Wanted
from rollout.services.service import Service

READERS = Caller(
    "whoever reads a channel",
    machine=True,  # nothing is noted for it
    rights=(Right(VIEWER), Right(REVIEWER)),
)


class ReportsOut:
    """The stored reports of one replica's database."""

    def __init__(self, service: Service) -> None:
        """Make nothing yet."""
        self._service = service

    def make(self, name: str, wanted: Wanted, at: datetime, beside: Beside) -> None:
        """Make and seal a report; where nothing has changed since its last version, that one.

        Raises:
            Refusal: the span is none that a report could be of.
        """
        from rollout.services.made_reports import Asked, make_report  # noqa: PLC0415 - see above

        database = self._service.database
        made = make_report(
            database,
            name,
            wanted.name,
            Asked(wanted.since, wanted.until, wanted.view),
            at,
            beside=lambda transaction, made: beside(transaction, made.number),
        )
        if not made.new:
            with database.writing() as transaction:
                beside(transaction, made.number)

    def write(self, name: str, report: int) -> Written:
        """Return a report as it is sent.

        Raises:
            Refusal: there is none of that number, or an earlier program made it.
        """
        from rollout.services.kept_reports import report_of, written  # noqa: PLC0415 - see above

        at = self._service.clock.now()
        shown = report_of(self._service.database, READERS, name, report, at)
        return Written(
            hash=shown.report.hash,
            summary=written(shown, "markdown").decode(),
            page=written(shown, "html", shown.report.view).decode(),
            left_out=shown.kept_back,
            until=shown.report.until,
        )
