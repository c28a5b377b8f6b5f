"""What an operator may propose by hand: renewals in time, takeovers, a correction of the clock."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import unquote

from api.console.page.stop_target import Choice
from api.console.page.text import segment
from rollout.core.calendar.sites import Cell
from rollout.core.errors import Refusal
from rollout.core.scope.clock_correction import CLOCK_TOLERANCE
from rollout.core.scope.proposals import renewal_starts, takeover_rungs
from rollout.core.scope.scope import held_rung
from rollout.services.engine.rollout_state import Standing
from rollout.services.proposals.proposals import CLOCK, RENEWAL, TAKEOVER

MOST: Final = 200  # that a page offers
PARTS: Final = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be proposed; of a clock's correction the kind alone."""

    kind: str
    cell: Cell
    version: str
    to: str

    @property
    def value(self) -> str:
        """Return it as a form sends it: names may hold anything."""
        parts = (self.kind, self.cell.site, self.cell.window, self.version, self.to)
        return "/".join(map(segment, parts))


def wanted_of(value: str) -> Wanted:
    """Read what a form has sent.

    Raises:
        Refusal: it is none of the choices.

    >>> wanted_of("renewal/north%2Fgate/day/v1/supervised").cell
    Cell(site='north/gate', window='day')
    """
    parts = [unquote(part) for part in value.split("/")]
    if len(parts) != PARTS or parts[0] not in {RENEWAL, TAKEOVER, CLOCK}:
        raise Refusal("Choose what is to be proposed")
    kind, site, window, version, to = parts
    return Wanted(kind, Cell(site, window), version, to)


def options_of(stood: Standing, sites: frozenset[str], at: datetime) -> tuple[Choice, ...]:
    """Return what may be proposed at some sites now; whether the evidence holds is judged then."""
    options: list[Choice] = []
    for cell in stood.policy.cells:
        if cell.site in sites:
            options += (
                Choice(manual_proposal.value, text)
                for manual_proposal, text in _of_cell(stood, cell, at)
            )
        if len(options) >= MOST:
            break
    return tuple(options[:MOST])


def clock_is_off(stood: Standing, at: datetime) -> bool:
    """Say whether the ledger's time is ahead of the clock."""
    return stood.scope.at is not None and stood.scope.at > at + CLOCK_TOLERANCE


def _of_cell(stood: Standing, cell: Cell, at: datetime) -> Iterator[tuple[Wanted, str]]:
    scope, policy, acting_version = stood.scope, stood.policy, stood.scope.holder(cell)
    if acting_version is None or scope.stopped(cell):
        return
    at = at if scope.at is None else max(at, scope.at)
    cell_state = scope.state(cell, acting_version)
    for stage_level in range(1, held_rung(policy, cell_state, at) + 1):
        stage = policy.rungs[stage_level]
        if cell_state.proposal is None and at >= renewal_starts(policy, cell_state, stage_level):
            yield (
                Wanted(RENEWAL, cell, acting_version, stage),
                f"{cell}: renew {stage} of {acting_version}",
            )
    for version, version_state in scope.versions.items():
        if (
            version == acting_version
            or version_state.retired
            or scope.state(cell, version).proposal is not None
        ):
            continue
        for stage_level in takeover_rungs(policy, cell_state, at):
            stage = policy.rungs[stage_level]
            text = f"{cell}: {version} takes the place of {acting_version} at {stage}"
            yield Wanted(TAKEOVER, cell, version, stage), text
