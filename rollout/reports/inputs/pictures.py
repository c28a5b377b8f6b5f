"""Pictures of cases: small ones stand in the page itself, others are a link that nothing follows.

A report is one file, so a picture is in it or it is not: what a case's media lead to is never
fetched. What is embedded is known by its first bytes to be a picture that runs nothing (SVG may),
and is written anew, so that no word of the caller's is part of the address.
"""

import base64
import binascii
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

LARGEST: Final = 40_000  # bytes of a picture: five of them stand in a mail
LONGEST: Final = 2_000  # letters of a link
EMBEDDED: Final = "data:image/"

MediaOf = Callable[[Collection[str]], Mapping[str, tuple[str, ...]]]
"""Returns of cases, by their keys, what their media are: addresses; cases without any are left out.

It is asked of a report's worst cases alone: references of all would cost memory for nothing.
"""


def no_media(_keys: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """Return nothing: no case has media."""
    return {}


def picture_of(references: Iterable[str], *, embeds: bool) -> str | None:
    """Return the picture of a case as `data:` address or web link; None where it has none.

    Args:
        references: what its media are, the first first. What is in one goes before any link.
        embeds: whether a picture may stand in the report; else only a link may.
    """
    addresses = tuple(references)
    pictures = (_inside(address) for address in addresses if embeds)
    links = (address for address in addresses if is_link(address))
    return next((address for address in pictures if address), None) or next(links, None)


def embedded(content: bytes) -> str | None:
    """Return a picture as `data:` address; None for what is none, or larger than `LARGEST`.

    >>> embedded(b"GIF89a...")
    'data:image/gif;base64,R0lGODlhLi4u'
    >>> embedded(b"<svg/>") is None
    True
    """
    picture_format = _form(content)
    if picture_format is None or len(content) > LARGEST:
        return None
    return f"{EMBEDDED}{picture_format};base64,{base64.b64encode(content).decode()}"


def is_link(reference: str) -> bool:
    """Say whether something leads to the web: http or https, a host, and no name or password.

    >>> is_link("https://pictures.example/7.jpg"), is_link("javascript:alert(1)")
    (True, False)
    """
    if len(reference) > LONGEST or not reference.isprintable() or " " in reference:
        return False
    try:
        parts = urlsplit(reference)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc


def is_inside(reference: str) -> bool:
    """Say whether something is a small picture itself, as `embedded` writes it."""
    return _inside(reference) == reference


def _inside(reference: str) -> str | None:
    """Return the picture that a `data:` address holds, None where it holds none."""
    head, comma, body = reference[: 2 * LARGEST].partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        return None
    try:
        return embedded(base64.b64decode(body, validate=True))
    except binascii.Error:
        return None


def _form(content: bytes) -> str | None:
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if content.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return None
