"""The page of OWASP ASVS requirements, from asvs.toml beside it."""

import tomllib
from collections import Counter

from tests.docs.pages import ROOT

SOURCE = ROOT / "docs/reference/asvs.toml"
STATUSES = ("met", "partly", "not met", "none")
CHAPTERS = {
    1: "Encoding and sanitization",
    2: "Validation and business logic",
    3: "Web frontend",
    4: "API and web service",
    5: "Files",
    6: "Authentication",
    7: "Sessions",
    8: "Authorization",
    9: "Self-contained tokens",
    10: "OAuth and OIDC",
    11: "Cryptography",
    12: "Secure communication",
    13: "Configuration",
    14: "Data protection",
    15: "Secure coding and architecture",
    16: "Logging and errors",
    17: "WebRTC",
}
HEAD = """\
# OWASP ASVS 5.0, level 2

Generated from `asvs.toml` beside this page. It has every requirement of levels 1 and 2 of version
5.0.0; numbers and levels were compared with the published list. We assessed ourselves. "None" means
that the service has nothing of that kind. Where a requirement is partly met or not met, the column
"where" says what is missing.

"""
TABLE_HEAD = """
| requirement | asks | status | where | test |
|---|---|---|---|---|
"""


def load_requirements():
    """Return the requirements by id."""
    return tomllib.loads(SOURCE.read_text(encoding="utf-8"))


def write_asvs():
    """Return the page."""
    requirements = load_requirements()
    total = _format_counts(requirements.values())
    parts = [HEAD, f"{len(requirements)} requirements: {total}.\n"]
    for chapter, title in CHAPTERS.items():
        rows = {n: row for n, row in requirements.items() if n.split(".")[0] == str(chapter)}
        parts.append(f"\n## V{chapter} {title}\n\n{_format_counts(rows.values())}.\n{TABLE_HEAD}")
        parts += [
            f"| {n} | {row['asks']} | {row['status']} | {row['where']} | {_link(row['test'])} |\n"
            for n, row in rows.items()
        ]
    return "".join(parts)


def _format_counts(rows):
    counts = Counter(row["status"] for row in rows)
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])


def _link(test):
    path, _, name = test.partition("::")
    return f"[{name.removeprefix('test_').replace('_', ' ')}](../../{path})" if test else ""
