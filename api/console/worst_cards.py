"""The dearest divergences as cards: a picture or attributes, who said what, what it cost."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from api.console.case_address import case_address
from api.console.pictures import Picture, pictures
from api.console.visitor import HOME
from rollout.services.worst_cases import WorstCase

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
    found = pictures({**case.attributes, **case.media})
    told = [(n, v) for n, v in case.attributes.items() if not v.startswith(EMBEDDED)]
    return Card(
        case=case,
        does="; ".join(_does(case)),
        picture=found[0] if found else None,
        about=tuple(told[:MOST]),
        href=HOME + case_address(rollout, case.key),
    )


def _does(case: WorstCase) -> Iterator[str]:
    for said in case.said:
        if said.model_action and said.model_action != said.human_action:
            yield f"{said.model_action} instead of {said.human_action or 'nothing known'}"
        else:
            yield f"{said.lever} answered differently"
