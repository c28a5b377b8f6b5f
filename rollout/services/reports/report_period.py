"""The period of a report, and the command that makes the report again."""

import shlex
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rollout.services.engine.rollout_state import RolloutState
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.tally.slots import find_slot_before, to_instant

ON_DEMAND: Final = "on-demand"  # the name of a report without one


@dataclass(frozen=True, slots=True)
class ReportPeriod:
    """The cases from `since` to `until` (exclusive), as known at `at`."""

    since: datetime
    until: datetime
    at: datetime


def load_whole_period(transaction: Transaction, state: RolloutState, at: datetime) -> ReportPeriod:
    """Return the period from the rollout's start to its last slot."""
    started_at = next(Ledger(transaction, state.rollout).list_events(until=1)).at
    return ReportPeriod(
        started_at, to_instant(find_slot_before(at, state.policy.tick), state.policy.tick), at
    )


def build_report_command(rollout_name: str, period: ReportPeriod, name: str = ON_DEMAND) -> str:
    """Return the command line that makes the same report."""
    options = [] if name == ON_DEMAND else ["--name", name]
    options += ["--since", period.since.isoformat(), "--until", period.until.isoformat()]
    return shlex.join(["rollout", "report", rollout_name, *options])
