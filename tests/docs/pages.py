"""What the pages of docs/ tell a reader to type, and what the commands take."""

import json
import re
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import typer.main

from rollout.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/**/*.md")])
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`(rollout [a-z][^`]*)`")


@dataclass(frozen=True)
class Typed:
    """A line that a reader types; `served` where the block speaks to a service."""

    line: str
    served: bool

    @property
    def words(self):
        return shlex.split(self.line.partition(" > ")[0])[1:]

    @property
    def target(self):
        return self.line.partition(" > ")[2].strip()


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def typed(page, section=""):
    """Return the `rollout` lines of the blocks of a page, or of one section of it, in order."""
    commands = []
    text = text_of(page)
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    for block in BLOCK.findall(text):
        served = "ROLLOUT_SERVER=" in block
        lines = (line.split(" #")[0].strip() for line in block.splitlines())
        commands += [Typed(line, served) for line in lines if line.startswith("rollout ")]
    return commands


def list_curl_requests(page):
    """Return what a page's curl lines ask: path and JSON body, null where they send none."""
    blocks = "\n".join(BLOCK.findall(text_of(page))).replace("\\\n", " ")
    now = datetime.now(UTC).isoformat()
    for block in re.split(
        r"^curl ", blocks.replace("'$(date -u +%FT%TZ)'", now), flags=re.MULTILINE
    )[1:]:
        path = re.search(r"https?://[^/\s]+(/\S+)", block)[1]
        body = re.search(r"--json '([^']*)'", block)
        yield path, json.loads(body[1] if body else "null")


def mentioned(page):
    """Return every command of a page, in blocks and in sentences."""
    inline = [" ".join(code.split()) for code in INLINE.findall(text_of(page))]
    lines = [line for code in inline for line in code.split(" && ")]
    return [*typed(page), *(Typed(line, served=False) for line in lines)]


def fault_of(words, node=None):
    """Say what is wrong with a command's words; "" if there is such a command with such options."""
    node = node or typer.main.get_command(app)
    rest = list(words)
    while rest and hasattr(node, "commands") and rest[0] in node.commands:
        node = node.commands[rest.pop(0)]
    if hasattr(node, "commands") and rest and not rest[0].startswith("-"):
        return f"there is no command {rest[0]}"
    options = {name for param in node.params for name in (*param.opts, *param.secondary_opts)}
    unknown = [
        w for w in rest if w.startswith("--") and w.split("=")[0] not in {*options, "--help"}
    ]
    return f"{node.name} takes no {unknown[0]}" if unknown else ""
