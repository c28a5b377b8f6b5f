"""What the live demo adds to the console; other services have none of it."""

from collections.abc import Sequence
from typing import Protocol

from fastapi import APIRouter


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
