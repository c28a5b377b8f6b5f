"""Permits: what an answer "the model decides" is signed with, so that it can be checked later.

Answers are not stored. The permit carries what can't be recomputed (revision, decider, instant,
lease, key number) and a code over that with rollout, case and version; the action brings it back.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rollout.core.ledger import EPOCH, MICROSECOND, micros

DOMAIN = b"rollout-permit-1\x1f"
LETTERS = 32  # of the code: 128 bits
PARTS = 6


@dataclass(frozen=True, slots=True)
class Permit:
    """What was answered: who decides, from which revision, when and for how long."""

    decider: str
    revision: int
    issued_at: datetime
    lease: timedelta

    @property
    def ends_at(self) -> datetime:
        """Return the instant from which it allows nothing."""
        return self.issued_at + self.lease


def sign(permit: Permit, secret: bytes, number: int, *about: str) -> str:
    """Return a permit's text.

    Args:
        permit: what was answered.
        secret: of the key that signs.
        number: by which the key is found again.
        about: rollout, case key and version; of a snapshot's permit rollout and site.

    >>> issued = datetime(2027, 6, 1, 12, tzinfo=UTC)
    >>> permit = Permit("model", 7, issued, timedelta(minutes=1))
    >>> text = sign(permit, bytes(32), 1, "ramps", "case-1", "v1")
    >>> read(text, {1: bytes(32)}, "ramps", "case-1", "v1") == permit
    True
    """
    said = (
        f"{number}.{permit.decider}.{permit.revision}"
        f".{micros(permit.issued_at)}.{permit.lease // MICROSECOND}"
    )
    return f"{said}.{_code(said, secret, about)}"


def read(text: str, secrets: Mapping[int, bytes], *about: str) -> Permit | None:
    """Return what a permit says; None where it is none of ours, or about something else.

    Args:
        text: as it came back.
        secrets: the valid keys by their number.
        about: what it has to be about, as it was signed.
    """
    parts = text.split(".")
    if len(parts) != PARTS:
        return None
    number, decider, revision, issued, lease, code = parts
    numbers = (number, revision, issued, lease)
    if not all(n.isascii() and n.isdigit() and len(n) <= LETTERS // 2 for n in numbers):
        return None
    secret = secrets.get(int(number))
    if secret is None or not code.isascii():
        return None
    if not hmac.compare_digest(code, _code(text.rsplit(".", 1)[0], secret, about)):
        return None
    issued_at = (EPOCH + int(issued) * MICROSECOND).astimezone(UTC)
    return Permit(decider, int(revision), issued_at, int(lease) * MICROSECOND)


def _code(said: str, secret: bytes, about: tuple[str, ...]) -> str:
    parts = "".join(f"{len(part)}:{part}" for part in (said, *about))  # no key reads as two
    message = DOMAIN + parts.encode()
    return hmac.digest(secret, message, "sha256").hex()[:LETTERS]
