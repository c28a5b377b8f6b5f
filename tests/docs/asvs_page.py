"""The page of OWASP ASVS requirements, from asvs.toml beside it."""

import tomllib
from collections import Counter

from tests.docs.pages import ROOT

SOURCE = ROOT / "docs/reference/asvs.toml"
STATUSES = ("met", "partly", "not met", "none")
HEAD = """\
# OWASP ASVS 5.0, level 2

Generated from `asvs.toml` beside this page. It covers the chapters on authentication (6) and
sessions (7), levels 1 and 2. **Other chapters are not assessed.** "None" means that the service has
nothing of that kind.

{counts}

| requirement | asks | status | where | test |
|---|---|---|---|---|
"""


def load_requirements():
    """Return the requirements by id."""
    return tomllib.loads(SOURCE.read_text(encoding="utf-8"))


def write_asvs():
    """Return the page."""
    requirements = load_requirements()
    counts = Counter(row["status"] for row in requirements.values())
    text = ", ".join(
        f"{counts[status]} {status}" for status in ("met", "partly", "not met", "none")
    )
    rows = [
        f"| {number} | {row['asks']} | {row['status']} | {row['where']} | {_link(row['test'])} |\n"
        for number, row in requirements.items()
    ]
    return HEAD.format(counts=f"{len(requirements)} requirements: {text}.") + "".join(rows)


def _link(test):
    path, _, name = test.partition("::")
    return f"[{name.removeprefix('test_').replace('_', ' ')}](../../{path})" if test else ""
