"""A notification reaches a real mail server and a real webhook, and its address is no link."""

import pytest

from rollout.engine.decide.commands import OpenIncident
from rollout.features.notifications import settings
from rollout.features.notifications.settings import NotificationPlanner, send_due_notifications
from rollout.live.rollout_state import execute_command
from tests.api.bears import CREEK, tick
from tests.data.databases import on_sqlite
from tests.factories import MINUTE, NOON
from tests.features.notifications.mailing_list import (
    TOKEN,
    build_notified_service,
    build_user,
    choose,
)
from tests.features.receivers import mailbox, webhook

pytestmark = [pytest.mark.enable_socket, on_sqlite]  # receivers on this machine


def build_server_url(kind, server, rest):
    return f"{kind}://127.0.0.1:{server.server_address[1]}{rest}"


@pytest.mark.slow
def test_a_mail_asks_the_question_with_the_evidence_and_a_plain_address(
    service, database, door, clock
):
    with mailbox() as server:
        rest = "?from=rollout@example.org&to={address}&mode=insecure"
        url = build_server_url("mailto", server, rest)
        service = build_notified_service(database, door, clock, {"mail": url})
        choose(service, "olga", ["proposals"])
        tick(database, NOON, cells=(CREEK,))
        NotificationPlanner(service).queue_notifications(NOON)
        assert send_due_notifications(service).sent_count == 1
        (mail,) = server.came
    assert mail["To"] == "olga@example.org"
    assert mail["Subject"] == "bears: Approve P-1?"
    text = mail.get_body(("html",)).get_content()
    assert "to <code>supervised</code> at <code>creek</code>" in text
    assert "https://rollout.example/console/rollouts/bears/proposals/P-1" in text
    assert "<a " not in text
    assert "href" not in text


@pytest.mark.slow
def test_a_webhook_gets_the_user_in_its_path_and_is_retried_with_the_same_key(
    service, database, door, clock
):
    with webhook() as server:
        url = build_server_url("json", server, f"/{TOKEN}/{{address}}")
        service = build_notified_service(database, door, clock, {"hook": url})
        choose(service, "olga", ["incidents"], channel="hook")
        command = OpenIncident(at=NOON, kind="unauthorized", reason="case c-1", cell=CREEK)
        execute_command(database, "bears", lambda _: command)
        NotificationPlanner(service).queue_notifications(NOON)
        server.statuses.append(500)
        assert send_due_notifications(service).sent_count == 0
        (status,) = settings.load_notification_settings(service, build_user("olga")).channels
        assert "500" in status.last.error
        assert TOKEN not in status.last.error
        clock.at = NOON + 2 * MINUTE
        assert send_due_notifications(service).sent_count == 1
        (first_headers, _), (headers, body) = server.came
    assert headers["Idempotency-Key"] == first_headers["Idempotency-Key"]
    assert body["title"] == "bears: Incident I-1, unauthorized"
    assert "/console/rollouts/bears/incidents/I-1" in body["message"]
