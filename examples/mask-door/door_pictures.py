"""Drawings of visitors at two doors: cartoon heads, nobody's face.

A drawing follows from door, light and truth alone, never from an answer: a reviewer learns nothing
of what the model said. File names are numbers, so that they give no answer away either.
"""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from rollout.features.demo.recorded_cases import encode_palette

SIDE: Final = 112
HAZE_STEPS: Final = 4  # of the sun's glare: few colours, since an address holds 1,480 bytes
SCENES: Final = (
    ("main-entrance", "daylight"),
    ("main-entrance", "lamps"),
    ("garden-door", "daylight"),
    ("garden-door", "clouds"),
    ("garden-door", "low-sun"),
    ("garden-door", "lamps"),
)
VARIANTS: Final = {"mask": 4, "no-mask": 4, "nobody": 2}  # with six scenes 60 drawings
WALLS: Final = {"main-entrance": (176, 186, 196), "garden-door": (150, 176, 140)}
BRIGHTNESS: Final = {"daylight": 1.0, "lamps": 0.82, "clouds": 0.8, "low-sun": 0.75}
SKINS: Final = ((236, 188, 152), (198, 140, 100), (150, 100, 68), (110, 72, 52))
HAIRS: Final = ((60, 40, 30), (150, 100, 40), (30, 30, 34), (120, 60, 40))
COATS: Final = ((60, 90, 150), (150, 60, 70), (70, 120, 80), (110, 90, 130))
MASKS: Final = ((120, 190, 215), (245, 245, 245), (110, 120, 180), (190, 215, 165))

Image = npt.NDArray[np.float64]
Colour = tuple[int, int, int]


def find_picture_name(site: str, light: str, truth: str, luck: int) -> str:
    """Return the file, relative to the records, of one variant of a scene."""
    names = list(VARIANTS)
    earlier = sum(VARIANTS[name] for name in names[: names.index(truth)])
    number = SCENES.index((site, light)) * sum(VARIANTS.values()) + earlier
    return f"pictures/door-{number + luck % VARIANTS[truth]:02}.png"


def draw_pictures() -> dict[str, bytes]:
    """Return each drawing, by file name."""
    return {
        Path(find_picture_name(site, light, truth, variant)).name: encode_palette(
            draw(site, light, truth, variant)
        )
        for site, light in SCENES
        for truth, variants in VARIANTS.items()
        for variant in range(variants)
    }


def draw(site: str, light: str, truth: str, variant: int) -> npt.NDArray[np.uint8]:
    """Return one drawing, as rows of red, green and blue."""
    image = np.empty((SIDE, SIDE, 3))
    image[:] = WALLS[site]
    image[:, :16] = image[:, -16:] = np.array(WALLS[site]) * 0.7  # the frame of the door
    if site == "garden-door":
        image[86:, 16:-16] = (96, 140, 80)  # grass behind the visitor
    if truth == "nobody":
        draw_bird(image, variant)
    else:
        draw_visitor(image, variant, has_mask=truth == "mask")
    image *= BRIGHTNESS[light]
    if light == "lamps":
        image *= (1.0, 0.88, 0.6)
    if light == "low-sun":
        dazzle(image, variant)
    return np.clip(np.rint(image / 8) * 8, 0, 255).astype(np.uint8)


def draw_visitor(image: Image, variant: int, *, has_mask: bool) -> None:
    """Draw head and shoulders, a little elsewhere in each variant."""
    x, y = 56 + (-7, 5, -2, 8)[variant], 50 + (0, 4, -3, 2)[variant]
    fill_ellipse(image, (x, y + 62), (40, 34), COATS[variant])
    fill_ellipse(image, (x, y - 4), (25, 31), HAIRS[variant])
    fill_ellipse(image, (x, y + 3), (21, 27), SKINS[variant])
    for side in (-9, 9):
        fill_ellipse(image, (x + side, y - 3), (4, 3), (250, 250, 250))
        fill_ellipse(image, (x + side, y - 3), (2, 2), (40, 40, 40))
    if has_mask:
        fill_ellipse(image, (x, y + 17), (19, 13), MASKS[variant])
        for fold in (12, 18, 24):
            image[y + fold, x - 13 : x + 14] = np.array(MASKS[variant]) * 0.8
    else:
        fill_ellipse(image, (x, y + 8), (3, 5), tuple(c * 4 // 5 for c in SKINS[variant]))
        fill_ellipse(image, (x, y + 19), (8, 3), (170, 70, 70))


def draw_bird(image: Image, variant: int) -> None:
    """Draw what rings beside people: a bird in front of the camera."""
    x, y = 56 + (-12, 10, 0, 14)[variant], 60 + (8, -10, 14, 0)[variant]
    fill_ellipse(image, (x, y), (20, 11), (70, 70, 80))
    fill_ellipse(image, (x + 20, y - 9), (8, 8), (70, 70, 80))
    fill_ellipse(image, (x + 29, y - 8), (5, 2), (220, 160, 40))
    fill_ellipse(image, (x + 22, y - 11), (2, 2), (250, 250, 250))
    fill_ellipse(image, (x - 6, y - 12), (9, 14), (96, 96, 108))


def dazzle(image: Image, variant: int) -> None:
    """Let the sun stand low beside the head and wash the lower half of the face out."""
    rows, columns = np.ogrid[:SIDE, :SIDE]
    x, y = (84, 26, 90, 30)[variant], (64, 70, 58, 66)[variant]
    glare = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 900)[..., None]
    haze = 0.35 + 0.65 * np.rint(glare * HAZE_STEPS) / HAZE_STEPS
    image += (np.array((255, 240, 190)) - image) * haze


def fill_ellipse(
    image: Image, centre: tuple[int, int], radii: tuple[int, int], colour: Colour
) -> None:
    """Fill an ellipse, given as column and row."""
    rows, columns = np.ogrid[:SIDE, :SIDE]
    distance = ((columns - centre[0]) / radii[0]) ** 2 + ((rows - centre[1]) / radii[1]) ** 2
    image[distance <= 1] = colour
