"""Random tokens as text: what a browser or a link carries."""

import base64
import binascii

SIZE = 32
"""Bytes: as many as nobody guesses."""


def write_token(token: bytes) -> str:
    """Return a token as text without padding.

    >>> write_token(b"ABC")
    'QUJD'
    """
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


def read_token(text: str) -> bytes:
    """Return a token's bytes; none of what is no token.

    >>> read_token("QUJD"), read_token("ä"), read_token("")
    (b'ABC', b'', b'')
    """
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (UnicodeError, binascii.Error):
        return b""
