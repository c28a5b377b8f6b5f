"""Proposals that operators make by hand: renewal and takeover."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import unquote

from api.console.page.stop_target import TargetChoice
from api.console.page.text import encode_segment
from rollout.core.calendar.sites import Cell
from rollout.core.errors import RefusalError
from rollout.core.scope.proposals import compute_renewal_start, list_takeover_levels
from rollout.core.scope.scope import compute_held_level
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.proposals.proposals import RENEWAL, TAKEOVER

MAX_OPTIONS: Final = 200  # maximum number of options on a page
VALUE_PARTS: Final = 5


@dataclass(frozen=True, slots=True)
class ManualProposal:
    """A manual proposal."""

    kind: str
    cell: Cell
    version: str
    to: str

    @property
    def value(self) -> str:
        """Return its form value; names are percent-encoded."""
        parts = (self.kind, self.cell.site, self.cell.window, self.version, self.to)
        return "/".join(map(encode_segment, parts))


def parse_manual_proposal(value: str) -> ManualProposal:
    """Parse the form value of a manual proposal.

    Raises:
        RefusalError: unknown option.

    >>> parse_manual_proposal("renewal/north%2Fgate/day/v1/supervised").cell
    Cell(site='north/gate', window='day')
    """
    parts = [unquote(part) for part in value.split("/")]
    if len(parts) != VALUE_PARTS or parts[0] not in {RENEWAL, TAKEOVER}:
        raise RefusalError("Choose what to propose")
    kind, site, window, version, to = parts
    return ManualProposal(kind, Cell(site, window), version, to)


def list_options(
    state: RolloutState, sites: frozenset[str], at: datetime
) -> tuple[TargetChoice, ...]:
    """Return the possible proposals at some sites; evidence is judged on submission."""
    options: list[TargetChoice] = []
    for cell in state.policy.cells:
        if cell.site in sites:
            options += (
                TargetChoice(manual_proposal.value, text)
                for manual_proposal, text in _list_cell_options(state, cell, at)
            )
        if len(options) >= MAX_OPTIONS:
            break
    return tuple(options[:MAX_OPTIONS])


def _list_cell_options(
    state: RolloutState, cell: Cell, at: datetime
) -> Iterator[tuple[ManualProposal, str]]:
    scope, policy, acting_version = state.scope, state.policy, state.scope.get_holder(cell)
    if acting_version is None or scope.is_stopped(cell):
        return
    at = at if scope.at is None else max(at, scope.at)
    cell_state = scope.get_cell_state(cell, acting_version)
    for stage_level in range(1, compute_held_level(policy, cell_state, at) + 1):
        stage = policy.stage_ids[stage_level]
        if cell_state.proposal is None and at >= compute_renewal_start(
            policy, cell_state, stage_level
        ):
            yield (
                ManualProposal(RENEWAL, cell, acting_version, stage),
                f"{cell}: renew {stage} of {acting_version}",
            )
    for version, version_state in scope.versions.items():
        if (
            version == acting_version
            or version_state.retired
            or scope.get_cell_state(cell, version).proposal is not None
        ):
            continue
        for stage_level in list_takeover_levels(policy, cell_state, at):
            stage = policy.stage_ids[stage_level]
            text = f"{cell}: {version} takes the place of {acting_version} at {stage}"
            yield ManualProposal(TAKEOVER, cell, version, stage), text
