"""The texts of notifications: a question, the evidence in one line, and the address of a page.

The address is plain text and needs a sign-in. Mail scanners open links, and browsers preview them:
none does anything, also with a session.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import quote

from rollout.core.policy.familiarity import UNITS_BEFORE_NOTICE, format_value
from rollout.core.policy.stages import describe_share
from rollout.core.scope.scope import Incident
from rollout.reports.text.formatting import format_quantity, format_zoned_time
from rollout.reports.text.guard_text import format_guard_reason
from rollout.services.incidents.incidents import MARKUP_REPLACEMENTS
from rollout.services.notifications.incident_groups import count_kinds, get_incident_site
from rollout.services.notifications.kinds import DAILY_DIGEST, HALF_TIME, LAST_DAY
from rollout.services.notifications.selection import NewAttributeValue
from rollout.services.proposals.proposal_details import Proposal

CONSOLE_PATH: Final = "/console"
MAX_READINGS: Final = 3  # in one line
MAX_NAME_LENGTH: Final = 80
HIDDEN_EVIDENCE: Final = "not shown here, because you may be asked for a blind review there"
QUESTIONS: Final = {
    "widening": "Widen {version} to {stage} at {cell}?",
    "renewal": "Let {version} keep {stage} at {cell}?",
    "takeover": "Let {version} replace the acting version at {stage} at {cell}?",
    "resume": "End stop {about}, so that its grants apply again?",
    "policy": "Replace the policy by a looser one?",
}
"""What an approver answers, by kind of proposal."""
REMINDERS: Final = {HALF_TIME: "Reminder", LAST_DAY: "Last day"}


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


@dataclass(frozen=True, slots=True)
class RolloutBacklog:
    """What waits for a user in a rollout."""

    rollout: str
    proposals: int
    incidents: int
    reviews: int


def describe_proposal(  # noqa: PLR0913 - all that a message may say
    rollout_name: str,
    proposal: Proposal,
    kind: str,
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
        kind: `proposal`, `half-time` or `last-day`.
        unfamiliar: a sentence about the share of unfamiliar units.
        is_blind: whether the figures are left out.
    """
    expiry = format_zoned_time(proposal.expires_at, timezone)
    noun = "condition" if proposal.site else ""  # a policy's readings are what it loosens
    evidence = HIDDEN_EVIDENCE if is_blind else _join_readings(readings, noun)
    label = REMINDERS.get(kind, "Approve")
    return MessageText(
        subject=f"{_clean(rollout_name)}: {label} {proposal.id}{'?' if label == 'Approve' else ''}",
        question=_ask_for_approval(proposal),
        evidence=" ".join(
            filter(
                None,
                (
                    f"Against it: {_join_first([*map(_clean, against)], 'fact')}."
                    if against
                    else "",
                    _describe_decided(proposal),
                    f"Evidence: {evidence}.",
                    _clean(unfamiliar),
                    f"Expires {expiry}.",
                ),
            )
        ),
        path=_build_path("rollouts", rollout_name, "proposals", proposal.id),
    )


def _ask_for_approval(proposal: Proposal) -> str:
    """Return the question that an approver answers."""
    question = QUESTIONS.get(proposal.kind, f"Approve this {_clean(proposal.kind)}?")
    return question.format(
        version=_code(proposal.version),
        stage=_code(proposal.to),
        cell=f"{_code(proposal.site)} in {_code(proposal.window)}",
        about=_code(proposal.about),
    )


def _describe_decided(proposal: Proposal) -> str:
    """Return what the version would decide where its stage draws a share of the cases, else ""."""
    if proposal.model_share in {None, 1}:
        return ""
    return f"{describe_share(_code(proposal.version), proposal.model_share)}."


def _join_readings(readings: Sequence[str], noun: str) -> str:
    """Return the first readings in one line, with the number of the others."""
    return _join_first([_clean(reading).rstrip(".") for reading in readings], noun)


def _join_first(texts: Sequence[str], noun: str) -> str:
    more_count = len(texts) - MAX_READINGS
    rest = format_quantity(more_count, f"more {noun}") if noun else f"{more_count} more"
    more = [f"{rest} on the page"] if more_count > 0 else []
    return "; ".join([*texts[:MAX_READINGS], *more])


def describe_incidents(
    rollout_name: str, incidents: Sequence[Incident], timezone: str, *, is_blind: bool
) -> MessageText:
    """Return the message about incidents at one site; `is_blind` leaves reasons out."""
    if len(incidents) == 1:
        return _describe_incident(rollout_name, incidents[0], timezone, is_blind=is_blind)
    site = get_incident_site(incidents[0])
    first, last = (format_zoned_time(incidents[place].at, timezone) for place in (0, -1))
    times = first if first == last else f"{first} to {last}"
    count = format_quantity(len(incidents), "incident")
    return MessageText(
        subject=f"{_clean(rollout_name)}: {count}{f' at {_clean(site)}' if site else ''}",
        question=f"Do {count} ({_clean(count_kinds(incidents))})"
        f"{f' at {_code(site)}' if site else ''} need you?",
        evidence=f"Opened {times}. {_join_incidents(incidents, is_blind=is_blind)}.",
        path="/incidents",
    )


def _join_incidents(incidents: Sequence[Incident], *, is_blind: bool) -> str:
    """Return the first incidents in one line, with the number of the others."""
    texts = [
        f"{incident.id}{'' if incident.cell is None else f' in {_code(incident.cell.window)}'}"
        f": {_clean(format_guard_reason(incident.reason))}"
        for incident in incidents
    ]
    if not is_blind:
        return _join_first(texts, "incident")
    return f"{', '.join(i.id for i in incidents[:MAX_READINGS])}: {HIDDEN_EVIDENCE}"


def _describe_incident(
    rollout_name: str, incident: Incident, timezone: str, *, is_blind: bool
) -> MessageText:
    cell = incident.cell
    location = "" if cell is None else f" at {_code(cell.site)} in {_code(cell.window)}"
    reason = HIDDEN_EVIDENCE if is_blind else _clean(format_guard_reason(incident.reason))
    opened_at = format_zoned_time(incident.at, timezone)
    return MessageText(
        subject=f"{_clean(rollout_name)}: Incident {incident.id}, {incident.kind}",
        question=f"Does incident {incident.id} ({incident.kind}){location} need you?",
        evidence=f"Opened {opened_at}. Reason: {reason}.",
        path=_build_path("rollouts", rollout_name, "incidents", incident.id),
    )


def describe_new_values(rollout_name: str, values: Sequence[NewAttributeValue]) -> MessageText:
    """Return the message about values at one site that are new to acting versions."""
    names = sorted(
        {
            f"{_code(format_value(v.value))} in {_code(v.cell.window)} for {_code(v.version)}"
            for v in values
        }
    )
    first = values[0]
    count = format_quantity(len(names), "value")
    return MessageText(
        subject=f"{_clean(rollout_name)}: {count} new to the model at {_clean(first.cell.site)}",
        question=f"Do you expect cases with {'it' if len(names) == 1 else 'them'} at"
        f" {_code(first.cell.site)}?",
        evidence=f"Met {UNITS_BEFORE_NOTICE} times or more, not yet familiar:"
        f" {_join_first(names, 'value')}. Humans decide such cases.",
        path=_build_path("rollouts", rollout_name, "cells", first.cell.site, first.cell.window),
    )


def describe_reviews(rollout_name: str, count: int, until: datetime, timezone: str) -> MessageText:
    """Return the message about reviews that are about to be missed."""
    cases = format_quantity(count, "case")
    return MessageText(
        subject=f"{_clean(rollout_name)}: Reviews about to be missed",
        question=f"Can you review {cases} due before {format_zoned_time(until, timezone)}?",
        evidence=f"Nobody has claimed {'it' if count == 1 else 'them'}, and later reviews don't"
        " count. Cases that open after this message stand on the page only.",
        path=f"/review?rollout={quote(rollout_name, safe='')}",
    )


def describe_digest(kind: str, day: str, rollouts: Sequence[RolloutBacklog]) -> MessageText:
    """Return the digest of what waits for a user, without figures of agreement."""
    name = "Daily digest" if kind == DAILY_DIGEST else "Weekly digest"
    lines = [
        f"- {_code(work.rollout)}: {format_quantity(work.proposals, 'proposal')} to approve,"
        f" {format_quantity(work.incidents, 'open incident')},"
        f" {format_quantity(work.reviews, 'review')} to do"
        for work in rollouts
        if work.proposals or work.incidents or work.reviews
    ]
    return MessageText(
        subject=f"rollout: {name}, {day}",
        question="What waits for you?",
        evidence="\n".join(lines) or "Nothing needs your attention.",
        path="/",
    )


def describe_code(code: str) -> MessageText:
    """Return the test message with the code that confirms a channel."""
    return MessageText(
        subject="rollout: Confirm this address",
        question="Did you choose this address for notifications of rollout?",
        evidence=f"Then type the code {code[:4]} {code[4:]} in the console under Settings,"
        " Notifications. Otherwise ignore this message: nothing else is sent.",
        path="",
    )


def _clean(text: str) -> str:
    """Return text without markup: it may come from a client."""
    return " ".join(text.translate(MARKUP_REPLACEMENTS).split())


def _code(text: str) -> str:
    """Return a name as code, which no chat turns into a link."""
    return f"`{_clean(text)[:MAX_NAME_LENGTH]}`"


def _build_path(*parts: str) -> str:
    return "".join(f"/{quote(part, safe='')}" for part in parts)
