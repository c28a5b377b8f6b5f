"""Load commands of the service lazily, so that replay works without the service installed."""

from collections.abc import Callable
from importlib.metadata import entry_points

GROUP = "rollout.commands"


def entry(name: str) -> Callable[..., None]:
    """Return what the installed service does for a command.

    Raises:
        ValueError: the service is not installed; says what to install.
    """
    found = list(entry_points(group=GROUP, name=name))
    try:
        (does,) = (one.load() for one in found)
    except (ImportError, ValueError) as error:
        says = f"`{name}` needs the service; run pip install 'rollout-controller[server,demo]'"
        raise ValueError(f"{says} ({error})") from None
    result: Callable[..., None] = does
    return result
