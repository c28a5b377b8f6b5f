"""Kinds of proposals, by what the engine does with them; their words are in the reports."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalKind:
    """What decides on a kind of proposal, and what holds it.

    Attributes:
        reads_gate: whether the gate of a cell decides.
        extends_grant: whether evidence of a grant alone counts, and no wave or settling holds it.
        replaces_version: whether minimums count from the attempt, as the version never acted there.
        gives_more: whether the newest answers hold it, and rivals become void when it is applied.
        waits_for_wave: whether its cell's wave must be open.
        ends_stop: whether it ends the stop that it is about.
        changes_policy: whether it puts the policy in force that it is about.
    """

    name: str
    reads_gate: bool = True
    extends_grant: bool = False
    replaces_version: bool = False
    gives_more: bool = False
    waits_for_wave: bool = False
    ends_stop: bool = False
    changes_policy: bool = False


WIDENING: Final = ProposalKind(name="widening", gives_more=True, waits_for_wave=True)
RENEWAL: Final = ProposalKind(name="renewal", extends_grant=True)
TAKEOVER: Final = ProposalKind(name="takeover", gives_more=True, replaces_version=True)
RESUME: Final = ProposalKind(name="resume", reads_gate=False, ends_stop=True)
POLICY_CHANGE: Final = ProposalKind(name="policy", reads_gate=False, changes_policy=True)
PROPOSAL_KINDS: Final[Mapping[str, ProposalKind]] = MappingProxyType(
    {kind.name: kind for kind in (WIDENING, RENEWAL, TAKEOVER, RESUME, POLICY_CHANGE)}
)


class OfKind:
    """A form of a proposal, whose `kind` is the name of one."""

    __slots__ = ()
    kind: str

    @property
    def rules(self) -> ProposalKind:
        """Return what holds for its kind."""
        return PROPOSAL_KINDS[self.kind]
