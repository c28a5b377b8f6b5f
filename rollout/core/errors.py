"""Refusals: what was asked for, why it can't be, and what to do next.

    Refusal
    ├── UnknownProposal, UnknownCell, UnknownVersion, UnknownRollout,
    │   UnknownIncident                                  nothing of that name
    ├── OwnProposal, AlreadyApproved, NotEligible, MachineKey, NotAllowed   this person may not
    ├── Unauthenticated, CrossSite                       nobody knows who asks, or from where
    ├── UnknownPerson, UnknownKey, NameTaken, LastAdmin, HouseInhabited, PersonRefused
    │                                                    people and keys can't be changed so
    ├── TooManyTries                                     wait
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


class Unauthenticated(Refusal):
    """Nobody is known by that key, password or session; which of these is wrong is not said."""

    code = "unauthenticated"


class CrossSite(Refusal):
    """A page of another site asked in the name of somebody who is signed in here."""

    code = "cross-site"


class UnknownPerson(Refusal):
    """Nobody of that name was ever added."""

    code = "unknown-user"


class UnknownKey(Refusal):
    """No key of that prefix, or none that the caller may see."""

    code = "unknown-key"


class NameTaken(Refusal):
    """Somebody has that name, or one that reads like it, or that e-mail address."""

    code = "name-taken"


class LastAdmin(Refusal):
    """Nobody would be left who may change people."""

    code = "last-admin"


class HouseInhabited(Refusal):
    """The first admin comes in once; now those who are there give rights."""

    code = "first-admin-exists"


class PersonRefused(Refusal):
    """A name, role, password or key can't be as it was asked; the text says what would be right."""

    code = "user-refused"


class TooManyTries(Refusal):
    """Too many failed; it is tried again after a while."""

    code = "too-many-requests"


class UnknownIncident(Refusal):
    """No incident of that id was ever opened in this rollout."""

    code = "unknown-incident"


class NotAllowed(Refusal):
    """The caller has no right to it; the text says which role has."""

    code = "not-allowed"


class OwnProposal(Refusal):
    """Nobody approves what they raised or edited."""

    code = "own-proposal"


class AlreadyApproved(Refusal):
    """One person is one approval, whatever keys they hold and groups they have come into."""

    code = "already-approved"


class NotEligible(Refusal):
    """The person stands in no group that still has to approve."""

    code = "not-eligible"


class MachineKey(Refusal):
    """Only people approve."""

    code = "service-account-key"


class EvidenceMoved(Refusal):
    """The hash that was cited is not the proposal's."""

    code = "evidence-changed"


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
