"""Writes docs/examples, `python -m tests.examples.pages`: pages with pictures and tables.

A page is the example's README.md with what its replay gives in place of the markers. A test
compares each page with what this module returns.
"""

import re
import sys

from rollout.engine.words.formatting import format_percent
from rollout.features.demo.catalog import list_examples
from rollout.features.demo.story import format_day_month
from tests.docs.pages import ROOT
from tests.examples.seeds import LEAST_RULES, format_seed_table
from tests.examples.stage_picture import draw_stages

PAGES, PICTURES = ROOT / "docs/examples", ROOT / "docs/images/examples"
MARKER = re.compile(r"^<!-- (timeline|plain rules|seeds) -->$", re.MULTILINE)
NOTE = "<!-- Generated from examples/{name}/README.md: python -m tests.examples.pages -->\n"
GALLERY_HEAD = """\
# Examples

Generated from the descriptions in `examples`. Each example is a policy, its records and one cell
that must not be widened, and isn't. `rollout demo NAME` plays one, with `--serve` live;
`rollout demo --list` lists them.

Each page has a table of ten seeds. Dates and numbers of cells may differ. In every seed the held
cell stays closed, some cell opens, and at least {least} of the four plain rules would have opened
the held cell.
"""


def write_page(story):
    """Return an example's page."""
    parts = {
        "timeline": lambda: _write_timeline(story),
        "plain rules": lambda: _write_plain_rules(story),
        "seeds": lambda: format_seed_table(story.example.name),
    }
    text = (story.example.folder / "README.md").read_text(encoding="utf-8")
    title, _, rest = text.partition("\n")
    rest = rest.replace("](../../docs/", "](../")  # links of a page begin in docs/examples
    body = MARKER.sub(lambda match: parts[match[1]]().strip(), rest)
    play = f"\n```sh\nrollout demo {story.example.name}\n```\n"
    return f"{title}\n\n{NOTE.format(name=story.example.name)}{play}{body}"


def _write_timeline(story):
    name = story.example.name
    lines = [" ".join(line.split()) for line in _join_wrapped(story.describe_stages())]
    steps = "\n".join(f"- {line}" for line in lines)
    return f"![Stages of each cell over time](../images/examples/{name}.svg)\n\n{steps}\n"


def _join_wrapped(lines):
    """Return the stages of each cell as one line."""
    text = "\n".join(lines)
    return re.sub(r"\n {6,}", " ", text).splitlines()


def _write_plain_rules(story):
    """Return the table of plain rules for the cell that is held."""
    held_cell = story.example.held
    threshold = format_percent(story.find_threshold(), 0)
    zone = story.replayed_files.policy.sites_by_id[held_cell.site].timezone
    place = f"{held_cell.site} · {held_cell.window}"
    behaviour = "Each lets the model decide there from a day on."
    counted = "Errors are counted among the cases that are known to be right or wrong."
    rows = [
        f"Plain rules on {place}, threshold {threshold}. {behaviour}\n{counted}\n",
        "| version | rule | from | errors | cost |",
        "|---|---|---|---|---|",
    ]
    for version in story.held_versions:
        for result in story.compute_plain_rules(version):
            if result.opened_at is None:
                rows.append(f"| {version} | {result.rule} | never | – | – |")
            else:
                since = format_day_month(result.opened_at, zone)
                errors = story.describe_rule_errors(result)
                cost = f"{result.model_cost.cost or 0.0:,.0f}"
                rows.append(f"| {version} | {result.rule} | {since} | {errors} | {cost} |")
    unit = story.replayed_files.policy.charter.cost_in or "the policy’s unit"
    errors = f"{story.example.case[1]} {story.example.wrong}"
    return "\n".join(rows) + f"\n\nCost in {unit}, of the {errors}.\n"


def write_gallery():
    """Return the page that shows all examples."""
    rows = [GALLERY_HEAD.format(least=LEAST_RULES)]
    for example in list_examples():
        held_cell = f"{example.held.site} {example.held.window}"
        rows.append(
            f"## [{example.title}]({example.name}.md)\n\n{example.idea}\n\n"
            f"![Stages of each cell of {example.title}](../images/examples/{example.name}.svg)\n\n"
            f"Held: **{held_cell}**. {example.held.reason}\n"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    from tests.examples.plays import play_example_story

    PAGES.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    chosen = sys.argv[1:]
    for example in list_examples():
        if not chosen or example.name in chosen:
            story = play_example_story(example)
            (PAGES / f"{example.name}.md").write_text(write_page(story), encoding="utf-8")
            (PICTURES / f"{example.name}.svg").write_text(draw_stages(story), encoding="utf-8")
