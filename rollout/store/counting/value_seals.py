"""What digests cover of a unit's attribute values, so that an erasure can replace them.

A seal is 16 random bytes, hashed with the values. Once values are erased it is that hash instead:
digests stay true, and without the random bytes nobody can find the values by trying.
"""

from hashlib import sha256
from secrets import token_bytes
from typing import Final

RANDOM_BYTES: Final = 16
HASH_BYTES: Final = 32


def create_seal(attribute_values: str | None, slices: str | None) -> bytes | None:
    """Return a new seal, None for a unit without values."""
    return None if attribute_values is None and slices is None else token_bytes(RANDOM_BYTES)


def hash_values(seal: bytes | None, attribute_values: str | None, slices: str | None) -> bytes:
    """Return what digests cover of a unit's values, also of erased ones."""
    if seal is not None and len(seal) == HASH_BYTES:
        return seal
    return sha256((seal or b"") + f"{(attribute_values, slices)!a}".encode()).digest()
