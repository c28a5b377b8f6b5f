"""Whether stored reports are those that the ledger sealed.

A database without reports is checked without what builds them.
"""

import json
from collections.abc import Iterator

from rollout.core.scope.events import ReportSealed
from rollout.reports.figures.report_seal import compute_seal, compute_table_seal
from rollout.reports.figures.report_version import (
    VERSION_SECTION,
    UnknownReportFormError,
    check_report_form,
)
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.reports.reports import ReportStore, StoredReport


def find_seal_faults(transaction: Transaction, rollout: Rollout) -> Iterator[str]:
    """Yield a fault for each report that is missing or differs from its seal."""
    reports = ReportStore(transaction, rollout)
    stored_seals = reports.list_sealed()
    rows = Ledger(transaction, rollout).list_rows(kinds={ReportSealed.__name__})
    sealed_hashes = {row.revision: str(row.fields["sha256"]) for row in rows}
    for revision in sorted(sealed_hashes.keys() - stored_seals.keys()):
        yield f"the report that revision {revision} sealed is not there"
    for revision, (report_number, stored_hash) in sorted(stored_seals.items()):
        report = reports.get(report_number)
        sealed_hash = sealed_hashes.get(revision)
        if report is None or (compute_seal(report.body), stored_hash) != (sealed_hash,) * 2:
            yield f"report {report_number} is not what revision {revision} sealed"
        else:
            yield from _find_table_faults(report_number, report)


def _find_table_faults(report_number: int, report: StoredReport) -> Iterator[str]:
    values = json.loads(report.body)
    try:
        check_report_form(values)
    except UnknownReportFormError as error:
        yield f"the divergences of report {report_number} can't be checked: {error}"
    else:
        if values[VERSION_SECTION]["divergences_sha256"] != compute_table_seal(
            values, report.divergences
        ):
            yield f"the divergences of report {report_number} are not those that it names"
