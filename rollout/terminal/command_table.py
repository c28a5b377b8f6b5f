"""The table of commands: a command's module is imported when the command is called."""

import atexit
import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

import typer.main
from typer.core import TyperCommand, TyperGroup

AnyCommand = TyperCommand | TyperGroup


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """Where a command or a group of commands is, and its line in `rollout --help`.

    `source` and `extension` are `module:name`, the module in `rollout`. A source is a function
    or the Typer of a group. An extension is a function that adds a group's commands on a database.
    """

    source: str
    summary: str
    needs_server: bool = False
    extension: str | None = None

    def is_available(self) -> bool:
        """Return whether the packages of this command are installed."""
        return has_server_packages() or not self.needs_server


@cache
def has_server_packages() -> bool:
    """Return whether the extra `server` is installed; replay works without it."""
    return all(find_spec(name) for name in ("sqlalchemy", "alembic"))


@cache
def load_command(name: str, entry: CommandEntry) -> AnyCommand:
    """Import a command or group."""
    atexit.register(_skip_last_collection)
    with exempt_from_collection():
        source = import_attribute(entry.source)
        if entry.extension is not None and has_server_packages():
            import_attribute(entry.extension)()
    parent = typer.Typer(rich_markup_mode="markdown")
    if isinstance(source, typer.Typer):
        parent.add_typer(source, name=name)
    else:
        parent.command(name)(source)
    command: AnyCommand = typer.main.get_group(parent).commands[name]  # type: ignore[assignment]
    return command


@contextmanager
def exempt_from_collection() -> Iterator[None]:
    """Keep the garbage collector from what the block imports, which lives until the end.

    Collections while importing took a tenth of a stop's CPU.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _skip_last_collection() -> None:
    """Leave out the collection when Python ends: the process gives all back at once.

    Not with DuckDB, which lists on stderr whatever is left of it.
    """
    if "_duckdb" not in sys.modules:
        gc.freeze()


def import_attribute(place: str) -> Any:
    """Import the attribute that `module:name` names."""
    module, _, name = place.partition(":")
    return getattr(import_module(f"rollout.{module}"), name)


class CommandMapping(Mapping[str, AnyCommand]):
    """Commands by name, each imported when it is looked up."""

    def __init__(self, entries: Mapping[str, CommandEntry]) -> None:
        self._entries = entries

    def __getitem__(self, name: str) -> AnyCommand:
        return load_command(name, self._entries[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class DeferredCommand(TyperCommand):
    """A line of `rollout --help`; becomes the command itself when it is called."""

    def __init__(self, name: str, summary: str, load: Callable[[], AnyCommand]) -> None:
        super().__init__(name, help=summary, rich_markup_mode="markdown")
        self._load = load

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Return a context of the real command."""
        return self._load().make_context(*args, **options)


class TableGroup(TyperGroup):
    """A group whose commands are the entries of a table."""

    entries: ClassVar[Mapping[str, CommandEntry]] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = CommandMapping(self.entries)  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Typer's interface
        """Return the names in the order of the table."""
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - Typer's interface
        """Return a command that is imported when it is called; None for an unknown name."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        return DeferredCommand(cmd_name, entry.summary, lambda: load_command(cmd_name, entry))
