"""Every policy that a rollout ever had, with when it held and what it loosened."""

from dataclasses import dataclass
from datetime import datetime

from rollout.core.errors import Refusal
from rollout.core.events import PolicyApplied
from rollout.core.ledger import event_of
from rollout.core.rights import Act, Caller, require
from rollout.services.service import Service
from rollout.services.standing import Standing
from rollout.store.ledger import Ledger
from rollout.store.policies import Policies


@dataclass(frozen=True, slots=True)
class Held:
    """One policy: its number and hash, since when it held, and who applied it.

    `loosens` says what people approved by `proposal`; both are empty where it held at once.
    """

    number: int
    hash: str
    since: datetime
    by: str
    loosens: tuple[str, ...]
    proposal: str


def policies_of(service: Service, caller: Caller, name: str) -> tuple[Held, ...]:
    """Return the policies of a rollout, the newest first: the first of them is in force.

    Raises:
        UnknownRollout: there is none that the caller may see.
        NotAllowed: the caller may not read it.
    """
    require(caller, Act.READ, name)
    return _held(service, service.watch.confirmed(name).standing)


def policy_numbered(service: Service, caller: Caller, name: str, number: int) -> tuple[Held, str]:
    """Return a policy with its text as it was given.

    Raises:
        Refusal: there never was one of that number.
        NotAllowed: the caller may not read the rollout.
    """
    require(caller, Act.READ, name)
    stood = service.watch.confirmed(name).standing
    found = [held for held in _held(service, stood) if held.number == number]
    if not found:
        raise Refusal(f"{name} has no policy {number}; they are 1 to {stood.scope.policy_number}")
    with service.database.reading() as transaction:
        texts = Policies(transaction, stood.rollout).texts({found[0].hash})
    return found[0], texts[found[0].hash]


def _held(service: Service, stood: Standing) -> tuple[Held, ...]:
    kind = (PolicyApplied.__name__,)
    with service.database.reading() as transaction:
        ledger = Ledger(transaction, stood.rollout)
        events = [event_of(r) for r in ledger.rows(until=stood.scope.revision, kinds=kind)]
    return tuple(
        Held(e.number, e.policy_hash, e.at, e.by, e.loosens, e.proposal)
        for e in reversed(events)
        if isinstance(e, PolicyApplied)
    )
