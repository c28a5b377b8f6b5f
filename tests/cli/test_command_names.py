"""The names that users type: commands, arguments, options, environment variables, settings.

A rename breaks scripts. It is seen here first.
"""

from dataclasses import fields

import pytest
import typer.main

from rollout.cli.main import app
from rollout.settings import PREFIX, Settings

ROOT = typer.main.get_command(app)


def every_command(name="rollout", node=ROOT):
    """Yield each command and group with its full name."""
    yield name, node
    for child in sorted(getattr(node, "commands", ())):
        yield from every_command(f"{name} {child}", node.commands[child])


COMMANDS = dict(every_command())


def names_of(parameter):
    """Return how a parameter is typed, with its environment variable and whether it is needed."""
    if parameter.param_type_name == "argument":
        text = (parameter.metavar or parameter.name.upper()).strip("{}")
    else:
        text = ", ".join((*parameter.opts, *parameter.secondary_opts))
    text += " FLAG" if getattr(parameter, "is_flag", False) else ""
    text += " REPEATABLE" if getattr(parameter, "multiple", False) else ""
    text += f" ${parameter.envvar}" if parameter.envvar else ""
    return text + (" REQUIRED" if parameter.required else "")


def test_commands_have_these_names_options_and_first_lines(snapshot):
    tree = {
        name: [node.help.strip().splitlines()[0], *map(names_of, node.params)]
        for name, node in COMMANDS.items()
    }
    assert tree == snapshot


def test_settings_have_these_names_and_defaults(snapshot):
    settings = {PREFIX + field.name.upper(): field.default for field in fields(Settings)}
    assert settings == snapshot


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_what_the_command_does_and_shows_an_example(name):
    node = COMMANDS[name]
    first, *_ = node.help.strip().splitlines()
    assert first.endswith((".", ":"))
    if name != "rollout":
        assert f"`{name}" in " ".join(node.help.split("Example:", 1)[1].split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_parameter_says_what_it_is(name):
    node = COMMANDS[name]
    own = [p for p in node.params if not {"--install-completion", "--show-completion"} & {*p.opts}]
    assert [p.name for p in own if not p.help] == []


FORBIDDEN = {"machine", "people", "person", "somebody", "whoever", "house", "verdict", "dearest"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_no_private_word(name):
    node = COMMANDS[name]
    text = " ".join([node.help, *(str(p.help) for p in node.params), *map(names_of, node.params)])
    words = {word.strip(".,;:`()-").lower() for word in text.split()}
    assert words & FORBIDDEN == set()
