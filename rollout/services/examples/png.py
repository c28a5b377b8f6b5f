"""PNG pictures, as small as an address of a record has to be."""

import struct
import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

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
