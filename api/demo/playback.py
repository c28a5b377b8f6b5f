"""Speed of the live demo, which users change while it runs."""

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from hmac import compare_digest
from ipaddress import ip_address
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from api import auth
from api.auth import FETCH_SITE_HEADER, OWN_SITES
from api.web_kit.page import redirect_to
from api.web_kit.page_context import HOME, SignedForm, get_safe_path, get_service
from rollout.features.demo.catalog import ExampleSystem
from rollout.kernel.errors import NotAllowedError, RefusalError, UnauthenticatedError

MIN_SPEED, MAX_SPEED = 1, 3_600
DEFAULT_SPEED = 360
"""Times faster than the wall clock: an hour of the story takes 10 s."""
OFFERED_SPEEDS = (60, 360, 1_440)


@dataclass(slots=True)
class Playback:
    """Whether and how fast the story goes on; threads may share it."""

    speed: int = DEFAULT_SPEED
    is_paused: bool = False
    is_over: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def play_at(self, speed: int) -> None:
        """Go on at a speed.

        Raises:
            ValueError: the speed is out of range.
        """
        check_speed(speed)
        with self._changed:
            self.speed, self.is_paused = speed, False
            self._changed.notify_all()

    def pause(self) -> None:
        """Hold the story; sign-in, reviews and approvals go on."""
        with self._changed:
            self.is_paused = True
            self._changed.notify_all()

    def wait_until_due(self, started_at: float, span: timedelta, *, patience: float) -> bool:
        """Wait until `span` of the story after `started_at`; return whether it has passed.

        Args:
            started_at: when the span began, on the monotonic clock.
            patience: most seconds to wait.
        """
        give_up_at = time.monotonic() + patience
        with self._changed:
            while True:
                now = time.monotonic()
                due_at = started_at + span.total_seconds() / self.speed
                is_held = self.is_paused or self.is_over
                if not is_held and now >= due_at:
                    return True
                if now >= give_up_at:
                    return False
                until = give_up_at if is_held else min(due_at, give_up_at)
                self._changed.wait(until - now)


def check_speed(speed: int) -> None:
    """Raise unless the demo can run at a speed.

    Raises:
        ValueError: the speed is out of range; the text names the range.
    """
    if not MIN_SPEED <= speed <= MAX_SPEED:
        raise ValueError(
            f"speed {speed} is out of range: give {MIN_SPEED} (real time) to {MAX_SPEED}"
            " (an hour of the story in a second)"
        )


TOKEN_BYTES: Final = 24
NOT_LOCAL_TEXT: Final = (
    "the demo's links work on its own machine only; open the link there, with 127.0.0.1 as host"
)
INVALID_LINK_TEXT: Final = (
    "this link is of no running demo; copy a link that the terminal has printed"
)
UNKNOWN_SPEED_TEXT: Final = "choose one of the speeds on the page"
LinkToken = Annotated[str, Query(max_length=200)]


def create_tokens(names: Sequence[str]) -> dict[str, str]:
    """Return a random token for each user's link."""
    return {name: secrets.token_urlsafe(TOKEN_BYTES) for name in names}


@dataclass(frozen=True, slots=True)
class DemoPages:
    """The demo as the console sees it.

    Attributes:
        example: what is played; the pages say what of it is real.
        playback: the speed, which the pages show and change.
        tokens: of the sign-in links, by user; they end with the process.
    """

    example: ExampleSystem
    playback: Playback
    tokens: Mapping[str, str] = field(repr=False)
    router: APIRouter = field(default_factory=APIRouter, repr=False)

    def __post_init__(self) -> None:
        """Add the routes."""
        self.router.add_api_route("/demo/sign-in/{name}", self.sign_in, methods=["GET"])
        self.router.add_api_route("/demo/speed", self.change_speed, methods=["POST"])

    @property
    def speed(self) -> int:
        """Times faster than the wall clock."""
        return self.playback.speed

    @property
    def is_paused(self) -> bool:
        """Return whether the story is paused."""
        return self.playback.is_paused

    @property
    def offered_speeds(self) -> Sequence[int]:
        """Speeds with a button, the current one among them."""
        return sorted({*OFFERED_SPEEDS, self.playback.speed})

    def describe_speed(self) -> str:
        """Return the state in words."""
        if self.playback.is_over:
            return "at the end of its letters"
        if self.playback.is_paused:
            return "paused"
        return f"{self.playback.speed:,} times as fast as the clock"

    def build_links(self, address: str) -> dict[str, str]:
        """Return the sign-in link of each user."""
        return {
            name: f"{address}{HOME}/demo/sign-in/{name}?token={token}"
            for name, token in self.tokens.items()
        }

    def sign_in(self, request: Request, name: str, token: LinkToken = "") -> Response:
        """Start a session of the link's user.

        Raises:
            NotAllowedError: peer or host is another machine, or a page elsewhere has the link.
            UnauthenticatedError: the token is wrong.
        """
        if not is_local(request):
            raise NotAllowedError(NOT_LOCAL_TEXT)
        if request.headers.get(FETCH_SITE_HEADER.decode(), "none") not in OWN_SITES:
            raise NotAllowedError(NOT_LOCAL_TEXT)
        if not compare_digest(token.encode(), self.tokens.get(name, "").encode()) or not token:
            raise UnauthenticatedError(INVALID_LINK_TEXT)
        service = get_service(request)
        now = service.wall_clock.now()
        session = service.sign_in.start_demo_session(name, at=now)
        response = RedirectResponse(f"{HOME}/", 303, {"Cache-Control": "no-store"})
        auth.set_session(request, response, service.sign_in, session, now)
        return response

    def change_speed(self, form: SignedForm) -> Response:
        """Pause, or go on at a speed; then show the page again.

        Raises:
            RefusalError: the speed has no button.
        """
        text = form.get_text("speed")
        if text == "0":
            self.playback.pause()
        elif text in map(str, self.offered_speeds):
            self.playback.play_at(int(text))
        else:
            raise RefusalError(UNKNOWN_SPEED_TEXT)
        return redirect_to(get_safe_path(form.get_text("to")).removeprefix(HOME))


def is_local(request: Request) -> bool:
    """Return whether a request comes from this machine and names it as its host."""
    peer = auth.get_client_address(request)
    try:
        is_local_peer = ip_address(peer).is_loopback
    except ValueError:
        is_local_peer = False
    return is_local_peer and auth.is_local_host(request.headers.get("host", ""))
