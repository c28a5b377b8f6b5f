"""The environment, read once; what is wrong in it is said with what would be right."""

import re
from dataclasses import fields, make_dataclass
from pathlib import Path

import pytest

from rollout import settings
from rollout.settings import PREFIX, Settings, read_settings

DOCS = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"


def test_an_empty_environment_gives_the_defaults():
    assert read_settings({"PATH": "/bin"}) == Settings()


def test_every_setting_is_read_by_its_name():
    checked = {
        "poll_interval": "0.5",
        "request_rate": "2000",
        "disk_reserve": "0.5",
        "require_second_factor": "on",
        "trusted_proxies": "::1",
        "log_format": "json",
    }
    text = {
        PREFIX + field.name.upper(): checked.get(field.name, "text") for field in fields(Settings)
    }
    read = read_settings(text)
    assert (read.poll_interval, read.require_second_factor) == (0.5, True)
    assert (read.trusted_proxies, read.log_format) == ("::1", "json")
    assert (read.disk_reserve, read.request_rate) == (0.5, 2000)
    others = [field.name for field in fields(Settings) if field.name not in checked]
    assert {getattr(read, name) for name in others} == {"text"}


def test_a_further_setting_is_read_by_its_type_and_a_number_needs_a_reader(monkeypatch):
    further = make_dataclass("Further", [("quiet", bool, True)], bases=(Settings,), frozen=True)
    monkeypatch.setattr(settings, "Settings", further)
    assert read_settings({"ROLLOUT_QUIET": "off"}).quiet is False
    with pytest.raises(ValueError, match="write on or off"):
        read_settings({"ROLLOUT_QUIET": "no"})
    counted = make_dataclass("Counted", [("largest", int, 5)], bases=(Settings,), frozen=True)
    monkeypatch.setattr(settings, "Settings", counted)
    with pytest.raises(KeyError, match="int"):
        read_settings({})


def test_no_setting_with_a_secret_is_in_a_text_of_all_settings():
    secrets = re.compile(r"secret|password|token|key(?!_file)|url$")
    printed = {field.name for field in fields(Settings) if field.repr}
    assert {name for name in printed if secrets.search(name)} == {"secret_key_file", "public_url"}


@pytest.mark.parametrize("text", ["yes please", "ON", "2"])
def test_a_switch_that_is_neither_on_nor_off_is_refused(text):
    with pytest.raises(ValueError, match="write on or off"):
        read_settings({"ROLLOUT_REQUIRE_SECOND_FACTOR": text})


@pytest.mark.parametrize("text", ["*", "proxy.example.org", "10.0.0.1/8", "10.0.0.1 10.0.0.2"])
def test_a_proxy_that_is_no_address_is_refused(text):
    """A wildcard would let every client write the address that it is limited by."""
    with pytest.raises(ValueError, match="no address or network"):
        read_settings({"ROLLOUT_TRUSTED_PROXIES": text})


@pytest.mark.parametrize("text", ["soon", "0", "-1", "61", "nan", ""])
def test_a_span_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"ROLLOUT_POLL_INTERVAL.*write seconds"):
        read_settings({"ROLLOUT_POLL_INTERVAL": text})


@pytest.mark.parametrize("text", ["many", "0", "-1", "0.5", "inf", "nan", "1000001", ""])
def test_a_rate_that_lets_nobody_in_or_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match=r"ROLLOUT_REQUEST_RATE.*write requests a second"):
        read_settings({"ROLLOUT_REQUEST_RATE": text})


@pytest.mark.parametrize("name", [PREFIX + field.name.upper() for field in fields(Settings)])
def test_every_setting_is_documented(name):
    assert f"`{name}`" in DOCS.read_text()


@pytest.mark.parametrize("text", ["-1", "much", "nan", "1e12"])
def test_a_reserve_that_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="ROLLOUT_DISK_RESERVE"):
        read_settings({"ROLLOUT_DISK_RESERVE": text})
