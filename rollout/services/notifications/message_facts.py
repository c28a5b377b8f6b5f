"""Load what a notification is about, and return its text."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rollout.core.calendar.instants import MICROSECOND
from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.permissions import Permission, may_be_asked_blind
from rollout.kernel.measures import Statistic
from rollout.reports.text.formatting import format_count, format_day
from rollout.reports.text.value_text import (
    format_bound_value,
    format_estimate,
    format_reading,
)
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.services.notifications.incident_groups import get_incident_site, sort_incidents
from rollout.services.notifications.kinds import (
    DAILY_DIGEST,
    INCIDENT,
    NEW_VALUE,
    REVIEW_DEADLINE,
    WEEKLY_DIGEST,
)
from rollout.services.notifications.messages import (
    MessageText,
    RolloutBacklog,
    describe_digest,
    describe_incidents,
    describe_new_values,
    describe_proposal,
    describe_reviews,
)
from rollout.services.notifications.recipients import NotificationUser
from rollout.services.notifications.selection import (
    REVIEW_WARNING,
    RolloutNews,
    list_readable_incidents,
)
from rollout.services.proposals.eligible_approvers import (
    find_proposal_sites,
    list_pending_approvals,
)
from rollout.services.proposals.proposal_details import Proposal, load_proposal
from rollout.services.reviews.review_queue import (
    ALL_REVIEW_KINDS,
    count_pending_reviews,
    find_permitted_sites,
)
from rollout.store.access.notification_outbox import Notice
from rollout.store.records.exposures import ExposureStore
from rollout.store.reviews.reviews import ReviewTaskStore

if TYPE_CHECKING:
    from rollout.services.proposals.proposal_evidence import ProposalEvidence, ReadingComparison


def format_frozen_readings(evidence: "ProposalEvidence", policy: Policy) -> tuple[str, ...]:
    """Return each condition with its threshold, the share so far and the bound."""
    return tuple(_format_line(reading, policy) for reading in evidence.readings)


def _format_line(reading: "ReadingComparison", policy: Policy) -> str:
    frozen = reading.frozen
    if (
        frozen is None
        or frozen.estimate is None
        or frozen.condition.measure.statistic is Statistic.DIFFERENCE
    ):
        return format_reading(reading.text, policy)
    condition, measure = frozen.condition, frozen.condition.measure
    if measure.statistic is Statistic.MEAN or len(frozen.counts) != 2:
        line = format_reading(reading.text, policy)
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


MESSAGE_PAGE = "message"
"""The page of exposures by notifications."""


def build_text(
    service: Service,
    user: NotificationUser,
    notices: Sequence[Notice],
    news: Sequence[RolloutNews],
    at: datetime,
) -> MessageText | None:
    """Return the text of a message, or None if nothing is left to write about.

    Args:
        notices: one; or incidents of one rollout and site.

    Raises:
        RefusalError: the user may not read it, or it is gone.
    """
    notice = notices[0]
    if notice.kind in {DAILY_DIGEST, WEEKLY_DIGEST}:
        return _build_digest(service, user, notice, news, at)
    rollout_news = next(item for item in news if item.state.rollout.name == notice.rollout)
    state = rollout_news.state
    if notice.kind == NEW_VALUE:
        values = [value for value in rollout_news.new_values if value.notice_key == notice.about]
        return describe_new_values(notice.rollout, values)
    if notice.kind == REVIEW_DEADLINE:
        return _build_reviews(service, user, state, notice, at)
    if notice.kind == INCIDENT:
        return _build_incidents(service, user, state, notices, at)
    return _build_proposal(service, user, state, notice, at)


def _build_proposal(
    service: Service, user: NotificationUser, state: RolloutState, notice: Notice, at: datetime
) -> MessageText:
    from rollout.services.proposals.proposal_evidence import load_proposal_evidence

    sites = find_proposal_sites(state, notice.about)
    is_blind = may_be_asked_blind(user.caller, notice.rollout, sites)
    proposal = load_proposal(service, user.caller, notice.rollout, notice.about, at=at)
    if not is_blind:
        _record_figures(service, user, state, proposal.raised_at)
    return describe_proposal(
        notice.rollout,
        proposal,
        notice.kind,
        user.times.timezone,
        is_blind=is_blind,
        readings=()
        if is_blind
        else format_frozen_readings(
            load_proposal_evidence(service, user.caller, notice.rollout, proposal), state.policy
        ),
        unfamiliar="" if is_blind else _describe_unfamiliar(service, state, proposal, at),
        against=_list_against(service, user, state, proposal, at),
    )


def _list_against(
    service: Service, user: NotificationUser, state: RolloutState, proposal: Proposal, at: datetime
) -> list[str]:
    """Return what spoke against the versions of a proposal; counts of answers are none of it.

    That its sender could have chosen what counts comes after what happened.
    """
    from rollout.reports.text.source_text import describe_registered_units, describe_vouched_units
    from rollout.services.proposals.counter_evidence import list_facts_against, load_track_records

    records = load_track_records(service, state, proposal, at)
    zone = user.times.timezone
    facts = list_facts_against(user.caller, state.rollout.name, records, zone, at)
    facts += map(describe_vouched_units, proposal.vouched)
    if any(count.own for count in proposal.registered):
        facts.append(describe_registered_units(proposal.registered, proposal.version))
    return facts


def _describe_unfamiliar(
    service: Service, state: RolloutState, proposal: Proposal, at: datetime
) -> str:
    """Return which share of the cell's units gates don't speak of; "" if of all."""
    from rollout.reports.text.familiar_text import describe_unfamiliar_share
    from rollout.services.cells.cell_values import RECENT_DAYS, load_cell_values

    cell = Cell(proposal.site, proposal.window)
    summary = load_cell_values(service, state, cell, at).get(proposal.version)
    return "" if summary is None else describe_unfamiliar_share(summary.recent, RECENT_DAYS)


def _build_incidents(
    service: Service,
    user: NotificationUser,
    state: RolloutState,
    notices: Sequence[Notice],
    at: datetime,
) -> MessageText:
    incidents = sort_incidents(state.scope.open_incidents[notice.about] for notice in notices)
    site = get_incident_site(incidents[0])
    is_blind = may_be_asked_blind(user.caller, state.rollout.name, (site,) if site else ())
    if not is_blind:
        _record_figures(service, user, state, at)
    return describe_incidents(state.rollout.name, incidents, user.times.timezone, is_blind=is_blind)


def _record_figures(
    service: Service, user: NotificationUser, state: RolloutState, until: datetime
) -> None:
    """Record before sending that the user sees figures: they may become a reviewer later."""
    with service.database.begin_write() as transaction:
        ExposureStore(transaction, state.rollout).record_figures(
            user.caller.name, until, page=MESSAGE_PAGE
        )


def _build_reviews(
    service: Service, user: NotificationUser, state: RolloutState, notice: Notice, at: datetime
) -> MessageText | None:
    """Return the text about reviews that this user could still do, or None.

    It is sent once for the hour that it is about, so it counts all of that hour.
    """
    until = max(at, datetime.fromisoformat(notice.about)) + REVIEW_WARNING
    with service.database.begin_read() as transaction:
        count = ReviewTaskStore(transaction, state.rollout).count_available(
            user.caller.name,
            at,
            ALL_REVIEW_KINDS,
            find_permitted_sites(user.caller, Permission.REVIEW, state),
            due_until=until - MICROSECOND,
        )
    if not count:
        return None
    return describe_reviews(state.rollout.name, count, until, user.times.timezone)


def _build_digest(
    service: Service,
    user: NotificationUser,
    notice: Notice,
    news: Sequence[RolloutNews],
    at: datetime,
) -> MessageText:
    caller, reviews = user.caller, count_pending_reviews(service, user.caller, at)
    works = [
        RolloutBacklog(
            item.state.rollout.name,
            len(list_pending_approvals(item.state, caller, at=at)),
            len(list_readable_incidents(item.state, caller)),
            reviews.get(item.state.rollout.name, 0),
        )
        for item in news
        if caller.can_see(item.state.rollout.name)
    ]
    return describe_digest(notice.kind, format_day(at, user.times.timezone), works)
