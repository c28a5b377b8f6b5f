"""Stages as pages mark them: a code of letters, a pattern that survives grey, who decides."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.proposals import renewal_starts
from rollout.services.cells.cell_table import Cells


@dataclass(frozen=True, slots=True)
class GrantRow:
    """One grant.

    Attributes:
        cell, stage, version: what it is of.
        since, until: its span.
        by: who approved it.
        zone: of the site.
        tag: the kind and word of what is said beside its end, none where all is well.
        proposal: the proposal that it stands on.
        renewal: the id of an open renewal of it, "" without one.
    """

    cell: Cell
    stage: str
    version: str
    since: datetime
    until: datetime
    by: tuple[str, ...]
    zone: str
    tag: tuple[str, str] | None
    proposal: str
    renewal: str


def grants_of(found: Cells, cells: Iterable[Cell]) -> tuple[GrantRow, ...]:
    """Return the grants that cells hold, withheld ones too: they go on ageing."""
    return tuple(row for cell in cells for row in _of_cell(found, cell))


def _of_cell(found: Cells, cell: Cell) -> Iterator[GrantRow]:
    scope, policy = found.stood.scope, found.stood.policy
    acting_version = scope.holder(cell)
    if acting_version is None:
        return
    cell_state = scope.state(cell, acting_version)
    for grant in reversed(cell_state.grants):
        has_ended = found.at >= grant.until
        is_in_policy = grant.stage in policy.rungs
        is_lapsing = is_in_policy and found.at >= renewal_starts(
            policy, cell_state, policy.rungs.index(grant.stage)
        )
        tag = ("warn", "Lapsed") if has_ended else ("warn", "Lapsing") if is_lapsing else None
        renewals = (
            proposal.id
            for proposal in scope.proposals.values()
            if (proposal.kind, proposal.cell, proposal.to) == ("renewal", cell, grant.stage)
        )
        yield GrantRow(
            cell=cell,
            stage=grant.stage,
            version=acting_version,
            since=grant.since,
            until=grant.until,
            by=found.lately.approvers.get(grant.proposal, ()),
            zone=policy.site[cell.site].timezone,
            tag=tag,
            proposal=grant.proposal,
            renewal=next(renewals, ""),
        )


EMPTY, HATCHED, SOLID, HELD = "0", "1", "2", "held"
PEOPLE_DECIDE: Final = "people decide"


@dataclass(frozen=True, slots=True)
class Mark:
    """How a stage is drawn and said.

    Attributes:
        name: of the stage, as the policy calls it.
        code: its first two letters, or three where two stages begin alike.
        look: `0` empty, `1` hatched, `2` solid, `held` bars: the classes and patterns of the maps.
        says: who decides there.
    """

    name: str
    code: str
    look: str
    says: str


def marks_of(policy: Policy) -> Mapping[str, Mark]:
    """Return the mark of each stage of a policy by its name, shadow first."""
    codes = _codes(policy.rungs)
    markers = {SHADOW: Mark(SHADOW, codes[SHADOW], EMPTY, PEOPLE_DECIDE)}
    for stage in policy.stages:
        pattern, text = (
            (SOLID, "model decides") if stage.model_decides else (HATCHED, "people confirm")
        )
        markers[stage.id] = Mark(stage.id, codes[stage.id], pattern, text)
    return markers


def withheld(marks: Mapping[str, Mark]) -> Mark:
    """Return the mark of a cell whose grants are withheld: people decide, as in shadow."""
    return Mark("suspended or stopped", marks[SHADOW].code, HELD, PEOPLE_DECIDE)


def withheld_as(marks: Mapping[str, Mark], word: str) -> Mark:
    """Return the same mark under one word alone: `stopped` or `suspended`."""
    return Mark(word, marks[SHADOW].code, HELD, PEOPLE_DECIDE)


def _codes(names: Sequence[str]) -> dict[str, str]:
    for letter_count in range(2, max(map(len, names)) + 1):
        codes = {name: name[:letter_count].capitalize() for name in names}
        if len(set(codes.values())) == len(names):
            return codes
    return {name: name for name in names}


SHOWN_STAGES: Final = (
    Mark("shadow", "Sh", EMPTY, "people decide"),
    Mark("supervised", "Su", HATCHED, "people confirm"),
    Mark("autonomous", "Au", SOLID, "model decides"),
    Mark("suspended or stopped", "Sh", HELD, "people decide"),
)
"""The legend where rollouts with stages of their own stand side by side."""
