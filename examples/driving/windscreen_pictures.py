"""Pictures from a windscreen, of ellipses and lines; they tell nothing of the model.

A picture depends on what is on the road, its bend and the weather, so reviewers of two encounters
may see the same one. Each is a PNG of 128 x 96 pixels.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from routes import BENDS, SCENES, Encounter

from rollout.features.demo.recorded_cases import encode_palette

WIDTH, HEIGHT = 128, 96
GRAIN: Final = 2  # drawn twice as large, then averaged: smooth edges
HORIZON: Final = 38
COARSE: Final = 24  # steps between the levels of a colour
KINDS: Final = (*SCENES, "foam")
WEATHERS: Final = ("dry", "rain")
DROPS: Final = ((20, 24, 6), (66, 12, 5), (108, 30, 7), (36, 66, 5), (92, 72, 6), (60, 50, 4))

COLOURS: Final = {  # by weather
    "sky": ((186, 212, 232), (140, 146, 154)),
    "hills": ((112, 146, 112), (92, 106, 100)),
    "grass": ((140, 164, 98), (100, 112, 84)),
    "road": ((112, 112, 116), (74, 76, 82)),
    "mark": ((236, 236, 228), (180, 182, 184)),
    "kerb": ((180, 176, 168), (132, 132, 130)),
    "car": ((176, 52, 46), (140, 48, 46)),
    "glass": ((60, 74, 90), (52, 60, 70)),
    "coat": ((52, 74, 150), (48, 62, 116)),
    "skin": ((214, 170, 134), (180, 146, 120)),
    "legs": ((44, 44, 52), (36, 36, 44)),
    "child": ((222, 150, 40), (184, 128, 48)),
    "foam": ((240, 228, 120), (206, 198, 116)),
}
Shape = tuple[str, str, tuple[float, ...]]  # colour, form, its numbers
Pixels = npt.NDArray[np.float64]


def _stand(column: float, foot: float, size: float, coat: str, head: str) -> tuple[Shape, ...]:
    """Return a figure that stands: legs, coat and a head without a face."""
    return (
        ("legs", "line", (column - 2 * size, foot - 7 * size, column - 2 * size, foot, 1.4 * size)),
        ("legs", "line", (column + 2 * size, foot - 7 * size, column + 2 * size, foot, 1.4 * size)),
        (coat, "line", (column, foot - 16 * size, column, foot - 8 * size, 3.6 * size)),
        (head, "ellipse", (column, foot - 22 * size, 2.6 * size, 3 * size)),
    )


SHAPES: Final[dict[str, tuple[Shape, ...]]] = {
    "clear": (),
    "kerb": _stand(112, 74, 1.1, "coat", "skin"),
    "car": (
        ("car", "line", (57, 54, 71, 54, 7)),
        ("glass", "line", (59, 50, 69, 50, 2.5)),
        ("legs", "line", (53, 61, 55, 61, 2)),
        ("legs", "line", (73, 61, 75, 61, 2)),
        ("mark", "ellipse", (53, 55, 1.5, 1.5)),
        ("mark", "ellipse", (75, 55, 1.5, 1.5)),
    ),
    "crossing": (
        *(("mark", "line", (x, 74, x + 6, 74, 2.5)) for x in (22, 40, 58, 76, 94)),
        *_stand(58, 74, 1.1, "coat", "skin"),
    ),
    "runs-out": (
        ("car", "line", (98, 62, 120, 62, 9)),
        ("glass", "line", (100, 57, 116, 57, 3)),
        ("legs", "line", (76, 78, 70, 88, 2)),
        ("legs", "line", (76, 78, 83, 87, 2)),
        ("child", "line", (74, 66, 76, 77, 5)),
        ("child", "line", (72, 68, 63, 72, 1.6)),
        ("skin", "ellipse", (72, 57, 4, 4.6)),
    ),
    "foam": (
        ("legs", "line", (56, 90, 80, 90, 2)),
        ("foam", "line", (68, 66, 68, 84, 7)),
        ("foam", "ellipse", (68, 52, 5, 6)),
        ("legs", "line", (62, 72, 74, 72, 1)),
        ("legs", "line", (62, 78, 74, 78, 1)),
    ),
}


def name_picture(encounter: Encounter) -> str:
    """Return the file that shows an encounter; its number says nothing of what is on the road."""
    kind = "foam" if encounter.planted else encounter.scene
    return _name(kind, encounter.bend, encounter.weather)


def _name(kind: str, bend: str, weather: str) -> str:
    number = (KINDS.index(kind) * len(BENDS) + list(BENDS).index(bend)) * 7 % 18  # a permutation
    return f"{weather}-{number + 1:02}.png"


def draw_pictures() -> dict[str, bytes]:
    """Return every picture by its name."""
    return {
        _name(kind, bend, weather): _encode(_draw_scene(kind, bend, weather))
        for kind in KINDS
        for bend in BENDS
        for weather in WEATHERS
        if kind != "foam" or (bend, weather) == ("straight", "dry")
    }


def _draw_scene(kind: str, bend: str, weather: str) -> npt.NDArray[np.uint8]:
    """Return RGB pixels of the road ahead."""
    x, y = np.meshgrid(np.arange(WIDTH * GRAIN) / GRAIN, np.arange(HEIGHT * GRAIN) / GRAIN)
    colours = {name: np.array(rgb[WEATHERS.index(weather)], float) for name, rgb in COLOURS.items()}
    pixels = np.broadcast_to(colours["sky"], (*x.shape, 3)).copy()
    pixels[(x - 30) ** 2 / 60 + (y - 46) ** 2 / 6 < 30] = colours["hills"]
    pixels[(x - 96) ** 2 / 50 + (y - 46) ** 2 / 5 < 32] = colours["hills"]
    pixels[y >= HORIZON] = colours["grass"]
    far = np.clip((HEIGHT - y) / (HEIGHT - HORIZON), 0, 1)  # 0 at the shuttle, 1 at the horizon
    centre = 64 + BENDS[bend] * 4 * far**2
    half = 58 - 54 * far
    on_ground = y >= HORIZON
    pixels[on_ground & (np.abs(x - centre) < half * 1.12)] = colours["kerb"]
    pixels[on_ground & (np.abs(x - centre) < half)] = colours["road"]
    dashes = (np.abs(x - centre) < 1 + 1.5 * (1 - far)) & (np.floor(8 / (1.15 - far)) % 2 == 0)
    pixels[on_ground & dashes] = colours["mark"]
    shift = 0 if kind in ("kerb", "foam", "runs-out") else BENDS[bend] * 4 * 0.35
    for colour, form, numbers in SHAPES[kind]:
        pixels[_find_inside(form, numbers, x - shift, y)] = colours[colour]
    for column, row, radius in DROPS if weather == "rain" else ():
        drop = (x - column) ** 2 + (y - row) ** 2 < radius**2
        pixels[drop] = pixels[drop] * 0.5 + 0.5 * colours["sky"] + 10
    small = pixels.reshape(HEIGHT, GRAIN, WIDTH, GRAIN, 3).mean(axis=(1, 3))
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)


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


def _encode(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return RGB pixels as a PNG of few colours: with its address it has to fit into a record."""
    coarse = np.minimum((pixels.astype(int) + COARSE // 2) // COARSE * COARSE, 255)
    return encode_palette(coarse.astype(np.uint8))
