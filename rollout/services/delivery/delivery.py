"""What is due to be sent is sent, one after the other, beside the tick and never in its way.

At least once: a process that dies between the channel's yes and its own note leaves a delivery that
is sent again. Every try bears the same key, by which whoever gets it knows a repeat.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from rollout import faults
from rollout.core.scope.permissions import REVIEWER, VIEWER, Caller, Right
from rollout.services.delivery.sending import PATIENCE, Message, Send, send
from rollout.services.engine.service import Service
from rollout.services.reports.schedule import Beside, Wanted
from rollout.services.support.channels import Channels
from rollout.store.access.users import People
from rollout.store.database.rollouts import Rollouts
from rollout.store.records.exposures import ANYBODY, Shown
from rollout.store.reports.deliveries import Delivery, Outbox

PAGE = "channel"
TRIES = 12
FIRST, LONGEST = timedelta(minutes=1), timedelta(hours=6)
LEASE = timedelta(minutes=5)  # far above a message's patience: nobody else sends it meanwhile
BYTES = 4  # of chance for one wait
assert timedelta(seconds=2 * PATIENCE) < LEASE  # noqa: S101 - what keeps two from sending at once


@dataclass(frozen=True, slots=True)
class Written:
    """A report as it is sent.

    Attributes:
        hash: of the report as it was sealed.
        summary: what it says, in Markdown.
        page: the whole as HTML.
        left_out: cases that are not in it, since people may still judge them unseen.
        until: its figures tell of cases that occurred before; None where they tell of none.
    """

    hash: str
    summary: str
    page: str
    left_out: int = 0
    until: datetime | None = None


class Write(Protocol):
    """Writes a sealed report out."""

    def __call__(self, name: str, report: int) -> Written:
        """Return a report of a rollout as it is sent.

        Args:
            name: of the rollout.
            report: its number.
        """
        ...


@dataclass(frozen=True, slots=True)
class Passed:
    """What one pass did: how many were sent, a line for each that was not, and whose these are."""

    sent: int = 0
    failed: tuple[str, ...] = ()
    silent: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Pass:
    sent: int = 0
    failed: list[str] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)


def deliver(
    service: Service,
    write: Write,
    by: Send = send,
    goes_on: Callable[[], bool] = lambda: True,
    last: Collection[str] = (),
) -> Passed:
    """Send what is due, and put off what fails.

    A channel that failed is left alone until the next pass, and comes last in that, so that one
    that is away holds up no other.

    Args:
        service: the replica.
        write: writes reports out.
        by: sends a message.
        goes_on: is asked before each message.
        last: channels that failed in the pass before.
    """
    delivery_pass = _Pass()
    while goes_on():
        delivery = _taken(service, delivery_pass.silent.union(last)) or _taken(
            service, delivery_pass.silent
        )
        if delivery is None:
            break
        faults.point("outbox.taken")
        error = _tried(service, delivery, write, by)
        faults.point("outbox.sent")
        _note(service, delivery, error)
        if error:
            delivery_pass.silent.add(delivery.letter.channel)
            delivery_pass.failed.append(_told(delivery, error))
        else:
            delivery_pass.sent += 1
    return Passed(delivery_pass.sent, tuple(delivery_pass.failed), frozenset(delivery_pass.silent))


def _taken(service: Service, silent: Collection[str]) -> Delivery | None:
    """Take what is due; where nothing is, nobody's writing is held up by the question."""
    at = service.clock.now()
    with service.database.reading() as transaction:
        if not Outbox(transaction).due(at=at, but=silent):
            return None
    with service.database.writing() as transaction:
        return Outbox(transaction).take(at=at, lease=LEASE, but=silent)


def _tried(service: Service, taken: Delivery, write: Write, by: Send) -> str:
    """Send a delivery; return "", or what it failed of, without any secret."""
    if taken.attempts > TRIES:
        return "every try broke off before its end"
    url = service.channels.urls.get(taken.letter.channel)
    if url is None:
        return f"nobody configured the channel {taken.letter.channel} here"
    try:
        rendered_report = write(taken.rollout, taken.letter.report)
    except Exception as error:  # noqa: BLE001 - tried again like any other failure
        return f"the report could not be written out ({type(error).__name__})"
    _tell(service, taken, rendered_report)
    return by(message_of(taken, rendered_report, url, service.channels))


def _tell(service: Service, taken: Delivery, written: Written) -> None:
    """Note who is about to read it, before it leaves: they judge no known case from before."""
    if written.until is None:
        return
    readers = service.channels.readers.get(taken.letter.channel)
    with service.database.writing() as transaction:
        rollout = Rollouts(transaction).find(taken.rollout)
        assert rollout is not None  # noqa: S101 - one of its reports was just written out
        exposures = Shown(transaction, rollout)
        are_known_users = readers is not None and len(People(transaction).named(readers)) == len(
            readers
        )
        for reader in (readers or ()) if are_known_users else (ANYBODY,):
            exposures.tell(reader, written.until, page=PAGE)


def message_of(taken: Delivery, written: Written, url: str, channels: Channels) -> Message:
    """Return what a channel is given of a report."""
    delivery_request = taken.letter
    link = f"{channels.public_url}/v1/rollouts/{taken.rollout}/reports/{delivery_request.report}"
    key = key_of(taken, written.hash)
    footer = (
        f"Report {delivery_request.report} of {taken.rollout}: {link}\n\n"
        f"SHA-256 {written.hash}, as the ledger has it. Delivery {key}: what arrives twice with "
        "the same one is the same."
    )
    excluded_text = (
        f"{written.left_out} cases that people may still judge unseen are left out here."
    )
    parts = (
        delivery_request.lead,
        written.summary,
        excluded_text if written.left_out else "",
        footer,
    )
    body = "\n\n".join(part for part in parts if part)
    return Message(url, f"{taken.rollout}: {delivery_request.subject}", body, key, written.page)


def key_of(taken: Delivery, report: str) -> str:
    """Return the key of a delivery, the same at every try: its number and its report's hash."""
    return f"{taken.id}-{report[:16]}"


def wait_after(tries: int, chance: float) -> timedelta:
    """Return how long is waited after so many tries.

    Args:
        tries: failed so far, from 1 on.
        chance: in [0, 1), evenly drawn: replicas and channels do not come back all at once.

    >>> [str(wait_after(n, 0.5)) for n in (1, 2, 9, 11)]
    ['0:01:00', '0:02:00', '4:16:00', '6:00:00']
    """
    delay: timedelta = FIRST * 2 ** (tries - 1)
    return min(delay, LONGEST) * (0.75 + chance / 2)


def _note(service: Service, taken: Delivery, error: str) -> None:
    at = service.clock.now()
    random_value = int.from_bytes(service.entropy(BYTES), "big") / 256**BYTES
    with service.database.writing() as transaction:
        outbox = Outbox(transaction)
        if not error:
            outbox.sent(taken, at=at)
        elif taken.attempts >= TRIES:
            outbox.failed(taken, error=error)
        else:
            outbox.again(taken, at=_later(at, taken.attempts, random_value), error=error)


def _later(at: datetime, tries: int, chance: float) -> datetime:
    return at + wait_after(tries, chance)


def _told(taken: Delivery, error: str) -> str:
    next_step = "it is given up" if taken.attempts >= TRIES else "it is tried again"
    delivery_text = f"delivery {taken.id} of {taken.rollout} to {taken.letter.channel}"
    return f"{delivery_text} failed, try {taken.attempts} of {TRIES}; {next_step}: {error}"


READERS = Caller(
    "whoever reads a channel",
    machine=True,  # nothing is noted for it
    rights=(Right(VIEWER), Right(REVIEWER)),
)


class ReportsOut:
    """The stored reports of one replica's database."""

    def __init__(self, service: Service) -> None:
        """Make nothing yet."""
        self._service = service

    def make(self, name: str, wanted: Wanted, at: datetime, beside: Beside) -> None:
        """Make and seal a report; where nothing has changed since its last version, that one.

        Raises:
            Refusal: the span is none that a report could be of.
        """
        from rollout.services.reports.builder import Asked, make_report  # noqa: PLC0415 - see above

        database = self._service.database
        created_report = make_report(
            database,
            name,
            wanted.name,
            Asked(wanted.since, wanted.until, wanted.view),
            at,
            beside=lambda transaction, created_report: beside(transaction, created_report.number),
        )
        if not created_report.new:
            with database.writing() as transaction:
                beside(transaction, created_report.number)

    def write(self, name: str, report: int) -> Written:
        """Return a report as it is sent.

        Raises:
            Refusal: there is none of that number, or an earlier program made it.
        """
        from rollout.services.reports.archive import report_of, written  # noqa: PLC0415 - see above

        at = self._service.clock.now()
        report_view = report_of(self._service.database, READERS, name, report, at)
        return Written(
            hash=report_view.report.hash,
            summary=written(report_view, "markdown").decode(),
            page=written(report_view, "html", report_view.report.view).decode(),
            left_out=report_view.kept_back,
            until=report_view.report.until,
        )
