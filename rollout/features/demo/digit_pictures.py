"""Pictures of real digits, as on the mail room's letters, enlarged so that a person can read them.

A picture is built from the digit image alone, never from a scan that only some letters have: a
picture that looked different for divergent letters would tell a blind reviewer what the model said.
"""

import csv
import gzip
import struct
import zlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from rollout.features.demo.catalog import ExampleSystem

Pixels8 = npt.NDArray[np.uint8]
SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
GREY, TRUE_COLOUR, PALETTE = 0, 2, 3
"""Kinds of colour, by their numbers in the format."""


def encode_colours(pixels: Pixels8) -> bytes:
    """Return a picture of rows of red, green and blue as a PNG in true colour."""
    height, width, _ = pixels.shape
    return build_png(width, height, 8, TRUE_COLOUR, pixels.reshape(height, width * 3))


def encode_palette(pixels: Pixels8) -> bytes:
    """Return the same as a PNG with a palette, for at most 256 colours."""
    height, width, _ = pixels.shape
    colours, indices = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    rows = indices.reshape(height, width).astype(np.uint8)
    return build_png(width, height, 8, PALETTE, rows, palette=colours.tobytes())


def build_png(  # noqa: PLR0913 - the fields of the format
    width: int,
    height: int,
    depth: int,
    kind: int,
    rows: Pixels8,
    *,
    palette: bytes = b"",
    filter_type: int = 0,
    level: int = 9,
) -> bytes:
    """Return a PNG of rows of bytes, to which its filter is applied already."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    content = zlib.compress(np.insert(rows, 0, filter_type, axis=1).tobytes(), level)
    chunks = [(b"IHDR", header), (b"IDAT", content), (b"IEND", b"")]
    if palette:
        chunks.insert(1, (b"PLTE", palette))
    return SIGNATURE + b"".join(_build_chunk(*chunk) for chunk in chunks)


def _build_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


DIGITS_FILE: Final = "digits.csv.gz"
SIDE: Final = 8  # pixels of a digit image
SMOOTH_SIDE: Final = 32  # pixels after interpolation: at 8 x 8 people mistake digits
ENLARGEMENT: Final = 4  # screen pixels for each of these
DARKEST: Final = 15
UP: Final = 2  # PNG's filter: each row as its difference from the one above
DEFAULT_LEVEL: Final = -1
PAPER_MARGIN: Final = 2  # in digit pixels
FRAMED_SIDE: Final = SIDE + 2 * PAPER_MARGIN
WORN_COLUMN: Final = 5
WEAR_BY_NIGHT: Final = (0, 35, 65, 85, 100, 100, 100)
"""Per cent of ink that the worn column loses, by the weekday on which a night began."""
NEW_FORM, WORN_SCANNER = "new", "worn"
Pixels = npt.NDArray[np.float64]


@dataclass(slots=True)
class DigitPictures:
    """The pictures of letters, as `data:` addresses; each is drawn once."""

    images: Mapping[str, Pixels] = field(repr=False)
    _drawn: dict[tuple[str, bool, int], str] = field(default_factory=dict, repr=False)

    def find_picture(self, attributes: Mapping[str, str], local_time: datetime) -> str:
        """Return the address of a letter's picture.

        Args:
            attributes: `image`; of letters also `form` and `scanner`.
            local_time: its arrival on the office's clock; a scanner wears night by night.
        """
        wear = 0
        if attributes.get("scanner") == WORN_SCANNER:
            wear = WEAR_BY_NIGHT[(local_time - timedelta(hours=12)).weekday()]
        key = (attributes["image"], attributes.get("form") == NEW_FORM, wear)
        if key not in self._drawn:
            pixels = _print_on_form(self.images[key[0]], is_new_form=key[1], wear=wear)
            self._drawn[key] = _encode_address(_enlarge(pixels))
        return self._drawn[key]


def load_digit_pictures(example: ExampleSystem) -> DigitPictures:
    """Return the pictures of the digit images among an example's records."""
    path = example.records_folder / DIGITS_FILE
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        return DigitPictures(
            {row["image"]: _parse_pixels(row["pixels"]) for row in csv.DictReader(lines)}
        )


def _parse_pixels(digits: str) -> Pixels:
    return np.array([int(digit, 16) for digit in digits], dtype=np.float64).reshape(SIDE, SIDE)


def _print_on_form(pixels: Pixels, *, is_new_form: bool, wear: int) -> Pixels:
    """Return the digit on its form: shifted on the new one, a column fainter if worn."""
    printed = pixels.copy()
    if is_new_form:
        printed[:, 1:], printed[:, 0] = pixels[:, :-1], 0
    printed[:, WORN_COLUMN] *= (100 - wear) / 100
    return printed


def _enlarge(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Return grey levels, 0 for ink, interpolated between the pixels and with a margin."""
    framed = np.zeros((FRAMED_SIDE, FRAMED_SIDE))
    framed[PAPER_MARGIN:-PAPER_MARGIN, PAPER_MARGIN:-PAPER_MARGIN] = pixels
    weights = _compute_weights()
    ink = np.clip(np.rint(weights @ framed @ weights.T), 0, DARKEST)
    levels = (DARKEST - ink).astype(np.uint8)
    return levels.repeat(ENLARGEMENT, axis=0).repeat(ENLARGEMENT, axis=1)


@cache
def _compute_weights() -> Pixels:
    """Return the weight of each framed pixel in each interpolated one, along an axis."""
    positions = np.linspace(0, FRAMED_SIDE - 1, SMOOTH_SIDE * FRAMED_SIDE // SIDE)
    distances = np.abs(positions[:, None] - np.arange(FRAMED_SIDE)[None, :])
    weights: Pixels = np.maximum(0, 1 - distances)
    return weights


def _encode_address(levels: npt.NDArray[np.uint8]) -> str:
    """Return a PNG with 16 grey levels as a `data:` address."""
    height, width = levels.shape
    packed = (levels[:, 0::2] << 4) | levels[:, 1::2]
    changes = np.diff(packed, axis=0, prepend=np.zeros_like(packed[:1]))
    png = build_png(width, height, 4, GREY, changes, filter_type=UP, level=DEFAULT_LEVEL)
    return "data:image/png;base64," + b64encode(png).decode("ascii")
