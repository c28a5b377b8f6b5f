"""Permits: signatures of the answer "the model decides".

Answers are not stored. The permit carries what can't be recomputed (revision, decider, instant,
lease, key number) and a code over that with rollout, case and version. The client returns it with
the action.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from rollout.core.calendar.instants import MICROSECOND, from_micros, to_micros
from rollout.core.scope.scope import FIRST_ERA, format_revision

SIGNATURE_DOMAIN = b"rollout-permit-1\x1f"
CODE_LENGTH = 32  # hexadecimal digits: 128 bits
PART_COUNT = 6
_BLOCK_BYTES: Final = 64  # of SHA-256


@dataclass(frozen=True, slots=True)
class Permit:
    """A signed answer: decider, revision, time, lease and era."""

    decider: str
    revision: int
    issued_at: datetime
    lease: timedelta
    era: int = FIRST_ERA

    @property
    def expires_at(self) -> datetime:
        """Return the instant from which it is invalid."""
        return self.issued_at + self.lease


def sign_permit(permit: Permit, secret: bytes, key_number: int, *subject: str) -> str:
    """Return a permit's text.

    Args:
        key_number: finds the secret again.
        subject: rollout, case key and version; of a snapshot's permit rollout and site.

    >>> issued = datetime(2027, 6, 1, 12, tzinfo=UTC)
    >>> permit = Permit("model", 7, issued, timedelta(minutes=1))
    >>> text = sign_permit(permit, bytes(32), 1, "ramps", "case-1", "v1")
    >>> verify_permit(text, {1: bytes(32)}, "ramps", "case-1", "v1") == permit
    True
    """
    text = build_permit_text(permit, key_number)
    return f"{text}.{_compute_code(text, secret, subject)}"


def build_permit_text(permit: Permit, key_number: int) -> str:
    """Return the unsigned text, equal for cases with the same answer."""
    return (
        f"{key_number}.{permit.decider}.{format_revision(permit.era, permit.revision)}"
        f".{to_micros(permit.issued_at)}.{permit.lease // MICROSECOND}"
    )


def build_signer(text: str, secret: bytes, *subject: str) -> Callable[[str, str], str]:
    """Return a function that signs `text` for a case key and version.

    >>> permit = Permit("model", 7, datetime(2027, 6, 1, 12, tzinfo=UTC), timedelta(minutes=1))
    >>> signed = sign_permit(permit, bytes(32), 1, "ramps", "case-1", "v1")
    >>> build_signer(build_permit_text(permit, 1), bytes(32), "ramps")("case-1", "v1") == signed
    True
    """
    inner_hash, outer_hash = _start_hmac(secret)
    subject_hash = inner_hash.copy()
    subject_hash.update(_encode_parts(text, *subject))

    def sign_for_case(key: str, version: str) -> str:
        inner_copy, outer_copy = subject_hash.copy(), outer_hash.copy()
        inner_copy.update(
            f"{len(key)}:{key}{len(version)}:{version}".encode("utf-8", "surrogatepass")
        )
        outer_copy.update(inner_copy.digest())
        return f"{text}.{outer_copy.hexdigest()[:CODE_LENGTH]}"

    return sign_for_case


def verify_permit(text: str, secrets: Mapping[int, bytes], *subject: str) -> Permit | None:
    """Return the permit if its signature is valid for the subject, else None.

    `secrets` are the valid keys by number.
    """
    parts = text.split(".")
    if len(parts) != PART_COUNT:
        return None
    key_number, decider, era_revision, issued_text, lease_text, code = parts
    era, _, revision = era_revision.rpartition("-")
    numbers = (key_number, era or str(FIRST_ERA), revision, issued_text, lease_text)
    if not all(n.isascii() and n.isdigit() and len(n) <= CODE_LENGTH // 2 for n in numbers):
        return None
    secret = secrets.get(int(key_number))
    if secret is None or not code.isascii():
        return None
    if not hmac.compare_digest(code, _compute_code(text.rsplit(".", 1)[0], secret, subject)):
        return None
    issued_at = (from_micros(int(issued_text))).astimezone(UTC)
    lease = int(lease_text) * MICROSECOND
    return Permit(decider, int(revision), issued_at, lease, int(era or FIRST_ERA))


def _compute_code(text: str, secret: bytes, subject: tuple[str, ...]) -> str:
    inner_hash, outer_hash = _start_hmac(secret)
    inner_copy, outer_copy = inner_hash.copy(), outer_hash.copy()
    inner_copy.update(_encode_parts(text, *subject))
    outer_copy.update(inner_copy.digest())
    return outer_copy.hexdigest()[:CODE_LENGTH]


def _encode_parts(*parts: str) -> bytes:
    text = "".join([f"{len(part)}:{part}" for part in parts])  # lengths make the parts unambiguous
    return text.encode("utf-8", "surrogatepass")  # invalid text must fail the check, not raise


@lru_cache(maxsize=8)
def _start_hmac(secret: bytes) -> tuple["hashlib._Hash", "hashlib._Hash"]:
    """Return HMAC-SHA-256's two passes up to the domain; reusing them halves the time."""
    key = secret if len(secret) <= _BLOCK_BYTES else hashlib.sha256(secret).digest()
    key = key.ljust(_BLOCK_BYTES, b"\0")
    inner_hash = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + SIGNATURE_DOMAIN)
    return inner_hash, hashlib.sha256(bytes(byte ^ 0x5C for byte in key))
