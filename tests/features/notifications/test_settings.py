"""A user chooses channels, confirms addresses and sets quiet hours."""

from datetime import timedelta

import pytest

from rollout.data.access.notification_outbox import NotificationTimes
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.erasure.erasure import ErasureRequest, erase_name, iterate_user_data
from rollout.features.notifications import settings
from rollout.features.notifications.settings import (
    CODE_LIFETIME,
    MAX_CODES_PER_HOUR,
    MAX_WRONG_CODES,
    NotificationSettingsError,
)
from rollout.kernel.channels import Channels
from tests.factories import HOUR, NOON
from tests.features.erasure.traces import find_traces
from tests.features.notifications.mailing_list import ADMIN, TOKEN, build_user, choose, run_pass

OLGA = build_user("olga")
ADDRESS = "olga@example.org"
CODE = "00000000"


def save(service, address=ADDRESS, kinds=("incidents", "proposals"), channel="mail"):
    settings.save_notification_channel(service, OLGA, channel, address, kinds)


def confirm(service, code=CODE):
    settings.confirm_notification_channel(service, OLGA, "mail", code)


def load_channel(service):
    (status,) = settings.load_notification_settings(service, OLGA).channels
    return status.channel


def test_an_address_is_confirmed_by_the_code_that_arrives_there(service, mailroom):
    save(service)
    assert load_channel(service).confirmed_at is None
    assert run_pass(service, mailroom) == [("olga", "rollout: Confirm this address")]
    (message,) = mailroom.messages
    assert "0000 0000" in message.body
    assert "http" not in message.body
    confirm(service, "0000 0000")
    channel = load_channel(service)
    assert channel.confirmed_at == NOON
    assert channel.kinds == {"proposals": NOON, "incidents": NOON}
    assert not channel.code


def test_a_wrong_code_confirms_nothing_and_five_make_it_void(service):
    save(service)
    for _ in range(MAX_WRONG_CODES):
        with pytest.raises(NotificationSettingsError, match="is wrong"):
            confirm(service, "12345678")
    with pytest.raises(NotificationSettingsError, match="not valid any more"):
        confirm(service)
    assert load_channel(service).confirmed_at is None
    settings.resend_code(service, OLGA, "mail")
    confirm(service)
    assert load_channel(service).confirmed_at == NOON


def test_a_code_lasts_a_day(service, clock):
    save(service)
    clock.at = NOON + CODE_LIFETIME
    with pytest.raises(NotificationSettingsError, match="not valid any more"):
        confirm(service)


def test_only_the_newest_code_is_sent(service, mailroom, clock):
    save(service)
    clock.at += timedelta(seconds=1)
    settings.resend_code(service, OLGA, "mail")
    assert len(run_pass(service, mailroom)) == 1


def test_another_address_has_to_be_confirmed_again(service):
    save(service)
    confirm(service)
    save(service, kinds=["reviews", "proposals"])
    assert load_channel(service).confirmed_at == NOON
    assert list(load_channel(service).kinds) == ["proposals", "reviews"]
    save(service, "other@example.org")
    assert load_channel(service).confirmed_at is None


def test_nobody_has_many_test_messages_sent(service, clock):
    for number in range(MAX_CODES_PER_HOUR):
        settings.delete_notification_channel(service, OLGA, "mail")
        clock.at += timedelta(seconds=1)
        save(service, f"stranger-{number}@example.org")
    with pytest.raises(NotificationSettingsError, match="wait an hour"):
        save(service, "stranger@example.org")
    clock.at += HOUR
    save(service, "stranger@example.org")


@pytest.mark.parametrize(
    ("channel", "address", "text"),
    [
        ("rangers", "olga", "there is no channel rangers for users"),
        ("nowhere", "olga", "there is no channel nowhere"),
        ("mail", "olga", "mail takes one mail address"),
        ("mail", "a@example.org,b@example.org", "mail takes one mail address"),
        ("mail", "a@example.org&smtp=127.0.0.1", "mail takes one mail address"),
        ("mail", "a%2Cb@example.org", "mail takes one mail address"),
        ("hook", "..", "hook takes one name"),
        ("hook", "a/../../admin", "hook takes one name"),
        ("hook", "a?x=1", "hook takes one name"),
        ("hook", "127.0.0.1:80", "hook takes one name"),
        ("hook", "", "hook takes one name"),
        ("hook", "a" * 201, "hook takes one name"),
    ],
)
def test_an_address_leads_to_the_configured_server_alone(service, channel, address, text):
    with pytest.raises(NotificationSettingsError, match=text):
        save(service, address, channel=channel)
    assert settings.load_notification_settings(service, OLGA).channels == ()


def test_an_address_takes_its_place_in_the_url():
    channels = Channels({"chat": "slack://A/B/C/{address}", "ops": "json://ops.example.org"})
    assert channels.build_personal_url("chat", "#bears") == "slack://A/B/C/%23bears"
    assert (channels.personal_names, channels.shared_names) == (("chat",), ("ops",))


def test_unknown_kinds_are_refused(service):
    with pytest.raises(NotificationSettingsError, match="no notifications of gossip; choose from"):
        save(service, kinds=["gossip"])


@pytest.mark.parametrize(
    ("times", "text"),
    [
        (("Vienna", "", ""), "no timezone Vienna"),
        (("UTC", "22:00", ""), "both or none"),
        (("UTC", "10pm", "07:00"), "10pm is no time of day"),
        (("UTC", "22:00", "22:00"), "the whole day"),
    ],
)
def test_quiet_hours_that_make_no_sense_are_refused(service, times, text):
    with pytest.raises(NotificationSettingsError, match=text):
        settings.save_notification_times(service, OLGA, NotificationTimes(*times))


def test_quiet_hours_are_kept_and_can_be_removed(service):
    for times in (NotificationTimes("Europe/Vienna", "22:00", "07:00"), NotificationTimes("UTC")):
        settings.save_notification_times(service, OLGA, times)
        assert settings.load_notification_settings(service, OLGA).times == times


def test_a_service_account_has_no_notifications(service):
    box = Caller("box", is_service_account=True, role_assignments=(AssignedRole("viewer"),))
    with pytest.raises(NotificationSettingsError, match="only users are notified"):
        settings.load_notification_settings(service, box)


def test_an_export_has_the_addresses_and_an_erasure_takes_them(service, database, mailroom):
    choose(service, "olga", quiet=("22:00", "07:00"))
    run_pass(service, mailroom)
    rows = list(iterate_user_data(database, OLGA, "olga"))
    tables = {row["table"]: row for row in rows}
    assert tables["notification_channels"]["address"] == ADDRESS
    assert tables["notification_settings"]["quiet_from"] == "22:00"
    assert "notifications" in tables
    assert TOKEN not in repr(rows)
    assert "code" not in tables["notification_channels"]
    erase_name(database, ErasureRequest(ADMIN, "", "she left", NOON), "olga")
    assert find_traces(database, ADDRESS) == []
    assert run_pass(service, mailroom) == []
