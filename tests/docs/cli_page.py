"""Writes docs/reference/cli.md from the commands themselves: `python -m tests.docs.cli_page`."""

import typer.main

from rollout.cli.main import app
from tests.docs.pages import ROOT

PAGE = ROOT / "docs/reference/cli.md"
HEAD = """\
# Command reference

Generated from the commands; `rollout COMMAND --help` prints the same. With `--json`, a command
prints JSON and nothing else. Exit codes: 0 success; 1 a check failed; 2 an error, with a message
that says what to do; 130 interrupted.
"""


def written():
    return "\n".join([HEAD, *_of("rollout", typer.main.get_command(app))])


def _of(name, node):
    if hasattr(node, "commands"):
        for child in sorted(node.commands):
            yield from _of(f"{name} {child}", node.commands[child])
        return
    arguments = [p for p in node.params if p.param_type_name == "argument"]
    options = [p for p in node.params if p.param_type_name == "option"]
    yield f"## {' '.join([name, *(_format_name(p) for p in arguments)])}\n"
    yield f"{node.help.strip()}\n"
    if options:
        yield "| option | meaning | default |"
        yield "|---|---|---|"
        yield from (_row(option) for option in options)
        yield ""


def _format_name(argument):
    return (argument.metavar or argument.name.upper()).strip("{}")


def _row(option):
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    default = option.default
    default_text = "" if default in {None, "", False} else f"`{default}`"
    default_text = "required" if option.required else default_text
    default_text = f"`{option.envvar}`" if option.envvar else default_text
    meaning = (option.help or "").replace("|", "\\|")
    return f"| {names} | {meaning} | {default_text} |"


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
