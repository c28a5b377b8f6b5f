"""Cases that wait to be settled, for whoever operates their sites."""

from dataclasses import dataclass
from datetime import datetime

from rollout.core.records import Case
from rollout.core.rights import Act, Caller, require
from rollout.services.desk import sites_of
from rollout.services.showing import hidden_from
from rollout.services.standing import Standing
from rollout.store.newest import Newest
from rollout.store.seat_lists import SeatLists
from rollout.store.session import Database


@dataclass(frozen=True, slots=True)
class Conflict:
    """A case that somebody is asked to settle; `taken`: somebody is at it now."""

    case: Case
    since: datetime
    taken: bool


def conflicts(
    database: Database, caller: Caller, stood: Standing, at: datetime, *, limit: int = 100
) -> tuple[Conflict, ...]:
    """Return the cases that wait to be settled at the caller's sites, the oldest first.

    Those that the caller may still judge blind are left out.

    Raises:
        NotAllowed: the caller operates nowhere in the rollout.
    """
    require(caller, Act.OPERATE, stood.rollout.name)
    with database.reading() as transaction:
        lists = SeatLists(transaction, stood.rollout)
        waiting = lists.to_settle(sites_of(caller, Act.OPERATE, stood), limit)
        cases = Newest(transaction, stood.rollout).cases({r.case_id for r in waiting})
        keys = [case.key for case in cases.values()]
        hidden = hidden_from(transaction, stood, caller, keys, at)
    return tuple(
        Conflict(cases[review.case_id], review.opened_at, taken=not review.free(at))
        for review in waiting
        if review.case_id in cases and cases[review.case_id].key not in hidden
    )
