"""Writes docs/examples, `python -m tests.examples.pages`: pages with pictures and tables.

A page is the example's README.md with what its replay gives in place of the markers. A test
compares each page with what this module returns.
"""

import re
import sys
from itertools import pairwise

from rollout.reports.text.formatting import format_count, format_percent
from rollout.services.examples.catalog import list_examples
from rollout.services.examples.story import format_day_month
from tests.docs.pages import ROOT
from tests.examples.seeds import format_seed_table

PAGES, PICTURES = ROOT / "docs/examples", ROOT / "docs/images/examples"
MARKER = re.compile(r"^<!-- (timeline|plain rules|seeds) -->$", re.MULTILINE)
NOTE = "<!-- Generated from examples/{name}/README.md: python -m tests.examples.pages -->\n"
GALLERY_HEAD = """\
# Examples

Generated from the descriptions in `examples`. Each example is a policy, its records and one cell
that must not be widened, and isn't. `rollout demo NAME` plays one, with `--serve` live;
`rollout demo --list` lists them.
"""
COLOURS = ("#d8dee4", "#9ecae1", "#4292c6", "#08519c")
LEFT, WIDTH, ROW, TOP = 190, 780, 24, 34


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
    example = story.example
    behaviour = "Each lets the model decide there from a day on."
    rows = [
        f"Plain rules on {place}, threshold {threshold}. {behaviour}",
        f"In brackets: what {example.people[1]} got wrong of the same {example.case[1]}.\n",
        f"| version | rule | from | {story.example.case[1]} | {story.example.wrong} | cost |",
        "|---|---|---|---|---|---|",
    ]
    for version in story.held_versions:
        for result in story.compute_plain_rules(version):
            since = (
                "never" if result.opened_at is None else format_day_month(result.opened_at, zone)
            )
            people = f" ({story.example.people[1]}: {result.people_wrong})" * (
                result.people_known > 0
            )
            rows.append(
                f"| {version} | {result.rule} | {since} | {format_count(result.cases)} |"
                f" {format_count(result.wrong)}{people} | {result.cost:,.0f} |"
            )
    unit = story.replayed_files.policy.charter.cost_in
    return (
        "\n".join(rows)
        + f"\n\nCost in {unit or 'the policy’s unit'}, of the model's wrong actions.\n"
    )


def draw_stages(story):
    """Return an SVG with the stages of each cell over time, takeovers and the held cell."""
    stages, cells = story.replayed_files.policy.stage_ids, story.facts.stages
    first = min(cell.intervals[0].since for cell in cells)
    last = max(cell.intervals[-1].until for cell in cells)
    height = TOP + ROW * len(cells) + 34
    parts = [_draw_legend(stages, has_takeover=any(map(_list_takeovers, cells)))]
    for row, cell in enumerate(cells):
        parts += _draw_cell(story, cell, TOP + ROW * row, first, last, stages)
    parts.append(_draw_axis(first, last, height))
    style = "font:12px system-ui,sans-serif"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" style="{style}"'
        f' role="img" aria-label="Stages of each cell over time">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _list_takeovers(cell):
    """Return the intervals in which another version acts than just before."""
    return [
        after
        for before, after in pairwise(cell.intervals)
        if before.version and after.version and before.version != after.version
    ]


def _draw_legend(stages, *, has_takeover):
    pieces = []
    for level, stage in enumerate(stages):
        x = LEFT + 130 * level
        pieces.append(f'<rect x="{x}" y="8" width="14" height="14" fill="{COLOURS[level]}"/>')
        pieces.append(f'<text x="{x + 20}" y="20" fill="#24292f">{stage}</text>')
    if has_takeover:
        x = LEFT + 130 * len(stages)
        pieces.append(f'<rect x="{x}" y="8" width="14" height="14" fill="{COLOURS[2]}"/>')
        pieces.append(f'<rect x="{x + 6}" y="6" width="3" height="18" fill="#fff"/>')
        pieces.append(f'<text x="{x + 20}" y="20" fill="#24292f">a version takes over</text>')
    return "".join(pieces)


def _draw_cell(story, cell, y, first, last, stages):
    held_cell = story.example.held
    is_held = (cell.site, cell.window) == (held_cell.site, held_cell.window)
    label = f"{cell.site} {cell.window}"
    weight = ' font-weight="bold"' if is_held else ""
    place = f'x="{LEFT - 8}" y="{y + 15}" text-anchor="end"'
    yield f'<text {place} fill="#24292f"{weight}>{label}</text>'
    for interval in cell.intervals:
        start, end = (_scale(at, first, last) for at in (interval.since, interval.until))
        colour = COLOURS[stages.index(interval.stage)]
        width = max(end - start, 0.5)
        yield (
            f'<rect x="{start:.1f}" y="{y + 3}" width="{width:.1f}" height="{ROW - 6}"'
            f' fill="{colour}"/>'
        )
    for takeover in _list_takeovers(cell):
        x = _scale(takeover.since, first, last)
        yield f'<rect x="{x - 1.5:.1f}" y="{y + 1}" width="3" height="{ROW - 2}" fill="#fff"/>'
        yield f'<text x="{x + 6:.1f}" y="{y + 16}" fill="#000">{takeover.version}</text>'
    if is_held:
        yield (
            f'<rect x="{LEFT - 1}" y="{y + 2}" width="{WIDTH - LEFT - 18}" height="{ROW - 4}"'
            ' fill="none" stroke="#cf222e" stroke-width="1.5"/>'
            f'<text x="{WIDTH - 24}" y="{y + 15}" text-anchor="end" fill="#a40e26">held</text>'
        )


def _scale(at, first, last):
    return LEFT + (WIDTH - LEFT - 20) * ((at - first) / (last - first))


def _draw_axis(first, last, height):
    pieces = []
    for number in range(5):
        at = first + (last - first) * number / 4
        anchor = "end" if number == 4 else "middle" if number else "start"
        pieces.append(
            f'<text x="{_scale(at, first, last):.0f}" y="{height - 12}" text-anchor="{anchor}"'
            f' fill="#57606a">{format_day_month(at, "UTC")}</text>'
        )
    return "".join(pieces)


def write_gallery():
    """Return the page that shows all examples."""
    rows = [GALLERY_HEAD]
    for example in list_examples():
        held_cell = f"{example.held.site} {example.held.window}"
        rows.append(
            f"## [{example.title}]({example.name}.md)\n\n{example.idea}\n\n"
            f"![Stages of each cell of {example.title}](../images/examples/{example.name}.svg)\n\n"
            f"Held: **{held_cell}**. {example.held.because}\n"
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
