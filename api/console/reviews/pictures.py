"""Pictures of cases: embedded if the page's policy allows it, else linked."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from api.console.page.page_context import HOME
from api.console.reviews.case_text import build_case_path
from rollout.reports.inputs.pictures import find_picture, is_link
from rollout.services.divergences.top_losses import CostliestDivergence

HTTPS: Final = "https:"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: `src` to embed it, `href` to link it."""

    src: str | None
    href: str | None


def build_picture(address: str | None) -> Picture | None:
    """Return how a page shows a picture's URL; None without one.

    >>> build_picture("https://pictures.example/7.jpg").src
    'https://pictures.example/7.jpg'
    >>> build_picture("http://pictures.example/7.jpg").src is None
    True
    """
    if address is None:
        return None
    if address.startswith("data:"):
        return Picture(address, None)
    if not is_link(address):
        return None
    return Picture(address if address.lower().startswith(HTTPS) else None, address)


def list_pictures(media: Mapping[str, str]) -> list[tuple[str, Picture]]:
    """Return the pictures of a case with their names, without dead ones."""
    named_pictures = (
        (name, build_picture(find_picture([media[name]], may_embed=True))) for name in sorted(media)
    )
    return [
        (name, picture_item) for name, picture_item in named_pictures if picture_item is not None
    ]


def find_first_picture(attributes: Mapping[str, str], media: Mapping[str, str]) -> Picture | None:
    """Return the first picture of a case, or None."""
    return next((picture for _, picture in list_pictures({**attributes, **media})), None)


EMBEDDED_PREFIX: Final = "data:"
MAX_ATTRIBUTES: Final = 12  # maximum attributes on a card


@dataclass(frozen=True, slots=True)
class DivergenceCard:
    """A case with differing decisions.

    Attributes:
        case: the case.
        differences_text: what the version would have done and what the human did, in
            words.
        picture: name and address, or None.
        attributes: formatted attributes.
        href: path of the case's page.
    """

    case: CostliestDivergence
    differences_text: str
    picture: tuple[str, Picture] | None
    attributes: tuple[tuple[str, str], ...]
    href: str


def build_cards(rollout: str, cases: Iterable[CostliestDivergence]) -> tuple[DivergenceCard, ...]:
    """Return cards of some cases, in their order."""
    return tuple(_build_card(rollout, case) for case in cases)


def _build_card(rollout: str, case: CostliestDivergence) -> DivergenceCard:
    case_pictures = list_pictures({**case.attributes, **case.media})
    attributes = [
        (name, value)
        for name, value in case.attributes.items()
        if not value.startswith(EMBEDDED_PREFIX)
    ]
    return DivergenceCard(
        case=case,
        differences_text="; ".join(_describe_differences(case)),
        picture=case_pictures[0] if case_pictures else None,
        attributes=tuple(attributes[:MAX_ATTRIBUTES]),
        href=HOME + build_case_path(rollout, case.key),
    )


def _describe_differences(case: CostliestDivergence) -> Iterator[str]:
    for answer in case.differences:
        if answer.model_action and answer.model_action != answer.human_action:
            yield f"{answer.model_action} instead of {answer.human_action or 'nothing known'}"
        else:
            yield f"{answer.lever} answered differently"
