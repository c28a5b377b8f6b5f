"""The live demo: the service runs in a thread, the simulation in this one."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import httpx
import typer
import uvicorn

from api.app import create_app
from api.live_demo.approving import DemoApprover
from api.live_demo.output import LedgerNarrator
from api.live_demo.player import STEP, DemoPlayer
from api.live_demo.stage import (
    OPERATORS,
    RESUME_APPROVER,
    SERVICE_ACCOUNT,
    DemoService,
    open_demo_service,
)
from rollout.scheduler.jobs import JobScheduler
from rollout.services.replay.demo_traffic import load_letters, load_training_ends

WAKE_SECONDS = 0.1  # short, because a simulated hour is short
KEEP_ALIVE_SECONDS = 86_400  # connections stay idle between simulated hours
APPROVAL_DELAY = timedelta(hours=4)
DAY = timedelta(days=1)
INTRODUCTION = """\
THE MAIL ROOM, LIVE at {address}
Four offices sort letters. Scanners ask the service who decides each one. A day takes {day:.0f} s.
{second}
Every office starts in shadow. The first proposal comes after a simulated week, in about
{week:.0f} min.

Open {address}/ and sign in as ana, an operator; the password is {password}
(bo and cy have the same). The page of {rollout} shows each cell as it changes. Proposals that need
your approval are first on the overview, with "Read and decide". "Stop..." at the top of every page
stops cells in two steps; "Stops that hold" asks for a resume. Or in another terminal:
  export ROLLOUT_SERVER={address} ROLLOUT_API_KEY={key}
  rollout status {rollout}
  rollout approve {rollout} P-1 --evidence-hash HASH    (once `status` shows it)
  rollout stop {rollout} --all --reason "let me see"
  rollout resume {rollout} STOP                         (id from `status`; bo and cy approve)
The API documentation is at {address}/docs. Ctrl-C ends the demo and removes its files.
"""
ONE_APPROVER_TEXT = (
    "bo approves each proposal after four simulated hours; the second approval is yours."
)
AUTO_APPROVE = "ana and bo both approve after four simulated hours: you only watch."


def play_live(port: int, seconds_a_day: float, *, auto_approve: bool) -> None:
    """Play the mail room until its end, or until Ctrl-C.

    Args:
        port: the local port to listen on.
        seconds_a_day: real seconds for one simulated day, if the machine is fast enough.
        auto_approve: whether both operators approve automatically.
    """
    story = load_letters()
    address = f"http://127.0.0.1:{port}"
    with (
        open_demo_service(story[0].at - STEP) as demo,
        serve_api(demo, port),
        open_clients(demo, address) as api_clients,
    ):
        approval_text = AUTO_APPROVE if auto_approve else ONE_APPROVER_TEXT
        day = seconds_a_day
        typer.echo(
            INTRODUCTION.format(
                address=address,
                day=day,
                week=7 * day / 60,
                second=approval_text,
                key=demo.keys["ana"],
                password=demo.password,
                rollout=demo.policy.rollout,
            )
        )
        player = DemoPlayer(
            api_clients[SERVICE_ACCOUNT], demo.clock, demo.policy, story, load_training_ends()
        )
        approver_names = OPERATORS if auto_approve else OPERATORS[1:]
        approvers = [
            DemoApprover(api_clients[name], demo.policy.rollout, APPROVAL_DELAY)
            for name in approver_names
        ]
        resume_approver = DemoApprover(
            api_clients[RESUME_APPROVER], demo.policy.rollout, APPROVAL_DELAY, frozenset({"resume"})
        )
        approvers.append(resume_approver)
        narrator = LedgerNarrator(api_clients[SERVICE_ACCOUNT], demo.policy, story[0].at)
        _play(player, approvers, narrator, pace=seconds_a_day * (STEP / DAY))
        typer.echo("The demo traffic is over; the service runs until Ctrl-C.")
        threading.Event().wait()


def _play(
    player: DemoPlayer, approvers: list[DemoApprover], narrator: LedgerNarrator, pace: float
) -> None:
    """Step through the simulation, `pace` seconds a step; report every simulated hour."""
    hour = day = None
    zone = ZoneInfo(player.policy.sites[0].timezone)
    while not player.is_over:
        started = time.monotonic()
        player.step()
        now = player.clock.now()
        if hour != now.hour:
            hour = now.hour
            _approve_and_report(approvers, narrator, now)
        local_time = now.astimezone(zone)
        if day != local_time.date():  # print each day, also without other news
            day = local_time.date()
            typer.echo(f"{local_time:%a} {local_time.day} {local_time:%b}")
        time.sleep(max(0.0, started + pace - time.monotonic()))


def _approve_and_report(
    approvers: list[DemoApprover], narrator: LedgerNarrator, now: datetime
) -> None:
    for approver in approvers:
        approver.approve_due(now)
    for line in narrator.describe_news():
        typer.echo(line)


@contextmanager
def serve_api(demo: DemoService, port: int) -> Iterator[None]:
    """Run the API in a thread, and the scheduler, within the block.

    Raises:
        OSError: the port is in use.
    """
    app = create_app(demo.service)
    config = uvicorn.Config(
        app, "127.0.0.1", port, log_level="warning", timeout_keep_alive=KEEP_ALIVE_SECONDS
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="service", daemon=True)
    scheduler = JobScheduler(demo.service, "demo", interval=WAKE_SECONDS)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise OSError(f"port {port} is in use; choose another one, as --port {port + 1}")
        time.sleep(0.01)
    scheduler.start()
    try:
        yield
    finally:
        scheduler.stop()
        server.should_exit = True
        thread.join(timeout=5)


@contextmanager
def open_clients(demo: DemoService, address: str) -> Iterator[dict[str, httpx.Client]]:
    """Yield an HTTP client for each key."""
    clients = {
        name: httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        for name, key in demo.keys.items()
    }
    try:
        yield clients
    finally:
        for client in clients.values():
            client.close()
