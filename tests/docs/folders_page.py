"""The page of the code's folders, from the docstrings of their packages."""

import ast

from tests.docs.pages import ROOT

LAYERS = (
    ("HTTP API and console", "api"),
    ("Commands", "rollout/cli"),
    ("Background jobs", "rollout/scheduler"),
    ("Use cases", "rollout/services"),
    ("Database", "rollout/store"),
    ("Reports", "rollout/reports"),
    ("Replay", "rollout/replay"),
    ("Formats", "rollout/formats"),
    ("Client library", "clients/python"),
    ("Counting", "rollout/tally"),
    ("Decisions", "rollout/core"),
)
HEAD = """\
# Folders

Generated from the docstrings of the folders, one table for each layer.
[Architecture](../architecture.md) shows which layer imports which.
"""


def write_folders():
    """Return the page."""
    lines = [HEAD]
    for title, folder in LAYERS:
        lines += [f"## {title}\n", "| folder | what it has |", "|---|---|"]
        packages = sorted((ROOT / folder).rglob("__init__.py"))
        lines += [f"| `{_name_of(file)}` | {_summary_of(file)} |" for file in packages]
        lines += [""]
    return "\n".join(lines)


def _name_of(file):
    return file.parent.relative_to(ROOT).as_posix()


def _summary_of(file):
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())
