"""What a copy with the kind of `stops_kind.py` offers and sends, as JSON."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from api.app import create_app
from rollout.data.database.migrations import upgrade
from rollout.data.database.session import Database
from rollout.engine.decide.commands import Actor, StopCells
from rollout.features.access.authentication import Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.live.clock import ManualClock
from rollout.live.rollout_state import execute_command
from tests.api.bears import CREEK
from tests.api.conftest import Asking, Doorkeeper
from tests.console.conftest import Browsing
from tests.docs.small_pages import write_notifications
from tests.factories import HOUR, NOON
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import PASSWORD, chance
from tests.features.notifications.mailing_list import (
    ADMIN,
    Mailroom,
    add_users,
    build_notified_service,
    build_user,
    choose,
    run_pass,
)


def main(folder):
    url = f"sqlite:///{folder / 'story.db'}"
    upgrade(url)
    database, clock, door = Database(url), ManualClock(NOON), Doorkeeper()
    add_users(database)
    door.let_in("olga", *build_user("olga").role_assignments)
    service = build_notified_service(database, door, clock)
    choose(service, "olga", ["stops"])
    with Asking(create_app(service)) as client:
        choice = {"address": "olga@example.org", "kinds": ["stops", "reminders"]}
        answer = client.by("olga").put("/v1/me/notifications/channels/mail", json=choice)
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
    sign_in = SignIn(database, clock, chance, QUICK)
    sign_in.set_password(ADMIN, "olga", PASSWORD, at=NOON)
    signed = replace(
        build_notified_service(database, Authenticator(database, clock), clock), sign_in=sign_in
    )
    with Browsing(create_app(signed), base_url="http://localhost:8000") as browser:
        browser.headers["Sec-Fetch-Site"] = "same-origin"
        page = browser.as_("olga").page("/settings/notifications")
    clock.at = NOON + HOUR
    mailroom = Mailroom()
    run_pass(service, mailroom)
    stop = StopCells(at=clock.at, by=Actor("olga"), cells=(CREEK,), reason="odd")
    execute_command(database, "bears", lambda _: stop)
    sent = run_pass(service, mailroom)
    story = {
        "status": answer.status_code,
        "chosen": answer.json()["channels"][0]["kinds"],
        "schema": schemas["NotificationChannelRequest"]["properties"]["kinds"]["items"]["enum"],
        "is_on_page": 'value="stops"' in page and "Stops, also in quiet hours" in page,
        "docs": write_notifications(),
        "sent": sent,
    }
    json.dump(story, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
