"""Messages arrive, as a webhook's JSON and as a mail; what fails is said without any secret."""

import base64
import sys
from threading import Event

import pytest

from rollout.features.delivery import sender
from rollout.features.delivery.sender import ChannelMessage, send_in_process
from tests.features.receivers import mailbox, webhook

pytestmark = pytest.mark.enable_socket  # receivers on this machine
BODY = "# Bears\n\n| cell | agreement |\n|---|---|\n| creek | 97 % |\n"
PAGE = "<!doctype html><title>bears</title><p>97 %"
MARK = "hunter2-token"


def message(url):
    return ChannelMessage(url, "bears: morning report", BODY, "7-3fe1c0de", PAGE)


@pytest.fixture
def hook():
    with webhook() as server:
        yield server


def address(server, kind="json", path=f"/{MARK}", account=f"bo:{MARK}@"):
    return f"{kind}://{account}127.0.0.1:{server.server_address[1]}{path}"


@pytest.mark.slow
def test_a_webhook_gets_subject_summary_page_and_a_key_to_know_a_repeat_by(hook):
    assert send_in_process(message(address(hook))) == ""
    ((headers, body),) = hook.came
    assert headers["Idempotency-Key"] == "7-3fe1c0de"
    assert body["title"] == "bears: morning report"
    assert body["message"].strip() == BODY.strip()
    (page,) = body["attachments"]
    assert page["filename"] == "report.html"
    assert base64.b64decode(page["base64"]).decode() == PAGE


@pytest.mark.slow
def test_a_mail_arrives_with_the_page_attached():
    with mailbox() as server:
        to = "?from=rollout@example.org&to=ana@example.org&mode=insecure"
        assert send_in_process(message(address(server, "mailto", to, ""))) == ""
        (mail,) = server.came
    assert mail["Subject"] == "bears: morning report"
    assert "ana@example.org" in mail["To"]
    text = mail.get_body(("html", "plain")).get_content()
    assert "97 %" in text
    assert "7-3fe1c0de" not in text, "the key stands in the body that is given, nowhere else"
    (page,) = mail.iter_attachments()
    assert page.get_filename() == "report.html"
    assert page.get_payload(decode=True).decode() == PAGE


@pytest.mark.slow
def test_what_a_webhook_refuses_is_said_without_a_secret(hook):
    hook.statuses.append(500)
    error = send_in_process(message(address(hook)))
    assert "500" in error
    assert MARK not in error
    assert len(hook.came) == 1, "who sends again is the queue"


@pytest.mark.slow
@pytest.mark.parametrize("url", [f"slack://{MARK}", f"json://127.0.0.1:1/{MARK}"])
def test_an_address_that_leads_nowhere_is_said_without_a_secret(url):
    error = send_in_process(message(url))
    assert error
    assert MARK not in error


@pytest.mark.slow
def test_who_never_answers_is_left_after_a_while(hook):
    over = Event()
    hook.hold = lambda: over.wait(30)
    error = send_in_process(message(address(hook)), timeout=1.0)
    over.set()
    assert error == "no answer within 1 s; it may have arrived"


def test_a_process_that_breaks_off_is_a_failure(monkeypatch):
    monkeypatch.setattr(sender, "SENDER_COMMAND", (sys.executable, "-c", "raise SystemExit(3)"))
    assert (
        send_in_process(message("json://127.0.0.1:1/x")) == "the process that sends broke off (3)"
    )
    monkeypatch.setattr(sender, "SENDER_COMMAND", ("/nowhere/python",))
    assert send_in_process(message("json://127.0.0.1:1/x")).startswith(
        "no process could be started"
    )


def test_the_process_sees_none_of_our_settings(monkeypatch):
    monkeypatch.setenv("ROLLOUT_DATABASE_URL", MARK)
    monkeypatch.setenv("ROLLOUT_CHANNELS_FILE", MARK)
    script = "import json, os; print(json.dumps({'error': ' '.join(os.environ)}))"
    monkeypatch.setattr(sender, "SENDER_COMMAND", (sys.executable, "-c", script))
    assert "ROLLOUT" not in send_in_process(message("json://127.0.0.1:1/x"))
