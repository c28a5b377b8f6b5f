"""How a missing part is installed: from the project's folder, since no registry has its name."""


def format_install(extras: str) -> str:
    """Return the command that installs extras, as `server,demo`."""
    return f"pip install '.[{extras}]' in the project's folder"
