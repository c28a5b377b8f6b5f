"""How many cases wait for a reviewer: in each rollout in which they review."""

from collections.abc import Mapping

from api.console.visitor import Visitor
from rollout.core.rights import Act
from rollout.services.reviewing import mine


def waiting_reviews(visitor: Visitor) -> Mapping[str, int]:
    """Return the cases that a reviewer holds or could be given, by rollout; none are left out."""
    if not visitor.may_somewhere(Act.REVIEW):
        return {}
    service, caller = visitor.service, visitor.caller
    found = {}
    for watched in service.watch.everything():
        stood = watched.standing
        if caller.may_somewhere(Act.REVIEW, stood.rollout.name):
            desk = mine(service.database, caller, stood, visitor.at)
            found[stood.rollout.name] = len(desk.tasks) + sum(desk.waiting.values())
    return {name: n for name, n in found.items() if n}
