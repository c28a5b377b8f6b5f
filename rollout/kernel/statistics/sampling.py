"""Sampling values: draws of cases by keyed hashes, which clients can compute.

Sampling values lie in [0, 1), are not steerable, and can be checked with the salt. A value is the
top 53 bits of HMAC-SHA-256(salt, purpose ␟ key), ␟ the byte 1F. It depends on the case alone and
not on when, where or in which order cases are handled; different purposes are independent of each
other.
"""

from __future__ import annotations

import hashlib
import hmac
from bisect import bisect_right
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Any

from rollout.kernel.arrays import Floats, np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


SAMPLING_PURPOSE = "stage"
"""Purpose of the draws of who decides; clients compute them."""
AUDIT = "audit"
"""Purpose of the draws of audits, by a salt that never leaves the service."""
_SEPARATOR = "\x1f"
_KEYS_AT_ONCE = 65_536  # whose digests are held together
_BLOCK_BYTES, _DIGEST_BYTES = 64, 32  # of SHA-256


def compute_sampling_value(salt: bytes, purpose: str, *parts: str) -> float:
    """Return the sampling value of a case for a purpose.

    Args:
        salt: the rollout's secret, one byte or more.
        purpose: `stage`, `audit`, `queue` or `second`.
        parts: a case or episode key; several parts are joined by byte 1F.

    Returns:
        A multiple of 2⁻⁵³ in [0, 1).

    Raises:
        ValueError: the salt or `parts` is empty.

    >>> compute_sampling_value(bytes(range(32)), "audit", "bear-alarm", "3", "creek-000123")
    0.9409394035030152
    """
    _check_salt(salt)
    if not parts:
        raise ValueError("parts is empty; give the key of a case or episode")
    message = _SEPARATOR.join((purpose, *parts)).encode()
    return (int.from_bytes(hmac.digest(salt, message, "sha256")[:8], "big") >> 11) / 2**53


def compute_sampling_values(salt: bytes, purpose: str, keys: Iterable[str]) -> Floats:
    """Return the sampling values of many keys, in their order.

    Each equals `compute_sampling_value` of its key. HMAC's two passes both begin with the salt;
    those beginnings are hashed once and copied, which takes a third of the time.

    Raises:
        ValueError: the salt is empty.
    """
    hashes, remaining = _begin_hashes(salt, purpose), iter(keys)
    parts = [np.empty(0)]
    while batch := list(islice(remaining, _KEYS_AT_ONCE)):
        parts.append(_compute_batch(*hashes, batch))
    return np.concatenate(parts)


def _compute_batch(inner_hash: Any, outer_hash: Any, keys: list[str]) -> Floats:
    digests = []
    for key in keys:
        inner_copy, outer_copy = inner_hash.copy(), outer_hash.copy()
        inner_copy.update(key.encode())
        outer_copy.update(inner_copy.digest())
        digests.append(outer_copy.digest())
    return (np.frombuffer(b"".join(digests), dtype=">u8")[::4] >> np.uint64(11)) / 2.0**53


def build_bucket_finder(salt: bytes, purpose: str, edges: Sequence[float]) -> Callable[[str], int]:
    """Return a function that counts the edges at or below a key's sampling value.

    It compares digests with the digests at which the edges begin, so no value is computed.

    Args:
        edges: shares above 0, ascending.

    Raises:
        ValueError: the salt is empty.
    """
    inner_hash, outer_hash = _begin_hashes(salt, purpose)
    first_digests = [_compute_first_digest(edge) for edge in edges]

    def find_bucket(key: str) -> int:
        inner_copy, outer_copy = inner_hash.copy(), outer_hash.copy()
        inner_copy.update(key.encode())
        outer_copy.update(inner_copy.digest())
        return bisect_right(first_digests, outer_copy.digest())

    return find_bucket


def _begin_hashes(salt: bytes, purpose: str) -> tuple[Any, Any]:
    """Return the beginnings of HMAC's inner and outer hash."""
    _check_salt(salt)
    padded_salt = salt if len(salt) <= _BLOCK_BYTES else hashlib.sha256(salt).digest()
    padded_salt = padded_salt.ljust(_BLOCK_BYTES, b"\0")
    inner_hash = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded_salt))
    inner_hash.update((purpose + _SEPARATOR).encode())
    return inner_hash, hashlib.sha256(bytes(byte ^ 0x5C for byte in padded_salt))


def _compute_first_digest(edge: float) -> bytes:
    """Return the bytes from which on digests have values of at least `edge`."""
    first_value = ceil(edge * 2**53)  # exact: a power of two
    if first_value >= 2**53:
        return b"\xff" * (_DIGEST_BYTES + 1)  # above every digest
    return (first_value << 11).to_bytes(8, "big")


def _check_salt(salt: bytes) -> None:
    if not salt:
        raise ValueError("salt is empty; give one byte or more, such as 32 random ones")
