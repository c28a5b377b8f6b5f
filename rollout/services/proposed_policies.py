"""The text of a policy that waits for people, beside the one that is in force."""

from dataclasses import dataclass

from rollout.core.errors import UnknownProposal
from rollout.core.rights import Act, Caller, require
from rollout.services.service import Service
from rollout.store.ledger import Ledger
from rollout.store.policies import Policies
from rollout.store.proposals import Proposals

POLICY = "policy"


@dataclass(frozen=True, slots=True)
class ProposedPolicy:
    """What a proposal would put in force, and what is in force now, as they were given."""

    proposal: str
    hash: str
    text: str
    in_force: str
    number: int


def proposed_policy(service: Service, caller: Caller, name: str, proposal: str) -> ProposedPolicy:
    """Return the texts that a policy proposal is about.

    Raises:
        NotAllowed: the caller may not read the rollout.
        UnknownProposal: none of that id is about a policy.
    """
    require(caller, Act.READ, name)
    stood = service.watch.confirmed(name).standing
    with service.database.reading() as transaction:
        row = Proposals(transaction, stood.rollout).find(proposal)
        if row is None or row.kind != POLICY:
            raise UnknownProposal(f"no proposal {proposal} is about a policy")
        ledger = Ledger(transaction, stood.rollout)
        (raised,) = ledger.rows(after=row.raised_in - 1, until=row.raised_in)
        said = str(raised.fields["about"])
        texts = Policies(transaction, stood.rollout).texts({said, stood.scope.policy_hash})
    return ProposedPolicy(
        proposal, said, texts[said], texts[stood.scope.policy_hash], stood.scope.policy_number
    )
