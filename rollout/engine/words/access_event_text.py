"""Descriptions of the access ledger's events."""

from functools import singledispatch

from rollout.engine.events import LedgerEvent
from rollout.engine.ledger.access_events import (
    CheckpointKeyUsed,
    CredentialsReset,
    EmailSet,
    IdentityLinked,
    KeyCreated,
    KeyRevoked,
    OneTimeLinkCreated,
    PasswordRehashed,
    PasswordSet,
    RecoveryCodeUsed,
    RoleGranted,
    RoleRevoked,
    SecondFactorAdded,
    SecondFactorRemoved,
    UserAdded,
    UserDisabled,
    UserEnabled,
    UserErased,
)
from rollout.engine.words.formatting import format_day


@singledispatch
def describe_access_event(event: LedgerEvent) -> str:
    """Return the description of one event of the access ledger."""
    return type(event).__name__


@describe_access_event.register
def _(event: UserAdded) -> str:
    return f"{event.user} is added{', a service account' if event.service_account else ''}"


@describe_access_event.register
def _(event: UserDisabled) -> str:
    return f"{event.user} is disabled: password, keys, sessions, links and roles end"


@describe_access_event.register
def _(event: UserErased) -> str:
    reason = f": {event.reason}" if event.reason else ""
    return f"the name and address of {event.user} were erased{reason}"


@describe_access_event.register
def _(event: UserEnabled) -> str:
    return f"{event.user} is enabled again, without any role"


@describe_access_event.register
def _(event: PasswordSet) -> str:
    return f"{event.user} has a new password; all their sessions end"


@describe_access_event.register
def _(event: PasswordRehashed) -> str:
    return f"the password of {event.user} is hashed anew at their sign-in; it is the same"


@describe_access_event.register
def _(event: SecondFactorAdded) -> str:
    return f"{event.user} has a second factor; their other sessions end"


@describe_access_event.register
def _(event: SecondFactorRemoved) -> str:
    return f"{event.user} has removed their second factor; all their sessions end"


@describe_access_event.register
def _(event: RecoveryCodeUsed) -> str:
    return f"{event.user} has used a recovery code"


@describe_access_event.register
def _(event: CredentialsReset) -> str:
    return (
        f"the {event.credential} of {event.user} is reset: their approvals pause for 24 hours, and"
        f" never count together with those of {event.by}"
    )


@describe_access_event.register
def _(event: EmailSet) -> str:
    return f"{event.user} has another e-mail address, or none"


@describe_access_event.register
def _(event: IdentityLinked) -> str:
    return f"{event.user} is linked to their account at {event.issuer}"


@describe_access_event.register
def _(event: RoleGranted) -> str:
    return f"{event.user} is {event.assigned_role}"


@describe_access_event.register
def _(event: RoleRevoked) -> str:
    return f"{event.user} is no longer {event.assigned_role}"


@describe_access_event.register
def _(event: KeyCreated) -> str:
    return f"key {event.prefix} of {event.user} is created, until {format_day(event.expires_at)}"


@describe_access_event.register
def _(event: KeyRevoked) -> str:
    return f"key {event.prefix} of {event.user} is revoked"


@describe_access_event.register
def _(event: OneTimeLinkCreated) -> str:
    return f"a one-time link is created for {event.user or 'the first admin'}"


@describe_access_event.register
def _(event: CheckpointKeyUsed) -> str:
    return f"heads of ledgers are signed with the public key {event.public_key}"
