"""Who opens the address of a message does nothing by it, also with a session.

Mail scanners open addresses without one, browsers and chats preview them with one.
"""

import re
from dataclasses import replace

import pytest
from sqlalchemy import select

from api.app import create_app
from rollout.data.database.rollouts import Rollouts
from rollout.data.reports.reports import DeliveryStore, NewDelivery
from rollout.data.tables.record_tables import metadata
from rollout.engine.decide.commands import Actor, OpenIncident
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import users
from rollout.features.access.authentication import Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.features.delivery.delivery import ReportPublisher, deliver_due_reports
from rollout.features.notifications.kinds import KINDS
from rollout.features.reports.builder import ReportOptions
from rollout.kernel.channels import Channels
from rollout.kernel.policy.familiarity import FEW, ValueReading
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from rollout.live.service import build_service
from tests.api.bears import CREEK, LAKE, POLICY, tick, widened
from tests.console.conftest import Browsing
from tests.factories import DAY, HOUR, MET, MINUTE, NOON
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import PASSWORD, chance
from tests.features.notifications.mailing_list import (
    ADMIN,
    PUBLIC_URL,
    URLS,
    Mailroom,
    add_users,
    choose,
    run_pass,
)
from tests.features.notifications.test_review_deadlines import open_task

NAME = "eva"
TITLES = {
    "proposal": r"Approve P-\d",
    "half-time": r"Reminder P-\d",
    "last-day": r"Last day P-\d",
    "incident": r"Incident I-\d",
    "incidents": r"\d incidents at",
    "new-value": r"new to the model",
    "review-deadline": r"Reviews about to be missed",
    "daily-digest": r"Daily digest",
    "weekly-digest": r"Weekly digest",
    "report": r"week report",
}


@pytest.fixture
def clock():
    return ManualClock(NOON)


@pytest.fixture
def service(database, clock):
    add_users(database)
    roles = tuple(AssignedRole(role) for role in ("operator", "viewer", "reviewer"))
    users.create_account(database, ADMIN, NAME, at=NOON, role_assignments=roles)
    SignIn(database, clock, chance, QUICK).set_password(ADMIN, NAME, PASSWORD, at=NOON)
    made = build_service(
        database,
        Authenticator(database, clock),
        clock,
        entropy=bytes,
        channels=Channels(
            {**URLS, "ops": "json://ops.example.org"}, PUBLIC_URL, readers={"ops": ("olga",)}
        ),
    )
    return replace(made, sign_in=SignIn(database, clock, chance, QUICK))


@pytest.fixture
def messages(service, clock):
    """Return a message of each kind, as one user gets them."""
    database, mailroom = service.database, Mailroom()
    widened(database, NOON, CREEK)
    policy = POLICY.replace("evidence: {", "evidence: {familiar: {attributes: [form]}, ")
    apply_policy(database, policy, Actor("zoe"), NOON + MINUTE)
    choose(service, NAME, list(KINDS))

    def send(at):
        clock.at = at
        run_pass(service, mailroom)

    send(NOON + HOUR)
    values = {("form", "new"): ValueReading(FEW, 5, agreed=3)}
    tick(database, NOON + HOUR, cells=(CREEK,), of=replace(MET, values=values))
    tick(database, NOON + HOUR, cells=(LAKE,))
    open_incident(database, NOON + HOUR, LAKE, "c-0")
    for case in ("c-1", "c-2"):
        open_incident(database, NOON + HOUR, CREEK, case)
    send(NOON + HOUR)
    send(NOON + 8 * DAY)
    open_task(database, "task-1", NOON + 13 * DAY + 6 * HOUR, opened_at=NOON + 13 * DAY)
    send(NOON + 13 * DAY + 5 * HOUR)
    numbers = []
    week = ReportOptions(NOON - DAY, NOON + DAY)
    ReportPublisher(service).make_report(
        "bears", "week", week, clock.at, lambda _, n: numbers.append(n)
    )
    with database.begin_write() as transaction:
        delivery = NewDelivery(numbers[0], "ops", "schedule", "week report")
        DeliveryStore(transaction, Rollouts(transaction).find("bears")).add(delivery, at=clock.at)
    deliver_due_reports(service, ReportPublisher(service).render_report, mailroom)
    return mailroom.messages


def open_incident(database, at, cell, case):
    command = OpenIncident(at=at, kind="unauthorized", reason=f"case {case}", cell=cell)
    execute_command(database, "bears", lambda _: command)


def read_tables(database):
    """Return the rows of all tables."""
    with database.begin_read() as transaction:
        return {
            table.name: sorted(map(repr, transaction.execute(select(table))))
            for table in metadata.sorted_tables
        }


def open_addresses(service, browser, addresses):
    """Open addresses; return the tables that each one changed."""
    changes = {}
    for kind, address in addresses.items():
        before = read_tables(service.database)
        assert browser.get(address).status_code == 200, kind
        after = read_tables(service.database)
        if changed := [name for name in after if after[name] != before[name]]:
            changes[kind, address] = changed
    return changes


@pytest.mark.slow
def test_no_address_of_a_message_does_anything_for_its_user(service, messages):
    addresses = {}
    for kind, title in TITLES.items():
        bodies = [message.body for message in messages if re.search(title, message.title)]
        assert bodies, f"no message of kind {kind}"
        (addresses[kind],) = re.findall(rf"{PUBLIC_URL}(/\S+)", bodies[-1])
    with Browsing(create_app(service), base_url="http://localhost:8000") as browser:
        assert open_addresses(service, browser, addresses) == {}, "without a session"
        browser.headers["Sec-Fetch-Site"] = "same-origin"
        browser.as_(NAME)
        assert open_addresses(service, browser, addresses) == {}
        page = browser.get(addresses["review-deadline"]).text
        assert "1 available case" in page
        assert 'href="/console/rollouts/bears/review"' in page, "one click from the case"
