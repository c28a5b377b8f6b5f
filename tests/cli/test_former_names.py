"""A former name of a command or option is answered with the present one."""

import re
import tomllib

import pytest
import typer.main
from typer.testing import CliRunner

from rollout.cli.main import FORMER_COMMANDS, FORMER_OPTIONS, app, describe_rename
from tests.docs.pages import ROOT

COMMANDS = typer.main.get_command(app)


def find(path):
    """Return the command with a name, or None."""
    node = COMMANDS
    for word in path.split():
        node = getattr(node, "commands", {}).get(word)
    return node


@pytest.mark.parametrize(("former", "present"), FORMER_COMMANDS.items())
def test_a_former_command_names_one_that_exists(former, present):
    assert find(former) is None
    assert find(present) is not None
    result = CliRunner().invoke(app, [*former.split(), "--help"])
    assert result.exit_code == 2
    assert f"`rollout {former}` was renamed: use `rollout {present}`" in result.stderr


@pytest.mark.parametrize(("place", "present"), FORMER_OPTIONS.items())
def test_a_former_option_names_one_that_exists(place, present):
    command, former = place
    options = [name for option in find(command).params for name in option.opts]
    assert present in options
    assert former not in options
    assert present in describe_rename([*command.split(), "x", f"{former}=1"])
    assert describe_rename([*command.split(), "x", f"{present}=1"]) == ""


def list_former_commands():
    """Return the former names of the reference's table "Commands", each with its group."""
    tables = tomllib.loads((ROOT / "docs/reference/renamed.toml").read_text("utf-8"))["table"]
    (rows,) = (table["rows"] for table in tables if table["title"] == "Commands")
    for former, _ in rows:
        group = ""
        for name in re.findall(r"`([^`]+)`", former):
            words = name.split()
            group = group if len(words) == 1 else words[0]
            yield words if len(words) > 1 else [group, *words]


def test_every_renamed_command_of_the_reference_is_answered():
    former_commands = list(list_former_commands())
    assert ["people", "take"] in former_commands
    for words in former_commands:
        assert describe_rename(words), words
