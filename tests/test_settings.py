"""The environment, read once; what is wrong in it is said with what would be right."""

from dataclasses import fields
from pathlib import Path

import pytest

from rollout.settings import PREFIX, RENAMED, Settings, read_settings

DOCS = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"


def test_an_empty_environment_gives_the_defaults():
    assert read_settings({"PATH": "/bin"}) == Settings()


def test_every_setting_is_read_by_its_name():
    text = {PREFIX + field.name.upper(): "0.5" for field in fields(Settings)}
    read = read_settings(text | {"ROLLOUT_LOG_FORMAT": "json"})
    assert (read.poll_interval, read.log_format) == (0.5, "json")
    others = {field.name for field in fields(Settings)} - {"poll_interval", "log_format"}
    assert {getattr(read, name) for name in others} == {"0.5"}


@pytest.mark.parametrize("text", ["soon", "0", "-1", "61", "nan", ""])
def test_a_span_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"ROLLOUT_POLL_INTERVAL.*write seconds"):
        read_settings({"ROLLOUT_POLL_INTERVAL": text})


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_refused_with_the_new_one(old, new):
    assert new.removeprefix(PREFIX).lower() in {field.name for field in fields(Settings)}
    with pytest.raises(ValueError, match=f"{old} is now called {new}"):
        read_settings({old: "0.5"})


@pytest.mark.parametrize("name", [PREFIX + field.name.upper() for field in fields(Settings)])
def test_every_setting_is_documented(name):
    assert f"`{name}`" in DOCS.read_text()
