"""Free text beside the hashed rows, which hold only its salted hash.

Reasons and notes may name people. An erasure deletes text and salt; the row's hash stays valid,
and without the salt the text can't be found by guessing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

TEXT_DOMAIN: Final = b"rollout-text-1\n"
SALT_DOMAIN: Final = b"rollout-text-salt-1\n"
SALT_BYTES: Final = 16
Salts = Callable[[int, str], bytes]
"""Returns a text's salt for the row's revision and the field's name."""


@dataclass(frozen=True, slots=True)
class LedgerText:
    """The text of one field of one row, with its salt."""

    salt: bytes
    text: str

    @property
    def hash(self) -> str:
        """Return SHA-256 over domain, salt and text, in hexadecimal digits."""
        return sha256(TEXT_DOMAIN + self.salt + self.text.encode()).hexdigest()


def derive_salts(secret: bytes) -> Salts:
    """Return salts derived from a secret, so that a replay is reproducible.

    >>> derive_salts(b"one")(7, "reason") == derive_salts(b"one")(7, "reason")
    True
    """

    def derive_salt(revision: int, field: str) -> bytes:
        content = SALT_DOMAIN + revision.to_bytes(8, "big") + field.encode() + b"\n" + secret
        return sha256(content).digest()[:SALT_BYTES]

    return derive_salt
