"""Free text outside the hashed rows: a row holds a salted hash, the text stands beside it.

Reasons and notes may name people. An erasure deletes text and salt; the row's hash stays valid,
and without the salt nobody can find the text by trying.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

TEXT_DOMAIN: Final = b"rollout-text-1\n"
SALT_DOMAIN: Final = b"rollout-text-salt-1\n"
SALT_BYTES: Final = 16
Salts = Callable[[int, str], bytes]
"""Gives the salt of a text by the row's revision and the field's name."""


@dataclass(frozen=True, slots=True)
class LedgerText:
    """A text of one field of one row, with the salt of its hash."""

    salt: bytes
    text: str

    @property
    def hash(self) -> str:
        """Return SHA-256 over domain, salt and text, in hex."""
        return sha256(TEXT_DOMAIN + self.salt + self.text.encode()).hexdigest()


def derive_salts(secret: bytes) -> Salts:
    """Return salts that follow from a secret, so that a replay writes the same ledger again.

    >>> derive_salts(b"one")(7, "reason") == derive_salts(b"one")(7, "reason")
    True
    """

    def salt_of(revision: int, field: str) -> bytes:
        content = SALT_DOMAIN + revision.to_bytes(8, "big") + field.encode() + b"\n" + secret
        return sha256(content).digest()[:SALT_BYTES]

    return salt_of
