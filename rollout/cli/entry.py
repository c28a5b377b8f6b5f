"""Load commands of the service lazily, so that replay works without the service installed."""

from collections.abc import Callable
from importlib.metadata import entry_points

GROUP = "rollout.commands"


def entry(name: str) -> Callable[..., None]:
    """Return what the installed service does for a command.

    Raises:
        ValueError: the service is not installed; says what to install.
    """
    matching_entries = list(entry_points(group=GROUP, name=name))
    try:
        (command,) = (entry_point.load() for entry_point in matching_entries)
    except (ImportError, ValueError) as error:
        error_text = (
            f"`{name}` needs the service; run pip install 'rollout-controller[server,demo]'"
        )
        raise ValueError(f"{error_text} ({error})") from None
    typed_command: Callable[..., None] = command
    return typed_command
