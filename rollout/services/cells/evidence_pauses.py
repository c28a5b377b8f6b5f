"""Pause and resume the evidence of a cell."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

from rollout.core.calendar.sites import Cell
from rollout.core.scope.commands import PauseEvidence, ResumeEvidence
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.services.engine.command_handler import CommandResult, run_command
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.versions import COUNT, WATCH
from rollout.store.database.session import Database

CellEvidenceMode = Literal["watch", "count"]
COMMANDS: Final[Mapping[str, type[PauseEvidence | ResumeEvidence]]] = {
    WATCH: PauseEvidence,
    COUNT: ResumeEvidence,
}


def set_cell_evidence(
    database: Database,
    caller: Caller,
    rollout_name: str,
    cell: Cell,
    evidence: CellEvidenceMode,
    *,
    at: datetime,
    reason: str = "",
) -> CommandResult:
    """Pause a cell's evidence, or resume it in new attempts; repeating it changes nothing.

    Raises:
        NotAllowedError: the caller does not operate the site, or a version has grants there.
        UnknownCellError: the policy has no such cell.
    """
    require_permission(caller, Permission.OPERATE, rollout_name, (cell.site,))

    def build_command(_state: RolloutState) -> PauseEvidence | ResumeEvidence:
        by = caller.as_actor(rollout_name, (cell.site,))
        return COMMANDS[evidence](at=at, by=by, cell=cell, reason=reason)

    return run_command(database, caller, rollout_name, build_command)
