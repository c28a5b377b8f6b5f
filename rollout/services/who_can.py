"""Who could still say yes to a proposal: a page that refuses one person names the others."""

from rollout.core.rights import Act, Caller, require
from rollout.services.house import caller_of
from rollout.services.proposal_views import Shown, sites_of
from rollout.services.service import Service
from rollout.store.people import People


def who_can(service: Service, caller: Caller, name: str, shown: Shown) -> tuple[str, ...]:
    """Return by name the people whose yes would still count, () for a proposal that is closed.

    Whoever raised it is not among them, nor who has said yes, nor who may not sign in.

    Raises:
        NotAllowed: the caller may not read the rollout.
    """
    require(caller, Act.READ, name)
    stood = service.watch.confirmed(name).standing
    if shown.id not in stood.scope.proposals:
        return ()
    sites = sites_of(stood, shown.id)
    said = {shown.raised_by, *(yes.by for yes in shown.approvals)}
    with service.database.reading() as transaction:
        people = People(transaction)
        everybody, rights = people.all(), people.all_rights()
    able = []
    for person in everybody:
        if person.machine or person.disabled_at is not None or person.name in said:
            continue
        other = caller_of(person, tuple(rights.get(person.number, ())), None)
        groups = other.person(name, sites).groups
        if set(groups) & set(shown.still_asks):
            able.append(person.name)
    return tuple(sorted(able))
