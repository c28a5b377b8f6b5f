"""Draw the Mermaid diagrams of the docs while the site is built, as SVG inside the page.

The site generator calls `draw_fence` for each `mermaid` block (`zensical.toml`). The Mermaid
library runs inside this process, so that a reader's browser needs neither a script nor another
host. Drawings are cached in `out/diagrams`, because each takes seconds. A diagram that can't be
drawn ends the build.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import mermaidx
from pymdownx.superfences import SuperFencesException

CACHE = Path(__file__).parents[1] / "out" / "diagrams"
OPTIONS = {"theme": "neutral", "config": {"fontFamily": "sans-serif"}}
SMALLEST_SCALE = 0.7
"""A wider diagram than the column shrinks to this part of its size, then scrolls."""
WIDTH = re.compile(r"max-width: ([\d.]+)px")
TITLE = re.compile(r"^\s*accTitle:\s*(.+)$", re.MULTILINE)


def draw_fence(
    source: str, _language: str, _css_class: str, _options: Any, _markdown: Any, **_: Any
) -> str:
    """Return the figure of a Mermaid block, for a page's HTML.

    Raises:
        SuperFencesException: the block can't be drawn; other exceptions would not end the build.
    """
    if not TITLE.search(source):
        raise SuperFencesException(f"a diagram has no accTitle for screen readers: {source}")
    try:
        return f'<figure class="diagram">{_draw(source)}</figure>'
    except RuntimeError as error:
        raise SuperFencesException(f"a diagram can't be drawn ({error}): {source}") from error


def _draw(source: str) -> str:
    name = hashlib.sha256(
        f"{mermaidx.__version__} {OPTIONS} {SMALLEST_SCALE} {source}".encode()
    ).hexdigest()[:16]
    file = CACHE / f"{name}.svg"
    if not file.exists():
        svg = WIDTH.sub(_limit_width, mermaidx.render(source, **OPTIONS).svg(), count=1)
        CACHE.mkdir(parents=True, exist_ok=True)
        # each page has several drawings: their ids have to differ
        unfinished = file.with_suffix(f".{os.getpid()}")
        unfinished.write_text(svg.replace("my-svg", f"diagram-{name}"), encoding="utf-8")
        unfinished.replace(file)
    return file.read_text(encoding="utf-8")


def _limit_width(match: re.Match[str]) -> str:
    width = float(match[1])
    return f"max-width: {width:.0f}px; min-width: {width * SMALLEST_SCALE:.0f}px"
