"""Draw spots on skin: round and even where harmless, ragged and many-coloured where urgent.

A picture is drawn from the truth alone, so it tells nothing of what the model or a reviewer
answered. Nobody was photographed.
"""

import zlib
from collections.abc import Sequence
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt

from rollout.features.demo.recorded_cases import encode_colours

SIDE: Final = 112  # pixels
TONES: Final = {"light": (232, 196, 172), "dark": (112, 76, 58)}
LIGHTS: Final = {"daylight": (1.0, 1.0, 1.0), "lamp": (1.0, 0.86, 0.62)}
SPOTS: Final = {"light": (126, 76, 52), "dark": (58, 34, 26)}
PATCHES: Final = {"light": (44, 30, 40), "dark": (28, 20, 34)}  # a second colour in urgent spots
RAGGED: Final = {"urgent": 0.24, "routine": 0.10, "home": 0.02}  # of the radius
RADIUS: Final = {"urgent": 34, "routine": 26, "home": 18}
LEVELS: Final = 32  # steps of brightness, so that files stay small

Floats = npt.NDArray[np.float64]


def name_picture(tone: str, label: str, light: str, number: int) -> str:
    """Return the file name of a picture; it doesn't hold the label, which would give it away."""
    return f"{zlib.crc32(f'{tone} {label} {light} {number}'.encode()):08x}.png"


def draw_pictures(labels: Sequence[str], copies: int) -> dict[str, bytes]:
    """Return every tone, label and light, `copies` times each, by file name."""
    return {
        name_picture(*kind, number): encode_colours(draw_spot(*kind, number))
        for kind in product(TONES, labels, LIGHTS)
        for number in range(copies)
    }


def draw_spot(tone: str, label: str, light: str, number: int) -> npt.NDArray[np.uint8]:
    """Return the picture as rows of red, green and blue; the same for the same arguments."""
    stream = np.random.RandomState(zlib.crc32(f"{tone} {label} {light} {number}".encode()))
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)
    middle = SIDE / 2 + stream.uniform(-8, 8, size=2)
    shade = 1 - 0.16 * np.hypot(x - SIDE * 0.4, y - SIDE * 0.35) / SIDE
    image = _round_levels(shade)[..., None] * np.array(TONES[tone])
    distance = np.hypot(x - middle[0], y - middle[1])
    angle = np.arctan2(y - middle[1], x - middle[0])
    edge = RADIUS[label] * (1 + RAGGED[label] * _draw_waves(stream, angle))
    image[distance < edge] = SPOTS[tone]
    image[(distance >= edge) & (distance < edge + 3)] = (
        np.array(SPOTS[tone]) + np.array(TONES[tone])
    ) / 2
    if label == "urgent":
        patch = np.hypot(x - middle[0] - 9, y - middle[1] + 7) < edge * 0.45
        image[patch & (distance < edge)] = PATCHES[tone]
    return np.clip(image * np.array(LIGHTS[light]), 0, 255).astype(np.uint8)


def _draw_waves(stream: np.random.RandomState, angle: Floats) -> Floats:
    """Return an uneven outline, from -1 to 1 by the angle."""
    waves = np.zeros_like(angle)
    for count in (2, 3, 5, 7):
        waves += np.sin(count * angle + stream.uniform(0, 6.28)) * stream.uniform(0.1, 0.4)
    return np.clip(waves, -1, 1)


def _round_levels(shade: Floats) -> Floats:
    return np.round(shade * LEVELS) / LEVELS
