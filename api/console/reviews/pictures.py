"""Pictures of cases: shown where the page's policy lets them, else a link that nobody follows."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from api.console.page.page_context import HOME
from api.console.reviews.case_text import case_address
from rollout.reports.inputs.pictures import is_link, picture_of
from rollout.services.divergences.costliest_cases import WorstCase

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
    named_pictures = (
        (name, picture(picture_of([media[name]], embeds=True))) for name in sorted(media)
    )
    return [
        (name, picture_item) for name, picture_item in named_pictures if picture_item is not None
    ]


EMBEDDED: Final = "data:"
MOST: Final = 12  # attributes that a card names


@dataclass(frozen=True, slots=True)
class Card:
    """A case on which they differ.

    Attributes:
        case: itself.
        does: what the version would have done in place of what the person did, in words.
        picture: its name and where it is; None where the case has none.
        about: attributes in words.
        href: the page that explains the case.
    """

    case: WorstCase
    does: str
    picture: tuple[str, Picture] | None
    about: tuple[tuple[str, str], ...]
    href: str


def cards_of(rollout: str, cases: Iterable[WorstCase]) -> tuple[Card, ...]:
    """Return the cards of some cases, in their order."""
    return tuple(_card(rollout, case) for case in cases)


def _card(rollout: str, case: WorstCase) -> Card:
    case_pictures = pictures({**case.attributes, **case.media})
    attributes = [
        (name, value) for name, value in case.attributes.items() if not value.startswith(EMBEDDED)
    ]
    return Card(
        case=case,
        does="; ".join(_does(case)),
        picture=case_pictures[0] if case_pictures else None,
        about=tuple(attributes[:MOST]),
        href=HOME + case_address(rollout, case.key),
    )


def _does(case: WorstCase) -> Iterator[str]:
    for answer in case.said:
        if answer.model_action and answer.model_action != answer.human_action:
            yield f"{answer.model_action} instead of {answer.human_action or 'nothing known'}"
        else:
            yield f"{answer.lever} answered differently"
