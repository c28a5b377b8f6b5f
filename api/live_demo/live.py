"""The live demo put together: the service in a thread, the story in this one."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import httpx
import typer
import uvicorn

from api.app import create
from api.live_demo.approving import Colleague
from api.live_demo.output import Teller
from api.live_demo.player import STEP, Player
from api.live_demo.stage import MACHINE, OPERATORS, THIRD, Stage, stage
from rollout.scheduler.jobs import Waking
from rollout.services.replay.demo_traffic import letters, trained_until

WAKE = 0.1  # seconds between two looks at the slots: an hour of the story is soon over
KEPT_ALIVE = 86_400  # seconds; a connection that idles for an hour of the story is used again
AFTER = timedelta(hours=4)
DAY = timedelta(days=1)
ABOUT = """\
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
ALONE = "bo approves each proposal after four simulated hours; the second approval is yours."
AUTO_APPROVE = "ana and bo both approve after four simulated hours: you only watch."


def play_live(port: int, seconds_a_day: float, *, auto_approve: bool) -> None:
    """Play the mail room live until its end, or until Ctrl-C.

    Args:
        port: to listen on, on this machine alone.
        seconds_a_day: how long a day of the story takes, if the machine keeps up.
        auto_approve: whether both operators approve by themselves.
    """
    story = letters()
    address = f"http://127.0.0.1:{port}"
    with (
        stage(story[0].at - STEP) as demo,
        served(demo, port),
        clients(demo, address) as api_clients,
    ):
        approval_text = AUTO_APPROVE if auto_approve else ALONE
        day = seconds_a_day
        typer.echo(
            ABOUT.format(
                address=address,
                day=day,
                week=7 * day / 60,
                second=approval_text,
                key=demo.keys["ana"],
                password=demo.password,
                rollout=demo.policy.rollout,
            )
        )
        player = Player(api_clients[MACHINE], demo.clock, demo.policy, story, trained_until())
        approver_names = OPERATORS if auto_approve else OPERATORS[1:]
        approvers = [
            Colleague(api_clients[name], demo.policy.rollout, AFTER) for name in approver_names
        ]
        resume_approver = Colleague(
            api_clients[THIRD], demo.policy.rollout, AFTER, frozenset({"resume"})
        )
        approvers.append(resume_approver)
        narrator = Teller(api_clients[MACHINE], demo.policy, story[0].at)
        _play(player, approvers, narrator, pace=seconds_a_day * (STEP / DAY))
        typer.echo("The demo traffic is over; the service runs until Ctrl-C.")
        threading.Event().wait()


def _play(player: Player, colleagues: list[Colleague], teller: Teller, pace: float) -> None:
    """Step through the story, `pace` seconds a step; look at what follows once an hour of it."""
    hour = day = None
    zone = ZoneInfo(player.policy.sites[0].timezone)
    while not player.over:
        started = time.monotonic()
        player.step()
        now = player.clock.now()
        if hour != now.hour:
            hour = now.hour
            _look_around(colleagues, teller, now)
        local_time = now.astimezone(zone)
        if day != local_time.date():  # days may pass without any other news
            day = local_time.date()
            typer.echo(f"{local_time:%a} {local_time.day} {local_time:%b}")
        time.sleep(max(0.0, started + pace - time.monotonic()))


def _look_around(colleagues: list[Colleague], teller: Teller, now: datetime) -> None:
    for approver in colleagues:
        approver.look(now)
    for line in teller.news():
        typer.echo(line)


@contextmanager
def served(made: Stage, port: int) -> Iterator[None]:
    """Serve the API in a thread, and tick, within the block.

    Raises:
        OSError: the port is taken.
    """
    app = create(made.service)
    config = uvicorn.Config(
        app, "127.0.0.1", port, log_level="warning", timeout_keep_alive=KEPT_ALIVE
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="service", daemon=True)
    scheduler = Waking(made.service, "demo", every=WAKE)
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
def clients(made: Stage, address: str) -> Iterator[dict[str, httpx.Client]]:
    """Give a client for each key."""
    clients = {
        name: httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        for name, key in made.keys.items()
    }
    try:
        yield clients
    finally:
        for client in clients.values():
            client.close()
