"""Refusals: what was asked for, why it can't be, and what to do next.

    Refusal
    ├── UnknownProposal, UnknownCell, UnknownVersion, UnknownRollout     nothing of that name
    ├── OwnProposal, AlreadyApproved, NotEligible, MachineKey, NotAllowed   this person may not
    ├── EvidenceMoved, ProposalClosed, StaleRevision     it changed meanwhile
    ├── NotNarrower                                      would widen, and narrowing never does
    └── PolicyRefused                                    the policy's text or number is wrong

The core knows no status numbers; `code` names the refusal for machines.
"""


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not a fault of the program
    """Something asked for that is not done. `str()` says why and what to do next."""

    code = "refused"


class UnknownProposal(Refusal):
    """No proposal of that id is open in this rollout."""

    code = "unknown-proposal"


class UnknownCell(Refusal):
    """The policy has no such site or window."""

    code = "unknown-cell"


class UnknownVersion(Refusal):
    """No prediction of that version was ever seen."""

    code = "unknown-version"


class UnknownRollout(Refusal):
    """No rollout of that name, or none that the caller may see."""

    code = "unknown-rollout"


class NotAllowed(Refusal):
    """The caller has no right to it; the text says which role has."""

    code = "not-allowed"


class OwnProposal(Refusal):
    """Nobody approves what they raised or edited."""

    code = "own-proposal"


class AlreadyApproved(Refusal):
    """One person is one approval, whatever keys they hold."""

    code = "already-approved"


class NotEligible(Refusal):
    """The person stands in no group that still has to approve."""

    code = "not-eligible"


class MachineKey(Refusal):
    """Only people approve."""

    code = "machine-key"


class EvidenceMoved(Refusal):
    """The hash that was cited is not the proposal's."""

    code = "evidence-moved"


class ProposalClosed(Refusal):
    """The proposal was applied, rejected, voided or has expired."""

    code = "proposal-closed"


class StaleRevision(Refusal):
    """Somebody else changed the rollout first: read again and decide again."""

    code = "stale-revision"


class NotNarrower(Refusal):
    """Narrowing goes down; going up needs a proposal."""

    code = "not-narrower"


class PolicyRefused(Refusal):
    """The policy can't be applied as it stands."""

    code = "policy-refused"
