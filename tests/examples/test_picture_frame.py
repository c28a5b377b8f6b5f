"""The pictures of the examples can be read on light and on dark pages."""

import re

import pytest

from tests.examples.pages import PICTURES
from tests.examples.picture_frame import DARK, LIGHT

LEAST_CONTRAST = 4.5  # of text; WCAG 2.2, 1.4.3
each_set = pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])


def compute_luminance(colour):
    """Return the relative luminance of a colour (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def compute_contrast(one, other):
    low, high = sorted(map(compute_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@each_set
def test_text_stands_out_from_the_picture(colours):
    names = ("text", "faint", "warning", "biased", "unbiased")
    contrasts = {name: compute_contrast(colours[name], colours["canvas"]) for name in names}
    assert {name: c for name, c in contrasts.items() if c < LEAST_CONTRAST} == {}


@each_set
def test_text_on_a_stage_stands_out_from_it(colours):
    pairs = zip(colours["stages"], colours["on_stages"], strict=True)
    assert [pair for pair in pairs if compute_contrast(*pair) < LEAST_CONTRAST] == []


@pytest.mark.parametrize("path", sorted(PICTURES.glob("*.svg")), ids=lambda path: path.stem)
def test_a_picture_takes_each_colour_from_one_of_both_sets(path):
    style, _, drawing = path.read_text(encoding="utf-8").partition("</style>")
    assert "@media (prefers-color-scheme: dark)" in style
    assert re.findall(r'="#|style=', drawing) == []
    classes = {name for names in re.findall(r'class="([^"]+)"', drawing) for name in names.split()}
    styled = set(re.findall(r"^\.([a-z0-9-]+)", style, re.MULTILINE))
    assert classes <= styled | {"curve"}
