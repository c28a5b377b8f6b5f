"""Permits: what an answer "the model decides" is signed with, so that it can be checked later.

Answers are not stored. The permit carries what can't be recomputed (revision, decider, instant,
lease, key number) and a code over that with rollout, case and version; the action brings it back.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from rollout.core.calendar.instants import EPOCH, MICROSECOND, micros

DOMAIN = b"rollout-permit-1\x1f"
LETTERS = 32  # of the code: 128 bits
PARTS = 6
_BLOCK: Final = 64  # bytes that SHA-256 takes in at once


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
    text = said(permit, number)
    return f"{text}.{_code(text, secret, about)}"


def said(permit: Permit, number: int) -> str:
    """Return what a permit says, not yet signed; the same for all cases answered alike at once."""
    return (
        f"{number}.{permit.decider}.{permit.revision}"
        f".{micros(permit.issued_at)}.{permit.lease // MICROSECOND}"
    )


def signing(text: str, secret: bytes, *about: str) -> Callable[[str, str], str]:
    """Return what signs `text` about many cases: it is given a case's key and its version.

    >>> permit = Permit("model", 7, datetime(2027, 6, 1, 12, tzinfo=UTC), timedelta(minutes=1))
    >>> one = sign(permit, bytes(32), 1, "ramps", "case-1", "v1")
    >>> signing(said(permit, 1), bytes(32), "ramps")("case-1", "v1") == one
    True
    """
    inner_hash, outer_hash = _begun(secret)
    started = inner_hash.copy()
    started.update(_parts(text, *about))

    def sign_one(key: str, version: str) -> str:
        inner_copy, outer_copy = started.copy(), outer_hash.copy()
        inner_copy.update(
            f"{len(key)}:{key}{len(version)}:{version}".encode("utf-8", "surrogatepass")
        )
        outer_copy.update(inner_copy.digest())
        return f"{text}.{outer_copy.hexdigest()[:LETTERS]}"

    return sign_one


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
    key_number, decider, revision, issued_text, lease_text, code = parts
    numbers = (key_number, revision, issued_text, lease_text)
    if not all(n.isascii() and n.isdigit() and len(n) <= LETTERS // 2 for n in numbers):
        return None
    secret = secrets.get(int(key_number))
    if secret is None or not code.isascii():
        return None
    if not hmac.compare_digest(code, _code(text.rsplit(".", 1)[0], secret, about)):
        return None
    issued_at = (EPOCH + int(issued_text) * MICROSECOND).astimezone(UTC)
    return Permit(decider, int(revision), issued_at, int(lease_text) * MICROSECOND)


def _code(text: str, secret: bytes, about: tuple[str, ...]) -> str:
    inner_hash, outer_hash = _begun(secret)
    inner_copy, outer_copy = inner_hash.copy(), outer_hash.copy()
    inner_copy.update(_parts(text, *about))
    outer_copy.update(inner_copy.digest())
    return outer_copy.hexdigest()[:LETTERS]


def _parts(*parts: str) -> bytes:
    text = "".join([f"{len(part)}:{part}" for part in parts])  # so that no key reads as two
    return text.encode("utf-8", "surrogatepass")  # whatever comes back is read, and refused


@lru_cache(maxsize=8)
def _begun(secret: bytes) -> tuple["hashlib._Hash", "hashlib._Hash"]:
    """HMAC-SHA-256's two passes as far as they are the same for all permits: half its time."""
    key = secret if len(secret) <= _BLOCK else hashlib.sha256(secret).digest()
    key = key.ljust(_BLOCK, b"\0")
    inner_hash = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + DOMAIN)
    return inner_hash, hashlib.sha256(bytes(byte ^ 0x5C for byte in key))
