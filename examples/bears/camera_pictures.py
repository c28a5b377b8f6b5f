"""Pictures of a campsite camera, of ellipses and lines; they tell nothing of the model.

A picture depends on what stands there, the light, the lens and a variant, so reviewers of two
visits may see the same one. Each is a PNG of 128 x 96 pixels.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from campsites import OTHERS, POSES, Visit

from rollout.features.demo.recorded_cases import encode_palette

WIDTH, HEIGHT = 128, 96
GRAIN: Final = 2  # drawn twice as large, then averaged: smooth edges
COARSE: Final = 24  # steps between the levels of a colour
KINDS: Final = (*POSES, *OTHERS)
LIGHTS: Final = ("day", "dusk", "night")
VARIANTS: Final = {"day": 2, "dusk": 2, "night": 1}  # of a clear lens; a wet one has one
DROPS: Final = ((24, 20, 9), (70, 14, 6), (104, 38, 10), (40, 62, 7), (88, 78, 8), (14, 84, 6))
INFRARED_BLOCK: Final = 2  # pixels of a night picture are this large

# Colours by light: the night camera sees infra-red, in which fur is bright and the sky is black.
COLOURS: Final = {
    "sky": ((190, 214, 230), (158, 122, 128), (18, 18, 18)),
    "trees": ((66, 98, 70), (50, 48, 62), (40, 40, 40)),
    "grass": ((132, 152, 88), (86, 80, 70), (66, 66, 66)),
    "bear": ((78, 52, 36), (46, 34, 34), (150, 150, 150)),
    "muzzle": ((150, 112, 78), (92, 70, 62), (186, 186, 186)),
    "deer": ((176, 124, 78), (112, 82, 70), (176, 176, 176)),
    "raccoon": ((136, 132, 128), (90, 86, 92), (164, 164, 164)),
    "dark": ((22, 18, 18), (16, 14, 20), (10, 10, 10)),
    "eye": ((16, 12, 12), (240, 206, 130), (255, 255, 255)),
}
Shape = tuple[str, str, tuple[float, ...]]  # colour, form, its numbers
Pixels = npt.NDArray[np.float64]

SIDE_BEAR: Final[tuple[Shape, ...]] = (
    ("bear", "ellipse", (60, 56, 27, 15)),
    ("bear", "ellipse", (76, 49, 12, 11)),
    ("bear", "ellipse", (94, 50, 11, 10)),
    ("bear", "ellipse", (87, 41, 4, 4)),
    ("bear", "ellipse", (97, 41, 3, 4)),
    ("muzzle", "ellipse", (105, 54, 6, 4)),
    ("dark", "ellipse", (110, 53, 2, 2)),
    ("eye", "ellipse", (98, 48, 1.6, 1.6)),
    *(("bear", "line", (x, 60, x - 1, 80, 5)) for x in (41, 51, 72, 81)),
)
SHAPES: Final[dict[str, tuple[Shape, ...]]] = {
    "side": SIDE_BEAR,
    "cub": tuple(
        (colour, form, tuple(0.52 * number for number in numbers))
        for colour, form, numbers in SIDE_BEAR
    ),
    "front": (
        ("bear", "ellipse", (64, 62, 20, 20)),
        ("bear", "line", (53, 72, 52, 82, 6)),
        ("bear", "line", (75, 72, 76, 82, 6)),
        ("bear", "ellipse", (53, 31, 5, 5)),
        ("bear", "ellipse", (75, 31, 5, 5)),
        ("bear", "ellipse", (64, 42, 15, 14)),
        ("muzzle", "ellipse", (64, 48, 7, 6)),
        ("dark", "ellipse", (64, 45, 3, 2)),
        ("eye", "ellipse", (58, 39, 1.8, 1.8)),
        ("eye", "ellipse", (70, 39, 1.8, 1.8)),
    ),
    "behind": (
        ("bear", "ellipse", (57, 36, 4, 4)),
        ("bear", "ellipse", (73, 36, 4, 4)),
        ("bear", "ellipse", (65, 42, 12, 10)),
        ("bear", "ellipse", (64, 60, 23, 21)),
        ("bear", "line", (52, 74, 51, 82, 7)),
        ("bear", "line", (76, 74, 77, 82, 7)),
        ("muzzle", "ellipse", (64, 56, 3, 4)),
    ),
    "deer": (
        ("deer", "ellipse", (58, 52, 20, 9)),
        ("deer", "line", (74, 50, 85, 32, 4)),
        ("deer", "ellipse", (89, 29, 7, 4)),
        ("deer", "ellipse", (83, 23, 2, 4)),
        *(("deer", "line", (x, 56, x, 82, 1.6)) for x in (43, 48, 68, 73)),
        ("muzzle", "line", (85, 24, 80, 10, 1)),
        ("muzzle", "line", (82, 17, 74, 14, 1)),
        ("muzzle", "line", (88, 24, 94, 10, 1)),
        ("muzzle", "line", (91, 17, 98, 14, 1)),
        ("eye", "ellipse", (90, 28, 1.2, 1.2)),
    ),
    "raccoon": (
        ("raccoon", "ellipse", (60, 70, 14, 9)),
        ("raccoon", "line", (48, 70, 34, 60, 4)),
        ("dark", "line", (43, 69, 46, 64, 1.5)),
        ("dark", "line", (37, 65, 40, 60, 1.5)),
        ("raccoon", "ellipse", (76, 64, 8, 7)),
        ("raccoon", "ellipse", (71, 57, 2, 3)),
        ("raccoon", "ellipse", (81, 57, 2, 3)),
        ("dark", "ellipse", (76, 63, 7, 2.4)),
        ("eye", "ellipse", (73, 63, 1.2, 1.2)),
        ("eye", "ellipse", (79, 63, 1.2, 1.2)),
        ("dark", "ellipse", (76, 68, 1.5, 1.2)),
        *(("raccoon", "line", (x, 76, x, 82, 2)) for x in (51, 57, 65, 71)),
    ),
    "nothing": (
        *(("trees", "line", (x, 84, x + 5, 66, 1)) for x in range(34, 64, 5)),
        *(("trees", "line", (x, 84, x - 4, 70, 1)) for x in range(52, 84, 6)),
    ),
}


def name_picture(visit: Visit) -> str:
    """Return the file that shows a visit; its number says nothing of the subject."""
    kind = visit.pose or visit.subject
    variants = 1 if visit.wet else VARIANTS[visit.window]
    return _name(kind, visit.window, visit.wet, visit.variant % variants)


def _name(kind: str, light: str, wet: bool, variant: int) -> str:
    number = (KINDS.index(kind) * 4 + 2 * wet + variant) * 11 % 28  # 11 and 28: a permutation
    return f"{light}-{number + 1:02}.png"


def draw_pictures() -> dict[str, bytes]:
    """Return every picture by its name."""
    pictures = {}
    for kind in KINDS:
        for light in LIGHTS:
            for wet, variants in ((False, VARIANTS[light]), (True, 1)):
                for variant in range(variants):
                    pixels = _draw_scene(kind, light, wet, variant)
                    pictures[_name(kind, light, wet, variant)] = _encode(pixels)
    return pictures


def _draw_scene(kind: str, light: str, wet: bool, variant: int) -> npt.NDArray[np.uint8]:
    """Return RGB pixels of one subject before trees."""
    x, y = np.meshgrid(np.arange(WIDTH * GRAIN) / GRAIN, np.arange(HEIGHT * GRAIN) / GRAIN)
    colours = {name: np.array(rgb[LIGHTS.index(light)], float) for name, rgb in COLOURS.items()}
    pixels = np.broadcast_to(colours["sky"], (*x.shape, 3)).copy()
    for trunk in range(-6 + 5 * variant, WIDTH + 12, 13):
        pixels[(np.abs(x - trunk) * 3 < y - (trunk * 7 % 17)) & (y < 50)] = colours["trees"]
    pixels[y >= 46] = colours["grass"]
    is_small = kind == "cub"
    own_x = (WIDTH - x if variant else x) - (26 if is_small else 0)
    own_y = y - (40 if is_small else 0)
    for colour, form, numbers in SHAPES[kind]:
        pixels[_find_inside(form, numbers, own_x, own_y)] = colours[colour]
    for column, row, radius in DROPS if wet else ():
        drop = (x - column) ** 2 + (y - row) ** 2 < radius**2
        pixels[drop] = pixels[drop] * 0.45 + 0.55 * (colours["sky"] + colours["grass"]) / 2 + 12
    return _shrink(pixels, INFRARED_BLOCK if light == "night" else 1)


def _find_inside(
    form: str, numbers: tuple[float, ...], x: Pixels, y: Pixels
) -> npt.NDArray[np.bool_]:
    """Return which pixels lie in an ellipse (centre, radii) or a line (ends, half its width)."""
    if form == "ellipse":
        column, row, wide, high = numbers
        return ((x - column) / wide) ** 2 + ((y - row) / high) ** 2 <= 1
    x0, y0, x1, y1, half = numbers
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
    along = np.clip(along, 0, 1)
    return (x - x0 - along * (x1 - x0)) ** 2 + (y - y0 - along * (y1 - y0)) ** 2 <= half**2


def _shrink(pixels: Pixels, block: int) -> npt.NDArray[np.uint8]:
    """Return the picture at its size, each `block` of pixels with one colour."""
    step = GRAIN * block
    rows = pixels.reshape(HEIGHT // block, step, WIDTH // block, step, 3)
    small = np.clip(np.rint(rows.mean(axis=(1, 3))), 0, 255).astype(np.uint8)
    return small.repeat(block, axis=0).repeat(block, axis=1)


def _encode(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return RGB pixels as a PNG of few colours: with its address it has to fit into a record."""
    coarse = np.minimum((pixels.astype(int) + COARSE // 2) // COARSE * COARSE, 255)
    return encode_palette(coarse.astype(np.uint8))
