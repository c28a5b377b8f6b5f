"""The live demo: the service runs in a thread, the simulation in this one.

Users change its speed while it runs.
"""

import gc
import logging
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hmac import compare_digest
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import httpx2
import typer
import uvicorn
from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import RedirectResponse

from api import auth
from api.app import create_app
from api.auth import FETCH_SITE_HEADER, OWN_SITES
from api.demo.start import PREPARING
from api.http_protocol import HTTP_PROTOCOL
from api.ledger.routes import get_streams
from api.web_kit.page import redirect_to
from api.web_kit.page_context import HOME, SignedForm, get_safe_path, get_service
from rollout.engine.words.formatting import format_quantity, wrap_text
from rollout.features.demo.accounts import COLLEAGUE, DEMO_OPERATORS, RESUME_APPROVER, ROLES_BY_USER
from rollout.features.demo.catalog import ExampleSystem
from rollout.features.demo.player import (
    RESUME,
    STEP,
    CaseTraffic,
    DemoApprover,
    DemoColleague,
    DemoPlayer,
    LedgerNarrator,
    WeeklyReporter,
    build_account_request,
    list_open_proposals,
)
from rollout.features.demo.recorded_cases import load_cases
from rollout.features.demo.stage import (
    DemoService,
    build_case_records,
    open_stage,
    prepare_history,
)
from rollout.kernel.errors import NotAllowedError, RefusalError, UnauthenticatedError
from rollout.live.service import Service
from rollout.worker.jobs import JobScheduler

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


WAKE_SECONDS = 0.1  # short, because a simulated hour is short
KEEP_ALIVE_SECONDS = 86_400  # connections stay idle between simulated hours
SHUTDOWN_SECONDS = 1
APPROVAL_DELAY = timedelta(hours=4)
COLLEAGUE_SECONDS = 1.0
INTRODUCTION = """\
{title}, LIVE at {address}
{idea}
It is {start}, {days} into the story:
{proposals} open, {incidents} open.

Each link signs in one user, on this machine, until the demo ends:
{links}

{second}
Speed: {speed:,} times as fast as the clock. Change or pause it at the top of each page.

In another terminal:
  export ROLLOUT_SERVER={address} ROLLOUT_API_KEY={key}
  rollout status {rollout}
The API documentation is at {address}/docs. Ctrl-C ends the demo.
"""
LINK_LINE = "  {name:4} {role:9} {link}"
ONE_APPROVER_TEXT = (
    "Simulated operators approve after four hours. A widening's last approval is yours."
)
AUTO_APPROVE = "cy and dee, simulated operators, approve after four hours: you only watch."


def play_live(
    example: ExampleSystem,
    port: int,
    speed: int,
    out: Path,
    *,
    auto_approve: bool,
    wait_for_history: Callable[[], object],
) -> None:
    """Play an example from its `serve_at` until Ctrl-C.

    Args:
        example: what to play.
        port: the local port to listen on.
        speed: how many times faster than the wall clock the story goes.
        out: folder in which the prepared history is kept.
        auto_approve: whether simulated operators approve everything.
        wait_for_history: returns when no other process builds the history for this one.

    Raises:
        ValueError: the speed is out of range.
    """
    check_speed(speed)
    records = build_case_records(example)
    pages = DemoPages(example, Playback(speed), create_tokens(list(ROLES_BY_USER)))
    address = f"http://127.0.0.1:{port}"
    with open_stage(records.policy, example.serve_at) as stage:
        app = create_app(stage.service, demo=pages)
        cases = load_cases(example)
        wait_for_history()
        history = prepare_history(out, example, records, cases, lambda: typer.echo(PREPARING))
        demo = stage.open_history(history)
        with serve_api(app, demo.service, port), open_clients(demo, address) as api_clients:
            span = example.serve_at - cases[0].at
            client = api_clients[COLLEAGUE]
            typer.echo(
                _describe_start(demo, pages, span, client, address, auto_approve=auto_approve)
            )
            traffic = CaseTraffic(
                records,
                build_account_request(api_clients, demo.policy.rollout),
                example.training_cutoffs,
                list(demo.scheduled),
            )
            player = DemoPlayer(traffic, demo.clock, cases[demo.next_case :])
            _play(
                DemoCast.build(demo, api_clients, player, auto_approve=auto_approve), pages.playback
            )


def _describe_start(
    demo: DemoService,
    pages: DemoPages,
    span: timedelta,
    client: httpx2.Client,
    address: str,
    *,
    auto_approve: bool,
) -> str:
    """Return what the command prints when the service is up: links, and the rollout's state.

    `span` is how long the story has gone.
    """
    links = [
        LINK_LINE.format(name=name, role=ROLES_BY_USER[name][0], link=link)
        for name, link in pages.build_links(address).items()
    ]
    example, rollout = pages.example, demo.policy.rollout
    proposals = list_open_proposals(client, rollout)
    incidents = client.get(f"/v1/rollouts/{rollout}/incidents").json()["items"]
    at = example.serve_at
    return INTRODUCTION.format(
        title=example.title.upper(),
        address=address,
        idea="\n".join(wrap_text(example.idea)),
        start=f"{at:%A} {at.day} {at:%B %Y, %H:%M} UTC",
        days=format_quantity(span.days, "day"),
        proposals=format_quantity(len(proposals), "proposal"),
        incidents=format_quantity(len(incidents), "incident"),
        links="\n".join(links),
        second=AUTO_APPROVE if auto_approve else ONE_APPROVER_TEXT,
        speed=pages.speed,
        key=demo.keys[DEMO_OPERATORS[0]],
        rollout=rollout,
    )


@dataclass(frozen=True, slots=True)
class DemoCast:
    """Everybody who is simulated, and the narrator of what they do."""

    player: DemoPlayer
    approvers: tuple[DemoApprover, ...]
    colleague: DemoColleague
    reporter: WeeklyReporter
    narrator: LedgerNarrator

    @classmethod
    def build(
        cls,
        demo: DemoService,
        api_clients: dict[str, httpx2.Client],
        player: DemoPlayer,
        *,
        auto_approve: bool,
    ) -> "DemoCast":
        """Return the cast of a demo."""
        rollout = demo.policy.rollout
        approvers = (
            DemoApprover(
                api_clients[COLLEAGUE], rollout, APPROVAL_DELAY, leaves_last=not auto_approve
            ),
            DemoApprover(
                api_clients[RESUME_APPROVER],
                rollout,
                APPROVAL_DELAY,
                frozenset() if auto_approve else frozenset({RESUME}),
            ),
        )
        narrator = LedgerNarrator(demo.service.database, demo.policy, demo.clock.now())
        list(narrator.describe_news())  # the history's events are on the pages
        colleague = DemoColleague(api_clients[COLLEAGUE], demo.policy)
        until = demo.clock.now().replace(hour=0, minute=0, second=0)
        reporter = WeeklyReporter(api_clients[DEMO_OPERATORS[0]], rollout, until)
        return cls(player, approvers, colleague, reporter, narrator)

    def act_hourly(self) -> None:
        """Approve what is due, and print what happened in the last simulated hour."""
        for approver in self.approvers:
            approver.approve_due(self.player.clock.now())
        for line in self.narrator.describe_news():
            typer.echo(line)


def _play(cast: DemoCast, playback: Playback) -> None:
    """Step through the story at the chosen speed, until the process is interrupted."""
    player, hour, day = cast.player, None, None
    zone = ZoneInfo(player.traffic.records.policy.sites[0].timezone)
    step_at = colleague_at = time.monotonic()
    while True:
        is_due = playback.wait_until_due(step_at, STEP, patience=COLLEAGUE_SECONDS)
        if time.monotonic() >= colleague_at + COLLEAGUE_SECONDS:
            colleague_at = time.monotonic()
            cast.colleague.keep_something_to_approve()
            cast.reporter.request_due_report()
        if not is_due:
            continue
        step_at = time.monotonic()
        player.step()
        local_time = player.clock.now().astimezone(zone)
        if day != local_time.date():  # print each day, also without other news
            day = local_time.date()
            typer.echo(f"{local_time:%a} {local_time.day} {local_time:%b}")
        if hour != local_time.hour:
            hour = local_time.hour
            cast.act_hourly()
        if player.is_over:
            playback.is_over = True
            typer.echo("The cases are over; the service runs until Ctrl-C.")


@contextmanager
def serve_api(app: FastAPI, service: Service, port: int) -> Iterator[None]:
    """Run a service's application in a thread, and the scheduler, within the block.

    Raises:
        OSError: the port is in use.
    """
    config = uvicorn.Config(
        app,
        "127.0.0.1",
        port,
        http=HTTP_PROTOCOL,
        log_level="warning",
        proxy_headers=False,  # the links trust the peer's address
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="service", daemon=True)
    scheduler = JobScheduler(
        service,
        "demo",
        interval=WAKE_SECONDS,
        sending_jobs=[job(service) for job in app.state.sending_jobs],
    )
    service.autonomy.require_writes()
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise OSError(f"port {port} is in use; choose another one, as --port {port + 1}")
        time.sleep(0.01)
    gc.freeze()
    gc.enable()  # the command paused collections
    scheduler.start()
    try:
        yield
    finally:
        get_streams(app).close()
        logging.getLogger("uvicorn.error").disabled = True  # a request cut off here is no error
        server.should_exit = True
        scheduler.stop()
        thread.join(timeout=5)


@contextmanager
def open_clients(demo: DemoService, address: str) -> Iterator[dict[str, httpx2.Client]]:
    """Yield an HTTP client for each key."""
    no_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the address is http; five took 0.2 s
    clients = {
        name: httpx2.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=30,
            verify=no_tls,
        )
        for name, key in demo.keys.items()
    }
    try:
        yield clients
    finally:
        for client in clients.values():
            client.close()
