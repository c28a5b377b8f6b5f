"""All rollouts at a glance, with what waits in them: a few reads, however many they are."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout.core.rights import Act, Caller
from rollout.services.service import Service
from rollout.services.standing import Standing
from rollout.store.revisions import LATELY, Pulse, pulses
from rollout.tally.slots import instant

HOUR = timedelta(hours=1)
SILENT = Pulse(None, None, 0)


@dataclass(frozen=True, slots=True)
class Line:
    """One rollout as it stands now.

    Attributes:
        name: of the rollout.
        stood: its standing.
        ticked_at: the newest slot that is done; None before the first.
        last_case: when the newest case came in; None where none did.
        in_last_hour: cases that came in within an hour.
        or_more: whether there were more of them, uncounted.
    """

    name: str
    stood: Standing
    ticked_at: datetime | None
    last_case: datetime | None
    in_last_hour: int
    or_more: bool


def board(service: Service, caller: Caller, at: datetime) -> tuple[Line, ...]:
    """Return the rollouts that the caller may read, by name; none if there are none."""
    watched = service.watch.everything()
    mine = [one.standing for one in watched if _reads(caller, one.standing)]
    with service.database.reading() as transaction:
        felt = pulses(transaction, at - HOUR)
    return tuple(_line(stood, felt.get(stood.rollout.number, SILENT)) for stood in mine)


def _reads(caller: Caller, stood: Standing) -> bool:
    return caller.may_somewhere(Act.READ, stood.rollout.name)


def _line(stood: Standing, pulse: Pulse) -> Line:
    last = pulse.last_done
    return Line(
        name=stood.rollout.name,
        stood=stood,
        ticked_at=None if last is None else instant(last, stood.policy.tick),
        last_case=pulse.last_case,
        in_last_hour=pulse.lately,
        or_more=pulse.lately == LATELY,
    )
