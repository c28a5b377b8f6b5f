"""Translation of ledger form 1 to today's names; this table never changes.

Rows of form 1 keep their kind, keys, values and hash; readers get today's kind and keys.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

KINDS_OF_FORM_1: Final[Mapping[str, str]] = MappingProxyType(
    {
        "RolloutCreated": "RolloutCreated",
        "PolicyApplied": "PolicyApplied",
        "VersionSeen": "VersionFirstUsed",
        "VersionRetired": "VersionRetired",
        "ProposalRaised": "ProposalRaised",
        "Approved": "Approved",
        "ProposalRejected": "ProposalRejected",
        "ProposalVoided": "ProposalVoided",
        "ProposalExpired": "ProposalExpired",
        "Widened": "Widened",
        "Renewed": "Renewed",
        "TakenOver": "TakenOver",
        "Narrowed": "Narrowed",
        "Suspended": "Suspended",
        "Cleared": "SuspensionCleared",
        "Lapsed": "GrantExpired",
        "Stopped": "Stopped",
        "Resumed": "Resumed",
        "IncidentOpened": "IncidentOpened",
        "IncidentAcknowledged": "IncidentAcknowledged",
        "ClockCorrected": "ClockCorrected",
        "Purged": "RecordsPurged",
        "ReportSealed": "ReportSealed",
        "PersonAdded": "UserAdded",
        "PersonDisabled": "UserDisabled",
        "PersonEnabled": "UserEnabled",
        "PasswordSet": "PasswordSet",
        "EmailSet": "EmailSet",
        "IdentityLinked": "IdentityLinked",
        "RightGiven": "RoleGranted",
        "RightTaken": "RoleRevoked",
        "KeyMade": "KeyCreated",
        "KeyRevoked": "KeyRevoked",
        "LinkMade": "OneTimeLinkCreated",
        "FormChanged": "FormChanged",
    }
)
"""Today's name of each kind of form 1."""

_USER: Final = {"person": "user"}
_KEYS: Final[Mapping[str, Mapping[str, str]]] = {
    "RolloutCreated": {"salt": "salt_hash"},
    "PolicyApplied": {"policy": "policy_hash"},
    "ProposalRaised": {
        "because": "readings",
        "evidence": "evidence_hash",
        "gate": "gate_hash",
        "to": "to_stage",
    },
    "Approved": {"evidence": "evidence_hash"},
    "ProposalVoided": {"because": "reason"},
    "Widened": {"to": "to_stage"},
    "TakenOver": {"replaced": "replaced_version", "to": "to_stage", "untils": "grant_ends"},
    "Narrowed": {"came_from": "from_stage", "to": "to_stage"},
    "IncidentOpened": {"did": "effect"},
    "ClockCorrected": {"was": "previous_time"},
    "PersonAdded": {**_USER, "machine": "service_account"},
    "PersonDisabled": _USER,
    "PersonEnabled": _USER,
    "PasswordSet": _USER,
    "EmailSet": _USER,
    "IdentityLinked": _USER,
    "RightGiven": _USER,
    "RightTaken": _USER,
    "KeyMade": _USER,
    "KeyRevoked": _USER,
    "LinkMade": _USER,
}
_VALUES: Final[Mapping[tuple[str, str], Mapping[str, str]]] = {
    ("IncidentOpened", "kind"): {
        "rewound": "ledger_rolled_back",
        "unpermitted": "unauthorized",
    },
}
STORED_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {now: then for then, now in KINDS_OF_FORM_1.items()}
)
"""The kind of form 1 by today's name; newer kinds are missing."""


def translate_body(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body of form 1 with today's keys and values.

    `kind` is the kind of form 1.

    >>> translate_body("Lapsed", {"stage": "supervised"}), translate_body("Purged", {})
    ({'stage': 'supervised'}, {})
    >>> translate_body("Widened", {"to": "supervised"})
    {'to_stage': 'supervised'}
    """
    keys = _KEYS.get(kind, {})
    return {keys.get(key, key): _translate_value(kind, key, body[key]) for key in body}


def _translate_value(kind: str, key: str, value: Any) -> Any:
    values = _VALUES.get((kind, key))
    return value if values is None else values.get(value, value)
