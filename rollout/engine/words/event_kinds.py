"""Kinds of events, as pages and reports group and mark them."""

from collections.abc import Mapping
from typing import Final

from rollout.engine.decide.incident_kinds import LATE
from rollout.engine.words.event_text import EventDescription

EventGroups = Mapping[str, tuple[str, tuple[str, ...]]]
"""Filter choices of a ledger: label and event kinds by URL name."""


WIDENING_KINDS: Final = ("Widened", "Renewed", "TakenOver", "Resumed", "SuspensionCleared")


NARROWING_KINDS: Final = ("Narrowed", "Suspended", "GrantExpired", "Stopped")


PROPOSAL_EVENT_KINDS: Final = (
    "ProposalRaised", "Approved", "FactsConfirmed", "ProposalHeld", "ProposalRejected",
    "ProposalVoided", "ProposalExpired",
)  # fmt: skip


COUNTING_KINDS: Final = ("RecordsCounted", "AttemptsBegan")
"""Kinds that most ticks append; lists leave them out unless they are chosen."""


FAMILIAR_KINDS: Final = ("FamiliarityChanged",)


EVENT_GROUPS: Final[EventGroups] = {
    "wider": ("Widened, renewed, taken over, resumed, cleared", WIDENING_KINDS),
    "narrower": ("Narrowed, suspended, stopped, lapsed", NARROWING_KINDS),
    "proposals": ("Proposals and approvals", PROPOSAL_EVENT_KINDS),
    "incidents": ("Incidents", ("IncidentOpened", "IncidentAcknowledged")),
    "policy": ("Policy", ("RolloutCreated", "PolicyApplied")),
    "versions": (
        "Versions",
        ("VersionFirstUsed", "VersionRenamed", "VersionRetired", "TrainingCutoffSet"),
    ),
    "counting": ("Counted records", COUNTING_KINDS),
    "familiar": ("Familiar attribute values", FAMILIAR_KINDS),
    "other": (
        "Reports, clock, calendar, imports, deletions, damage",
        (
            "ReportSealed",
            "ClockCorrected",
            "RecordsImported",
            "CasesPlanted",
            "RecordsPurged",
            "CasesErased",
            "NameErased",
            "DamageCleared",
            "CalendarDataSet",
        ),
    ),
    "all": ("Everything, with counted records", ()),
}


ACCESS_EVENT_GROUPS: Final[EventGroups] = {
    "users": ("Users", ("UserAdded", "UserDisabled", "UserErased", "UserEnabled", "EmailSet")),
    "roles": ("Roles", ("RoleGranted", "RoleRevoked")),
    "keys": ("Keys", ("KeyCreated", "KeyRevoked", "CheckpointKeyUsed")),
    "ways-in": (
        "Passwords, second factors and links",
        (
            "PasswordSet",
            "PasswordRehashed",
            "SecondFactorAdded",
            "SecondFactorRemoved",
            "RecoveryCodeUsed",
            "CredentialsReset",
            "OneTimeLinkCreated",
            "IdentityLinked",
        ),
    ),
}


CELL_KINDS: Final = (
    "Widened", "Renewed", "TakenOver", "Narrowed", "Suspended", "SuspensionCleared", "GrantExpired",
    "Stopped", "ProposalRaised", "IncidentOpened",
)  # fmt: skip
"""Kinds that concern cells."""


SCOPE_KINDS: Final = frozenset(
    {*WIDENING_KINDS, *NARROWING_KINDS, "PolicyApplied", "VersionRetired"}
)
"""Kinds that may change the scope."""


TIMELINE_KINDS: Final = frozenset(
    {
        *SCOPE_KINDS, "VersionFirstUsed", "VersionRenamed", "ProposalHeld", "ProposalVoided",
        "ProposalExpired",
        "ProposalRejected", "ClockCorrected", "RecordsPurged", "RecordsImported", "CasesErased",
        "CasesPlanted", "NameErased", "DamageCleared", "TrainingCutoffSet",
        "CalendarDataSet",
    }
)  # fmt: skip
"""Kinds in the timeline; proposals and approvals are only in the auditor's part."""


AUDITORS_OMITTED_KINDS: Final = frozenset(
    {"RolloutCreated", "VersionFirstUsed", "IncidentOpened", "RecordsCounted", "AttemptsBegan"}
)


def find_tone(kind: str) -> str:
    """Return `wider`, `narrower` or "": how an event is marked."""
    if kind in WIDENING_KINDS:
        return "wider"
    return "narrower" if kind in {*NARROWING_KINDS, "VersionRetired"} else ""


def is_in_timeline(event: EventDescription) -> bool:
    """Return whether the timeline shows an event; incidents only without another effect."""
    if event.kind == "IncidentOpened":
        return event.effect in {"reported", LATE}
    return event.kind in TIMELINE_KINDS
