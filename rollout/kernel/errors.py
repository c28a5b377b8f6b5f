"""Errors of requests that are refused, and how a missing part is installed.

`code` names each error in API and CLI. Its text says what happened and what to do next.
`api/problems.py` maps codes to HTTP.

A missing part is installed from the project's folder, since no registry has its name.
"""

from collections.abc import Callable


class RolloutError(Exception):
    """What went wrong and what to do next; errors of files are ValueErrors, too."""


def describe_value_error(read: Callable[..., object], *arguments: object) -> str:
    """Return the text of the ValueError that a reader raises for its arguments; "" if none."""
    try:
        read(*arguments)
    except ValueError as error:
        return str(error)
    return ""


class RefusalError(RolloutError):
    """A request that is refused. `str()` gives the reason and the next step.

    `field` names the part that is wrong: `note`, `answers.alarm`; "" of none.
    """

    code = "refused"

    def __init__(self, *texts: object, field: str = "") -> None:
        super().__init__(*texts)
        self.field = field


class UnknownProposalError(RefusalError):
    """The rollout has no open proposal of that id."""

    code = "unknown-proposal"


class UnknownCellError(RefusalError):
    """The policy has no such site or window."""

    code = "unknown-cell"


class UnknownVersionError(RefusalError):
    """The rollout has no prediction or question of that version."""

    code = "unknown-version"


class UnknownRolloutError(RefusalError):
    """No such rollout exists, or the caller has no role in it."""

    code = "unknown-rollout"


class UnauthenticatedError(RefusalError):
    """A wrong key, password or session; the text does not say which."""

    code = "unauthenticated"


class CodeRequiredError(UnauthenticatedError):
    """The password is right, and the account also needs a code of its second factor.

    `challenge` proves the password for some minutes.
    """

    code = "code-required"

    def __init__(self, text: str, challenge: str) -> None:
        super().__init__(text)
        self.challenge = challenge


class CrossSiteRequestError(RefusalError):
    """A page of another site sent a request with a user's session."""

    code = "cross-site"


class UnknownUserError(RefusalError):
    """No account of that name exists."""

    code = "unknown-user"


class UnknownKeyError(RefusalError):
    """No key of that prefix exists, or the caller may not see it."""

    code = "unknown-key"


class NameTakenError(RefusalError):
    """Another account has that name, a confusable one, or that e-mail address."""

    code = "name-taken"


class LastAdminError(RefusalError):
    """The change would leave no admin."""

    code = "last-admin"


class AdminExistsError(RefusalError):
    """The one-time setup of the first admin is over."""

    code = "first-admin-exists"


class InvalidAccountError(RefusalError):
    """A malformed name, role, password or key."""

    code = "user-refused"


class TooManyAttemptsError(RefusalError):
    """Too many failed attempts; the caller has to wait."""

    code = "too-many-requests"


class UnknownIncidentError(RefusalError):
    """No incident of that id was ever opened in this rollout."""

    code = "unknown-incident"


class NotAllowedError(RefusalError):
    """The caller lacks a permission; the text names the roles that have it."""

    code = "not-allowed"


class SecondFactorRequiredError(NotAllowedError):
    """The session or key lacks the second factor that this needs."""

    code = "second-factor-required"


class OwnProposalError(RefusalError):
    """The approver raised the proposal."""

    code = "own-proposal"


class AlreadyApprovedError(RefusalError):
    """The user has approved already, with another key or group."""

    code = "already-approved"


class NotEligibleError(RefusalError):
    """The policy does not allow this now, or not by this user."""

    code = "not-eligible"


class UserRequiredError(RefusalError):
    """A service account sent a command that only users may send."""

    code = "service-account-key"


class EvidenceChangedError(RefusalError):
    """The cited evidence hash is not the proposal's."""

    code = "evidence-changed"


class ProposalClosedError(RefusalError):
    """The proposal was applied, rejected, voided or has expired."""

    code = "proposal-closed"


class StaleRevisionError(RefusalError):
    """Another process changed the rollout first; read and decide again."""

    code = "stale-revision"


class NotNarrowerError(RefusalError):
    """The command would widen; widening needs a proposal."""

    code = "not-narrower"


class PolicyRefusedError(RefusalError):
    """The policy or one of its limits refuses this."""

    code = "policy-refused"


def format_install(extras: str) -> str:
    """Return the command that installs extras, as `server,demo`."""
    return f"pip install '.[{extras}]' in the project's folder"
