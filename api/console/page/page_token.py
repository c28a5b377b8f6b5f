"""The page token in forms, under a new mask each time, against BREACH.

Pages are sent gzipped. From the compressed length an attacker who can put text into a page could
guess a constant token; a masked one differs each time.
"""

from collections.abc import Callable

from rollout.services.access.keys import read_token, write_token


def mask_token(token: str, entropy: Callable[[int], bytes]) -> str:
    """Return a token under a random mask, with the mask before it.

    >>> mask_token("QUJD", bytes), unmask_token(mask_token("QUJD", bytes))
    ('AAAAQUJD', 'QUJD')
    """
    plain = read_token(token)
    mask = entropy(len(plain))
    return write_token(mask + _xor_bytes(plain, mask))


def unmask_token(text: str) -> str:
    """Return the token under its mask; for invalid text, no valid token.

    >>> unmask_token("QUJD"), unmask_token("ä")
    ('', '')
    """
    masked_bytes = read_token(text)
    half, remainder = divmod(len(masked_bytes), 2)
    return "" if remainder else write_token(_xor_bytes(masked_bytes[half:], masked_bytes[:half]))


def _xor_bytes(mask: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(mask, right, strict=True))
