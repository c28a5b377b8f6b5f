"""What optional parts, and the live demo, add to a service; the rest of it imports none of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fastapi import APIRouter

from rollout.features.delivery.delivery import SendingJob


@dataclass(frozen=True, slots=True)
class OptionalPart:
    """What a part adds to a service.

    Attributes:
        routers: its routes of the API.
        pages: module of its pages below `api`, imported with the console.
        sections: its templates in pages of others, by the page.
        sending_jobs: what a replica sends for it.
    """

    routers: Sequence[APIRouter]
    pages: str
    sections: Mapping[str, str]
    sending_jobs: Sequence[type[SendingJob]] = ()


class DemoConsole(Protocol):
    """The state of the live demo that pages show, and the routes that change it."""

    @property
    def router(self) -> APIRouter:
        """Return the routes: sign-in links and the speed."""

    @property
    def speed(self) -> int:
        """Return how many times faster than the wall clock the story goes."""

    @property
    def is_paused(self) -> bool:
        """Return whether the story is paused."""

    @property
    def offered_speeds(self) -> Sequence[int]:
        """Return the speeds for which a page has a button."""

    def describe_speed(self) -> str:
        """Return the state in words."""
