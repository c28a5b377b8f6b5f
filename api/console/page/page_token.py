"""The page's token as forms carry it: under a new mask each time, so that gzip tells nothing.

Pages are sent gzipped. What compresses well could be guessed by whoever can put text into a page
and sees how long it becomes; a token that is never written twice the same way can't.
"""

from collections.abc import Callable

from rollout.services.access.keys import read_token, write_token


def masked(token: str, entropy: Callable[[int], bytes]) -> str:
    """Return a token under a mask of as many random bytes, with the mask before it.

    >>> masked("QUJD", bytes), unmasked(masked("QUJD", bytes))
    ('AAAAQUJD', 'QUJD')
    """
    plain = read_token(token)
    mask = entropy(len(plain))
    return write_token(mask + _apart(plain, mask))


def unmasked(text: str) -> str:
    """Return the token under its mask; of what is none, something that is no token.

    >>> unmasked("QUJD"), unmasked("ä")
    ('', '')
    """
    masked_bytes = read_token(text)
    half, remainder = divmod(len(masked_bytes), 2)
    return "" if remainder else write_token(_apart(masked_bytes[half:], masked_bytes[:half]))


def _apart(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
