"""What a kind of notification is, the form of its texts, and the notifications of proposals.

A kind says what a user chooses, who gets it and when, and what it says.

A text is a question, the evidence in one line, and the address of a page. The address is plain text
and needs a sign-in. Mail scanners open links, and browsers preview them: none does anything, also
with a session.

Notifications of a proposal are sent when it is raised, and before it expires.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote

from rollout.data.access.notification_outbox import Notice, Notification
from rollout.data.records.incoming_cases import ExposureStore
from rollout.engine.decide.permissions import Caller, may_be_asked_blind
from rollout.engine.decide.scope import ProposalState
from rollout.engine.words.formatting import (
    format_bound_value,
    format_count,
    format_estimate,
    format_quantity,
    format_reading,
    format_zoned_time,
)
from rollout.features.incidents.incidents import MARKUP_REPLACEMENTS
from rollout.features.proposals.proposal_details import (
    Proposal,
    list_facts_against,
    load_proposal,
    load_track_records,
)
from rollout.features.proposals.proposals import find_proposal_sites, list_pending_approvals
from rollout.kernel.calendar.instants import Cell, QuietHours
from rollout.kernel.measures import Statistic
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy.stages import describe_share
from rollout.live.rollout_state import RolloutState
from rollout.live.service import Service

if TYPE_CHECKING:
    from rollout.features.proposals.proposal_evidence import ReadingComparison


CONSOLE_PATH: Final = "/console"
MAX_READINGS: Final = 3  # in one line
MAX_NAME_LENGTH: Final = 80
HIDDEN_EVIDENCE: Final = "not shown here, because you may be asked for a blind review there"


@dataclass(frozen=True, slots=True)
class MessageText:
    """A notification in words; `path` is of a console page, "" for none."""

    subject: str
    question: str
    evidence: str
    path: str

    def format_body(self, public_url: str) -> str:
        """Return the text of the message as Markdown; the address is no link."""
        address = f"{public_url.rstrip('/')}{CONSOLE_PATH}{self.path}" if self.path else ""
        return "\n\n".join(part for part in (self.question, self.evidence, address) if part)


def describe_code(code: str) -> MessageText:
    """Return the test message with the code that confirms a channel."""
    return MessageText(
        subject="rollout: Confirm this address",
        question="Did you choose this address for notifications of rollout?",
        evidence=f"Then type the code {code[:4]} {code[4:]} in the console under Settings,"
        " Notifications. Otherwise ignore this message: nothing else is sent.",
        path="",
    )


def remove_markup(text: str) -> str:
    """Return text without markup: it may come from a client."""
    return " ".join(text.translate(MARKUP_REPLACEMENTS).split())


def format_name(text: str) -> str:
    """Return a name as code, which no chat turns into a link."""
    return f"`{remove_markup(text)[:MAX_NAME_LENGTH]}`"


def build_path(*parts: str) -> str:
    """Return the path of a page of the console."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def join_first(texts: Sequence[str], noun: str) -> str:
    """Return the first texts in one line, with the number of the others."""
    more_count = len(texts) - MAX_READINGS
    rest = format_quantity(more_count, f"more {noun}") if noun else f"{more_count} more"
    more = [f"{rest} on the page"] if more_count > 0 else []
    return "; ".join([*texts[:MAX_READINGS], *more])


@dataclass(frozen=True, slots=True)
class NotificationUser:
    """An enabled user with the current roles, timezone and quiet hours."""

    caller: Caller
    timezone: str
    quiet_hours: QuietHours | None = None

    def find_send_time(self, at: datetime) -> datetime:
        """Return when quiet hours let something be sent, from `at` on."""
        return at if self.quiet_hours is None else self.quiet_hours.find_send_time(at)


@dataclass(frozen=True, slots=True)
class RolloutNews:
    """What there may be to notify of in a rollout; `items` are what each kind loaded, by name."""

    state: RolloutState
    items: Mapping[str, Sequence[Any]] = field(default_factory=dict)


class NotificationKind(ABC):
    """A kind of notification.

    Attributes:
        name: what users choose it by, in the API and in the database.
        description: beside its box in the console, and in the documentation.
        notices: the kinds of its notices; each names one thing in `Notice.about`.
        is_urgent: whether quiet hours and clocks that disagree don't hold it back.
        is_grouped: whether several of its notices may be one message.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    notices: ClassVar[tuple[str, ...]]
    is_urgent: ClassVar[bool] = False
    is_grouped: ClassVar[bool] = False

    def load_items(self, service: Service, state: RolloutState, at: datetime) -> Sequence[Any]:
        """Return what `find_notices` needs of a rollout beside its state."""
        return ()

    @abstractmethod
    def find_notices(
        self,
        user: NotificationUser,
        since: datetime,
        news: Sequence[RolloutNews],
        at: datetime,
    ) -> Iterator[Notice]:
        """Yield what a user who chose the kind is to be notified of, sent or not.

        Args:
            since: when the user chose it.
            news: of the rollouts that the user sees.
        """

    @abstractmethod
    def build_text(
        self,
        service: Service,
        user: NotificationUser,
        notices: Sequence[Notice],
        news: Sequence[RolloutNews],
        at: datetime,
    ) -> MessageText | None:
        """Return the text of a message, or None if nothing is left to write about.

        Args:
            notices: one; or those that `select_group` put in one message.
            news: of the notices' rollout; of all for a notice without one.

        Raises:
            RefusalError: the user may not read it, or it is gone.
        """

    def find_send_time(
        self, user: NotificationUser, notice: Notice, news: Mapping[str, RolloutNews], at: datetime
    ) -> datetime:
        """Return when a new notice is sent, from `at` on."""
        return at if self.is_urgent else user.find_send_time(at)

    def select_group(
        self,
        notification: Notification,
        due_notices: Collection[Notice],
        news: Sequence[RolloutNews],
    ) -> tuple[Notification, ...]:
        """Return the notifications, taken with one, that belong in its message."""
        return ()


class RolloutKind(NotificationKind):
    """A kind of notification whose notices are each about something of one rollout."""

    def find_notices(
        self,
        user: NotificationUser,
        since: datetime,
        news: Sequence[RolloutNews],
        at: datetime,
    ) -> Iterator[Notice]:
        """Yield a notice for each subject in each rollout."""
        for item in news:
            for kind, about in self.list_subjects(user, since, item, at):
                yield Notice(item.state.rollout.name, kind, about)

    @abstractmethod
    def list_subjects(
        self, user: NotificationUser, since: datetime, item: RolloutNews, at: datetime
    ) -> Iterable[tuple[str, str]]:
        """Return kind and subject of each notice in a rollout, sent or not."""


def record_figures(
    service: Service, user: NotificationUser, state: RolloutState, until: datetime
) -> None:
    """Record before sending that the user sees figures: they may become a reviewer later."""
    with service.database.begin_write() as transaction:
        ExposureStore(transaction, state.rollout).record_figures(
            user.caller.name, until, page="message"
        )


APPROVE: Final = "Approve"
PROPOSAL, HALF_TIME, LAST_DAY = "proposal", "half-time", "last-day"
DAY: Final = timedelta(days=1)
QUESTIONS: Final = {
    "widening": "Widen {version} to {stage} at {cell}?",
    "renewal": "Let {version} keep {stage} at {cell}?",
    "takeover": "Let {version} replace the acting version at {stage} at {cell}?",
    "resume": "End stop {about}, so that its grants apply again?",
    "policy": "Replace the policy by a looser one?",
}
"""What an approver answers, by kind of proposal."""


class Proposals(RolloutKind):
    """A proposal that a user can approve and has not."""

    name = "proposals"
    description = "Proposals that you can approve"
    notices: ClassVar[tuple[str, ...]] = (PROPOSAL,)
    labels: ClassVar[Mapping[str, str]] = {PROPOSAL: APPROVE}

    def list_subjects(
        self, user: NotificationUser, since: datetime, item: RolloutNews, at: datetime
    ) -> Iterable[tuple[str, str]]:
        """Return the proposals that the user can approve."""
        proposals = list_pending_approvals(item.state, user.caller, at=at)
        return [(PROPOSAL, proposal.id) for proposal in proposals]

    def build_text(
        self,
        service: Service,
        user: NotificationUser,
        notices: Sequence[Notice],
        news: Sequence[RolloutNews],
        at: datetime,
    ) -> MessageText:
        """Return the question, with the evidence unless the user may be asked blind."""
        from rollout.features.proposals.proposal_evidence import load_proposal_evidence

        (notice,), state = notices, news[0].state
        sites = find_proposal_sites(state, notice.about)
        is_blind = may_be_asked_blind(user.caller, notice.rollout, sites)
        proposal = load_proposal(service, user.caller, notice.rollout, notice.about, at=at)
        if not is_blind:
            record_figures(service, user, state, proposal.raised_at)
        return describe_proposal(
            notice.rollout,
            proposal,
            self.labels[notice.kind],
            user.timezone,
            is_blind=is_blind,
            readings=()
            if is_blind
            else tuple(
                _format_line(reading, state.policy)
                for reading in load_proposal_evidence(
                    service, user.caller, notice.rollout, proposal
                ).readings
            ),
            unfamiliar="" if is_blind else _describe_unfamiliar(service, state, proposal, at),
            against=_list_against(service, user, state, proposal, at),
        )


class Reminders(Proposals):
    """The same before it expires, the newest reminder of each alone."""

    name = "reminders"
    description = "Reminders of them, at half time and a day before they expire"
    notices = (HALF_TIME, LAST_DAY)
    labels: ClassVar[Mapping[str, str]] = {HALF_TIME: "Reminder", LAST_DAY: "Last day"}

    def list_subjects(
        self, user: NotificationUser, since: datetime, item: RolloutNews, at: datetime
    ) -> Iterable[tuple[str, str]]:
        """Yield the newest reminder of each proposal that the user can approve."""
        for proposal in list_pending_approvals(item.state, user.caller, at=at):
            reminders = [
                (reminder_at, notice_kind)
                for notice_kind, reminder_at in list_reminders(proposal)
                if since <= reminder_at <= at
            ]
            if reminders:
                yield max(reminders)[1], proposal.id


def list_reminders(proposal: ProposalState) -> list[tuple[str, datetime]]:
    """Return the kinds and times of a proposal's reminders.

    There is none on the last day of a proposal that is open for a day or less.
    """
    lifetime = proposal.expires_at - proposal.raised_at
    last_day = [(LAST_DAY, proposal.expires_at - DAY)] if lifetime > DAY else []
    return [(HALF_TIME, proposal.raised_at + lifetime / 2), *last_day]


def _format_line(reading: "ReadingComparison", policy: Policy) -> str:
    frozen, stored = reading.frozen, reading.stored
    if stored is None:
        return reading.text
    if (
        frozen is None
        or frozen.estimate is None
        or frozen.condition.measure.statistic is Statistic.DIFFERENCE
    ):
        return format_reading(stored, policy)
    condition, measure = frozen.condition, frozen.condition.measure
    if measure.statistic is Statistic.MEAN or len(frozen.counts) != 2:
        line = format_reading(stored, policy)
    else:
        line = (
            f"{condition}: {format_estimate(measure.name, frozen.estimate)} so far"
            f" ({format_count(frozen.counts[0])} of {format_count(frozen.count)})"
        )
    if frozen.bound is None:
        return line
    bound = format_bound_value(
        measure.name, frozen.bound, condition.threshold, at_least=condition.at_least
    )
    return f"{line}, bound {bound}"


def _list_against(
    service: Service, user: NotificationUser, state: RolloutState, proposal: Proposal, at: datetime
) -> list[str]:
    """Return what spoke against the versions of a proposal; counts of answers are none of it.

    That its sender could have chosen what counts comes after what happened.
    """
    from rollout.engine.words.evidence_text import describe_registered_units, describe_vouched_units

    (records,) = load_track_records(service, state, [proposal], at)
    facts = list_facts_against(user.caller, state.rollout.name, records, user.timezone, at)
    facts += map(describe_vouched_units, proposal.vouched)
    if any(count.own for count in proposal.registered):
        facts.append(describe_registered_units(proposal.registered, proposal.version))
    return facts


def _describe_unfamiliar(
    service: Service, state: RolloutState, proposal: Proposal, at: datetime
) -> str:
    """Return which share of the cell's units gates don't speak of; "" if of all."""
    from rollout.engine.words.rule_text import describe_unfamiliar_share
    from rollout.features.cells.cell_table import UNFAMILIAR_DAYS, load_cell_values

    cell = Cell(proposal.site, proposal.window)
    summary = load_cell_values(service, state, cell, at).get(proposal.version)
    return "" if summary is None else describe_unfamiliar_share(summary.recent, UNFAMILIAR_DAYS)


def describe_proposal(  # noqa: PLR0913 - all that a message may say
    rollout_name: str,
    proposal: Proposal,
    label: str,
    timezone: str,
    *,
    is_blind: bool,
    readings: Sequence[str] = (),
    unfamiliar: str = "",
    against: Sequence[str] = (),
) -> MessageText:
    """Return the message about a proposal.

    Args:
        against: what speaks against its version in any cell, which comes first.
        readings: what each condition counted when the proposal was raised.
        label: what the subject calls the message.
        unfamiliar: a sentence about the share of unfamiliar units.
        is_blind: whether the figures are left out.
    """
    expiry = format_zoned_time(proposal.expires_at, timezone)
    noun = "condition" if proposal.site else ""  # a policy's readings are what it loosens
    evidence = (
        HIDDEN_EVIDENCE
        if is_blind
        else join_first([remove_markup(reading).rstrip(".") for reading in readings], noun)
    )
    return MessageText(
        subject=f"{remove_markup(rollout_name)}: {label} {proposal.id}"
        f"{'?' if label == APPROVE else ''}",
        question=_ask_for_approval(proposal),
        evidence=" ".join(
            filter(
                None,
                (
                    f"Against it: {join_first([*map(remove_markup, against)], 'fact')}."
                    if against
                    else "",
                    _describe_decided(proposal),
                    f"Evidence: {evidence}.",
                    remove_markup(unfamiliar),
                    f"Expires {expiry}.",
                ),
            )
        ),
        path=build_path("rollouts", rollout_name, "proposals", proposal.id),
    )


def _ask_for_approval(proposal: Proposal) -> str:
    """Return the question that an approver answers."""
    question = QUESTIONS.get(proposal.kind, f"Approve this {remove_markup(proposal.kind)}?")
    return question.format(
        version=format_name(proposal.version),
        stage=format_name(proposal.to),
        cell=f"{format_name(proposal.site)} in {format_name(proposal.window)}",
        about=format_name(proposal.about),
    )


def _describe_decided(proposal: Proposal) -> str:
    """Return what the version would decide where its stage draws a share of the cases, else ""."""
    if proposal.model_share in {None, 1}:
        return ""
    return f"{describe_share(format_name(proposal.version), proposal.model_share)}."
