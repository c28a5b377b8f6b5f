"""A cell as it is told of: what is known of it, and the form of a sentence about it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from fastapi import Request
from markupsafe import Markup

from rollout.core.calendar.sites import Cell
from rollout.core.errors import UnknownCell
from rollout.core.policy.policy import Policy
from rollout.core.scope.scope import CellState, Proposal, Scope, filled, held_rung
from rollout.reports.figures.evidence_facts import EvidenceFacts
from rollout.reports.text.formatting import several
from rollout.services.cells.cell_table import CellRow, Lately

Clock = Callable[[datetime], Markup]
"""How an instant is shown: on the site's clock, and the reader's beside it."""

ORDER: Final = (
    "stopped", "suspended", "narrowed", "lapsing", "lapsed", "unaudited", "stale", "reported",
    "eligible", "approved", "too few", "below the line", "not on course", "missing verdicts",
    "wave", "rejected", "ceiling", "no data", "",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Saying:
    """One sentence that holds of a cell.

    Attributes:
        state: which of `ORDER` it is.
        kind: the shape and colour of its tag.
        tag: the tag's words; "" for a sentence that has none.
        says: the sentence.
    """

    state: str
    kind: str
    tag: str
    says: Markup


@dataclass(frozen=True, slots=True)
class CellWords:
    """A cell in words: the tag that comes first, and all sentences in the same order."""

    kind: str
    tag: str
    sayings: tuple[Saying, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """A cell as it is told of."""

    policy: Policy
    scope: Scope
    row: CellRow
    lately: Lately
    at: datetime
    clock: Clock

    @property
    def cell(self) -> Cell:
        """The cell."""
        return self.row.cell

    @property
    def state(self) -> CellState | None:
        """What whoever acts there holds, None in shadow."""
        acting_version = self.scope.holder(self.cell)
        return None if acting_version is None else self.scope.state(self.cell, acting_version)

    @property
    def held(self) -> int:
        """The rung whose grants are valid, whatever withholds them."""
        return 0 if self.state is None else held_rung(self.policy, self.state, self.at)

    @property
    def main(self) -> EvidenceFacts | None:
        """The evidence that is told first."""
        return main_evidence(self.row, self.scope)

    @property
    def zone(self) -> ZoneInfo:
        """The site's zone."""
        return ZoneInfo(self.policy.site[self.cell.site].timezone)


def main_evidence(row: CellRow, scope: Scope) -> EvidenceFacts | None:
    """Return the evidence of whoever holds the cell; in shadow of the version seen last."""
    acting_version = scope.holder(row.cell)
    candidates = [
        facts for facts in row.evidence if facts.version == acting_version
    ] or row.evidence[-1:]
    return candidates[0] if candidates else None


def open_here(seen: Seen) -> list[Proposal]:
    """Return the proposals that are open about the cell."""
    return [proposal for proposal in seen.scope.proposals.values() if proposal.cell == seen.cell]


def say(text: str, *values: object) -> Markup:
    """Return a sentence of our own with values in it, escaped."""
    return Markup(text).format(*values)  # noqa: S704 - the sentences are all ours


def missing(proposal: Proposal) -> str:
    """Say how many approvals are missing: `1 of 2 approvals`."""
    needed = len(proposal.needs)
    return f"{needed - filled(proposal.needs, proposal.approvals)} of {several(needed, 'approval')}"


def cell_named(request: Request, decoded: str) -> Cell:
    """Return the cell whose names end the address, as they were written there.

    Args:
        request: with the address before its escapes were taken away.
        decoded: the same part without them: what a proxy has undone can be split there alone.

    Raises:
        UnknownCell: there are no two names.
    """
    raw_path = (
        bytes(request.scope.get("raw_path") or b"").decode("ascii", "replace").partition("?")[0]
    )
    parts = raw_path.rpartition("/cells/")[2].split("/")
    if len(parts) != 2:
        parts = decoded.split("/")
    if len(parts) != 2:
        raise UnknownCell("an address of a cell ends with its site and its window")
    site, window = map(unquote, parts)
    return Cell(site, window)
