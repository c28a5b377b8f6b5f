"""What all erasures share: who may erase, the reason, and the result."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from rollout.core.errors import NotAllowedError, RefusalError
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.store.erasure.texts import contains_word, list_name_spellings

MAX_REASON_LENGTH: Final = 2_000


class ErasureRefusedError(RefusalError):
    """The erasure has no reason, or can't be done as asked."""

    code = "erasure-refused"


class UnknownSubjectError(RefusalError):
    """Nothing is stored under this key or name."""

    code = "unknown-subject"


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """What an erasure did; repeating a finished one changes nothing.

    Attributes:
        subject: `case`, `episode` or `name`.
        cases: cases whose contents were erased now.
        rows: deleted or changed rows.
        reports: reports from which rows of cases were erased now.
        pseudonym: what replaces a name; "" for cases.
        warnings: gates and stops for which users are missing since a user was erased.
    """

    subject: str
    cases: int = 0
    rows: int = 0
    reports: int = 0
    pseudonym: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ErasureRequest:
    """Who erases, where, why and when; rollout "" means all rollouts."""

    caller: Caller
    rollout: str
    reason: str
    at: datetime

    def check(self, subject: str) -> "ErasureRequest":
        """Return the request with its reason stripped.

        Raises:
            NotAllowedError: the caller is no admin of the whole rollout.
            UnknownRolloutError: the caller may not see such a rollout.
            ErasureRefusedError: the reason is missing, too long, or has the subject's name.
        """
        require_permission(self.caller, Permission.ADMINISTER, self.rollout)
        if not self.caller.has_permission(Permission.ADMINISTER, self.rollout):
            place = self.rollout or "all rollouts"
            raise NotAllowedError(
                f"{self.caller.name} may not erase in {place}: ask an admin of {place}"
            )
        reason = self.reason.strip()
        if not 0 < len(reason) <= MAX_REASON_LENGTH:
            raise ErasureRefusedError(
                f"give a reason of 1 to {MAX_REASON_LENGTH} letters; it stays, so it should name"
                " nobody and no case"
            )
        if any(contains_word(reason, word) for word in list_name_spellings(subject)):
            raise ErasureRefusedError(
                f"the reason has the word {subject}, but it stays: leave the word out"
            )
        return replace(self, reason=reason)
