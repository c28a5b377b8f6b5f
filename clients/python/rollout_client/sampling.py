"""Sampling buckets: where a case's secret value in [0, 1) falls among some edges.

A value is the top 53 bits of HMAC-SHA-256(salt, "stage" ␟ key), ␟ the byte 1F.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import ceil

_PREFIX = b"stage\x1f"
_BLOCK_BYTES, _DIGEST_BYTES = 64, 32  # of SHA-256


def build_bucket_finder(salt: bytes, edges: Sequence[float]) -> Callable[[str], int]:
    """Return a function that counts the edges at or below a key's sampling value.

    It compares digests with the digests at which the edges begin. HMAC's two passes both begin with
    the salt; those beginnings are hashed once and copied.

    Args:
        edges: shares above 0, ascending.
    """
    padded_salt = salt if len(salt) <= _BLOCK_BYTES else hashlib.sha256(salt).digest()
    padded_salt = padded_salt.ljust(_BLOCK_BYTES, b"\0")
    inner_hash = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded_salt) + _PREFIX)
    outer_hash = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded_salt))
    first_digests = [_compute_first_digest(edge) for edge in edges]

    def find_bucket(key: str) -> int:
        inner_copy, outer_copy = inner_hash.copy(), outer_hash.copy()
        inner_copy.update(key.encode())
        outer_copy.update(inner_copy.digest())
        return bisect_right(first_digests, outer_copy.digest())

    return find_bucket


def _compute_first_digest(edge: float) -> bytes:
    """Return the bytes from which on digests have values of at least `edge`."""
    first_value = ceil(edge * 2**53)  # exact: a power of two
    if first_value >= 2**53:
        return b"\xff" * (_DIGEST_BYTES + 1)  # above every digest
    return (first_value << 11).to_bytes(8, "big")
