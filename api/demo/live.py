"""The live demo: the service runs in a thread, the simulation in this one."""

import gc
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx2
import typer
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.demo.playback import DemoPages, Playback, check_speed, create_tokens
from api.demo.start import PREPARING
from api.http_protocol import HTTP_PROTOCOL
from api.ledger.routes import get_streams
from rollout.engine.words.formatting import format_quantity, wrap_text
from rollout.features.demo.accounts import (
    COLLEAGUE,
    DEMO_OPERATORS,
    RESUME_APPROVER,
    ROLES_BY_USER,
)
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
from rollout.features.demo.stage import DemoService, build_case_records, open_stage, prepare_history
from rollout.live.service import Service
from rollout.worker.jobs import JobScheduler

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
    wait_for_history: Callable[[], None],
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
            typer.echo(
                _DemoStart(example, demo, span, api_clients[COLLEAGUE]).describe(
                    pages, address, auto_approve=auto_approve
                )
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


@dataclass(frozen=True, slots=True)
class _DemoStart:
    """What the command prints when the service is up; `span` is how long the story has gone."""

    example: ExampleSystem
    demo: DemoService
    span: timedelta
    client: httpx2.Client

    def describe(self, pages: DemoPages, address: str, *, auto_approve: bool) -> str:
        """Return the introduction with the links and the state of the rollout."""
        links = [
            LINK_LINE.format(name=name, role=ROLES_BY_USER[name][0], link=link)
            for name, link in pages.build_links(address).items()
        ]
        at, policy = self.example.serve_at, self.demo.policy
        proposals = list_open_proposals(self.client, policy.rollout)
        incidents = self.client.get(f"/v1/rollouts/{policy.rollout}/incidents").json()["items"]
        return INTRODUCTION.format(
            title=self.example.title.upper(),
            address=address,
            idea="\n".join(wrap_text(self.example.idea)),
            start=f"{at:%A} {at.day} {at:%B %Y, %H:%M} UTC",
            days=format_quantity(self.span.days, "day"),
            proposals=f"{format_quantity(len(proposals), 'proposal')}",
            incidents=format_quantity(len(incidents), "incident"),
            links="\n".join(links),
            second=AUTO_APPROVE if auto_approve else ONE_APPROVER_TEXT,
            speed=pages.speed,
            key=self.demo.keys[DEMO_OPERATORS[0]],
            rollout=policy.rollout,
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
    scheduler = JobScheduler(service, "demo", interval=WAKE_SECONDS)
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
