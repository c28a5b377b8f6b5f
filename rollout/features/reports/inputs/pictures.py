"""Pictures of cases: embedded if small, otherwise a link.

Media are never fetched. Only formats without scripts are embedded (no SVG), recognized by their
first bytes, and re-encoded, so that no text of the caller becomes part of the URL.
"""

import base64
import binascii
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

MAX_PICTURE_BYTES: Final = 40_000  # five of them fit into a mail
MAX_LINK_LENGTH: Final = 2_000
DATA_URL_PREFIX: Final = "data:image/"
FORMAT_PATTERNS: Final = {
    "png": rb"\x89PNG\r\n\x1a\n",
    "jpeg": rb"\xff\xd8\xff",
    "gif": rb"GIF8[79]a",
    "webp": rb"RIFF.{4}WEBP",
}
"""First bytes of the formats that may be embedded."""

MediaFinder = Callable[[Collection[str]], Mapping[str, tuple[str, ...]]]
"""Returns the media URLs of cases by key; cases without media are absent.

Only called for the costliest cases, to save memory.
"""


def find_no_media(_keys: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """Return nothing: no case has media."""
    return {}


def find_picture(references: Iterable[str], *, may_embed: bool) -> str | None:
    """Return the picture of a case as `data:` URL or web link, or None.

    Args:
        references: URLs of its media, in order. Embedded pictures go before links.
        may_embed: whether a picture may be embedded; otherwise only a link is returned.
    """
    addresses = tuple(references)
    pictures = (_read_embedded(address) for address in addresses if may_embed)
    links = (address for address in addresses if is_link(address))
    return next((address for address in pictures if address), None) or next(links, None)


def embed_picture(content: bytes) -> str | None:
    """Return a picture as a `data:` URL, or None if unknown or too large.

    >>> embed_picture(b"GIF89a...")
    'data:image/gif;base64,R0lGODlhLi4u'
    >>> embed_picture(b"<svg/>") is None
    True
    """
    picture_format = _detect_format(content)
    if picture_format is None or len(content) > MAX_PICTURE_BYTES:
        return None
    return f"{DATA_URL_PREFIX}{picture_format};base64,{base64.b64encode(content).decode()}"


def is_link(reference: str) -> bool:
    """Return whether a text is an http(s) URL with a host and without credentials.

    >>> is_link("https://pictures.example/7.jpg"), is_link("javascript:alert(1)")
    (True, False)
    """
    if len(reference) > MAX_LINK_LENGTH or not reference.isprintable() or " " in reference:
        return False
    try:
        parts = urlsplit(reference)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc


def is_embedded(reference: str) -> bool:
    """Return whether a text is a `data:` URL as `embed_picture` returns it."""
    return _read_embedded(reference) == reference


def _read_embedded(reference: str) -> str | None:
    """Return the re-encoded picture of a `data:` URL, or None."""
    head, comma, body = reference[: 2 * MAX_PICTURE_BYTES].partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        return None
    try:
        return embed_picture(base64.b64decode(body, validate=True))
    except binascii.Error:
        return None


def _detect_format(content: bytes) -> str | None:
    formats = FORMAT_PATTERNS.items()
    return next((name for name, pattern in formats if re.match(pattern, content, re.DOTALL)), None)
