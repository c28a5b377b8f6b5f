"""Former names of commands and options, answered with the names that replaced them."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from rollout.cli.errors import EXIT_REFUSED

FORMER_COMMANDS: Mapping[str, str] = {
    "people": "users",
    "people give": "users grant-role",
    "people take": "users revoke-role",
    "people password": "users set-password",
    "people link": "users password-link",
    "people history": "ledger export-access",
    "users give": "users grant-role",
    "users take": "users revoke-role",
    "users password": "users set-password",
    "users link": "users password-link",
    "users history": "ledger export-access",
    "keys make": "keys create",
    "clean files": "clean list-files",
    "training files": "training export-files",
}
FORMER_OPTIONS: Mapping[tuple[str, str], str] = {
    ("users add", "--machine"): "--service-account",
    ("approve", "--evidence"): "--evidence-hash",
    ("report", "--form"): "--format",
    ("clean list", "--counted"): "--top-losses",
    ("clean list", "--most"): "--limit",
    ("demo", "--day"): "--speed",
    ("demo", "--seconds-per-day"): "--speed",
    ("demo", "--hands-off"): "--auto-approve",
}
RENAMED_PAGE = "docs/reference/renamed.md"


class RenamingGroup(TyperGroup):
    """The root of the commands; answers a former name with the present one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command of `args`; for a former name print the present one and exit."""
        answer = describe_rename(args)
        if answer:
            typer.echo(answer, err=True)
            raise typer.Exit(EXIT_REFUSED)
        return super().resolve_command(ctx, args)


def describe_rename(args: Sequence[str]) -> str:
    """Return the sentence for a former command or option; "" if all names are current."""
    command = _find_present_command(args)
    if command is not None:
        former, present = command
        return (
            f"`rollout {former}` was renamed: use `rollout {present}`. `rollout {present} --help`"
            f" shows an example; {RENAMED_PAGE} lists all renames."
        )
    for (name, former), present in FORMER_OPTIONS.items():
        words = name.split()
        given_options = [arg.partition("=")[0] for arg in args[len(words) :]]
        if list(args[: len(words)]) == words and former in given_options:
            return (
                f"`rollout {name} {former}` was renamed: use `{present}`. {RENAMED_PAGE} lists"
                " all renames."
            )
    return ""


def _find_present_command(args: Sequence[str]) -> tuple[str, str] | None:
    """Return the former command at the start of `args` and its present name, or None."""
    for length in (2, 1):
        former = " ".join(args[:length])
        if former in FORMER_COMMANDS:
            return former, FORMER_COMMANDS[former]
    return None
