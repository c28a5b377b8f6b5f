"""A town whose cameras watch for bears: two days of cases, so that every page has something to say.

Everything comes in over HTTP, on a clock that is moved by hand. One site, one label's attribute and
every text that somebody could type hold what would be script in a careless page.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import uvicorn
from argon2 import PasswordHasher
from starlette.testclient import TestClient

from api.app import create_app
from rollout.data.database.session import Database
from rollout.engine.decide.commands import AcknowledgeIncident, Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.decide.stops import StopTarget
from rollout.features.access import keys, users
from rollout.features.access.authentication import Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.features.notifications import settings as notifications
from rollout.features.proposals import proposals
from rollout.features.reports.archive import request_report
from rollout.features.reports.builder import ReportOptions
from rollout.features.stops.stops import stop_cells
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.channels import Channels
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command, load_rollout_state
from rollout.live.service import Service, build_service
from rollout.live.tick_passes import TickScheduler
from tests.api.test_serve import free_port
from tests.browser.pictures import picture
from tests.data.snapshots import filled_once
from tests.features.houses import PASSWORD, chance

CHANNELS = {"mail": "mailto://mail.example.org?to={address}", "chat": "slack://A/B/C/{address}"}
START = datetime(2027, 6, 14, 6, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
NAME, V1 = "bears", "/v1/rollouts/bears"
SCRIPT = "<script>document.title='broken in'</script>"
PLACE_HINT = f", {SCRIPT}"
ODD = f"\"dale\" & 'co'/1 {SCRIPT}"
PLAIN = "dale"
POLICY = f"""
rollout: bears
timezone: America/Vancouver
charter: {{objective: "Warn campers{PLACE_HINT}", cost_in: disturbed nights}}
levers:
  - id: alarm
    labels: [bear, none]
    actions: {{bear: siren, none: nothing}}
    costs: [{{did: nothing, right: siren, cost: 20}}, {{did: siren, right: nothing, cost: 1}}]
    answer_within: 2m
    unanswered: siren
sites:
  - {{id: creek, place: [49.3, -123.1]}}
  - {{id: lake, place: [49.4, -123.2], lease: 12h}}
  - {{id: {json.dumps(ODD)}, place: [49.5, -123.3]}}
windows: [{{id: day, hours: "sunrise-sunset"}}, {{id: night, hours: 24/7}}]
stages: [{{id: supervised, blind: 50%}}, {{id: autonomous, audit: 50%}}]
evidence: {{unit: case, grace: 1h, outside: blind, missing_at_most: 60%, verdicts: 1,
  sources: {{accounts: [{{account: desk, reviewers: ["*"]}}]}}}}
gates:
  - {{to: supervised, require: [{{measure: agreement, at_least: 70%}}], risk: 10%,
     minimum: {{units: 10, days: 1, reviewers: 1}}, approvals: [operator, operator]}}
  - {{to: autonomous, require: [{{measure: agreement, at_least: 75%}}], risk: 10%,
     minimum: {{units: 20, days: 1, reviewers: 1}}, approvals: [operator, safety]}}
guards:
  - {{measure: agreement, at_least: 60%, false_alarm_every: 100}}
slices: [camera]
tick: 1h
lease: 1m
"""
PEOPLE = {
    "ada": (AssignedRole("admin"),),
    "ana": (AssignedRole("operator"), AssignedRole("viewer")),
    "bo": (AssignedRole("operator"), AssignedRole("viewer")),
    "cy": (AssignedRole("operator"), AssignedRole("viewer")),
    "sue": (AssignedRole("approver", group="safety"), AssignedRole("viewer")),
    "rita": (AssignedRole("reviewer"),),
    "ron": (AssignedRole("reviewer", NAME, "creek"),),
    "vic": (AssignedRole("viewer"),),
    "cleo": (AssignedRole("operator", NAME, "creek"), AssignedRole("viewer", NAME, "creek")),
}
"""Everybody signs in with `houses.PASSWORD`."""
HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@dataclass(slots=True)
class TownClock(ManualClock):
    """A clock whose hours are moved by hand, while its seconds go by as everywhere."""

    def read_boot_clock(self):
        """Return seconds since the machine started."""
        return time.monotonic() + self.since_boot


@dataclass
class Town:
    """The service with its clock and traffic; `url` names the database."""

    url: str
    database: Database
    clock: ManualClock
    service: Service
    box: TestClient
    desk_key: str
    ticking: TickScheduler
    odd: bool = True
    sent: int = 0

    @property
    def script(self):
        """Return what somebody wrote who means ill, or what anybody might write."""
        return SCRIPT if self.odd else "snow on the lens"

    def hours(self, n, *, sites=None, right=1.0):
        """Let hours pass with six cases an hour at each site, judged outside; tick each hour.

        The first ones are played once for all towns that are new and alike.
        """
        if n and (self.clock.now(), self.sent, sites, right) == (START, 0, None, 1.0):
            self.sent = fill_first_hours(self.database, *self.keys, odd=self.odd, count=n)
            self.clock.advance(n * HOUR)
            return self
        return self.play_hours(n, sites=sites, right=right)

    @property
    def keys(self):
        """Return the keys of the programs that send cases and decisions."""
        return self.box.headers["Authorization"].removeprefix("Bearer "), self.desk_key

    def play_hours(self, n, *, sites=None, right=1.0):
        """Send what `hours` tells of."""
        everywhere = ("creek", "lake", ODD if self.odd else PLAIN)
        for _ in range(n):
            chosen = everywhere if sites is None else sites
            self.send(*(item for site in chosen for item in self._build_hour(site, right)))
            self.clock.advance(HOUR)
            self.tick()
        return self

    def tick(self):
        """Let the engine look, as it does in every slot."""
        self.ticking.run_due_ticks(self.clock.now())

    def send(self, *items):
        """Send records, decisions by their own account; each has to be accepted."""
        for key, is_decision in ((None, False), (self.desk_key, True)):
            part = [item for item in items if (item["kind"] == "decision") == is_decision]
            if not part:
                continue
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            answer = self.box.post(f"{V1}/records", json={"items": part}, headers=headers)
            assert answer.status_code == 200, answer.text
            assert {item["status"] for item in answer.json()["items"]} == {"accepted"}, answer.text

    def waits(self, n, site="creek"):
        """Bring cases that nobody has judged yet."""
        for _ in range(n):
            self.send(*self._build_case(site, self.clock.now() - MINUTE, None))

    def _build_hour(self, site, right):
        for part in range(6):
            label = "bear" if self.sent % 5 == 0 else "none"
            agrees = (self.sent * 7919) % 100 < right * 100
            at = self.clock.now() - (5 - part) * MINUTE
            yield from self._build_case(site, at, label, agrees=agrees)

    def _build_case(self, site, at, label, *, agrees=True):
        self.sent += 1
        marked = self.odd and self.sent % 50 == 0
        key = f"{site[:5]}-{self.sent:04d}" + (SCRIPT if marked else "")
        human_label = label or "bear"
        other = {"bear": "none", "none": "bear"}[human_label]
        items = [
            {"kind": "case", "key": key, "site": site, "occurred_at": at.isoformat()}
            | {
                "attributes": {"camera": f"c{self.sent % 3}", "note": self.script},
                "media": {"picture": picture(self.sent % 9, bear=human_label == "bear")},
            },
            {"kind": "prediction", "key": key, "version": "v1"}
            | {"answers": {"alarm": human_label if agrees else other}, "confidence": 0.9},
        ]
        if label is not None:
            items.append(
                {"kind": "decision", "key": key, "reviewer": "rory", "answers": {"alarm": label}}
                | {"exposure": "blind", "submitted_at": self.clock.now().isoformat()}
            )
        return items


@filled_once
def found_town(database, *, odd):
    """Make the town's rollout, people and programs; return the programs' keys."""
    clock = TownClock(START)
    text = POLICY if odd else POLICY.replace(json.dumps(ODD), PLAIN).replace(PLACE_HINT, "")
    apply_policy(database, text, Actor("zoe"), START - HOUR, salt=bytes(32), service_salt=bytes(32))
    users.create_first_admin(database, "ada", at=START)
    ada = users.load_local_caller(database, "ada")
    for name, rights in PEOPLE.items():
        if name != "ada":
            users.create_account(database, ada, name, at=START, role_assignments=rights)
    programs = {"box": ("ingest", "viewer"), "desk": ("ingest-decisions",)}
    for name, roles in programs.items():
        rights = tuple(AssignedRole(role) for role in roles)
        users.create_account(
            database, ada, name, at=START, is_service_account=True, role_assignments=rights
        )
    program_keys = tuple(
        keys.create_key(database, ada, name, random_bytes=chance(), at=START).text
        for name in programs
    )
    made = serve_town(database, clock)
    for name in PEOPLE:
        made.sign_in.set_password(ada, name, PASSWORD, at=START)
    ana = users.load_local_caller(database, "ana")
    notifications.save_notification_channel(
        made, ana, "mail", "ana@example.org", ["proposals", "incidents"]
    )
    return program_keys


def serve_town(database, clock):
    """Return the service of the town."""
    made = build_service(
        database, Authenticator(database, clock), clock, chance, channels=Channels(CHANNELS)
    )
    return replace(made, sign_in=SignIn(database, clock, chance, HASHER))


@contextmanager
def town(url, *, odd=True) -> Iterator[Town]:
    """Found the town on a fresh database; one that is not odd has names as towns have."""
    database = Database(url)
    try:
        with opened_town(database, *found_town(database, odd=odd), odd=odd) as made:
            yield made
    finally:
        database.close()


@contextmanager
def opened_town(database, key, desk_key, *, odd) -> Iterator[Town]:
    """Open the town that was founded on a database."""
    clock = TownClock(START)
    made, ticking = serve_town(database, clock), TickScheduler(database, "town")
    with TestClient(create_app(made)) as box:
        box.headers["Authorization"] = f"Bearer {key}"
        url = database.engine.url.render_as_string(hide_password=False)
        yield Town(url, database, clock, made, box, desk_key, ticking, odd)


@contextmanager
def served(app) -> Iterator[str]:
    """Serve an application in a thread; give the address."""
    port = free_port()
    config = uvicorn.Config(app, "127.0.0.1", port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def busy(town):
    """Let everything happen that pages tell of: a widening, an alarm, a stop, open reviews.

    It is played once for all towns that are new and alike.
    """
    if (town.clock.now(), town.sent) != (START, 0):
        return play_busy_day(town)
    now, town.sent = fill_busy_town(town.database, *town.keys, odd=town.odd)
    town.clock.advance(now - START)
    return town


@filled_once
def fill_busy_town(database, key, desk_key, *, odd):
    """Play the busy day in a new town; return its end and how many cases were sent."""
    with opened_town(database, key, desk_key, odd=odd) as town:
        play_busy_day(town)
        return town.clock.now(), town.sent


@filled_once
def fill_first_hours(database, key, desk_key, *, odd, count):
    """Let the first hours pass in a new town; return how many cases were sent."""
    with opened_town(database, key, desk_key, odd=odd) as town:
        return town.play_hours(count).sent


def play_busy_day(town):
    """Let the busy day happen; return the town."""
    town.hours(10)
    approve(town, "creek")
    town.hours(1)
    town.hours(4, sites=("creek",), right=0.0)
    town.hours(10)
    ana = Caller("ana", role_assignments=PEOPLE["ana"])
    stop_cells(
        town.database,
        ana,
        NAME,
        StopTarget(cells=(Cell("lake", "day"),)),
        at=town.clock.now(),
        reason=town.script,
    )
    town.hours(1)
    town.waits(3)
    request_report(town.database, ana, NAME, "weekly", ReportOptions(), town.clock.now())
    return town


def approve(town, site):
    """Let two people approve all proposals of a site."""
    raised = [p for p in scope_of(town).proposals.values() if p.cell.site == site]
    for name in ("ana", "bo"):
        by = Caller(name, role_assignments=PEOPLE[name])
        for each in raised:
            proposals.approve_proposal(
                town.database, by, NAME, each.id, each.evidence_hash, at=town.clock.now()
            )


def find_lake_proposal(town):
    """Return an open proposal of the lake: the creek's narrowing voids it until acknowledged."""
    by = Actor("ana", ("operator",))
    while not (
        open_ones := [p for p in scope_of(town).proposals.values() if p.cell.site == "lake"]
    ):
        for number in scope_of(town).open_incidents:
            at = town.clock.now()
            execute_command(
                town.database,
                NAME,
                lambda _, at=at, number=number: AcknowledgeIncident(at=at, by=by, incident=number),
            )
        town.hours(1)
    return open_ones[0]


def scope_of(town):
    """Return the scope as it is."""
    with town.database.begin_read() as transaction:
        return load_rollout_state(transaction, NAME).scope
