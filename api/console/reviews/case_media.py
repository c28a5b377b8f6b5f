"""What a case brought for the eye: pictures, further links, and what can only be read."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from api.console.page.page import POLICY
from rollout.reports.inputs.pictures import is_link

EMBEDDED: Final = "data:image/"
NO_PICTURES: Final = re.compile(
    r"\.(mp4|webm|mov|avi|mkv|mp3|wav|flac|ogg|pdf|html?|txt|json|csv)$"
)
HOST: Final = re.compile(r"([A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
"""A host as it may stand in a header, with its port."""

IMAGES: Final = "img-src 'self' data: https:"


@dataclass(frozen=True, slots=True)
class Seen:
    """A medium by the name that it was sent under."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Media:
    """Pictures stand in the page, links lead out of it, and texts are shown as they were sent."""

    pictures: tuple[Seen, ...]
    links: tuple[Seen, ...]
    texts: tuple[Seen, ...]


def media_of(media: Mapping[str, str]) -> Media:
    """Sort what a case brought.

    An address of the web is taken for a picture unless its name says otherwise: cameras and
    stores of pictures seldom give them an ending.
    """
    media_by_kind: dict[str, list[Seen]] = {"picture": [], "link": [], "text": []}
    for name, address in media.items():
        media_by_kind[_kind(address)].append(Seen(name, address))
    return Media(
        tuple(media_by_kind["picture"]), tuple(media_by_kind["link"]), tuple(media_by_kind["text"])
    )


def _kind(address: str) -> str:
    if address.startswith(EMBEDDED):
        return "picture"
    if not is_link(address):
        return "text"
    return "link" if NO_PICTURES.search(urlsplit(address).path.lower()) else "picture"


def fetched(media: Iterable[Media]) -> tuple[str, ...]:
    """Return the addresses of pictures that a browser has to fetch, each once."""
    addresses = (picture.address for case_media in media for picture in case_media.pictures)
    return tuple(
        dict.fromkeys(address for address in addresses if not address.startswith(EMBEDDED))
    )


def policy_for(addresses: Iterable[str]) -> str:
    """Return the page's Content-Security-Policy, with the hosts of pictures that have no TLS.

    Cameras on a network of their own often have none. Others stay shut out.

    >>> "http://cam.local:8080;" in policy_for(["http://cam.local:8080/7.jpg"])
    True
    """
    parts = (urlsplit(address) for address in addresses)
    hosts = {part.netloc for part in parts if part.scheme == "http" and HOST.fullmatch(part.netloc)}
    return POLICY.replace(IMAGES, " ".join([IMAGES, *(f"http://{host}" for host in sorted(hosts))]))
