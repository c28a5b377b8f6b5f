"""One cell as pages describe it: its context, sentences and address."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from fastapi import Request
from markupsafe import Markup

from rollout.core.calendar.sites import Cell
from rollout.core.errors import UnknownCellError
from rollout.core.policy.policy import Policy
from rollout.core.scope.scope import (
    CellState,
    ProposalState,
    Scope,
    compute_held_level,
    count_filled_needs,
)
from rollout.reports.figures.evidence_facts import EvidenceFacts
from rollout.reports.text.formatting import format_quantity
from rollout.reports.text.state_text import CELL_STATES, StateText
from rollout.services.cells.cell_table import CellSummary, RecentChanges

TimeFormatter = Callable[[datetime], Markup]
"""Formats an instant by the site's clock, with the visitor's in brackets."""

UNTAGGED: Final = StateText("", "", "")
STATE_ORDER: Final = (*CELL_STATES, "")


@dataclass(frozen=True, slots=True)
class CellSentence:
    """One sentence that applies to a cell.

    Attributes:
        state: one of `STATE_ORDER`; "" without a tag.
        text: the sentence.
        tag: the tag's text, if it isn't the state's.
    """

    state: str
    text: Markup
    tag: str = ""

    @property
    def tag_text(self) -> str:
        """Return the tag's text; "" without a tag."""
        return self.tag or CELL_STATES.get(self.state, UNTAGGED).tag

    @property
    def tag_kind(self) -> str:
        """Return shape and colour of the tag."""
        return CELL_STATES.get(self.state, UNTAGGED).kind


@dataclass(frozen=True, slots=True)
class CellDescription:
    """A cell in words: its first tag, and all sentences in state order."""

    kind: str
    tag: str
    sentences: tuple[CellSentence, ...]


@dataclass(frozen=True, slots=True)
class CellContext:
    """Everything that the sentences about a cell are computed from."""

    policy: Policy
    scope: Scope
    summary: CellSummary
    recent_changes: RecentChanges
    at: datetime
    format_time: TimeFormatter

    @property
    def cell(self) -> Cell:
        """The described cell."""
        return self.summary.cell

    @property
    def cell_state(self) -> CellState | None:
        """State of the acting version, or None in shadow."""
        acting_version = self.scope.get_holder(self.cell)
        return (
            None if acting_version is None else self.scope.get_cell_state(self.cell, acting_version)
        )

    @property
    def held_level(self) -> int:
        """Stage level of the valid grants, even if they are withheld."""
        return (
            0
            if self.cell_state is None
            else compute_held_level(self.policy, self.cell_state, self.at)
        )

    @property
    def main_facts(self) -> EvidenceFacts | None:
        """Evidence that the page shows first."""
        return find_main_evidence(self.summary, self.scope)

    @property
    def timezone(self) -> ZoneInfo:
        """Timezone of the site."""
        return ZoneInfo(self.policy.sites_by_id[self.cell.site].timezone)


def find_main_evidence(summary: CellSummary, scope: Scope) -> EvidenceFacts | None:
    """Return evidence of the acting version, or in shadow of the latest version."""
    acting_version = scope.get_holder(summary.cell)
    candidates = [
        facts for facts in summary.evidence if facts.version == acting_version
    ] or summary.evidence[-1:]
    return candidates[0] if candidates else None


def list_open_proposals(context: CellContext) -> list[ProposalState]:
    """Return the open proposals for the cell."""
    return [
        proposal for proposal in context.scope.proposals.values() if proposal.cell == context.cell
    ]


def format_sentence(text: str, *values: object) -> Markup:
    """Return one of our sentences with escaped values."""
    return Markup(text).format(*values)  # noqa: S704 - the sentences are all ours


def describe_missing_approvals(proposal: ProposalState) -> str:
    """Format the number of missing approvals: `1 more approval`."""
    missing_count = len(proposal.needs) - count_filled_needs(proposal.needs, proposal.approvals)
    return format_quantity(missing_count, "more approval")


def parse_cell_address(request: Request, decoded: str) -> Cell:
    """Parse the site and window at the end of a URL path.

    Args:
        request: has the path with its percent escapes.
        decoded: the decoded path, used if a proxy has already decoded the path.

    Raises:
        UnknownCellError: the path doesn't end with two names.
    """
    raw_path = (
        bytes(request.scope.get("raw_path") or b"").decode("ascii", "replace").partition("?")[0]
    )
    parts = raw_path.rpartition("/cells/")[2].split("/")
    if len(parts) != 2:
        parts = decoded.split("/")
    if len(parts) != 2:
        raise UnknownCellError("the address of a cell ends with its site and its window")
    site, window = map(unquote, parts)
    return Cell(site, window)
