"""The check of evidence on a few ticks, by each replica once an hour."""

from datetime import datetime
from random import SystemRandom
from typing import Final

from rollout.core.scope.commands import OpenIncident
from rollout.core.scope.events import EVIDENCE_CHANGED
from rollout.services.engine.command_handler import execute_command
from rollout.services.engine.evidence_check import EvidenceCheck
from rollout.services.engine.evidence_report import EvidenceReport
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database

TICKS_PER_SAMPLE: Final = 20


def sample_evidence(database: Database, at: datetime) -> dict[str, EvidenceReport]:
    """Check some ticks of each rollout; return the results with differences, by rollout.

    A difference opens an incident, unless one is open. The ticks differ each time, and nobody can
    tell which come next.
    """
    with database.begin_read() as transaction:
        rollout_names = [rollout.name for rollout in Rollouts(transaction).list_all()]
    reports: dict[str, EvidenceReport] = {}
    for rollout_name in rollout_names:
        report = EvidenceCheck(database, rollout_name).check_sample(
            TICKS_PER_SAMPLE, SystemRandom()
        )
        if report.faults:
            reports[rollout_name] = report
            _open_incident(database, rollout_name, report.faults[0], at)
    return reports


def _open_incident(database: Database, rollout_name: str, reason: str, at: datetime) -> None:
    command = OpenIncident(at=at, kind=EVIDENCE_CHANGED, reason=reason)
    execute_command(database, rollout_name, lambda _: command)
