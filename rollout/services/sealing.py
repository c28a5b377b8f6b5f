"""Whether kept reports are what was sealed: each text against the hash that the ledger cites."""

import json
from collections.abc import Iterator
from hashlib import sha256

from rollout.core.events import ReportSealed
from rollout.store.ledger import Ledger
from rollout.store.reports import Report, Reports
from rollout.store.rollouts import Rollout
from rollout.store.session import Transaction


def faults_of_seals(transaction: Transaction, rollout: Rollout) -> Iterator[str]:
    """Yield what is wrong with each report that is not what was sealed, or that is gone."""
    store = Reports(transaction, rollout)
    kept = store.sealed_in()
    rows = Ledger(transaction, rollout).rows(kinds={ReportSealed.__name__})
    sealed = {row.revision: str(row.fields["sha256"]) for row in rows}
    for revision in sorted(sealed.keys() - kept.keys()):
        yield f"the report that revision {revision} sealed is not there"
    for revision, (number, named) in sorted(kept.items()):
        report = store.get(number)
        if report is None or (report.hash, named) != (sealed.get(revision),) * 2:
            yield f"report {number} is not what revision {revision} sealed"
        elif _table_named(report) != sha256(report.divergences.encode()).hexdigest():
            yield f"the divergences of report {number} are not those that it names"


def _table_named(report: Report) -> str:
    return str(json.loads(report.body)["edition"]["divergences_sha256"])
