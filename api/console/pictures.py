"""Pictures of cases: shown where the page's policy lets them, else a link that nobody follows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rollout.reports.pictures import is_link, picture_of

HTTPS: Final = "https:"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: `src` where it can stand in the page, `href` where it is on the web."""

    src: str | None
    href: str | None


def picture(address: str | None) -> Picture | None:
    """Return what a page does with a picture's address; None where there is none.

    >>> picture("https://pictures.example/7.jpg").src
    'https://pictures.example/7.jpg'
    >>> picture("http://pictures.example/7.jpg").src is None
    True
    """
    if address is None:
        return None
    if address.startswith("data:"):
        return Picture(address, None)
    if not is_link(address):
        return None
    return Picture(address if address.lower().startswith(HTTPS) else None, address)


def pictures(media: Mapping[str, str]) -> list[tuple[str, Picture]]:
    """Return the pictures of a case with their names; what leads nowhere is left out."""
    found = ((name, picture(picture_of([media[name]], embeds=True))) for name in sorted(media))
    return [(name, one) for name, one in found if one is not None]
