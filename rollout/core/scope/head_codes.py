"""Head codes: signatures of the ledger heads that clients get.

A client returns the newest head it knows with its code. A right code proves that the service gave
out this head, so a ledger that lacks it was set back. Nobody else can make such a code.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

HEAD_DOMAIN: Final = b"rollout-head-1\x1f"
PART_COUNT: Final = 3
CODE_LENGTH: Final = 32  # hexadecimal digits: 128 bits
MAX_DIGITS: Final = 9  # of a key's number and of an era


@dataclass(frozen=True, slots=True)
class IssuedHead:
    """A ledger head as the service gives it to clients."""

    rollout: str
    era: int
    revision: int
    hash: str


def sign_head(head: IssuedHead, secret: bytes, key_number: int) -> str:
    """Return a head's code; `key_number` finds the secret again.

    >>> head = IssuedHead("ramps", 1, 41, "9f2c")
    >>> code = sign_head(head, bytes(32), 1)
    >>> read_head_era(code, {1: bytes(32)}, "ramps", 41, "9f2c")
    1
    >>> read_head_era(code, {1: bytes(32)}, "ramps", 42, "9f2c") is None
    True
    """
    return f"{key_number}.{head.era}.{_compute_code(head, secret)}"


def read_head_era(
    code: str, secrets: Mapping[int, bytes], rollout: str, revision: int, row_hash: str
) -> int | None:
    """Return the era of a head if its code is right, else None.

    `secrets` are the valid keys by number.
    """
    parts = code.split(".")
    if len(parts) != PART_COUNT or not code.isascii():
        return None
    key_number, era, digits = parts
    if not all(n.isdigit() and len(n) <= MAX_DIGITS for n in (key_number, era)):
        return None
    secret = secrets.get(int(key_number))
    if secret is None:
        return None
    head = IssuedHead(rollout, int(era), revision, row_hash)
    return head.era if hmac.compare_digest(digits, _compute_code(head, secret)) else None


def _compute_code(head: IssuedHead, secret: bytes) -> str:
    parts = (head.rollout, str(head.era), str(head.revision), head.hash)
    text = "".join(f"{len(part)}:{part}" for part in parts)  # lengths make the parts unambiguous
    message = HEAD_DOMAIN + text.encode("utf-8", "surrogatepass")  # a bad hash must fail, not raise
    return hmac.digest(secret, message, "sha256").hex()[:CODE_LENGTH]
