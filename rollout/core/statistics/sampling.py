"""Draws: numbers in [0, 1) that nobody can steer and anybody can check once the salt is shown.

A draw is the top 53 bits of HMAC-SHA-256(salt, purpose ␟ key), ␟ the byte 1F. It depends on the
case alone and not on when, where or in which order cases are handled; different purposes are
independent of each other.
"""

import hashlib
import hmac
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_SEPARATOR = "\x1f"
_BLOCK = 64  # bytes that SHA-256 takes in at once


def draw(salt: bytes, purpose: str, *parts: str) -> float:
    """Return the draw of a case for a purpose.

    Args:
        salt: the secret that all draws of a rollout share, one byte or more.
        purpose: `stage`, `pick` or `second`.
        parts: what is drawn: a case or episode key; several parts are joined by byte 1F.

    Returns:
        A multiple of 2⁻⁵³ in [0, 1).

    Raises:
        ValueError: the salt is empty, or there is nothing to draw.

    >>> draw(bytes(range(32)), "audit", "bear-alarm", "3", "creek-000123")
    0.9409394035030152
    """
    _check_salt(salt)
    if not parts:
        raise ValueError("parts is empty; give the key of a case or episode")
    message = _SEPARATOR.join((purpose, *parts)).encode()
    return (int.from_bytes(hmac.digest(salt, message, "sha256")[:8], "big") >> 11) / 2**53


def draws(salt: bytes, purpose: str, keys: Iterable[str]) -> NDArray[np.float64]:
    """Return the draws of many keys, in their order.

    HMAC's two passes both begin with the salt; those beginnings are hashed once and copied, so a
    million keys take half a second and not one and a half.

    Args:
        salt: the secret that all draws of a rollout share, one byte or more.
        purpose: `stage`, `pick` or `second`.
        keys: case or episode keys.

    Returns:
        float64, shape (keys,), each in [0, 1) and equal to `draw` of its key.

    Raises:
        ValueError: the salt is empty.
    """
    _check_salt(salt)
    padded_salt = salt if len(salt) <= _BLOCK else hashlib.sha256(salt).digest()
    padded_salt = padded_salt.ljust(_BLOCK, b"\0")
    inner_hash = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded_salt))
    inner_hash.update((purpose + _SEPARATOR).encode())
    outer_hash = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded_salt))
    digests = []
    for key in keys:
        inner_copy, outer_copy = inner_hash.copy(), outer_hash.copy()
        inner_copy.update(key.encode())
        outer_copy.update(inner_copy.digest())
        digests.append(outer_copy.digest())
    return (np.frombuffer(b"".join(digests), dtype=">u8")[::4] >> np.uint64(11)) / 2.0**53


def _check_salt(salt: bytes) -> None:
    if not salt:
        raise ValueError("salt is empty; give one byte or more, such as 32 random ones")
