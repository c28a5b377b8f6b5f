"""Kinds of notifications: what a user chooses, and what a message is about."""

from typing import Final

from rollout.store.access.notification_channels import CONFIRMATION
from rollout.store.access.notification_outbox import INCIDENT

__all__ = ["CONFIRMATION", "INCIDENT"]

PROPOSALS, REMINDERS, INCIDENTS, REVIEWS = "proposals", "reminders", "incidents", "reviews"
NEW_VALUES = "new-values"
DAILY_DIGEST, WEEKLY_DIGEST = "daily-digest", "weekly-digest"
CHOICES: Final = {
    PROPOSALS: "Proposals that you can approve",
    REMINDERS: "Reminders of them, at half time and a day before they expire",
    INCIDENTS: "Incidents at your sites, also in quiet hours",
    NEW_VALUES: "Attribute values that are new to an acting version at your sites",
    REVIEWS: "Reviews that are about to be missed",
    DAILY_DIGEST: "A digest of what waits for you, daily at 08:00",
    WEEKLY_DIGEST: "A digest of what waits for you, Mondays at 08:00",
}
"""What users choose, with its description."""

PROPOSAL, HALF_TIME, LAST_DAY = "proposal", "half-time", "last-day"
NEW_VALUE, REVIEW_DEADLINE = "new-value", "review-deadline"
CHOICE_OF_KIND: Final = {
    PROPOSAL: PROPOSALS,
    HALF_TIME: REMINDERS,
    LAST_DAY: REMINDERS,
    INCIDENT: INCIDENTS,
    NEW_VALUE: NEW_VALUES,
    REVIEW_DEADLINE: REVIEWS,
    DAILY_DIGEST: DAILY_DIGEST,
    WEEKLY_DIGEST: WEEKLY_DIGEST,
}
"""By kind of notification what has to be chosen for it."""

URGENT_KINDS: Final = frozenset({INCIDENT, CONFIRMATION})
"""Kinds that quiet hours don't hold back; a user waits for a code."""
