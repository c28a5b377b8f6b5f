"""Options of a replay.

They stand apart from the engine: a command that only reads recorded files imports no engine.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rollout.kernel.policy.gates import UnplacedDecisions


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Options of a replay.

    Attributes:
        salt: of sampling values; the same salt gives the same replay.
        audit_salt: of the draws of audits, as a service has its own; empty: the same salt.
        approval_delay: delay of simulated approvals; None: none are given.
        skip_idle_slots: skip slots in which nothing can happen; the ledger is the same either way.
        pass_times: when a service ticked, by slot; None: at the start of each slot.
        count_unplaced: returns the decisions that belong to no cell, as a service counted them at
            an instant; None: those of the files.
    """

    salt: bytes = bytes(32)
    audit_salt: bytes = b""
    approval_delay: timedelta | None = timedelta(hours=4)
    skip_idle_slots: bool = True
    pass_times: Mapping[int, datetime] | None = None
    count_unplaced: "Callable[[datetime], UnplacedDecisions] | None" = None
