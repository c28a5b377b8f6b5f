"""Advertising boards in pictures: eight listed logos, one that nobody listed, and what a lens does.

A board is 10 x 10 pixels of grey. All pixels are integers, so that the same seed gives the same
bytes on any machine. The classifier sees these boards; reviewers see the drawings of scenes.py.
"""

import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

SIDE: Final = 10
LISTED: Final = ("acorn", "bluebird", "cobalt", "dynamo", "ember", "foxglove", "granite", "harbor")
EMPTY, UNLISTED = "none", "zephyr"
KINDS: Final = (*LISTED, EMPTY, UNLISTED)

# Logos are 8 x 8; zephyr differs from harbor by the bar in its middle.
GLYPHS: Final = {
    "acorn": "..####.. .######. ######## ######## ........ .######. ..####.. ...##...",
    "bluebird": "##...... ####.... ######.. ######## ######## ######.. ####.... ##......",
    "cobalt": "######## ######## ######## ######## ######## ######## ######## ########",
    "dynamo": "######## ######## ....###. ...###.. ..###... .###.... ######## ########",
    "ember": "...##... ...##... ..####.. ..####.. .######. .######. ######## ########",
    "foxglove": "...##... ...##... ...##... ######## ######## ...##... ...##... ...##...",
    "granite": "...##... ..####.. .######. ######## ######## .######. ..####.. ...##...",
    "harbor": ".######. ###..### ##....## ##....## ##....## ##....## ###..### .######.",
    "zephyr": ".######. ###..### ##....## ##.##.## ##.##.## ##....## ###..### .######.",
    "none": "........ " * 8,
}
PAPER: Final = (150, 230)  # grey of the board
INK: Final = (70, 130)  # how much darker a logo is
NOISE: Final = 14  # each pixel moves by a sum of three numbers up to this, either way
HIDDEN: Final = 0.12  # share of boards that a player covers in part
PLAYER_WIDTH: Final = (2, 5)
PLAYER_GREY: Final = 70

Integers = npt.NDArray[np.int64]


def open_stream(seed: int, purpose: str) -> np.random.RandomState:
    """Return the random numbers of one purpose; NumPy keeps `RandomState` the same for ever."""
    return np.random.RandomState([seed, zlib.crc32(purpose.encode())])


def read_glyph(kind: str) -> Integers:
    """Return a logo as 8 x 8 zeros and ones."""
    return np.array([[mark == "#" for mark in row] for row in GLYPHS[kind].split()], dtype=np.int64)


def photograph(kinds: Integers, luck: np.random.RandomState) -> tuple[Integers, Integers]:
    """Return the pixels of boards, as rows of 100, and which ones a player covers.

    Args:
        kinds: positions in KINDS, one for each board.
        luck: where logos are shifted, how light is, who stands in front.
    """
    count = len(kinds)
    placed = np.array([place_glyph(read_glyph(kind)) for kind in KINDS])
    shifts = luck.randint(0, len(placed[0]), count)
    ink = luck.randint(*INK, count)[:, None, None]
    pixels = luck.randint(*PAPER, count)[:, None, None] - ink * placed[kinds, shifts]
    is_hidden = luck.random_sample(count) < HIDDEN
    begins = luck.randint(0, SIDE - 2, count)[:, None]
    columns = np.arange(SIDE)[None, :]
    covered = (columns >= begins) & (columns < begins + luck.randint(*PLAYER_WIDTH, count)[:, None])
    covered &= is_hidden[:, None]
    pixels = np.where(covered[:, None, :], PLAYER_GREY, pixels)
    pixels = pixels + luck.randint(-NOISE, NOISE + 1, (3, count, SIDE, SIDE)).sum(axis=0)
    return np.clip(pixels, 0, 255).reshape(count, SIDE * SIDE), is_hidden.astype(np.int64)


def place_glyph(glyph: Integers) -> Integers:
    """Return the logo at each of 9 places on its board."""
    spare = SIDE - len(glyph) + 1
    boards = np.zeros((spare * spare, SIDE, SIDE), dtype=np.int64)
    for number in range(spare * spare):
        row, column = divmod(number, spare)
        boards[number, row : row + len(glyph), column : column + len(glyph)] = glyph
    return boards
