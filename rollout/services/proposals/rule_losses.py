"""Counted decisions that newer counting rules would not have counted, by cell and version.

They stay counted. Decisions like them, received after the rules are applied, are no evidence.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rollout.core.access.accounts import AccountNames
from rollout.core.calendar.sites import Cell
from rollout.core.policy.counting_rules import CURRENT_RULES
from rollout.core.policy.evidence_sources import (
    ACCOUNT,
    BEFORE_SOURCES,
    IMPORTS,
    NOT_NAMED,
    OWN_PREDICTION,
    REVIEWS,
    UNNAMED,
    name_sender,
)
from rollout.core.policy.policy import Policy
from rollout.reports.text.source_text import KINDS
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.database.session import Transaction
from rollout.store.ledger.accounts import Accounts

if TYPE_CHECKING:
    from rollout.store.counting.counted_decisions import CountedDecision


CellVersion = tuple[Cell, str]


@dataclass(frozen=True, slots=True)
class LostSource:
    """Counted units whose decisions are of a source that newer rules don't count.

    Attributes:
        source: `reviews`, `imports`, or the name of an account.
        account: its id; the source itself if it is no account.
        reason: why it doesn't count.
    """

    source: str
    account: str
    reason: str
    units: int

    @property
    def text(self) -> str:
        """Return the units and their source in words."""
        return f"{self.units:,} from {KINDS.get(self.source, self.source)}"


@dataclass(frozen=True, slots=True)
class RulesLoss:
    """What a version's running attempt in a cell counts, and what newer rules would not have.

    Attributes:
        counted_units: units with a decision.
        unknown_units: of these, the ones whose sender is not known; newer rules leave them alone.
        units: the keys of the lost units.
    """

    cell: Cell
    version: str
    counted_units: int
    unknown_units: int
    sources: tuple[LostSource, ...]
    units: frozenset[str]


def load_rules_losses(transaction: Transaction, state: RolloutState) -> tuple[RulesLoss, ...]:
    """Return the counts of the running attempts, in the order of the policy's cells."""
    from rollout.store.counting.counted_decisions import (
        list_counted_decisions,
        list_decision_senders,
    )

    names = Accounts(transaction).find_names(list_decision_senders(transaction, state.rollout))
    counts: dict[CellVersion, _LossCount] = defaultdict(_LossCount)
    for decision in list_counted_decisions(transaction, state.rollout):
        if _is_running(state, decision):
            counts[decision.cell, decision.version].add(state.policy, names, decision)
    return tuple(
        counts[cell, version].build(names, cell, version)
        for cell in state.policy.cells
        for version in state.scope.versions
        if (cell, version) in counts
    )


def _is_running(state: RolloutState, decision: "CountedDecision") -> bool:
    version = state.scope.versions.get(decision.version)
    if version is None or version.retired or decision.cell not in state.policy.cell_set:
        return False
    return state.scope.get_cell_state(decision.cell, decision.version).attempt == decision.attempt


@dataclass(slots=True)
class _LossCount:
    """The counts of one cell and version so far; only lost units are kept."""

    counted: int = 0
    unknown: int = 0
    lost: Counter[tuple[str, str]] = field(default_factory=Counter)
    units: set[str] = field(default_factory=set)

    def add(self, policy: Policy, names: AccountNames, decision: "CountedDecision") -> None:
        """Count one decision."""
        source = name_sender(decision.sender, is_review=decision.is_review)
        self.counted += 1
        self.unknown += source == BEFORE_SOURCES
        if reason := find_source_fault(policy, names.find_name(source), decision):
            self.lost[source, reason] += 1
            self.units.add(decision.unit)

    def build(self, names: AccountNames, cell: Cell, version: str) -> RulesLoss:
        """Return the counts, most lost units first."""
        ordered = sorted(self.lost.items(), key=lambda item: (-item[1], item[0]))
        sources = tuple(
            LostSource(names.find_name(source), source, reason, number)
            for (source, reason), number in ordered
        )
        return RulesLoss(cell, version, self.counted, self.unknown, sources, frozenset(self.units))


def find_source_fault(policy: Policy, source: str, decision: "CountedDecision") -> str:
    """Return why a decision received now, from a source, would be no evidence; or ""."""
    kind = policy.evidence.find_source_kind(source, decision.reviewer)
    if kind == UNNAMED:
        return NOT_NAMED
    return OWN_PREDICTION if kind == ACCOUNT and decision.has_own_prediction else ""


def list_unnamed_kinds(policy: Policy) -> tuple[str, ...]:
    """Return the kinds of sources that the policy turns off."""
    kinds = {
        REVIEWS: policy.evidence.sources.reviews,
        IMPORTS: policy.evidence.sources.imports,
    }
    return tuple(kind for kind, counts in kinds.items() if not counts)


def build_void_reasons(state: RolloutState, losses: Iterable[RulesLoss]) -> Mapping[str, str]:
    """Return the open proposals that rest on lost units, each with the reason to void it."""
    loss_by_key = {(loss.cell, loss.version): loss for loss in losses if loss.sources}
    return {
        proposal.id: _describe_void(loss_by_key[proposal.cell, proposal.version])
        for proposal in state.scope.proposals.values()
        if proposal.cell is not None and (proposal.cell, proposal.version) in loss_by_key
    }


def _describe_void(loss: RulesLoss) -> str:
    sources = ", ".join(source.text for source in loss.sources)
    return (
        f"counting rules {CURRENT_RULES} apply, and of {loss.counted_units:,} counted units"
        f" {sources} would be no evidence under them; a new proposal states its sources"
    )
