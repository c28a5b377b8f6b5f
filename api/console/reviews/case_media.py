"""Media of a case: pictures, links and texts."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from api.console.page.page import CONTENT_POLICY
from rollout.reports.inputs.pictures import is_link

EMBEDDED_PREFIX: Final = "data:image/"
NOT_PICTURE_SUFFIX: Final = re.compile(
    r"\.(mp4|webm|mov|avi|mkv|mp3|wav|flac|ogg|pdf|html?|txt|json|csv)$"
)
HOST_PATTERN: Final = re.compile(r"([A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
"""A host, with an optional port, that is safe in a header."""

IMAGE_SOURCES: Final = "img-src 'self' data: https:"


@dataclass(frozen=True, slots=True)
class CaseMedium:
    """One medium by its name."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class CaseMedia:
    """Media of a case: embedded pictures, outgoing links, plain texts."""

    pictures: tuple[CaseMedium, ...]
    links: tuple[CaseMedium, ...]
    texts: tuple[CaseMedium, ...]


def sort_media(media: Mapping[str, str]) -> CaseMedia:
    """Sort the media of a case.

    Web addresses count as pictures unless the name says otherwise, since cameras and picture stores
    seldom use file extensions.
    """
    media_by_kind: dict[str, list[CaseMedium]] = {"picture": [], "link": [], "text": []}
    for name, address in media.items():
        media_by_kind[_classify_address(address)].append(CaseMedium(name, address))
    return CaseMedia(
        tuple(media_by_kind["picture"]), tuple(media_by_kind["link"]), tuple(media_by_kind["text"])
    )


def _classify_address(address: str) -> str:
    if address.startswith(EMBEDDED_PREFIX):
        return "picture"
    if not is_link(address):
        return "text"
    return "link" if NOT_PICTURE_SUFFIX.search(urlsplit(address).path.lower()) else "picture"


def list_remote_pictures(media: Iterable[CaseMedia]) -> tuple[str, ...]:
    """Return the distinct URLs of pictures that a browser has to fetch."""
    addresses = (picture.address for case_media in media for picture in case_media.pictures)
    return tuple(
        dict.fromkeys(address for address in addresses if not address.startswith(EMBEDDED_PREFIX))
    )


def build_picture_policy(addresses: Iterable[str]) -> str:
    """Return the page's Content-Security-Policy, allowing plain-HTTP picture hosts.

    Cameras in private networks often have no TLS. Other hosts stay blocked.
    """
    parts = (urlsplit(address) for address in addresses)
    hosts = {
        part.netloc
        for part in parts
        if part.scheme == "http" and HOST_PATTERN.fullmatch(part.netloc)
    }
    return CONTENT_POLICY.replace(
        IMAGE_SOURCES, " ".join([IMAGE_SOURCES, *(f"http://{host}" for host in sorted(hosts))])
    )
